//! The bits of tensor-core attention: its arithmetic written as a scalar loop, one row and head at a time.
//!
//! The kernel may pack rows, order tiles and copy keys in any way as long as a row has these bits.

use actbench_kernels::backend::AttentionSegment;
use actbench_kernels::cuda::emulator::{Emulator, EmulatorOptions};
use actbench_kernels::cuda::{CudaBackend, KernelSet};
use actbench_kernels::{AttentionLayout, AttentionShape, Backend, DType, ScoreRule};
use proptest::prelude::*;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::common::{filled_with_nan, random, upload};
use crate::operations::score_rules;

/// Keys of a block, from position 0 on.
const BLOCK: usize = 64;

/// `log2 e`.
const LOG2_E: f32 = std::f32::consts::LOG2_E;

/// Rounds to the storage type.
fn rounded(dtype: DType, value: f32) -> f32 {
    dtype.to_f32_vec(&dtype.from_f32_slice(&[value]))[0]
}

/// The score of a key before the softmax; capped scores are scaled.
fn score(query: &[f32], key: &[f32], rule: ScoreRule) -> f32 {
    // The emulator's `mma` and `wgmma` accumulate in the order of the elements and rounds each operation.
    let dot = query.iter().zip(key).fold(0.0f32, |sum, (q, k)| sum + q * k);
    let Some(cap) = rule.soft_cap else { return dot };
    let power_scale = rule.scale / cap * (2.0 * LOG2_E);
    let reciprocal = 1.0 / (1.0 + (dot * power_scale).exp2());
    (-2.0 * cap).mul_add(reciprocal, cap)
}

/// One row of one head at `position`; `key` and `value` return the row of a position.
fn attention_row<'a>(
    dtype: DType,
    rule: ScoreRule,
    position: usize,
    query: &[f32],
    key: impl Fn(usize) -> &'a [f32],
    value: impl Fn(usize) -> &'a [f32],
) -> Vec<f32> {
    let power_scale = if rule.soft_cap.is_some() { 1.0 } else { rule.scale } * LOG2_E;
    let first_visible = rule.window.map_or(0, |window| (position + 1).saturating_sub(window));
    // Four lanes share a row: lane l sums keys 2l and 2l + 1 of every eight.
    let (mut row_max, mut lane_sums, mut acc) = (f32::MIN, [0.0f32; 4], vec![0.0f32; query.len()]);
    for first in (0..=position).step_by(BLOCK) {
        let visible = |key: &usize| (first_visible..=position).contains(key);
        let keys: Vec<usize> = (first..first + BLOCK).filter(visible).collect();
        let scores: Vec<f32> = keys.iter().map(|position| score(query, key(*position), rule)).collect();
        let block_max = scores.iter().copied().fold(row_max, f32::max);
        let correction = ((row_max - block_max) * power_scale).exp2();
        row_max = block_max;
        lane_sums = lane_sums.map(|sum| sum * correction);
        for element in &mut acc {
            *element *= correction;
        }
        for (position, score) in keys.into_iter().zip(scores) {
            let p = ((score - row_max) * power_scale).exp2();
            lane_sums[position % 8 / 2] += p;
            let p = rounded(dtype, p);
            for (element, value) in acc.iter_mut().zip(value(position)) {
                *element += p * value;
            }
        }
    }
    let inverse = 1.0 / ((lane_sums[0] + lane_sums[1]) + (lane_sums[2] + lane_sums[3]));
    acc.into_iter().map(|element| rounded(dtype, element * inverse)).collect()
}

/// Query and key/value tensors of random values, and their rows.
struct Inputs {
    dtype: DType,
    shape: AttentionShape,
    layout: AttentionLayout,
    /// Rows of queries that no segment has, which the kernel must not write, are at the end.
    query_rows: usize,
    key_rows: usize,
    query: Vec<f32>,
    keys_values: Vec<f32>,
}

impl Inputs {
    fn new(dtype: DType, shape: AttentionShape, layout: AttentionLayout) -> Self {
        let query_rows = layout.segments.iter().map(|segment| segment.query_row + segment.len).max().unwrap_or(0) + 1;
        let runs = layout.segments.iter().flat_map(|segment| &segment.keys);
        let key_rows = runs.map(|(first, len)| first + len).max().unwrap_or(0);
        let query = random(3, dtype, query_rows * shape.query_width()).iter().map(|value| value * 4.0).collect();
        let mut keys_values = random(4, dtype, key_rows * 2 * shape.kv_width());
        // Rows that no query sees are not numbers.
        for (row, values) in keys_values.chunks_mut(2 * shape.kv_width()).enumerate() {
            let is_seen = |segment: &AttentionSegment| {
                let rows = segment.keys.iter().flat_map(|&(first, len)| first..first + len);
                rows.take(segment.start_position + segment.len).any(|seen| seen == row)
            };
            if !layout.segments.iter().any(is_seen) {
                values.fill([f32::NAN, f32::INFINITY][row % 2]);
            }
        }
        Inputs { dtype, shape, layout, query_rows, key_rows, query, keys_values }
    }

    /// The bytes by the scalar loop; NaN in rows of no segment.
    fn expected(&self, rule: ScoreRule) -> Vec<u8> {
        let AttentionShape { n_heads, n_kv_heads, head_dim } = self.shape;
        let width = self.shape.query_width();
        let mut out = vec![0xff; self.query_rows * width * self.dtype.size()];
        for segment in &self.layout.segments {
            let rows: Vec<usize> = segment.keys.iter().flat_map(|&(first, len)| first..first + len).collect();
            for index in 0..segment.len {
                for head in 0..n_heads {
                    let kv_head = head / (n_heads / n_kv_heads);
                    let part = |position: usize, part: usize| {
                        let first = ((rows[position] * 2 + part) * n_kv_heads + kv_head) * head_dim;
                        &self.keys_values[first..first + head_dim]
                    };
                    let first = (segment.query_row + index) * width + head * head_dim;
                    let row = attention_row(
                        self.dtype,
                        rule,
                        segment.start_position + index,
                        &self.query[first..first + head_dim],
                        |position| part(position, 0),
                        |position| part(position, 1),
                    );
                    let bytes = self.dtype.from_f32_slice(&row);
                    let start = first * self.dtype.size();
                    out[start..start + bytes.len()].copy_from_slice(&bytes);
                }
            }
        }
        out
    }

    /// The bytes of the kernel on a device of `multiprocessors`.
    fn computed(
        &self,
        kernels: KernelSet,
        multiprocessors: usize,
        options: EmulatorOptions,
        rule: ScoreRule,
    ) -> Vec<u8> {
        let backend = CudaBackend::new(Emulator::new(options).with_multiprocessors(multiprocessors), kernels);
        let (rows, width) = (self.query_rows, self.shape.query_width());
        let query = upload(&backend, self.dtype, rows, width, &self.query);
        let mut keys_values = backend.alloc(self.dtype, self.key_rows, 2 * self.shape.kv_width()).unwrap();
        backend.upload(&self.dtype.from_f32_slice(&self.keys_values), &mut keys_values).unwrap();
        let mut out = filled_with_nan(&backend, self.dtype, rows, width);
        backend.attention(&query, &keys_values, &self.layout, self.shape, rule, &mut out).unwrap();
        let mut bytes = vec![0; rows * width * self.dtype.size()];
        backend.download(&out, rows, &mut bytes).unwrap();
        bytes
    }
}

/// A tree of prefixes and whole sequences: each segment continues a prefix of an earlier one, or begins a sequence. `lens`
/// are the numbers of rows of the segments.
fn tree(seed: u64, lens: &[usize]) -> AttentionLayout {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut segments: Vec<AttentionSegment> = Vec::new();
    let (mut query_row, mut key_row) = (0, 0);
    for &len in lens {
        let parent = rng.random_range(0..=segments.len());
        let mut keys: Vec<(usize, usize)> = Vec::new();
        if let Some(parent) = segments.get(parent) {
            let mut left = rng.random_range(0..=parent.start_position + parent.len);
            for &(first, run) in &parent.keys {
                keys.push((first, run.min(left)));
                left -= run.min(left);
            }
        }
        let start_position = keys.iter().map(|(_, run)| run).sum();
        // Sometimes a row is between the segment's keys and those before, and keys that no row sees are at the end.
        key_row += rng.random_range(0..2);
        keys.push((key_row, len + rng.random_range(0..3)));
        key_row += len + 2;
        segments.push(AttentionSegment { query_row, start_position, len, keys });
        query_row += len;
    }
    AttentionLayout { segments }
}

#[track_caller]
fn assert_bits(inputs: &Inputs, options: EmulatorOptions, rule: ScoreRule) {
    assert_bits_of(KernelSet::Mma, 1, inputs, options, rule);
}

#[track_caller]
fn assert_bits_of(
    kernels: KernelSet,
    multiprocessors: usize,
    inputs: &Inputs,
    options: EmulatorOptions,
    rule: ScoreRule,
) {
    let (got, expected) = (inputs.computed(kernels, multiprocessors, options, rule), inputs.expected(rule));
    let size = inputs.dtype.size();
    let differing = got.chunks(size).zip(expected.chunks(size)).position(|(got, expected)| got != expected);
    let what = (kernels, multiprocessors, inputs.shape, inputs.dtype, rule, options);
    assert!(differing.is_none() && got.len() == expected.len(), "element {differing:?} of {what:?}");
}

/// Calls `check` with a tree of each of `shapes`, which are heads, heads of keys and values, their width and the longest sequence.
fn for_each_tree(shapes: &[(usize, usize, usize, usize)], check: impl Fn(usize, &Inputs, EmulatorOptions, ScoreRule)) {
    let matrix = EmulatorOptions::matrix();
    for (index, (n_heads, n_kv_heads, head_dim, len)) in shapes.iter().copied().enumerate() {
        let dtype = [DType::F16, DType::Bf16][index % 2];
        let shape = AttentionShape { n_heads, n_kv_heads, head_dim };
        let inputs = Inputs::new(dtype, shape, tree(index as u64, &[len, 2, len / 2]));
        check(index, &inputs, matrix[index % matrix.len()], ScoreRule::of_head_dim(head_dim));
    }
}

/// Groups that divide a tile of 64 rows and that do not, and one of more heads than a tile has rows.
#[test]
fn grouped_attention_has_scalar_bits() {
    let shapes = [
        (1, 1, 64, 90),
        (4, 2, 16, 70),
        (3, 1, 24, 50),
        (5, 1, 16, 30),
        (14, 2, 8, 20),
        (8, 1, 40, 66),
        (71, 1, 16, 3),
    ];
    for_each_tree(&shapes, |_, inputs, options, rule| assert_bits(inputs, options, rule));
}

/// Every window and soft cap, with both widths of tiles that have other stages.
#[test]
fn windows_and_soft_caps_have_scalar_bits() {
    let matrix = EmulatorOptions::matrix();
    for (index, head_dim) in [48, 104, 136].into_iter().enumerate() {
        let shape = AttentionShape { n_heads: 3, n_kv_heads: 1, head_dim };
        let dtype = [DType::F16, DType::Bf16][index % 2];
        // Two blocks of keys before the first row, and a third one.
        let layout = AttentionLayout {
            segments: vec![
                AttentionSegment { query_row: 0, start_position: 0, len: 3, keys: vec![(2, 3)] },
                AttentionSegment {
                    query_row: 3,
                    start_position: 100,
                    len: 50,
                    keys: vec![(70, 60), (5, 40), (45, 50)],
                },
            ],
        };
        let inputs = Inputs::new(dtype, shape, layout);
        for (turn, rule) in score_rules(head_dim).into_iter().enumerate().skip(index).step_by(3) {
            assert_bits(&inputs, matrix[(index + turn) % matrix.len()], rule);
        }
    }
}

/// Groups that divide a tile of 128 rows and that do not, keys in one range and in several, and grids in which blocks have several
/// tiles and one.
#[test]
fn wgmma_attention_has_scalar_bits() {
    let shapes = [
        (1, 1, 64, 140),
        (4, 2, 64, 70),
        (3, 1, 128, 50),
        (8, 2, 64, 66),
        (14, 2, 128, 20),
        (8, 1, 64, 30),
        (4, 4, 128, 65),
    ];
    for_each_tree(&shapes, |index, inputs, options, rule| {
        assert_bits_of(KernelSet::Fast, [1, 3, 132][index % 3], inputs, options, rule);
    });
}

/// Every window and soft cap, with both widths, and more blocks of keys than stages.
#[test]
fn wgmma_windows_and_soft_caps_have_scalar_bits() {
    let matrix = EmulatorOptions::matrix();
    for (index, head_dim) in [64, 128].into_iter().enumerate() {
        let shape = AttentionShape { n_heads: 3, n_kv_heads: 1, head_dim };
        let dtype = [DType::F16, DType::Bf16][index % 2];
        let layout = AttentionLayout {
            segments: vec![
                AttentionSegment { query_row: 0, start_position: 0, len: 3, keys: vec![(2, 3)] },
                AttentionSegment {
                    query_row: 3,
                    start_position: 400,
                    len: 50,
                    keys: vec![(270, 160), (5, 240), (435, 50)],
                },
                AttentionSegment { query_row: 53, start_position: 290, len: 60, keys: vec![(100, 350)] },
            ],
        };
        let inputs = Inputs::new(dtype, shape, layout);
        for (turn, rule) in score_rules(head_dim).into_iter().enumerate().skip(index).step_by(2) {
            assert_bits_of(KernelSet::Fast, 2, &inputs, matrix[(index + turn) % matrix.len()], rule);
        }
    }
}

/// Keys in consecutive rows are loaded by TMA, others row by row.
#[test]
fn gathered_keys_have_the_bits_of_consecutive_ones() {
    for (index, options) in EmulatorOptions::matrix().into_iter().enumerate().step_by(2) {
        let (dtype, head_dim) = ([DType::F16, DType::Bf16][index % 2], [64, 128][index / 2 % 2]);
        let shape = AttentionShape { n_heads: 2, n_kv_heads: 1, head_dim };
        let segment = |keys| AttentionSegment { query_row: 0, start_position: 60, len: 90, keys };
        let one = AttentionLayout { segments: vec![segment(vec![(0, 150)])] };
        let consecutive = Inputs::new(dtype, shape, one);
        // The same keys from row 1 on, the 70 first ones behind the others.
        let mut gathered =
            Inputs::new(dtype, shape, AttentionLayout { segments: vec![segment(vec![(81, 70), (1, 80)])] });
        let width = 2 * shape.kv_width();
        let (first, last) = consecutive.keys_values.split_at(70 * width);
        gathered.keys_values = [&vec![f32::NAN; width], last, first].concat();
        let computed = |inputs: &Inputs| inputs.computed(KernelSet::Fast, 1, options, ScoreRule::of_head_dim(head_dim));
        assert!(computed(&gathered) == computed(&consecutive), "{dtype} {shape:?} {options:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn attention_of_any_tree_has_scalar_bits(
        options in prop::sample::select(EmulatorOptions::matrix()), seed in any::<u64>(), bf16 in any::<bool>(),
        n_kv_heads in 1usize..3, group in 1usize..9, chunks in 1usize..18,
        lens in prop::collection::vec(1usize..60, 1..4), window in prop::option::of(1usize..100),
        soft_cap in prop::option::of(0.5f32..60.0),
    ) {
        let dtype = if bf16 { DType::Bf16 } else { DType::F16 };
        let shape = AttentionShape { n_heads: n_kv_heads * group, n_kv_heads, head_dim: 8 * chunks };
        let rule = ScoreRule { window, soft_cap, ..ScoreRule::of_head_dim(shape.head_dim) };
        let inputs = Inputs::new(dtype, shape, tree(seed, &lens));
        assert_bits(&inputs, EmulatorOptions { seed, ..options }, rule);
    }
    #[test]
    fn wgmma_attention_of_any_tree_has_scalar_bits(
        options in prop::sample::select(EmulatorOptions::matrix()), seed in any::<u64>(), bf16 in any::<bool>(),
        n_kv_heads in 1usize..3, group in 1usize..9, head_dim in prop::sample::select(vec![64usize, 128]),
        lens in prop::collection::vec(1usize..60, 1..4), window in prop::option::of(1usize..100),
        soft_cap in prop::option::of(0.5f32..60.0), multiprocessors in 1usize..5,
    ) {
        let dtype = if bf16 { DType::Bf16 } else { DType::F16 };
        let shape = AttentionShape { n_heads: n_kv_heads * group, n_kv_heads, head_dim };
        let rule = ScoreRule { window, soft_cap, ..ScoreRule::of_head_dim(shape.head_dim) };
        let inputs = Inputs::new(dtype, shape, tree(seed, &lens));
        assert_bits_of(KernelSet::Fast, multiprocessors, &inputs, EmulatorOptions { seed, ..options }, rule);
    }
}
