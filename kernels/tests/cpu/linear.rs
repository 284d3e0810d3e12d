//! Matmuls against a plain sum in `f64`, and the independence of a row's bits from the other rows.

use crate::common::*;
use crate::operations::{QkvCase, qkv, qkv_unfused};
use actbench_kernels::cpu::Isa;
use actbench_kernels::{Activation, AttentionShape, Backend, CpuBackend, DType, QkvPart};
use proptest::prelude::*;

/// Dtypes of the stored weights and of the run: f32 with weights that are exact in bf16 has a matmul of its own.
const STORED_AND_RUN: [(DType, DType); 4] =
    [(DType::F32, DType::F32), (DType::F16, DType::F16), (DType::Bf16, DType::Bf16), (DType::Bf16, DType::F32)];

/// `x W^T + bias` in `f64`.
fn reference(x: &[f32], weights: &[f32], bias: Option<&[f32]>, inputs: usize, outputs: usize) -> Vec<f64> {
    x.chunks_exact(inputs)
        .flat_map(|row| {
            weights.chunks_exact(inputs).enumerate().map(move |(output, weights)| {
                let sum: f64 = row.iter().zip(weights).map(|(x, w)| f64::from(*x) * f64::from(*w)).sum();
                sum + bias.map_or(0.0, |bias| f64::from(bias[output]))
            })
        })
        .inspect(|value| assert!(value.is_finite()))
        .take(x.len() / inputs * outputs)
        .collect()
}

/// Boundaries between queries, keys and values within a panel of 32 outputs and at its end.
#[test]
fn qkv_has_the_bits_of_separate_matmuls() {
    for backend in backends() {
        for (number, (n_heads, n_kv_heads, head_dim, rotary_dim)) in
            [(2, 1, 10, 10), (2, 1, 32, 16), (3, 3, 7, 0), (1, 1, 40, 24)].into_iter().enumerate()
        {
            let shape = AttentionShape { n_heads, n_kv_heads, head_dim };
            for dtype in DTYPES {
                let case = QkvCase { shape, rotary_dim, biased: number % 2 == 0, dtype, inputs: 37 };
                let what = format!("{} {case:?}", backend.describe());
                let whole = qkv_unfused(&backend, case, 30);
                assert!(qkv(&backend, case, QkvPart::All, (0, 30)) == whole, "{what}");
                let [query, none] = qkv(&backend, case, QkvPart::Query, (0, 30));
                let [nothing, key_value] = qkv(&backend, case, QkvPart::KeyValue, (0, 30));
                assert!([query, key_value] == whole, "{what}");
                assert!(none.iter().chain(&nothing).all(|byte| *byte == 0xff), "{what}");
            }
        }
    }
}

#[test]
fn matmul_with_tails_equals_reference() {
    for backend in backends() {
        for (stored, dtype) in STORED_AND_RUN {
            for (rows, inputs, outputs) in
                [(1, 1, 1), (5, 7, 33), (12, 64, 32), (13, 65, 31), (100, 48, 96), (25, 129, 70), (40, 1600, 33)]
            {
                let x = random(1, dtype, rows * inputs);
                let w = random(2, stored, outputs * inputs);
                let b = random(3, dtype, outputs);
                let what = format!("{} {stored} {dtype} {rows}x{inputs}x{outputs}", backend.describe());
                let weight = backend.prepare_linear(&[host(stored, &[outputs, inputs], &w)], dtype).unwrap();
                let bias = backend.prepare_vector(&[host(dtype, &[outputs], &b)], dtype).unwrap();
                let device_x = upload(&backend, dtype, rows, inputs, &x);
                let mut out = backend.alloc(dtype, rows, outputs).unwrap();

                backend.linear(&device_x, &weight, None, &mut out).unwrap();
                assert_close(
                    &values(&backend, &out),
                    &reference(&x, &w, None, inputs, outputs),
                    tolerance(dtype),
                    &what,
                );

                let expected = reference(&x, &w, Some(&b), inputs, outputs);
                backend.linear(&device_x, &weight, Some(&bias), &mut out).unwrap();
                assert_close(&values(&backend, &out), &expected, tolerance(dtype), &what);

                let stream = random(4, dtype, rows * outputs);
                let mut device_stream = upload(&backend, dtype, rows, outputs, &stream);
                let expected: Vec<f64> = expected.iter().zip(&stream).map(|(a, b)| a + f64::from(*b)).collect();
                backend.linear_residual(&device_x, &weight, Some(&bias), &mut device_stream).unwrap();
                assert_close(&values(&backend, &device_stream), &expected, tolerance(dtype), &what);
            }
        }
    }
}

/// Rows, inputs and outputs of matmuls with activations: tails in each, and more rows than a tile.
const ACTIVATED_SIZES: [(usize, usize, usize); 4] = [(1, 3, 1), (7, 32, 16), (14, 33, 40), (30, 24, 97)];

#[test]
fn activated_matmul_equals_reference() {
    for backend in backends() {
        for (stored, dtype) in STORED_AND_RUN {
            for (rows, inputs, outputs) in ACTIVATED_SIZES {
                let x = random(1, dtype, rows * inputs);
                let w = random(2, stored, outputs * inputs);
                let b = random(4, dtype, outputs);
                let weight = backend.prepare_linear(&[host(stored, &[outputs, inputs], &w)], dtype).unwrap();
                let bias = backend.prepare_vector(&[host(dtype, &[outputs], &b)], dtype).unwrap();
                let device_x = upload(&backend, dtype, rows, inputs, &x);
                for (activation, with_bias) in Activation::ALL.into_iter().flat_map(|it| [(it, false), (it, true)]) {
                    let sums = reference(&x, &w, with_bias.then_some(&b[..]), inputs, outputs);
                    let expected: Vec<f64> = sums.iter().map(|sum| activated(activation, *sum)).collect();
                    let mut out = filled_with_nan(&backend, dtype, rows, outputs);
                    backend
                        .linear_activated(&device_x, &weight, with_bias.then_some(&bias), activation, &mut out)
                        .unwrap();
                    let what = format!("{} {stored} {dtype} {activation:?} {rows}", backend.describe());
                    assert_close(&values(&backend, &out), &expected, tolerance(dtype), &what);
                }
            }
        }
    }
}

#[test]
fn gated_matmul_equals_reference() {
    for backend in backends() {
        for (stored, dtype) in STORED_AND_RUN {
            for (rows, inputs, outputs) in ACTIVATED_SIZES {
                let x = random(1, dtype, rows * inputs);
                let (gate, up) = (random(2, stored, outputs * inputs), random(3, stored, outputs * inputs));
                let bias = random(4, dtype, 2 * outputs);
                let (gate_bias, up_bias) = bias.split_at(outputs);
                let weight = backend
                    .prepare_gated(
                        &host(stored, &[outputs, inputs], &gate),
                        &host(stored, &[outputs, inputs], &up),
                        dtype,
                    )
                    .unwrap();
                let device_bias = backend.prepare_vector(&[host(dtype, &[2 * outputs], &bias)], dtype).unwrap();
                let device_x = upload(&backend, dtype, rows, inputs, &x);
                for (activation, with_bias) in Activation::ALL.into_iter().flat_map(|it| [(it, false), (it, true)]) {
                    let gates = reference(&x, &gate, with_bias.then_some(gate_bias), inputs, outputs);
                    let ups = reference(&x, &up, with_bias.then_some(up_bias), inputs, outputs);
                    let expected: Vec<f64> =
                        gates.iter().zip(&ups).map(|(gate, up)| activated(activation, *gate) * up).collect();
                    let mut out = filled_with_nan(&backend, dtype, rows, outputs);
                    backend
                        .linear_gated(&device_x, &weight, with_bias.then_some(&device_bias), activation, &mut out)
                        .unwrap();
                    let what = format!("{} {stored} {dtype} {activation:?} {rows}", backend.describe());
                    assert_close(&values(&backend, &out), &expected, tolerance(dtype), &what);
                }
            }
        }
    }
}

/// The activation of the gate is applied to the accumulators in `f32`, as that of a single matrix is: with an up projection
/// of ones and inputs of one row the two have the same bits.
#[test]
fn activated_bits_equal_gated_bits() {
    let outputs = 37;
    let w = random(1, DType::Bf16, outputs * 2);
    for backend in backends() {
        for dtype in DTYPES {
            let gate = host(DType::Bf16, &[outputs, 2], &w);
            let ones: Vec<f32> = (0..outputs).flat_map(|_| [1.0, 0.0]).collect();
            let gated = backend.prepare_gated(&gate, &host(DType::Bf16, &[outputs, 2], &ones), dtype).unwrap();
            let single = backend.prepare_linear(&[gate], dtype).unwrap();
            let x = upload(&backend, dtype, 1, 2, &[1.0, 0.75]);
            for activation in Activation::ALL {
                let mut out = [(); 2].map(|()| filled_with_nan(&backend, dtype, 1, outputs));
                backend.linear_gated(&x, &gated, None, activation, &mut out[0]).unwrap();
                backend.linear_activated(&x, &single, None, activation, &mut out[1]).unwrap();
                assert_eq!(bytes(&backend, &out[0]), bytes(&backend, &out[1]), "{} {activation:?}", backend.describe());
            }
        }
    }
}

#[test]
fn stacked_matrices_give_adjacent_columns() {
    let backend = CpuBackend::new(1).unwrap();
    let (a, b) = (random(1, DType::F32, 5 * 8), random(2, DType::F32, 40 * 8));
    let x = random(3, DType::F32, 3 * 8);
    let stacked =
        backend.prepare_linear(&[host(DType::F32, &[5, 8], &a), host(DType::F32, &[40, 8], &b)], DType::F32).unwrap();
    let device_x = upload(&backend, DType::F32, 3, 8, &x);
    let mut out = backend.alloc(DType::F32, 3, 45).unwrap();
    backend.linear(&device_x, &stacked, None, &mut out).unwrap();
    let both = [a, b].concat();
    assert_close(&values(&backend, &out), &reference(&x, &both, None, 8, 45), tolerance(DType::F32), "stacked");
}

/// The bytes of a gated matmul of seeded numbers, `[rows, outputs]`.
fn gated_matmul(backend: &CpuBackend, dtype: DType, rows: usize, inputs: usize, outputs: usize) -> Vec<u8> {
    let (x, w) = (random(1, dtype, rows * inputs), random(2, dtype, outputs * inputs));
    let matrix = host(dtype, &[outputs, inputs], &w);
    let weight = backend.prepare_gated(&matrix, &matrix, dtype).unwrap();
    let device_x = upload(backend, dtype, rows, inputs, &x);
    let mut out = backend.alloc(dtype, rows, outputs).unwrap();
    backend.linear_gated(&device_x, &weight, None, Activation::Silu, &mut out).unwrap();
    bytes(backend, &out)
}

#[test]
fn instruction_sets_with_one_kernel_id_agree() {
    for dtype in DTYPES {
        for (rows, inputs, outputs) in [(29, 77, 81), (70, 640, 48)] {
            let mut results: Vec<(String, Vec<u8>)> = Vec::new();
            for backend in backends() {
                let name = if dtype == DType::Bf16 { backend.kernel_id() } else { "any".to_owned() };
                let got = gated_matmul(&backend, dtype, rows, inputs, outputs);
                match results.iter().find(|(known, _)| *known == name) {
                    Some((_, expected)) => assert!(got == *expected, "{dtype} on {}", backend.describe()),
                    None => results.push((name, got)),
                }
            }
            // The arithmetics of bf16 differ by no more than the rounding of a store.
            let wide: Vec<Vec<f32>> = results.iter().map(|(_, bytes)| dtype.to_f32_vec(bytes)).collect();
            for other in &wide[1..] {
                let expected: Vec<f64> = wide[0].iter().map(|value| f64::from(*value)).collect();
                assert_close(other, &expected, 2.0 * tolerance(dtype), "two arithmetics");
            }
        }
    }
}

#[test]
fn bf16_instructions_flush_subnormals() {
    for backend in backends() {
        let weight = backend.prepare_linear(&[host(DType::Bf16, &[1, 1], &[2f32.powi(-130)])], DType::Bf16).unwrap();
        let x = upload(&backend, DType::Bf16, 1, 1, &[2f32.powi(20)]);
        let mut out = backend.alloc(DType::Bf16, 1, 1).unwrap();
        backend.linear(&x, &weight, None, &mut out).unwrap();
        let expected = if backend.kernel_id().starts_with("cpu-fma-") { 2f32.powi(-110) } else { 0.0 };
        assert_eq!(values(&backend, &out), [expected], "{}", backend.describe());
    }
}

#[test]
fn f32_matmul_keeps_extreme_values() {
    // Two matmuls in sequence, so that the input of the second has overflowed; numbers with all 24 significant bits.
    let numbers = [f32::MAX, f32::MIN, f32::MAX / 8.0, 1.000_000_1, -2f32.powi(-100) / 3.0];
    for backend in backends() {
        let factor = |value: f32| host(DType::Bf16, &[1, 1], &[value]);
        let four = backend.prepare_linear(&[factor(4.0)], DType::F32).unwrap();
        let half = backend.prepare_linear(&[factor(0.5)], DType::F32).unwrap();
        let x = upload(&backend, DType::F32, numbers.len(), 1, &numbers);
        let mut four_times = backend.alloc(DType::F32, numbers.len(), 1).unwrap();
        let mut twice = backend.alloc(DType::F32, numbers.len(), 1).unwrap();
        backend.linear(&x, &four, None, &mut four_times).unwrap();
        backend.linear(&four_times, &half, None, &mut twice).unwrap();
        let expected = numbers.map(|number| number * 4.0 * 0.5);
        assert_eq!(values(&backend, &twice), expected, "{}", backend.describe());
    }
}

#[test]
fn wrong_shapes_dtypes_and_weights_are_errors() {
    let backend = CpuBackend::new(1).unwrap();
    let square = host(DType::F32, &[4, 4], &[0.5; 16]);
    let wide = host(DType::F32, &[4, 5], &[0.5; 20]);
    assert!(backend.prepare_linear(&[square.clone(), wide.clone()], DType::F32).is_err());
    assert!(backend.prepare_gated(&square, &wide, DType::F32).is_err());
    let mut broken = vec![0.0; 16];
    broken[6] = f32::NAN;
    for dtype in DTYPES {
        let error = backend.prepare_linear(&[host(dtype, &[4, 4], &broken)], dtype).err().unwrap();
        assert!(error.to_string().contains("element 6 is NaN"), "{dtype}: {error}");
    }
    broken[6] = 1e6;
    let error = backend.prepare_linear(&[host(DType::F32, &[4, 4], &broken)], DType::F16).err().unwrap();
    assert!(error.to_string().contains("element 6 is inf"), "{error}");

    let weight = backend.prepare_linear(&[square], DType::F32).unwrap();
    let x = upload(&backend, DType::F32, 2, 4, &[1.0; 8]);
    let mut narrow = backend.alloc(DType::F32, 2, 3).unwrap();
    assert!(backend.linear(&x, &weight, None, &mut narrow).is_err());
    let mut half = backend.alloc(DType::F16, 2, 4).unwrap();
    assert!(backend.linear(&x, &weight, None, &mut half).is_err());
    let mut out = backend.alloc(DType::F32, 2, 4).unwrap();
    assert!(backend.linear_gated(&x, &weight, None, Activation::Silu, &mut out).is_err());
    assert!(backend.linear_activated(&x, &weight, None, Activation::Gelu, &mut narrow).is_err());
    assert!(backend.linear_activated(&x, &weight, Some(&vec![0.0; 3]), Activation::Gelu, &mut out).is_err());
    assert!(backend.linear(&x, &weight, Some(&vec![0.0; 3]), &mut out).is_err());
}

/// Asserts that rows of a matmul with bias equal the matmul of the row alone.
fn check_rows(isa: Isa, (stored, dtype): (DType, DType), [rows, inputs, outputs]: [usize; 3], seed: u64) {
    let backend = CpuBackend::with_isa(2, isa).unwrap();
    let (x, w) = (random(seed, dtype, rows * inputs), random(seed + 1, stored, outputs * inputs));
    let weight = backend.prepare_linear(&[host(stored, &[outputs, inputs], &w)], dtype).unwrap();
    let bias = random(seed + 2, dtype, outputs);
    let device_x = upload(&backend, dtype, rows, inputs, &x);
    let mut out = backend.alloc(dtype, rows, outputs).unwrap();
    backend.linear(&device_x, &weight, Some(&bias), &mut out).unwrap();
    let whole = bytes(&backend, &out);
    for row in [0, rows / 2, rows - 1] {
        let one = upload(&backend, dtype, 1, inputs, &x[row * inputs..(row + 1) * inputs]);
        let mut single = backend.alloc(dtype, 1, outputs).unwrap();
        backend.linear(&one, &weight, Some(&bias), &mut single).unwrap();
        let row_bytes = outputs * dtype.size();
        let expected = &whole[row * row_bytes..(row + 1) * row_bytes];
        assert!(
            bytes(&backend, &single) == expected,
            "{stored} {dtype} on {isa}: row {row} of {rows} x {inputs} x {outputs}"
        );
    }
}

#[test]
fn row_bits_are_independent_of_block() {
    for isa in instruction_sets() {
        // More rows than a block, more inputs than a chunk, and an odd number of tiles.
        for types in [(DType::Bf16, DType::Bf16), (DType::Bf16, DType::F32)] {
            check_rows(isa, types, [1101, 64, 33], 1);
            check_rows(isa, types, [45, 2080, 40], 2);
            // Rows that conflict in the cache.
            check_rows(isa, types, [33, 4096, 40], 3);
        }
        // More rows than are split at once.
        check_rows(isa, (DType::Bf16, DType::F32), [300, 8192, 5], 4);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// A row computed alone, first, or in the middle of many others has the same bits.
    #[test]
    fn row_bits_are_independent_of_other_rows(
        rows in 1usize..140, inputs in 1usize..90, outputs in 1usize..80, types in 0usize..4, seed in 0u64..1000,
        isa in prop::sample::select(instruction_sets()),
    ) {
        check_rows(isa, STORED_AND_RUN[types], [rows, inputs, outputs], seed);
    }
}
