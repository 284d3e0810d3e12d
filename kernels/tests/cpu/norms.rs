//! Norms of rows and of heads against their definitions in `f64`.

use crate::common::*;
use actbench_kernels::{Backend, CpuBackend, DType, FoldedNorm, square_blocks};

const EPS: f32 = 1e-5;

/// Rows and columns: one element, tails, more rows than a task, and more columns than partial sums.
const SIZES: [(usize, usize); 5] = [(1, 1), (3, 17), (40, 64), (21, 100), (5, 576)];

fn rms_norm(row: &[f32], scale: &[f32]) -> Vec<f64> {
    let square: f64 = row.iter().map(|value| f64::from(*value).powi(2)).sum();
    let inverse = 1.0 / (square / row.len() as f64 + f64::from(EPS)).sqrt();
    row.iter().zip(scale).map(|(value, scale)| f64::from(*value) * inverse * f64::from(*scale)).collect()
}

fn layer_norm(row: &[f32], scale: &[f32], bias: &[f32]) -> Vec<f64> {
    let mean = row.iter().map(|value| f64::from(*value)).sum::<f64>() / row.len() as f64;
    let variance = row.iter().map(|value| (f64::from(*value) - mean).powi(2)).sum::<f64>() / row.len() as f64;
    let inverse = 1.0 / (variance + f64::from(EPS)).sqrt();
    let normalized = row.iter().map(|value| (f64::from(*value) - mean) * inverse);
    normalized.zip(scale).zip(bias).map(|((value, scale), bias)| value * f64::from(*scale) + f64::from(*bias)).collect()
}

fn vector(backend: &CpuBackend, dtype: DType, values: &[f32]) -> Vec<f32> {
    backend.prepare_vector(&[host(dtype, &[values.len()], values)], dtype).unwrap()
}

/// Keeps the bits of the first backend and asserts that the others have them too.
fn assert_same_bits(first: &mut Option<Vec<u8>>, backend: &CpuBackend, own: Vec<u8>, what: &str) {
    assert!(first.get_or_insert_with(|| own.clone()) == &own, "{} {what}: other bits", backend.describe());
}

#[test]
fn rms_norm_equals_definition() {
    for dtype in DTYPES {
        for (rows, columns) in SIZES {
            let (x, scale) = (random(1, dtype, rows * columns), random(2, dtype, columns));
            let expected: Vec<f64> = x.chunks_exact(columns).flat_map(|row| rms_norm(row, &scale)).collect();
            let mut bits = None;
            for backend in backends() {
                let device_x = upload(&backend, dtype, rows, columns, &x);
                let mut out = filled_with_nan(&backend, dtype, rows, columns);
                backend.rms_norm(&device_x, &vector(&backend, dtype, &scale), EPS, &mut out).unwrap();
                let what = format!("{} {dtype} {rows} x {columns}", backend.describe());
                assert_close(&values(&backend, &out), &expected, tolerance(dtype), &what);
                assert_same_bits(&mut bits, &backend, bytes(&backend, &out), &what);
            }
        }
    }
}

#[test]
fn rms_norm_residual_adds_norm_to_stream() {
    for dtype in DTYPES {
        for (rows, columns) in SIZES {
            let (x, scale) = (random(1, dtype, rows * columns), random(2, dtype, columns));
            // One row more than is added to: it stays.
            let stream = random(3, dtype, (rows + 1) * columns);
            let normed = x.chunks_exact(columns).flat_map(|row| rms_norm(row, &scale));
            let normed = normed.chain(std::iter::repeat_n(0.0, columns));
            let expected: Vec<f64> = stream.iter().zip(normed).map(|(stream, x)| f64::from(*stream) + x).collect();
            let mut bits = None;
            for backend in backends() {
                let device_x = upload(&backend, dtype, rows, columns, &x);
                let mut out = upload(&backend, dtype, rows + 1, columns, &stream);
                backend.rms_norm_residual(&device_x, &vector(&backend, dtype, &scale), EPS, &mut out).unwrap();
                let what = format!("{} {dtype} {rows} x {columns}", backend.describe());
                assert_close(&values(&backend, &out), &expected, tolerance(dtype), &what);
                assert_eq!(values(&backend, &out)[rows * columns..], stream[rows * columns..], "{what}");
                assert_same_bits(&mut bits, &backend, bytes(&backend, &out), &what);
            }
        }
    }
}

/// In f32 the residual norm has the bits of a norm that is added to the stream.
#[test]
fn rms_norm_residual_has_bits_of_norm_and_add() {
    let (rows, columns) = (5, 100);
    let (x, scale) = (random(1, DType::F32, rows * columns), random(2, DType::F32, columns));
    let stream = random(3, DType::F32, rows * columns);
    for backend in backends() {
        let device_x = upload(&backend, DType::F32, rows, columns, &x);
        let mut normed = filled_with_nan(&backend, DType::F32, rows, columns);
        backend.rms_norm(&device_x, &scale, EPS, &mut normed).unwrap();
        let mut sums = upload(&backend, DType::F32, rows, columns, &stream);
        backend.rms_norm_residual(&device_x, &scale, EPS, &mut sums).unwrap();
        let expected: Vec<f32> = values(&backend, &normed).iter().zip(&stream).map(|(x, stream)| stream + x).collect();
        assert_eq!(values(&backend, &sums), expected, "{}", backend.describe());
    }
}

#[test]
fn rms_norm_heads_norms_leading_heads_alone() {
    // Heads of queries, the key heads of keys and values, one head that is the whole row, and no head.
    for (heads, head_dim, columns) in [(3, 64, 192), (2, 17, 68), (1, 100, 100), (0, 8, 24), (40, 1, 41)] {
        for dtype in DTYPES {
            let rows = 37;
            let (x, scale) = (random(1, dtype, rows * columns), random(2, dtype, head_dim));
            let mut expected: Vec<f64> = x.iter().map(|value| f64::from(*value)).collect();
            for (x, expected) in x.chunks_exact(columns).zip(expected.chunks_exact_mut(columns)) {
                for head in 0..heads {
                    let head = head * head_dim..(head + 1) * head_dim;
                    expected[head.clone()].copy_from_slice(&rms_norm(&x[head], &scale));
                }
            }
            let mut bits = None;
            for backend in backends() {
                let mut out = upload(&backend, dtype, rows, columns, &x);
                backend.rms_norm_heads(&mut out, heads, &vector(&backend, dtype, &scale), EPS).unwrap();
                let what = format!("{} {dtype} {heads} x {head_dim} of {columns}", backend.describe());
                let got = values(&backend, &out);
                assert_close(&got, &expected, tolerance(dtype), &what);
                for (got, x) in got.chunks_exact(columns).zip(x.chunks_exact(columns)) {
                    assert_eq!(got[heads * head_dim..], x[heads * head_dim..], "{what}: columns behind the heads");
                }
                assert_same_bits(&mut bits, &backend, bytes(&backend, &out), &what);
            }
        }
    }
}

/// One head of the whole width has the bits of the norm of the row.
#[test]
fn norm_of_one_head_has_bits_of_rms_norm() {
    for dtype in DTYPES {
        let (x, scale) = (random(1, dtype, 5 * 100), random(2, dtype, 100));
        for backend in backends() {
            let device_x = upload(&backend, dtype, 5, 100, &x);
            let mut normed = filled_with_nan(&backend, dtype, 5, 100);
            backend.rms_norm(&device_x, &scale, EPS, &mut normed).unwrap();
            let mut in_place = upload(&backend, dtype, 5, 100, &x);
            backend.rms_norm_heads(&mut in_place, 1, &scale, EPS).unwrap();
            assert_eq!(bytes(&backend, &in_place), bytes(&backend, &normed), "{}", backend.describe());
        }
    }
}

#[test]
fn layer_norm_equals_definition() {
    // A mean of 0, and one that is large compared with the deviations.
    for (dtype, offset) in [(DType::F32, 0.0), (DType::F16, 0.0), (DType::Bf16, 0.0), (DType::F32, 64.0)] {
        for (rows, columns) in SIZES {
            let x: Vec<f32> = random(1, dtype, rows * columns).iter().map(|value| value + offset).collect();
            let (scale, bias) = (random(2, dtype, columns), random(3, dtype, columns));
            let expected: Vec<f64> = x.chunks_exact(columns).flat_map(|row| layer_norm(row, &scale, &bias)).collect();
            let mut bits = None;
            for backend in backends() {
                let device_x = upload(&backend, dtype, rows, columns, &x);
                let mut out = filled_with_nan(&backend, dtype, rows, columns);
                let (scale, bias) = (vector(&backend, dtype, &scale), vector(&backend, dtype, &bias));
                backend.layer_norm(&device_x, &scale, &bias, EPS, &mut out).unwrap();
                let what = format!("{} {dtype} {rows} x {columns} at {offset}", backend.describe());
                // The rounding of a mean of 64 is 2e-6 of a deviation.
                let tolerance = if offset == 0.0 { tolerance(dtype) } else { 2e-5 };
                assert_close(&values(&backend, &out), &expected, tolerance, &what);
                assert_same_bits(&mut bits, &backend, bytes(&backend, &out), &what);
            }
        }
    }
}

#[test]
fn row_bits_are_independent_of_other_rows() {
    let (rows, columns) = (35, 51);
    for dtype in DTYPES {
        let (x, stream) = (random(1, dtype, rows * columns), random(2, dtype, rows * columns));
        let (scale, bias) = (random(3, dtype, columns), random(4, dtype, columns));
        for backend in backends() {
            // The results of each norm for rows `from..to` alone.
            let results = |from: usize, to: usize| -> [Vec<u8>; 3] {
                let part =
                    |values: &[f32]| upload(&backend, dtype, to - from, columns, &values[from * columns..to * columns]);
                let device_x = part(&x);
                let mut normed = filled_with_nan(&backend, dtype, to - from, columns);
                backend.layer_norm(&device_x, &scale, &bias, EPS, &mut normed).unwrap();
                let mut sums = part(&stream);
                backend.rms_norm_residual(&device_x, &scale, EPS, &mut sums).unwrap();
                let mut heads = part(&x);
                backend.rms_norm_heads(&mut heads, 2, &scale[..17].to_vec(), EPS).unwrap();
                [normed, sums, heads].map(|tensor| bytes(&backend, &tensor))
            };
            let all = results(0, rows);
            let row_bytes = columns * dtype.size();
            for row in [0, 16, 33, 34] {
                for (all, alone) in all.iter().zip(results(row, row + 1)) {
                    assert!(
                        all[row * row_bytes..(row + 1) * row_bytes] == alone,
                        "{} {dtype} {row}",
                        backend.describe()
                    );
                }
            }
        }
    }
}

#[test]
fn wrong_shapes_and_dtypes_are_errors() {
    let backend = CpuBackend::new(1).unwrap();
    let x = upload(&backend, DType::F32, 2, 6, &[1.0; 12]);
    let (fits, short) = (vec![1.0; 6], vec![1.0; 5]);
    let text = |result: Result<(), actbench_kernels::KernelError>| result.unwrap_err().to_string();
    let mut out = backend.alloc(DType::F32, 2, 6).unwrap();
    let mut half = backend.alloc(DType::F16, 2, 6).unwrap();
    let mut one_row = backend.alloc(DType::F32, 1, 6).unwrap();
    let mut narrow = backend.alloc(DType::F32, 2, 5).unwrap();
    assert!(text(backend.layer_norm(&x, &short, &fits, EPS, &mut out)).contains("scale has 5 elements where 6"));
    assert!(text(backend.layer_norm(&x, &fits, &short, EPS, &mut out)).contains("bias has 5 elements where 6"));
    assert!(text(backend.rms_norm_residual(&x, &short, EPS, &mut out)).contains("scale has 5 elements where 6"));
    for wrong in [&mut half, &mut one_row, &mut narrow] {
        assert!(backend.layer_norm(&x, &fits, &fits, EPS, wrong).is_err());
        assert!(backend.rms_norm_residual(&x, &fits, EPS, wrong).is_err());
    }
    assert!(text(backend.rms_norm_heads(&mut out, 1, &vec![1.0; 4], EPS)).contains("not whole heads of 4"));
    assert!(text(backend.rms_norm_heads(&mut out, 1, &Vec::new(), EPS)).contains("not whole heads of 0"));
    assert!(text(backend.rms_norm_heads(&mut out, 3, &vec![1.0; 3], EPS)).contains("3 heads of 3 in a row of 6"));
    assert!(backend.rms_norm_heads(&mut out, usize::MAX, &vec![1.0; 3], EPS).is_err());
}

#[test]
fn cpu_folds_no_norms() {
    let cpu = CpuBackend::new(1).unwrap();
    assert!(DTYPES.iter().all(|dtype| !cpu.folds_norms(*dtype, 64)));
    let (x, mut out) = (upload(&cpu, DType::Bf16, 1, 64, &[1.0; 64]), cpu.alloc(DType::Bf16, 1, 64).unwrap());
    let mut squares = cpu.alloc(DType::F32, 1, square_blocks(64)).unwrap();
    let mut weight = cpu.prepare_linear(&[host(DType::Bf16, &[64, 64], &[1.0; 64 * 64])], DType::Bf16).unwrap();
    let norm = FoldedNorm { squares: &squares, eps: EPS };
    let refused = [
        cpu.linear_normed(&x, norm, &weight, None, None, &mut out),
        cpu.fold_norm(&mut weight, &vec![1.0; 64]),
        cpu.square_sums(&x, &mut squares),
        cpu.linear_residual_squares(&x, &weight, None, &mut out, &mut squares),
    ];
    for result in refused {
        assert!(result.unwrap_err().to_string().contains("folds no norms"));
    }
}
