//! Attention with unusual widths, scales and inputs: against a plain softmax in `f64`, and values that are not finite.

use crate::attention::{attend, instruction_set_backends, reference, whole};
use crate::common::*;
use actbench_kernels::{AttentionLayout, AttentionShape, Backend, CpuBackend, DType, ScoreRule};

/// Head widths that are not whole vectors or tiles, odd ones, and the largest; groups of 1, 2, 3, 7 and 8 heads.
#[test]
fn all_head_widths_equal_reference() {
    for (n_heads, n_kv_heads, head_dim) in
        [(7, 1, 96), (8, 1, 128), (2, 1, 256), (3, 3, 33), (6, 2, 48), (1, 1, 1), (4, 2, 17), (3, 1, 112)]
    {
        let shape = AttentionShape { n_heads, n_kv_heads, head_dim };
        let rows = 75;
        let layout = AttentionLayout { segments: vec![whole(0, 70), whole(70, 5)] };
        for dtype in DTYPES {
            let query: Vec<f32> =
                random(1, dtype, rows * shape.query_width()).iter().map(|value| value * 2.0).collect();
            let kv = random(2, dtype, rows * 2 * shape.kv_width());
            let rule = ScoreRule::of_head_dim(head_dim);
            let mut expected = reference(&query, &kv, 0, 70, shape, rule);
            expected.extend(reference(&query, &kv, 70, 5, shape, rule));
            for backend in instruction_set_backends() {
                let own = dtype.to_f32_vec(&attend(&backend, dtype, (&query, &kv), &layout, shape, rule));
                let what = format!("{} {dtype} {shape:?}", backend.describe());
                assert_close(&own, &expected, attention_tolerance(dtype), &what);
            }
        }
    }
}

#[test]
fn negative_and_zero_scales_equal_reference() {
    let shape = AttentionShape { n_heads: 2, n_kv_heads: 1, head_dim: 24 };
    let (rows, dtype) = (70, DType::Bf16);
    let query = random(1, dtype, rows * shape.query_width());
    let kv = random(2, dtype, rows * 2 * shape.kv_width());
    let layout = AttentionLayout { segments: vec![whole(0, rows)] };
    for scale in [-0.5, 0.0, -0.0, 1e-30] {
        for soft_cap in [None, Some(0.25)] {
            let rule = ScoreRule { scale, window: Some(20), soft_cap };
            let expected = reference(&query, &kv, 0, rows, shape, rule);
            for backend in instruction_set_backends() {
                let own = dtype.to_f32_vec(&attend(&backend, dtype, (&query, &kv), &layout, shape, rule));
                let what = format!("{} {rule:?}", backend.describe());
                assert_close(&own, &expected, attention_tolerance(dtype), &what);
            }
        }
    }
}

/// A value that is not finite reaches the rows that see it, and no other row of its sequence, head or batch, whatever is
/// computed in the same tile.
#[test]
fn non_finite_values_reach_rows_that_see_them() {
    let shape = AttentionShape { n_heads: 6, n_kv_heads: 2, head_dim: 40 };
    let (width, kv_width) = (shape.query_width(), 2 * shape.kv_width());
    let (rows, other, broken) = (90, 10, 75);
    let layout = AttentionLayout { segments: vec![whole(0, rows), whole(rows, other)] };
    for (dtype, window) in DTYPES.into_iter().flat_map(|dtype| [None, Some(5)].map(|window| (dtype, window))) {
        let rule = ScoreRule { window, ..ScoreRule::of_head_dim(shape.head_dim) };
        let query = random(1, dtype, (rows + other) * width);
        let kv = random(2, dtype, (rows + other) * kv_width);
        for backend in instruction_set_backends() {
            let clean = dtype.to_f32_vec(&attend(&backend, dtype, (&query, &kv), &layout, shape, rule));
            // An element of the first key, and of the first value, of the broken position.
            for (column, value) in
                [(3, f32::NAN), (shape.kv_width() + 3, f32::NAN), (shape.kv_width() + 3, f32::NEG_INFINITY)]
            {
                let mut kv = kv.clone();
                kv[broken * kv_width + column] = value;
                let own = dtype.to_f32_vec(&attend(&backend, dtype, (&query, &kv), &layout, shape, rule));
                for (index, (own, clean)) in own.iter().zip(&clean).enumerate() {
                    let (row, head, element) = (index / width, index % width / shape.head_dim, index % shape.head_dim);
                    let sees = (broken..rows).contains(&row) && window.is_none_or(|window| row < broken + window);
                    // A broken key affects all elements of the output, a broken value its own element.
                    let is_affected = sees && head < 3 && (column == 3 || element == 3);
                    let what = format!("{} {dtype} {window:?} {column} {value}: {row} {index}", backend.describe());
                    if is_affected {
                        assert!(!own.is_finite(), "{what}: {own}");
                    } else {
                        assert_eq!(own.to_bits(), clean.to_bits(), "{what}");
                    }
                }
            }
        }
    }
}

/// The size of the tasks depends on the number of threads and of the rows; the bits do not.
#[test]
fn bits_are_those_of_any_thread_count() {
    let shape = AttentionShape { n_heads: 4, n_kv_heads: 1, head_dim: 32 };
    let (rows, dtype) = (420, DType::Bf16);
    let query = random(1, dtype, rows * shape.query_width());
    let kv = random(2, dtype, rows * 2 * shape.kv_width());
    let layout = AttentionLayout { segments: vec![whole(0, 20), whole(20, 400)] };
    let rule = ScoreRule::of_head_dim(shape.head_dim);
    for isa in instruction_sets() {
        let results = [1, 2, 7].map(|threads| {
            let backend = CpuBackend::with_isa(threads, isa).unwrap();
            attend(&backend, dtype, (&query, &kv), &layout, shape, rule)
        });
        let [one, two, seven] = results;
        assert!(one == two && one == seven, "{isa}");
        assert!(dtype.to_f32_vec(&one).iter().all(|value| value.is_finite()), "{isa}");
    }
}
