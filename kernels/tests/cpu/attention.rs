//! Attention against a plain softmax in `f64`: ragged rows, prefix-tree nodes and partial queries.

use std::collections::BTreeMap;

use crate::common::*;
use actbench_kernels::backend::AttentionSegment;
use actbench_kernels::{AttentionLayout, AttentionShape, Backend, CpuBackend, DType, ScoreRule};

pub const SHAPES: [AttentionShape; 6] = [
    AttentionShape { n_heads: 4, n_kv_heads: 2, head_dim: 16 },
    AttentionShape { n_heads: 9, n_kv_heads: 3, head_dim: 64 },
    AttentionShape { n_heads: 5, n_kv_heads: 1, head_dim: 24 },
    AttentionShape { n_heads: 2, n_kv_heads: 2, head_dim: 80 },
    AttentionShape { n_heads: 32, n_kv_heads: 8, head_dim: 64 },
    AttentionShape { n_heads: 70, n_kv_heads: 1, head_dim: 6 },
];

/// Causal attention of one sequence whose queries, keys and values are rows `first..first + len`.
pub fn reference(
    query: &[f32],
    kv: &[f32],
    first: usize,
    len: usize,
    shape: AttentionShape,
    rule: ScoreRule,
) -> Vec<f64> {
    let (width, kv_width) = (shape.query_width(), 2 * shape.kv_width());
    let mut out = vec![0.0; len * width];
    for position in 0..len {
        let first_key = rule.window.map_or(0, |window| (position + 1).saturating_sub(window));
        for head in 0..shape.n_heads {
            let kv_head = head / (shape.n_heads / shape.n_kv_heads);
            let q = &query[(first + position) * width + head * shape.head_dim..][..shape.head_dim];
            let key = |j: usize| &kv[(first + j) * kv_width + kv_head * shape.head_dim..][..shape.head_dim];
            let value = |j: usize| {
                &kv[(first + j) * kv_width + (shape.n_kv_heads + kv_head) * shape.head_dim..][..shape.head_dim]
            };
            let scores: Vec<f64> = (first_key..=position)
                .map(|j| {
                    let dot: f64 = q.iter().zip(key(j)).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
                    let score = dot * f64::from(rule.scale);
                    rule.soft_cap.map_or(score, |cap| f64::from(cap) * (score / f64::from(cap)).tanh())
                })
                .collect();
            let max_score = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let weights: Vec<f64> = scores.iter().map(|score| (score - max_score).exp()).collect();
            let total: f64 = weights.iter().sum();
            for element in 0..shape.head_dim {
                out[position * width + head * shape.head_dim + element] =
                    (first_key..=position).zip(&weights).map(|(j, w)| w / total * f64::from(value(j)[element])).sum();
            }
        }
    }
    out
}

pub fn whole(first: usize, len: usize) -> AttentionSegment {
    AttentionSegment { query_row: first, start_position: 0, len, keys: vec![(first, len)] }
}

/// A backend for each instruction set of this machine.
pub fn instruction_set_backends() -> Vec<CpuBackend> {
    instruction_sets().into_iter().map(|isa| CpuBackend::with_isa(2, isa).unwrap()).collect()
}

/// The bytes of attention, of keys and values that need not be finite.
pub fn attend(
    backend: &CpuBackend,
    dtype: DType,
    (query, keys_values): (&[f32], &[f32]),
    layout: &AttentionLayout,
    shape: AttentionShape,
    rule: ScoreRule,
) -> Vec<u8> {
    let (width, kv_width) = (shape.query_width(), 2 * shape.kv_width());
    let query = upload(backend, dtype, query.len() / width, width, query);
    // An embedding refuses values that are not finite.
    let rows = keys_values.len() / kv_width;
    let mut device_keys_values = backend.alloc(dtype, rows, kv_width).unwrap();
    backend.upload(&dtype.from_f32_slice(keys_values), &mut device_keys_values).unwrap();
    let mut out = filled_with_nan(backend, dtype, query.rows(), width);
    backend.attention(&query, &device_keys_values, layout, shape, rule, &mut out).unwrap();
    bytes(backend, &out)
}

#[test]
fn attention_of_ragged_rows_equals_reference() {
    for dtype in DTYPES {
        for shape in SHAPES {
            let mut bits = BTreeMap::new();
            for backend in backends() {
                // Shorter than a block of keys, and longer than two.
                let lens = [1usize, 17, 130];
                let rows: usize = lens.iter().sum();
                let (width, kv_width) = (shape.query_width(), 2 * shape.kv_width());
                let query: Vec<f32> = random(1, dtype, rows * width).iter().map(|value| value * 4.0).collect();
                let kv = random(2, dtype, rows * kv_width);
                let mut layout = AttentionLayout::default();
                let mut expected = Vec::new();
                let mut first = 0;
                for len in lens {
                    layout.segments.push(whole(first, len));
                    expected.extend(reference(&query, &kv, first, len, shape, ScoreRule::of_head_dim(shape.head_dim)));
                    first += len;
                }
                layout.segments.reverse();
                let device_query = upload(&backend, dtype, rows, width, &query);
                let device_kv = upload(&backend, dtype, rows, kv_width, &kv);
                let mut out = backend.alloc(dtype, rows, width).unwrap();
                backend
                    .attention(
                        &device_query,
                        &device_kv,
                        &layout,
                        shape,
                        ScoreRule::of_head_dim(shape.head_dim),
                        &mut out,
                    )
                    .unwrap();
                let what = format!("{} {dtype} {shape:?}", backend.describe());
                assert_close(&values(&backend, &out), &expected, attention_tolerance(dtype), &what);
                let own = bytes(&backend, &out);
                let arithmetic = attention_arithmetic(&backend, dtype);
                assert!(bits.entry(arithmetic).or_insert_with(|| own.clone()) == &own, "{what}: other bits");
            }
        }
    }
}

/// The rules of scores of the tests with prefix nodes: all keys, windows that start in the suffix, in the prefix and in its
/// first run, and a cap.
fn rules(head_dim: usize) -> [ScoreRule; 5] {
    let usual = ScoreRule::of_head_dim(head_dim);
    [
        usual,
        ScoreRule { window: Some(3), ..usual },
        ScoreRule { window: Some(66), ..usual },
        ScoreRule { window: Some(190), ..usual },
        ScoreRule { window: Some(20), soft_cap: Some(0.5), ..usual },
    ]
}

#[test]
fn attention_of_prefix_nodes_equals_whole_sequences() {
    let shape = SHAPES[1];
    let (width, kv_width) = (shape.query_width(), 2 * shape.kv_width());
    // The second sequence is longer than two blocks of keys.
    let cases = DTYPES.into_iter().flat_map(|dtype| [(dtype, (37, 21)), (dtype, (200, 131))]);
    for (rule, (dtype, (rows, prefix))) in
        rules(shape.head_dim).into_iter().flat_map(|rule| cases.clone().map(move |case| (rule, case)))
    {
        let backend = CpuBackend::new(2).unwrap();
        let query = random(1, dtype, rows * width);
        let kv = random(2, dtype, rows * kv_width);
        let device_query = upload(&backend, dtype, rows, width, &query);
        let device_kv = upload(&backend, dtype, rows, kv_width, &kv);
        let mut out = filled_with_nan(&backend, dtype, rows, width);
        let layout = AttentionLayout { segments: vec![whole(0, rows)] };
        backend.attention(&device_query, &device_kv, &layout, shape, rule, &mut out).unwrap();
        let expected = bytes(&backend, &out);
        let row_bytes = width * dtype.size();

        // The same sequence with its suffix first in memory and its prefix in two runs.
        let suffix = rows - prefix;
        let order: Vec<u32> = (prefix as u32..rows as u32).chain(0..prefix as u32).collect();
        let mut moved_query = backend.alloc(dtype, rows, width).unwrap();
        let mut moved_kv = backend.alloc(dtype, rows, kv_width).unwrap();
        backend.gather_rows(&device_query, &order, &mut moved_query).unwrap();
        backend.gather_rows(&device_kv, &order, &mut moved_kv).unwrap();
        let node = AttentionSegment {
            query_row: 0,
            start_position: prefix,
            len: suffix,
            keys: vec![(suffix, 8), (suffix + 8, prefix - 8), (0, suffix)],
        };
        let mut moved_out = filled_with_nan(&backend, dtype, rows, width);
        let layout = AttentionLayout { segments: vec![node] };
        backend.attention(&moved_query, &moved_kv, &layout, shape, rule, &mut moved_out).unwrap();
        let got = bytes(&backend, &moved_out);
        assert!(got[..suffix * row_bytes] == expected[prefix * row_bytes..], "{dtype} {rule:?}");

        // The queries of three positions alone, gathered to the front. The last ones cross a block boundary.
        for first in [30u32, rows as u32 - 3, 62].into_iter().filter(|first| *first as usize + 3 <= rows) {
            let mut partial_query = backend.alloc(dtype, 3, width).unwrap();
            backend.gather_rows(&device_query, &[first, first + 1, first + 2], &mut partial_query).unwrap();
            let start_position = first as usize;
            let partial = AttentionSegment { query_row: 0, start_position, len: 3, keys: vec![(0, rows)] };
            let mut partial_out = filled_with_nan(&backend, dtype, 3, width);
            let layout = AttentionLayout { segments: vec![partial] };
            backend.attention(&partial_query, &device_kv, &layout, shape, rule, &mut partial_out).unwrap();
            let expected = &expected[start_position * row_bytes..(start_position + 3) * row_bytes];
            assert!(bytes(&backend, &partial_out) == expected, "{dtype} {rule:?}, from {first}");
        }
    }
}

#[test]
fn mismatched_layouts_are_errors() {
    let backend = CpuBackend::new(1).unwrap();
    let shape = SHAPES[0];
    let query = upload(&backend, DType::F32, 4, shape.query_width(), &vec![0.5; 4 * shape.query_width()]);
    let kv = upload(&backend, DType::F32, 4, 2 * shape.kv_width(), &vec![0.5; 8 * shape.kv_width()]);
    let mut out = backend.alloc(DType::F32, 4, shape.query_width()).unwrap();
    let mut attempt = |segments: Vec<AttentionSegment>| {
        backend
            .attention(
                &query,
                &kv,
                &AttentionLayout { segments },
                shape,
                ScoreRule::of_head_dim(shape.head_dim),
                &mut out,
            )
            .map_err(|error| error.to_string())
    };
    assert!(attempt(vec![whole(0, 4)]).is_ok());
    assert!(attempt(vec![whole(1, 4)]).unwrap_err().contains("query rows"));
    assert!(attempt(vec![whole(0, 2), whole(1, 2)]).unwrap_err().contains("two segments"));
    let short = AttentionSegment { query_row: 0, start_position: 2, len: 2, keys: vec![(0, 3)] };
    assert!(attempt(vec![short]).unwrap_err().contains("3 keys"));
    let beyond = AttentionSegment { query_row: 0, start_position: 0, len: 2, keys: vec![(3, 2)] };
    assert!(attempt(vec![beyond]).unwrap_err().contains("key rows"));
}
