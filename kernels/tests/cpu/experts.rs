//! The choice of experts and weighted sums of rows against their definitions.

use crate::common::*;
use actbench_kernels::{Backend, CpuBackend, DType, RouteRule, Routes, WeightedRows};

fn routes(backend: &CpuBackend, dtype: DType, n_experts: usize, logits: &[f32], rule: RouteRule) -> Routes {
    let logits = upload(backend, dtype, logits.len() / n_experts, n_experts, logits);
    backend.route(&logits, rule).unwrap()
}

/// The experts of one row by increasing index, and their weights, in `f64`.
fn expected(logits: &[f32], rule: RouteRule) -> (Vec<u32>, Vec<f64>) {
    let exponentials: Vec<f64> = logits.iter().map(|logit| f64::from(*logit).exp()).collect();
    let total: f64 = exponentials.iter().sum();
    let mut order: Vec<usize> = (0..logits.len()).collect();
    // Stable: of equal logits the first.
    order.sort_by(|a, b| logits[*b].total_cmp(&logits[*a]));
    let mut experts: Vec<usize> = order[..rule.top_k].to_vec();
    experts.sort_unstable();
    let mut weights: Vec<f64> = experts.iter().map(|expert| exponentials[*expert] / total).collect();
    if rule.renormalize {
        let total: f64 = weights.iter().sum();
        weights.iter_mut().for_each(|weight| *weight /= total);
    }
    (experts.iter().map(|expert| *expert as u32).collect(), weights)
}

#[test]
fn routes_equal_definition_on_every_isa() {
    for (n_experts, top_k, rows) in [(1, 1, 3), (7, 3, 40), (33, 1, 5), (40, 40, 2), (128, 8, 19)] {
        for backend in backends() {
            for dtype in DTYPES {
                let logits: Vec<f32> = random(1, dtype, rows * n_experts).iter().map(|logit| logit * 8.0).collect();
                for renormalize in [false, true] {
                    let rule = RouteRule { top_k, renormalize, rounded: false };
                    let found = routes(&backend, dtype, n_experts, &logits, rule);
                    let what = format!("{} {dtype} {rule:?} of {n_experts}", backend.describe());
                    let (mut experts, mut weights) = (Vec::new(), Vec::new());
                    for row in logits.chunks(n_experts) {
                        let (row_experts, row_weights) = expected(row, rule);
                        experts.extend(row_experts);
                        weights.extend(row_weights);
                    }
                    assert_eq!(found.experts(), experts, "{what}");
                    assert_close(found.weights(), &weights, 3e-6, &what);
                }
            }
        }
    }
}

#[test]
fn equal_logits_choose_first_experts() {
    let rule = RouteRule { top_k: 3, renormalize: true, rounded: false };
    for backend in backends() {
        let found =
            routes(&backend, DType::F32, 6, &[1.0, 2.0, 2.0, 1.0, 2.0, 2.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0], rule);
        assert_eq!(found.experts(), [1, 2, 4, 0, 1, 2]);
        assert_eq!(found.weights()[3..], [1.0 / 3.0; 3]);
        // Probabilities that are too small for f32 are equal.
        let far = routes(&backend, DType::F32, 4, &[0.0, -200.0, -150.0, -300.0], rule);
        assert_eq!((far.experts(), far.weights()), (&[0, 1, 2][..], &[1.0, 0.0, 0.0][..]));
    }
}

#[test]
fn weights_are_rounded_to_dtype_of_logits_if_asked() {
    for backend in backends() {
        for dtype in DTYPES {
            let logits = random(1, dtype, 40);
            let rule = RouteRule { top_k: 3, renormalize: true, rounded: false };
            let exact = routes(&backend, dtype, 8, &logits, rule);
            let rounded = routes(&backend, dtype, 8, &logits, RouteRule { rounded: true, ..rule });
            assert_eq!(rounded.weights(), dtype.to_f32_vec(&dtype.from_f32_slice(exact.weights())));
            assert_eq!(rounded.weights() == exact.weights(), dtype == DType::F32, "{dtype}");
        }
    }
}

#[test]
fn routes_of_row_have_bits_of_batch() {
    let rule = RouteRule { top_k: 2, renormalize: true, rounded: false };
    let logits = random(1, DType::Bf16, 50 * 9);
    let all = routes(&CpuBackend::new(1).unwrap(), DType::Bf16, 9, &logits, rule);
    for backend in backends() {
        assert_eq!(routes(&backend, DType::Bf16, 9, &logits, rule), all, "{}", backend.describe());
        for (row, logits) in logits.chunks(9).enumerate() {
            let alone = routes(&backend, DType::Bf16, 9, logits, rule);
            let part = 2 * row..2 * row + 2;
            assert_eq!((alone.experts(), alone.weights()), (&all.experts()[part.clone()], &all.weights()[part]));
        }
    }
}

#[test]
fn weighted_rows_are_summed_in_f32_and_added() {
    let (n_x, n_results, per_row) = (9, 40, 3);
    let rows: Vec<u32> = (0..n_results * per_row).map(|choice| (choice * 5 % n_x) as u32).collect();
    let weights = random(3, DType::F32, rows.len());
    for columns in [1, 17, 64] {
        for dtype in DTYPES {
            let (x, stream) = (random(1, dtype, n_x * columns), random(2, dtype, (n_results + 1) * columns));
            let mut first: Option<Vec<u8>> = None;
            for backend in backends() {
                let device_x = upload(&backend, dtype, n_x, columns, &x);
                let mut out = upload(&backend, dtype, n_results + 1, columns, &stream);
                let sums = WeightedRows { per_row, rows: &rows, weights: &weights };
                backend.add_weighted_rows(&device_x, sums, &mut out).unwrap();
                let expected: Vec<f64> = (0..(n_results + 1) * columns)
                    .map(|index| {
                        let (row, column) = (index / columns, index % columns);
                        let choices = if row < n_results { row * per_row..(row + 1) * per_row } else { 0..0 };
                        let terms = choices.map(|choice| {
                            f64::from(weights[choice]) * f64::from(x[rows[choice] as usize * columns + column])
                        });
                        f64::from(stream[index]) + terms.sum::<f64>()
                    })
                    .collect();
                let what = format!("{} {dtype} {columns}", backend.describe());
                assert_close(&values(&backend, &out), &expected, tolerance(dtype), &what);
                let found = bytes(&backend, &out);
                assert!(*first.get_or_insert_with(|| found.clone()) == found, "{what}: other bits");
            }
        }
    }
}

#[test]
fn wrong_routes_and_sums_are_errors() {
    let backend = CpuBackend::new(1).unwrap();
    let logits = upload(&backend, DType::F32, 2, 4, &random(1, DType::F32, 8));
    let route_error = |logits, top_k| {
        backend.route(logits, RouteRule { top_k, renormalize: false, rounded: false }).unwrap_err().to_string()
    };
    assert!(route_error(&logits, 0).contains("0 of 4 experts"));
    assert!(route_error(&logits, 5).contains("5 of 4 experts"));
    let wide = backend.alloc(DType::F32, 0, 513).unwrap();
    assert!(route_error(&wide, 1).contains("513 experts: at most 512"));
    let mut stream = upload(&backend, DType::F32, 2, 4, &[0.0; 8]);
    let mut error = |per_row, rows: &[u32], weights: &[f32]| {
        let sums = WeightedRows { per_row, rows, weights };
        backend.add_weighted_rows(&logits, sums, &mut stream).unwrap_err().to_string()
    };
    assert!(error(0, &[], &[]).contains("0 rows, 0 for each result"));
    assert!(error(2, &[0, 1, 1], &[1.0; 3]).contains("3 rows, 2 for each result"));
    assert!(error(1, &[0, 1], &[1.0]).contains("weights has 1 elements"));
    assert!(error(1, &[0, 2], &[1.0; 2]).contains("row 2 of 2"));
    assert!(error(1, &[0, 1, 0], &[1.0; 3]).contains("3 x 4 are needed"));
    let mut narrow = backend.alloc(DType::F32, 2, 3).unwrap();
    let sums = WeightedRows { per_row: 1, rows: &[0], weights: &[1.0] };
    assert!(backend.add_weighted_rows(&logits, sums, &mut narrow).is_err());
    let mut other = backend.alloc(DType::Bf16, 2, 4).unwrap();
    assert!(backend.add_weighted_rows(&logits, sums, &mut other).is_err());
}
