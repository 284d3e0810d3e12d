//! Embeddings, scaled and added, against their definitions.

use crate::common::*;
use actbench_kernels::{Backend, CpuBackend, DType};

/// Stored tables and runs: the same dtype, a wider one and a narrower one.
const STORED_AND_RUN: [(DType, DType); 5] = [
    (DType::F32, DType::F32),
    (DType::F16, DType::F16),
    (DType::Bf16, DType::Bf16),
    (DType::Bf16, DType::F32),
    (DType::F32, DType::Bf16),
];

const TABLE_ROWS: usize = 23;

/// More rows than a task has, in any order and with repetitions.
const TOKENS: [u32; 37] = [
    5, 0, 22, 5, 5, 1, 2, 3, 4, 9, 8, 7, 6, 21, 20, 19, 18, 17, 16, 15, 14, 13, 12, 11, 10, 0, 0, 22, 21, 1, 2, 4, 8,
    16, 3, 6, 12,
];

/// `value` rounded to `dtype`.
fn rounded(dtype: DType, value: f32) -> f32 {
    dtype.to_f32_vec(&dtype.from_f32_slice(&[value]))[0]
}

#[test]
fn scaled_embedding_rounds_table_and_product() {
    for backend in backends() {
        for (stored, run) in STORED_AND_RUN {
            for columns in [1, 33, 64] {
                let table = random(1, stored, TABLE_ROWS * columns);
                let device_table =
                    backend.prepare_embedding(&host(stored, &[TABLE_ROWS, columns], &table), run).unwrap();
                // The factor of Gemma for 2048 columns, a factor with all bits, and copies.
                for scale in [45.25, 0.123_456_79, 1.0, -1.0] {
                    let mut out = filled_with_nan(&backend, run, TOKENS.len(), columns);
                    backend.embed(&device_table, &TOKENS, scale, &mut out).unwrap();
                    let expected: Vec<f32> = TOKENS
                        .iter()
                        .flat_map(|token| &table[*token as usize * columns..][..columns])
                        .map(|value| rounded(run, rounded(run, *value) * scale))
                        .collect();
                    assert_eq!(values(&backend, &out), expected, "{} {stored} {run} {scale}", backend.describe());
                }
            }
        }
    }
}

#[test]
fn added_embedding_rounds_table_and_sum() {
    for backend in backends() {
        for (stored, run) in STORED_AND_RUN {
            for columns in [1, 33, 64] {
                let table = random(1, stored, TABLE_ROWS * columns);
                let device_table =
                    backend.prepare_embedding(&host(stored, &[TABLE_ROWS, columns], &table), run).unwrap();
                // One row more than is added to: it stays.
                let x = random(2, run, (TOKENS.len() + 1) * columns);
                let mut stream = upload(&backend, run, TOKENS.len() + 1, columns, &x);
                backend.add_embedding(&device_table, &TOKENS, &mut stream).unwrap();
                let mut expected = x.clone();
                for (row, token) in TOKENS.iter().enumerate() {
                    let added = &table[*token as usize * columns..][..columns];
                    for (sum, value) in expected[row * columns..].iter_mut().zip(added) {
                        *sum = rounded(run, *sum + rounded(run, *value));
                    }
                }
                assert_eq!(values(&backend, &stream), expected, "{} {stored} {run} {columns}", backend.describe());
            }
        }
    }
}

#[test]
fn wrong_tokens_shapes_and_tables_are_errors() {
    let backend = CpuBackend::new(1).unwrap();
    let table = backend.prepare_embedding(&host(DType::Bf16, &[3, 4], &[0.5; 12]), DType::F32).unwrap();
    let mut out = backend.alloc(DType::F32, 2, 4).unwrap();
    backend.embed(&table, &[2, 0], 1.0, &mut out).unwrap();
    assert_eq!(values(&backend, &out), [0.5; 8]);
    assert!(backend.embed(&table, &[3, 0], 1.0, &mut out).unwrap_err().to_string().contains("vocabulary of 3"));
    assert!(backend.embed(&table, &[0; 3], 1.0, &mut out).is_err());
    for scale in [f32::NAN, f32::INFINITY] {
        assert!(backend.embed(&table, &[0], scale, &mut out).unwrap_err().to_string().contains("a scale of"));
    }
    assert!(backend.add_embedding(&table, &[3, 0], &mut out).unwrap_err().to_string().contains("row 3 of 3"));
    assert!(backend.add_embedding(&table, &[0; 3], &mut out).unwrap_err().to_string().contains("3 x 4 are needed"));
    let mut narrow = backend.alloc(DType::F32, 2, 3).unwrap();
    assert!(backend.add_embedding(&table, &[0], &mut narrow).is_err());
    // A failed check writes nothing.
    assert_eq!(values(&backend, &out), [0.5; 8]);

    let mut broken = vec![0.0; 4];
    broken[1] = f32::INFINITY;
    let table = backend.prepare_embedding(&host(DType::F32, &[1, 4], &broken), DType::F32).unwrap();
    for scale in [1.0, 2.0] {
        assert!(backend.embed(&table, &[0], scale, &mut out).unwrap_err().to_string().contains("element 1 is inf"));
    }
    assert!(backend.add_embedding(&table, &[0], &mut out).unwrap_err().to_string().contains("element 1 is inf"));
}
