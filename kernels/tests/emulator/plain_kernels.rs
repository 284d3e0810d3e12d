//! The plain CUDA kernels in the emulator, with every thread order: they must have the bits of the CPU backend.

use actbench_kernels::cuda::KernelSet;
use actbench_kernels::cuda::emulator::{CopyTime, EmulatedBackend, EmulatorOptions, ThreadOrder};
use actbench_kernels::{Activation, AttentionShape, Backend, DType, PoolMethod, RouteRule, ScoreRule, WeightedRows};

use crate::common::*;
use crate::is_sanitized;
use crate::operations::{self, MATMUL_KINDS, NORM_KINDS, NormKind, route_rules, score_rules};

/// The emulator with each thread order. Plain kernels have no asynchronous copies, so the copy time does not matter.
fn emulated() -> Vec<(EmulatorOptions, EmulatedBackend)> {
    let orders = [ThreadOrder::Random, ThreadOrder::Forward, ThreadOrder::Reverse];
    orders[..if is_sanitized() { 1 } else { orders.len() }]
        .iter()
        .map(|order| EmulatorOptions { order: *order, copies: CopyTime::Late, seed: 7 })
        .map(|options| (options, EmulatedBackend::emulated(options, KernelSet::Plain)))
        .collect()
}

/// Asserts that `operation` has the same bytes on the CPU backend and in the emulator.
macro_rules! assert_cpu_bits {
    ($what:expr, $backend:ident => $operation:expr) => {{
        let expected = {
            let $backend = &fused_multiply_add_cpu();
            $operation
        };
        for (options, backend) in emulated() {
            let $backend = &backend;
            let got = $operation;
            assert!(got == expected, "{} differs from the CPU with {options:?}", $what);
        }
    }};
}

#[test]
fn matmul_epilogues_equal_cpu() {
    for dtype in DTYPES {
        for kind in MATMUL_KINDS {
            for (rows, inputs, outputs) in [(1, 1, 1), (5, 7, 33), (3, 65, 131)] {
                for biased in [false, true] {
                    let what = format!("{kind:?} {dtype} {rows}x{inputs}x{outputs}");
                    assert_cpu_bits!(what, backend => {
                        operations::matmul(backend, kind, biased, dtype, (0, rows), inputs, outputs)
                    });
                }
            }
        }
    }
}

/// Both sides of the boundaries between polynomials, every magnitude, and values that saturate.
#[test]
fn activations_of_all_magnitudes_equal_cpu() {
    let near = (-400..400).map(|step| step as f32 * 0.023_7);
    let far = (0..150).flat_map(|step| [1.0, -1.0].map(|sign| sign * 1e-30 * 2.9f32.powi(step)));
    let values: Vec<f32> = near.chain(far).filter(|value| value.abs() < 60000.0).chain([0.0, -0.0, 6e4]).collect();
    for dtype in DTYPES {
        for activation in Activation::ALL {
            assert_cpu_bits!(format!("{activation:?} {dtype}"), backend => {
                operations::activations(backend, activation, dtype, &values)
            });
        }
    }
}

#[test]
fn norm_rope_copies_and_pools_equal_cpu() {
    for dtype in DTYPES {
        for columns in [1, 15, 17, 130] {
            for kind in NORM_KINDS {
                assert_cpu_bits!(format!("{kind:?} norm {dtype} {columns}"), backend => {
                    operations::norm(backend, kind, dtype, (0, 4), columns)
                });
            }
            assert_cpu_bits!(format!("scaled embedding {dtype} {columns}"), backend => {
                operations::scaled_embedding(backend, dtype, columns)
            });
            assert_cpu_bits!(format!("added embedding {dtype} {columns}"), backend => {
                operations::added_embedding(backend, dtype, columns)
            });
            assert_cpu_bits!(format!("weighted rows {dtype} {columns}"), backend => {
                operations::weighted_rows(backend, dtype, columns)
            });
            assert_cpu_bits!(format!("copies {dtype} {columns}"), backend => {
                operations::copies(backend, dtype, columns)
            });
            for method in PoolMethod::ALL {
                assert_cpu_bits!(format!("{method} pool {dtype} {columns}"), backend => {
                    operations::pool(backend, dtype, columns, method)
                });
            }
        }
        for (head_dim, rotary_dim) in [(2, 2), (10, 10), (160, 160), (10, 4), (96, 24), (7, 6)] {
            assert_cpu_bits!(format!("rope {dtype} {rotary_dim} of {head_dim}"), backend => {
                operations::rope(backend, dtype, head_dim, rotary_dim, &[3, 0, 9])
            });
        }
    }
}

/// Fewer experts than partial sums, more experts than threads, and as many as there can be.
#[test]
fn routes_equal_cpu() {
    for dtype in DTYPES {
        for (n_experts, top_k) in [(1, 1), (5, 2), (130, 8), (512, 3)] {
            for rule in route_rules(top_k) {
                assert_cpu_bits!(format!("routes {dtype} {rule:?} of {n_experts}"), backend => {
                    operations::routes(backend, dtype, rule, (0, 4), n_experts)
                });
            }
        }
    }
}

#[test]
fn nan_logits_choose_first_experts_on_every_device() {
    let mut logits = vec![0.5; 6];
    logits[4] = f32::NAN;
    let rule = RouteRule { top_k: 2, renormalize: true, rounded: false };
    let check = |routes: actbench_kernels::Routes| {
        assert_eq!(routes.experts(), [0, 1]);
        assert!(routes.weights().iter().all(|weight| weight.is_nan()), "{routes:?}");
    };
    // A table with a NaN would be refused, so the bytes are uploaded.
    let cpu = fused_multiply_add_cpu();
    let mut x = cpu.alloc(DType::F32, 1, 6).unwrap();
    cpu.upload(&DType::F32.from_f32_slice(&logits), &mut x).unwrap();
    check(cpu.route(&x, rule).unwrap());
    for (_, backend) in emulated() {
        let mut x = backend.alloc(DType::F32, 1, 6).unwrap();
        backend.upload(&DType::F32.from_f32_slice(&logits), &mut x).unwrap();
        check(backend.route(&x, rule).unwrap());
    }
}

/// With rows that are multiples of 16 bytes and with others, for which the plain kernels are used.
#[test]
fn wide_kernels_equal_plain_except_norm() {
    for (options, plain) in emulated() {
        let wide = EmulatedBackend::emulated(options, KernelSet::Mma);
        for dtype in DTYPES {
            for columns in [8, 12, 136, 2064] {
                let copies = |backend| operations::copies(backend, dtype, columns);
                assert!(copies(&wide) == copies(&plain), "copies {dtype} {columns} {options:?}");
                for method in PoolMethod::ALL {
                    let pool = |backend| operations::pool(backend, dtype, columns, method);
                    assert!(pool(&wide) == pool(&plain), "{method} pool {dtype} {columns} {options:?}");
                }
                let scaled = |backend| operations::scaled_embedding(backend, dtype, columns);
                assert!(scaled(&wide) == scaled(&plain), "scaled embedding {dtype} {columns} {options:?}");
                let added = |backend| operations::added_embedding(backend, dtype, columns);
                assert!(added(&wide) == added(&plain), "added embedding {dtype} {columns} {options:?}");
                let weighted = |backend| operations::weighted_rows(backend, dtype, columns);
                assert!(weighted(&wide) == weighted(&plain), "weighted rows {dtype} {columns} {options:?}");
                for kind in NORM_KINDS {
                    let norm = |backend: &EmulatedBackend| {
                        dtype.to_f32_vec(&operations::norm(backend, kind, dtype, (0, 4), columns))
                    };
                    let expected: Vec<f64> = norm(&plain).into_iter().map(f64::from).collect();
                    assert_close(
                        &norm(&wide),
                        &expected,
                        2.0 * tolerance(dtype),
                        &format!("{kind:?} {dtype} {columns} {options:?}"),
                    );
                }
            }
            for head_dim in [10usize, 16, 64, 80, 96, 128, 256] {
                for rotary_dim in [head_dim, head_dim / 4 * 2, (head_dim / 2).next_multiple_of(16).min(head_dim)] {
                    let rope = |backend| operations::rope(backend, dtype, head_dim, rotary_dim, &[3, 0, 9]);
                    assert!(rope(&wide) == rope(&plain), "rope {dtype} {rotary_dim} of {head_dim} {options:?}");
                }
            }
        }
    }
}

/// Of the wide kernels, whose order of additions is their own, and of the plain ones.
#[test]
fn norm_of_row_has_bits_of_batch() {
    for (options, plain) in emulated() {
        let wide = EmulatedBackend::emulated(options, KernelSet::Mma);
        for (dtype, kind) in DTYPES.into_iter().flat_map(|dtype| NORM_KINDS.map(|kind| (dtype, kind))) {
            let columns = 136;
            let row_bytes = if kind == NormKind::RmsHeads { 3 * columns } else { columns } * dtype.size();
            for backend in [&plain, &wide] {
                let all = operations::norm(backend, kind, dtype, (0, 7), columns);
                for (from, to) in [(0, 1), (6, 7), (2, 5)] {
                    let part = operations::norm(backend, kind, dtype, (from, to), columns);
                    assert!(part == all[from * row_bytes..to * row_bytes], "{kind:?} {dtype} {from}..{to} {options:?}");
                }
            }
        }
    }
}

#[test]
fn device_comparison_counts_differences() {
    for (_, backend) in emulated() {
        for dtype in DTYPES {
            let (rows, columns) = (5, 130);
            let mut values = random(1, dtype, rows * columns);
            values[7] = -0.0;
            let expected = upload(&backend, dtype, rows, columns, &values);
            let same = backend.compare(&expected, &expected, rows).unwrap();
            assert_eq!((same.elements, same.first, same.max_difference), (0, None, 0.0));
            let largest = values.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
            assert_eq!(same.max_expected, largest);
            values[7] = 0.0;
            values[200] += 0.5;
            values[649] = dtype.to_f32_vec(&dtype.from_f32_slice(&[values[649] - 0.25]))[0];
            let got = upload(&backend, dtype, rows, columns, &values);
            let found = backend.compare(&got, &expected, rows).unwrap();
            assert_eq!((found.elements, found.first), (3, Some(7)), "{found:?}");
            assert!((found.max_difference - 0.5).abs() < 0.01, "{found:?}");
            assert_eq!(backend.compare(&got, &expected, 2).unwrap().elements, 2);
            // Unwritten memory of the emulator is NaN.
            let untouched = backend.alloc(dtype, rows, columns).unwrap();
            let found = backend.compare(&untouched, &expected, rows).unwrap();
            assert!(found.max_difference.is_nan() && found.elements == 650, "{found:?}");
            assert!(backend.compare(&got, &expected, 6).is_err());
        }
    }
}

#[test]
fn attention_of_ragged_rows_and_nodes_equals_cpu() {
    let shapes = [(4, 2, 16), (3, 1, 24), (2, 1, 64), (2, 2, 80), (1, 1, 96), (1, 1, 128), (1, 1, 256)];
    for (n_heads, n_kv_heads, head_dim) in shapes {
        let shape = AttentionShape { n_heads, n_kv_heads, head_dim };
        for dtype in DTYPES {
            let scores = ScoreRule::of_head_dim(head_dim);
            assert_cpu_bits!(format!("attention {dtype} {shape:?}"), backend => {
                operations::attention(backend, dtype, shape, scores, [5, 141])
            });
            assert_cpu_bits!(format!("node {dtype} {shape:?}"), backend => {
                operations::attention_of_node(backend, dtype, shape, scores, 23, 14)
            });
        }
    }
}

#[test]
fn attention_with_windows_and_soft_caps_equals_cpu() {
    for (n_heads, n_kv_heads, head_dim) in [(4, 2, 16), (1, 1, 72)] {
        let shape = AttentionShape { n_heads, n_kv_heads, head_dim };
        for (dtype, scores) in
            DTYPES.into_iter().flat_map(|dtype| score_rules(head_dim).into_iter().map(move |scores| (dtype, scores)))
        {
            assert_cpu_bits!(format!("attention {dtype} {shape:?} {scores:?}"), backend => {
                operations::attention(backend, dtype, shape, scores, [5, 141])
            });
            assert_cpu_bits!(format!("node {dtype} {shape:?} {scores:?}"), backend => {
                operations::attention_of_node(backend, dtype, shape, scores, 150, 77)
            });
        }
    }
}

#[test]
fn weight_conversions_equal_cpu() {
    for from in DTYPES {
        for to in DTYPES {
            // Every exponent of the narrower dtypes, and values that need rounding.
            let values: Vec<f32> =
                (0..2000).map(|step| (step as f32 - 1000.0).powi(3) * 3.1e-5 * 1.001f32.powi(step)).collect();
            let values: Vec<f32> = values.into_iter().chain((0..200).map(|step| 1.37e-9 * 1.1f32.powi(step))).collect();
            let values: Vec<f32> = from.to_f32_vec(&from.from_f32_slice(&values));
            let values: Vec<f32> = values.into_iter().filter(|value| value.abs() < 60000.0).collect();
            let table = host(from, &[1, values.len()], &values);
            assert_cpu_bits!(format!("{from} to {to}"), backend => {
                let prepared = backend.prepare_embedding(&table, to).unwrap();
                let mut out = backend.alloc(to, 1, values.len()).unwrap();
                backend.embed(&prepared, &[0], 1.0, &mut out).unwrap();
                let mut bytes = vec![0; values.len() * to.size()];
                backend.download(&out, 1, &mut bytes).unwrap();
                bytes
            });
        }
    }
}

#[test]
fn non_finite_weight_error_has_index() {
    for (_, backend) in emulated() {
        let mut broken = vec![0.0; 16];
        broken[6] = f32::NAN;
        broken[9] = f32::INFINITY;
        drop(backend.prepare_linear(&[host(DType::F32, &[4, 4], &broken)], DType::F32).unwrap());
        let error = backend.verify_weights().unwrap_err();
        assert!(error.to_string().contains("element 6 is NaN"), "{error}");
        broken[6] = 1e6;
        drop(backend.prepare_embedding(&host(DType::F32, &[4, 4], &broken), DType::F16).unwrap());
        let error = backend.verify_weights().unwrap_err();
        assert!(error.to_string().contains("element 6 is inf"), "{error}");
    }
}

#[test]
fn mismatched_shapes_are_errors() {
    let (_, backend) = emulated().remove(0);
    let weight = backend.prepare_linear(&[host(DType::F32, &[4, 4], &[0.5; 16])], DType::F32).unwrap();
    let x = upload(&backend, DType::F32, 2, 4, &[1.0; 8]);
    let mut narrow = backend.alloc(DType::F32, 2, 3).unwrap();
    assert!(backend.linear(&x, &weight, None, &mut narrow).is_err());
    assert!(backend.linear_gated(&x, &weight, None, Activation::Silu, &mut narrow).is_err());
    assert!(backend.linear_activated(&x, &weight, None, Activation::Gelu, &mut narrow).is_err());
    assert!(backend.gather_rows(&x, &[0, 2], &mut narrow).is_err());
    let mut out = backend.alloc(DType::F32, 2, 4).unwrap();
    assert!(backend.gather_rows(&x, &[0, 2], &mut out).is_err());
    assert!(backend.copy_rows(&x, 1, 2, &mut out, 0).is_err());
    let table = backend.prepare_embedding(&host(DType::F32, &[2, 4], &[0.5; 8]), DType::F32).unwrap();
    assert!(backend.embed(&table, &[0], f32::NAN, &mut out).is_err());
    assert!(backend.embed(&table, &[2], 2.0, &mut out).is_err());
    assert!(backend.add_embedding(&table, &[2], &mut out).is_err());
    assert!(backend.add_embedding(&table, &[0, 1, 1], &mut out).is_err());
    for top_k in [0, 5] {
        assert!(backend.route(&x, RouteRule { top_k, renormalize: false, rounded: false }).is_err(), "{top_k}");
    }
    assert!(backend.add_weighted_rows(&x, WeightedRows { per_row: 1, rows: &[2], weights: &[1.0] }, &mut out).is_err());
    let vector = |len: usize| backend.prepare_vector(&[host(DType::F32, &[len], &vec![1.0; len])], DType::F32).unwrap();
    assert!(backend.rms_norm_residual(&x, &vector(3), 1e-5, &mut out).is_err());
    assert!(backend.layer_norm(&x, &vector(4), &vector(3), 1e-5, &mut out).is_err());
    assert!(backend.rms_norm_heads(&mut out, 3, &vector(2), 1e-5).is_err());
    assert!(backend.rms_norm_heads(&mut out, 2, &vector(2), 1e-5).is_ok());
    for rotary_dim in [0, 3, 6] {
        assert!(backend.rope(&mut out, 1, 4, rotary_dim, &[0], &vector(4), &vector(4)).is_err(), "{rotary_dim}");
    }
    assert!(
        backend
            .prepare_gated(&host(DType::F32, &[2, 2], &[0.0; 4]), &host(DType::F32, &[1, 2], &[0.0; 2]), DType::F32)
            .is_err()
    );
    // Without rows nothing is launched.
    let none = backend.alloc(DType::F32, 0, 4).unwrap();
    assert!(backend.linear(&none, &weight, None, &mut out).is_ok());
    let rule = RouteRule { top_k: 2, renormalize: false, rounded: false };
    assert_eq!(backend.route(&none, rule).unwrap().experts(), [0; 0]);
    assert!(backend.add_weighted_rows(&x, WeightedRows { per_row: 2, rows: &[], weights: &[] }, &mut out).is_ok());
}
