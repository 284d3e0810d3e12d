//! Attention with windows, soft caps and other scales: against a plain softmax in `f64`, and the independence of a row's bits
//! from the other rows.

use std::collections::BTreeMap;

use crate::attention::{SHAPES, attend, instruction_set_backends, reference, whole};
use crate::common::*;
use actbench_kernels::backend::AttentionSegment;
use actbench_kernels::{AttentionLayout, AttentionShape, Backend, CpuBackend, DType, ScoreRule};

/// Keys of a block of the CPU backend.
const BLOCK: usize = 64;

/// Shapes with groups of 1, 2, 3 and 70 query heads: rows that share a vector of lanes, and rows with several vectors.
const TESTED_SHAPES: [AttentionShape; 4] = [SHAPES[0], SHAPES[1], SHAPES[3], SHAPES[5]];

/// Queries with which the softmax is far from uniform, and keys and values.
fn inputs(dtype: DType, rows: usize, shape: AttentionShape) -> (Vec<f32>, Vec<f32>) {
    let query = random(1, dtype, rows * shape.query_width()).iter().map(|value| value * 4.0).collect();
    (query, random(2, dtype, rows * 2 * shape.kv_width()))
}

#[test]
fn windows_scales_and_caps_equal_reference() {
    // Shorter than a block of keys, and longer than two.
    let lens = [1usize, 17, 150];
    let rows: usize = lens.iter().sum();
    for (dtype, shape) in DTYPES.into_iter().flat_map(|dtype| TESTED_SHAPES.map(|shape| (dtype, shape))) {
        let usual = ScoreRule::of_head_dim(shape.head_dim);
        // The masks do not depend on the dtype, so that few windows are enough for the others.
        let windows: &[usize] = match dtype {
            DType::F32 => &[1, 5, 17, BLOCK, BLOCK + 1, 100, 149, 150, 1000, usize::MAX],
            _ => &[5, 100],
        };
        let windows = windows.iter().map(|window| ScoreRule { window: Some(*window), ..usual });
        let others = [
            ScoreRule { scale: 0.7, ..usual },
            ScoreRule { soft_cap: Some(0.75), ..usual },
            ScoreRule { soft_cap: Some(50.0), scale: 1.0, window: None },
            ScoreRule { soft_cap: Some(2.0), scale: 1.0, window: Some(70) },
        ];
        let (query, kv) = inputs(dtype, rows, shape);
        for rule in windows.chain(others) {
            let mut layout = AttentionLayout::default();
            let mut expected = Vec::new();
            let mut first = 0;
            for len in lens {
                layout.segments.push(whole(first, len));
                expected.extend(reference(&query, &kv, first, len, shape, rule));
                first += len;
            }
            layout.segments.reverse();
            let mut bits = BTreeMap::new();
            for backend in instruction_set_backends() {
                let what = format!("{} {dtype} {shape:?} {rule:?}", backend.describe());
                let own = attend(&backend, dtype, (&query, &kv), &layout, shape, rule);
                // Scores of up to 100 are rounded to 4e-6, and their exponentials are as far off.
                let tolerance = attention_tolerance(dtype).max(if rule.scale == usual.scale { 0.0 } else { 2e-5 });
                assert_close(&dtype.to_f32_vec(&own), &expected, tolerance, &what);
                let arithmetic = attention_arithmetic(&backend, dtype);
                assert!(bits.entry(arithmetic).or_insert_with(|| own.clone()) == &own, "{what}: other bits");
            }
        }
    }
}

/// The caps of the test above change the results by far more than its tolerance.
#[test]
fn soft_cap_and_window_matter() {
    let (rows, shape) = (150, SHAPES[1]);
    let (query, kv) = inputs(DType::F32, rows, shape);
    let backend = CpuBackend::new(2).unwrap();
    let layout = AttentionLayout { segments: vec![whole(0, rows)] };
    let usual = ScoreRule { scale: 1.0, window: None, soft_cap: None };
    let results = |rule| DType::F32.to_f32_vec(&attend(&backend, DType::F32, (&query, &kv), &layout, shape, rule));
    let plain = results(usual);
    for rule in [
        ScoreRule { soft_cap: Some(50.0), ..usual },
        ScoreRule { soft_cap: Some(2.0), ..usual },
        ScoreRule { window: Some(100), ..usual },
    ] {
        let differs = results(rule).iter().zip(&plain).any(|(a, b)| (a - b).abs() > 1e-3);
        assert!(differs, "{rule:?}");
    }
}

#[test]
fn window_of_all_positions_has_bits_of_none() {
    let (rows, shape) = (200, SHAPES[1]);
    for dtype in DTYPES {
        let (query, kv) = inputs(dtype, rows, shape);
        let layout = AttentionLayout { segments: vec![whole(0, rows)] };
        let usual = ScoreRule::of_head_dim(shape.head_dim);
        for backend in instruction_set_backends() {
            let results = |rule| attend(&backend, dtype, (&query, &kv), &layout, shape, rule);
            let expected = results(usual);
            for window in [rows, rows + 1, usize::MAX] {
                assert!(results(ScoreRule { window: Some(window), ..usual }) == expected, "{dtype} {window}");
            }
        }
    }
}

/// A row alone is a task whose first block is that of its own window; in a batch the first block is that of the first row.
#[test]
fn row_alone_has_bits_of_row_in_batch() {
    let rows = 200;
    for shape in [SHAPES[0], SHAPES[1], SHAPES[2]] {
        let usual = ScoreRule::of_head_dim(shape.head_dim);
        let windows =
            [1, 10, BLOCK, BLOCK + 1, 130, 199, 300].map(|window| ScoreRule { window: Some(window), ..usual });
        let capped = ScoreRule { soft_cap: Some(1.5), ..usual };
        let rules = [usual, capped, ScoreRule { window: Some(70), ..capped }].into_iter().chain(windows);
        let batch = AttentionLayout { segments: vec![whole(0, rows)] };
        let alone = AttentionLayout {
            segments: (0..rows)
                .map(|row| AttentionSegment { query_row: row, start_position: row, len: 1, keys: vec![(0, row + 1)] })
                .collect(),
        };
        // Segments that start inside a block, so that its lanes have other neighbors.
        let cut = AttentionLayout {
            segments: [(0, 37), (37, 100), (137, 63)]
                .map(|(first, len)| AttentionSegment {
                    query_row: first,
                    start_position: first,
                    len,
                    keys: vec![(0, 37), (37, first + len - 37)],
                })
                .to_vec(),
        };
        // The masks are those of f32, so that few windows are enough for bf16.
        let is_tested = |(rule, dtype): &(ScoreRule, DType)| {
            *dtype == DType::F32 || rule.window.is_none_or(|window| [10, BLOCK + 1, 70].contains(&window))
        };
        let cases = rules.flat_map(|rule| [DType::F32, DType::Bf16].map(|dtype| (rule, dtype))).filter(is_tested);
        for (rule, dtype, backend) in cases
            .flat_map(|(rule, dtype)| instruction_set_backends().into_iter().map(move |backend| (rule, dtype, backend)))
        {
            let (query, kv) = inputs(dtype, rows, shape);
            let what = format!("{} {dtype} {shape:?} {rule:?}", backend.describe());
            let expected = attend(&backend, dtype, (&query, &kv), &batch, shape, rule);
            assert!(attend(&backend, dtype, (&query, &kv), &alone, shape, rule) == expected, "{what}: alone");
            assert!(attend(&backend, dtype, (&query, &kv), &cut, shape, rule) == expected, "{what}: in parts");
        }
    }
}

/// Keys and values outside of the window are not used, whatever they are: NaN would spread to the results.
#[test]
fn keys_outside_window_are_not_used() {
    let (rows, shape) = (200, SHAPES[1]);
    let kv_width = 2 * shape.kv_width();
    for (dtype, window) in DTYPES.into_iter().flat_map(|dtype| [1, 33, BLOCK, 100].map(|window| (dtype, window))) {
        let rule = ScoreRule { window: Some(window), ..ScoreRule::of_head_dim(shape.head_dim) };
        let (query, kv) = inputs(dtype, rows, shape);
        for backend in instruction_set_backends() {
            let device_query = upload(&backend, dtype, rows, shape.query_width(), &query);
            let clean = upload(&backend, dtype, rows, kv_width, &kv);
            // The last 30 rows see no key before `first`.
            let (start_position, len) = (rows - 30, 30);
            let first = start_position + 1 - window;
            let mut broken = filled_with_nan(&backend, dtype, rows, kv_width);
            backend.copy_rows(&clean, first, rows - first, &mut broken, first).unwrap();
            let segment = AttentionSegment { query_row: start_position, start_position, len, keys: vec![(0, rows)] };
            let layout = AttentionLayout { segments: vec![segment] };
            let results = |kv| {
                let mut out = filled_with_nan(&backend, dtype, rows, shape.query_width());
                backend.attention(&device_query, kv, &layout, shape, rule, &mut out).unwrap();
                values(&backend, &out)[start_position * shape.query_width()..].to_vec()
            };
            let expected = results(&clean);
            assert!(expected.iter().all(|value| value.is_finite()), "{dtype} {window}");
            assert_eq!(results(&broken), expected, "{} {dtype} {window}", backend.describe());
        }
    }
}

#[test]
fn wrong_rules_are_errors() {
    let backend = CpuBackend::new(1).unwrap();
    let shape = SHAPES[0];
    let (query, kv) = inputs(DType::F32, 4, shape);
    let query = upload(&backend, DType::F32, 4, shape.query_width(), &query);
    let kv = upload(&backend, DType::F32, 4, 2 * shape.kv_width(), &kv);
    let mut out = backend.alloc(DType::F32, 4, shape.query_width()).unwrap();
    let layout = AttentionLayout { segments: vec![whole(0, 4)] };
    let mut attempt =
        |rule| backend.attention(&query, &kv, &layout, shape, rule, &mut out).map_err(|error| error.to_string());
    let usual = ScoreRule::of_head_dim(shape.head_dim);
    assert_eq!(attempt(usual), Ok(()));
    assert!(attempt(ScoreRule { window: Some(0), ..usual }).unwrap_err().contains("a window of 0 positions"));
    for cap in [0.0, -1.0, f32::NAN, f32::INFINITY] {
        let error = attempt(ScoreRule { soft_cap: Some(cap), ..usual }).unwrap_err();
        assert!(error.contains("a soft cap of"), "{error}");
    }
    for scale in [f32::NAN, f32::INFINITY] {
        assert!(attempt(ScoreRule { scale, ..usual }).unwrap_err().contains("a scale of"));
    }
}
