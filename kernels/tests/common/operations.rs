//! Each operation on seeded inputs on any backend, as the bytes of its result, to compare two backends.
#![allow(dead_code)]

use actbench_kernels::backend::AttentionSegment;
use actbench_kernels::{
    Activation, AttentionLayout, AttentionShape, Backend, DType, FoldedNorm, PoolGroups, PoolMethod, QkvPart,
    QkvProjection, Rotation, RouteRule, ScoreRule, WeightedRows, square_blocks,
};

use super::{filled_with_nan, host, random, upload};

/// The matmuls of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MatmulKind {
    Linear,
    Residual,
    Activated(Activation),
    Gated(Activation),
}

pub const MATMUL_KINDS: [MatmulKind; 8] = [
    MatmulKind::Linear,
    MatmulKind::Residual,
    MatmulKind::Activated(Activation::Silu),
    MatmulKind::Gated(Activation::Silu),
    MatmulKind::Activated(Activation::Gelu),
    MatmulKind::Gated(Activation::Gelu),
    MatmulKind::Activated(Activation::GeluTanh),
    MatmulKind::Gated(Activation::GeluTanh),
];

/// Every epilogue once, and over three consecutive turns with every activation.
pub fn matmul_kinds(turn: usize) -> [MatmulKind; 4] {
    let activation = |turn: usize| Activation::ALL[turn % Activation::ALL.len()];
    [
        MatmulKind::Linear,
        MatmulKind::Residual,
        MatmulKind::Activated(activation(turn)),
        MatmulKind::Gated(activation(turn + 1)),
    ]
}

/// The norms of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormKind {
    Rms,
    RmsResidual,
    /// Of two of three heads in a row.
    RmsHeads,
    Layer,
}

pub const NORM_KINDS: [NormKind; 4] = [NormKind::Rms, NormKind::RmsResidual, NormKind::RmsHeads, NormKind::Layer];

/// The usual scores, windows within a block of 64 keys, of a block, over a block's end and beyond every row, and soft caps of
/// scores with another scale.
pub fn score_rules(head_dim: usize) -> Vec<ScoreRule> {
    let usual = ScoreRule::of_head_dim(head_dim);
    let windowed = |window| ScoreRule { window: Some(window), ..usual };
    let mut rules = vec![usual];
    rules.extend([1, 5, 64, 70, 1000].map(windowed));
    rules.extend([None, Some(9), Some(66)].map(|window| ScoreRule { scale: 0.31, window, soft_cap: Some(2.5) }));
    rules
}

fn bytes<B: Backend>(backend: &B, tensor: &B::Tensor, dtype: DType, rows: usize, columns: usize) -> Vec<u8> {
    let mut bytes = vec![0; rows * columns * dtype.size()];
    backend.download(tensor, rows, &mut bytes).unwrap();
    bytes
}

/// Rows `from..to` of a matmul of `x` with weights `[outputs, inputs]`, computed alone.
#[allow(clippy::too_many_arguments)]
pub fn matmul<B: Backend>(
    backend: &B,
    kind: MatmulKind,
    biased: bool,
    dtype: DType,
    (from, to): (usize, usize),
    inputs: usize,
    outputs: usize,
) -> Vec<u8> {
    let rows = to - from;
    let x = random(1, dtype, to * inputs);
    let w = random(2, dtype, outputs * inputs);
    let device_x = upload(backend, dtype, rows, inputs, &x[from * inputs..]);
    let biases = outputs * if matches!(kind, MatmulKind::Gated(_)) { 2 } else { 1 };
    let bias = backend.prepare_vector(&[host(dtype, &[biases], &random(3, dtype, biases))], dtype).unwrap();
    let bias = biased.then_some(&bias);
    let stream = random(4, dtype, to * outputs);
    let mut out = upload(backend, dtype, rows, outputs, &stream[from * outputs..]);
    let matrix = host(dtype, &[outputs, inputs], &w);
    match kind {
        MatmulKind::Linear => {
            let weight = backend.prepare_linear(&[matrix], dtype).unwrap();
            backend.linear(&device_x, &weight, bias, &mut out).unwrap();
        }
        MatmulKind::Residual => {
            let weight = backend.prepare_linear(&[matrix], dtype).unwrap();
            backend.linear_residual(&device_x, &weight, bias, &mut out).unwrap();
        }
        MatmulKind::Activated(activation) => {
            let weight = backend.prepare_linear(&[matrix], dtype).unwrap();
            backend.linear_activated(&device_x, &weight, bias, activation, &mut out).unwrap();
        }
        MatmulKind::Gated(activation) => {
            let up = host(dtype, &[outputs, inputs], &random(5, dtype, outputs * inputs));
            let weight = backend.prepare_gated(&matrix, &up, dtype).unwrap();
            backend.linear_gated(&device_x, &weight, bias, activation, &mut out).unwrap();
        }
    }
    bytes(backend, &out, dtype, rows, outputs)
}

/// Rows `from..to` of `stream += x W^T + bias` with the stream's sums of squares, both computed alone: the stream's bytes in `dtype`,
/// and those of the sums.
pub fn residual_squares<B: Backend>(
    backend: &B,
    dtype: DType,
    (from, to): (usize, usize),
    inputs: usize,
    columns: usize,
) -> (Vec<u8>, Vec<u8>) {
    let rows = to - from;
    let x = upload(backend, dtype, rows, inputs, &random(1, dtype, to * inputs)[from * inputs..]);
    let weight = host(dtype, &[columns, inputs], &random(2, dtype, columns * inputs));
    let weight = backend.prepare_linear(&[weight], dtype).unwrap();
    let bias = backend.prepare_vector(&[host(dtype, &[columns], &random(3, dtype, columns))], dtype).unwrap();
    let mut stream = upload(backend, dtype, rows, columns, &random(4, dtype, to * columns)[from * columns..]);
    let mut squares = filled_with_nan(backend, DType::F32, rows, square_blocks(columns));
    backend.linear_residual_squares(&x, &weight, Some(&bias), &mut stream, &mut squares).unwrap();
    let stream = bytes(backend, &stream, dtype, rows, columns);
    (stream, bytes(backend, &squares, DType::F32, rows, square_blocks(columns)))
}

/// `out = s x W^T` with the factors `s` of rows whose sums of squares are random, of magnitudes that differ from row to row. With
/// `folded`, the weights of a norm are in `W`.
pub fn normed<B: Backend>(
    backend: &B,
    dtype: DType,
    folded: bool,
    rows: usize,
    inputs: usize,
    outputs: usize,
) -> Vec<u8> {
    let x = upload(backend, dtype, rows, inputs, &random(1, dtype, rows * inputs));
    let weight = host(dtype, &[outputs, inputs], &random(2, dtype, outputs * inputs));
    let mut weight = backend.prepare_linear(&[weight], dtype).unwrap();
    if folded {
        let scale = backend.prepare_vector(&[host(dtype, &[inputs], &random(3, dtype, inputs))], dtype).unwrap();
        backend.fold_norm(&mut weight, &scale).unwrap();
    }
    let blocks = square_blocks(inputs);
    let random = random(4, DType::F32, rows * blocks);
    let sums: Vec<f32> = random.iter().enumerate().map(|(i, sum)| sum.abs() * (4 << (i / blocks % 7)) as f32).collect();
    let squares = upload(backend, DType::F32, rows, blocks, &sums);
    let mut out = filled_with_nan(backend, dtype, rows, outputs);
    let norm = FoldedNorm { squares: &squares, eps: 1e-5 };
    backend.linear_normed(&x, norm, &weight, None, None, &mut out).unwrap();
    bytes(backend, &out, dtype, rows, outputs)
}

/// A fused projection of queries, keys and values.
#[derive(Clone, Copy, Debug)]
pub struct QkvCase {
    pub shape: AttentionShape,
    /// 0 for no rotation.
    pub rotary_dim: usize,
    pub biased: bool,
    pub dtype: DType,
    pub inputs: usize,
}

/// Positions in no order, with repetitions.
fn qkv_positions(from: usize, to: usize) -> Vec<u32> {
    (from..to).map(|row| (row as u32 * 37 + 5) % 61).collect()
}

/// Rows `from..to` of queries, and of keys and values, computed alone; a part that is not asked for is of NaN.
pub fn qkv<B: Backend>(backend: &B, case: QkvCase, part: QkvPart, (from, to): (usize, usize)) -> [Vec<u8>; 2] {
    let QkvCase { shape, rotary_dim, biased, dtype, inputs } = case;
    let (rows, query_width, kv_width) = (to - from, shape.query_width(), 2 * shape.kv_width());
    let outputs = query_width + kv_width;
    let x = random(1, dtype, to * inputs);
    let x = upload(backend, dtype, rows, inputs, &x[from * inputs..]);
    let w = random(2, dtype, outputs * inputs);
    let (query, key_value) = w.split_at(query_width * inputs);
    let parts = [(query_width, query), (kv_width, key_value)].map(|(width, w)| host(dtype, &[width, inputs], w));
    let weight = backend.prepare_linear(&parts, dtype).unwrap();
    let bias = backend.prepare_vector(&[host(dtype, &[outputs], &random(3, dtype, outputs))], dtype).unwrap();
    let vector = |seed| {
        let values = random(seed, DType::F32, 61 * (rotary_dim / 2));
        backend.prepare_vector(&[host(DType::F32, &[values.len()], &values)], DType::F32).unwrap()
    };
    let (cos, sin, positions) = (vector(4), vector(5), qkv_positions(from, to));
    let rotation = (rotary_dim > 0).then_some(Rotation { rotary_dim, positions: &positions, cos: &cos, sin: &sin });
    // One more row than is computed, as for cached tokens.
    let mut query = filled_with_nan(backend, dtype, rows, query_width);
    let mut key_value = filled_with_nan(backend, dtype, rows + 1, kv_width);
    let projection = QkvProjection { shape, part, rotation };
    let bias = biased.then_some(&bias);
    backend.project_qkv(&x, None, &weight, bias, &projection, &mut query, &mut key_value).unwrap();
    let behind = bytes(backend, &key_value, dtype, rows + 1, kv_width);
    assert!(behind[rows * kv_width * dtype.size()..].iter().all(|byte| *byte == 0xff), "a row behind was written");
    [bytes(backend, &query, dtype, rows, query_width), bytes(backend, &key_value, dtype, rows, kv_width)]
}

/// The same by matmuls of each part and by [`Backend::rope`].
pub fn qkv_unfused<B: Backend>(backend: &B, case: QkvCase, rows: usize) -> [Vec<u8>; 2] {
    let QkvCase { shape, rotary_dim, biased, dtype, inputs } = case;
    let (query_width, kv_width) = (shape.query_width(), 2 * shape.kv_width());
    let outputs = query_width + kv_width;
    let x = upload(backend, dtype, rows, inputs, &random(1, dtype, rows * inputs));
    let (w, biases) = (random(2, dtype, outputs * inputs), random(3, dtype, outputs));
    let angles = |seed| random(seed, DType::F32, 61 * (rotary_dim / 2));
    let vector =
        |values: Vec<f32>| backend.prepare_vector(&[host(DType::F32, &[values.len()], &values)], DType::F32).unwrap();
    let (cos, sin, positions) = (vector(angles(4)), vector(angles(5)), qkv_positions(0, rows));
    [(0, query_width, shape.n_heads), (query_width, kv_width, shape.n_kv_heads)].map(|(first, width, heads)| {
        let part = host(dtype, &[width, inputs], &w[first * inputs..(first + width) * inputs]);
        let weight = backend.prepare_linear(&[part], dtype).unwrap();
        let bias = biased.then(|| vector(biases[first..first + width].to_vec()));
        let mut out = backend.alloc(dtype, rows, width).unwrap();
        backend.linear(&x, &weight, bias.as_ref(), &mut out).unwrap();
        if rotary_dim > 0 {
            backend.rope(&mut out, heads, shape.head_dim, rotary_dim, &positions, &cos, &sin).unwrap();
        }
        bytes(backend, &out, dtype, rows, width)
    })
}

/// The activation of each of `values`, rounded to `dtype`.
pub fn activations<B: Backend>(backend: &B, activation: Activation, dtype: DType, values: &[f32]) -> Vec<u8> {
    let x = upload(backend, dtype, values.len(), 1, values);
    let one = backend.prepare_linear(&[host(dtype, &[1, 1], &[1.0])], dtype).unwrap();
    let mut out = backend.alloc(dtype, values.len(), 1).unwrap();
    backend.linear_activated(&x, &one, None, activation, &mut out).unwrap();
    bytes(backend, &out, dtype, values.len(), 1)
}

/// Rows `from..to` of a norm of `columns` columns, or of heads of so many, computed alone.
pub fn norm<B: Backend>(
    backend: &B,
    kind: NormKind,
    dtype: DType,
    (from, to): (usize, usize),
    columns: usize,
) -> Vec<u8> {
    let width = if kind == NormKind::RmsHeads { 3 * columns } else { columns };
    // A mean that is not near 0.
    let x: Vec<f32> = random(1, dtype, to * width).iter().map(|value| value + 0.75).collect();
    let mut x = upload(backend, dtype, to - from, width, &x[from * width..]);
    let mut out = upload(backend, dtype, to - from, width, &random(4, dtype, to * width)[from * width..]);
    let vector =
        |seed| backend.prepare_vector(&[host(dtype, &[columns], &random(seed, dtype, columns))], dtype).unwrap();
    let (scale, eps) = (vector(2), 1e-5);
    match kind {
        NormKind::Rms => backend.rms_norm(&x, &scale, eps, &mut out).unwrap(),
        NormKind::RmsResidual => backend.rms_norm_residual(&x, &scale, eps, &mut out).unwrap(),
        NormKind::RmsHeads => {
            backend.rms_norm_heads(&mut x, 2, &scale, eps).unwrap();
            out = x;
        }
        NormKind::Layer => backend.layer_norm(&x, &scale, &vector(3), eps, &mut out).unwrap(),
    }
    bytes(backend, &out, dtype, to - from, width)
}

/// Rows of a table times a factor that no type represents; the last rows stay.
pub fn scaled_embedding<B: Backend>(backend: &B, dtype: DType, columns: usize) -> Vec<u8> {
    let table = backend.prepare_embedding(&host(dtype, &[7, columns], &random(1, dtype, 7 * columns)), dtype).unwrap();
    let mut out = upload(backend, dtype, 6, columns, &random(3, dtype, 6 * columns));
    backend.embed(&table, &[4, 0, 6, 6], 33.941_126, &mut out).unwrap();
    bytes(backend, &out, dtype, 6, columns)
}

/// Rows of a table added to the first rows of a stream.
pub fn added_embedding<B: Backend>(backend: &B, dtype: DType, columns: usize) -> Vec<u8> {
    let table = backend.prepare_embedding(&host(dtype, &[7, columns], &random(1, dtype, 7 * columns)), dtype).unwrap();
    let mut stream = upload(backend, dtype, 6, columns, &random(3, dtype, 6 * columns));
    backend.add_embedding(&table, &[1, 6, 0, 6], &mut stream).unwrap();
    bytes(backend, &stream, dtype, 6, columns)
}

/// Every combination of the flags of a rule for `top_k` experts.
pub fn route_rules(top_k: usize) -> [RouteRule; 4] {
    [(false, false), (false, true), (true, false), (true, true)].map(|(renormalize, rounded)| RouteRule {
        top_k,
        renormalize,
        rounded,
    })
}

/// The experts of rows `from..to` of logits in steps of a quarter, among which many are equal, computed alone: for each row
/// the experts and then their weights, in `dtype`.
pub fn routes<B: Backend>(
    backend: &B,
    dtype: DType,
    rule: RouteRule,
    (from, to): (usize, usize),
    n_experts: usize,
) -> Vec<u8> {
    let logits: Vec<f32> = random(1, dtype, to * n_experts).iter().map(|value| (value * 16.0).round() / 4.0).collect();
    let logits = upload(backend, dtype, to - from, n_experts, &logits[from * n_experts..]);
    let routes = backend.route(&logits, rule).unwrap();
    let rows = routes.experts().chunks(rule.top_k).zip(routes.weights().chunks(rule.top_k));
    let values: Vec<f32> = rows
        .flat_map(|(experts, weights)| experts.iter().map(|expert| *expert as f32).chain(weights.iter().copied()))
        .collect();
    dtype.from_f32_slice(&values)
}

/// Weighted sums of three rows of seven each, added to the first rows of a stream.
pub fn weighted_rows<B: Backend>(backend: &B, dtype: DType, columns: usize) -> Vec<u8> {
    let x = upload(backend, dtype, 7, columns, &random(1, dtype, 7 * columns));
    let mut stream = upload(backend, dtype, 4, columns, &random(2, dtype, 4 * columns));
    let weights = random(3, DType::F32, 9);
    let sums = WeightedRows { per_row: 3, rows: &[6, 0, 3, 5, 5, 1, 2, 4, 6], weights: &weights };
    backend.add_weighted_rows(&x, sums, &mut stream).unwrap();
    bytes(backend, &stream, dtype, 4, columns)
}

/// Rotates the first `rotary_dim` columns of two of the three heads of a row.
pub fn rope<B: Backend>(backend: &B, dtype: DType, head_dim: usize, rotary_dim: usize, positions: &[u32]) -> Vec<u8> {
    let (rows, columns, half) = (positions.len(), 3 * head_dim, rotary_dim / 2);
    let n_angles = (positions.iter().max().unwrap() + 1) as usize * half;
    let angles = |seed| {
        let values = random(seed, DType::F32, n_angles);
        backend.prepare_vector(&[host(DType::F32, &[n_angles], &values)], DType::F32).unwrap()
    };
    let mut x = upload(backend, dtype, rows, columns, &random(1, dtype, rows * columns));
    backend.rope(&mut x, 2, head_dim, rotary_dim, positions, &angles(2), &angles(3)).unwrap();
    bytes(backend, &x, dtype, rows, columns)
}

/// Copies rows to the middle of a tensor, and then gathers from it.
pub fn copies<B: Backend>(backend: &B, dtype: DType, columns: usize) -> Vec<u8> {
    let x = upload(backend, dtype, 5, columns, &random(1, dtype, 5 * columns));
    let mut out = upload(backend, dtype, 7, columns, &random(2, dtype, 7 * columns));
    backend.copy_rows(&x, 1, 3, &mut out, 2).unwrap();
    let mut picked = backend.alloc(dtype, 9, columns).unwrap();
    backend.gather_rows(&out, &[6, 0, 2, 3, 4, 5, 1, 4, 4], &mut picked).unwrap();
    bytes(backend, &picked, dtype, 9, columns)
}

pub fn pool<B: Backend>(backend: &B, dtype: DType, columns: usize, method: PoolMethod) -> Vec<u8> {
    let mut groups = PoolGroups::new();
    for rows in [&[0u32, 1, 2][..], &[], &[8], &[3, 5, 7, 6]] {
        groups.push(rows.iter().copied());
    }
    // One and several loads of eight rows after the first row, with and without a tail.
    for len in [9, 17, 21] {
        groups.push((0..len).map(|index| index * 5 % 9));
    }
    let x = upload(backend, dtype, 9, columns, &random(1, dtype, 9 * columns));
    let mut out = backend.alloc(dtype, groups.len(), columns).unwrap();
    backend.pool(&x, &groups, method, &mut out).unwrap();
    bytes(backend, &out, dtype, groups.len(), columns)
}

/// Two sequences, with their segments in reverse order.
pub fn attention<B: Backend>(
    backend: &B,
    dtype: DType,
    shape: AttentionShape,
    scores: ScoreRule,
    lens: [usize; 2],
) -> Vec<u8> {
    let rows = lens[0] + lens[1];
    let (query, keys_values) = attention_inputs(backend, dtype, shape, rows);
    let segment = |first, len| AttentionSegment { query_row: first, start_position: 0, len, keys: vec![(first, len)] };
    let layout = AttentionLayout { segments: vec![segment(lens[0], lens[1]), segment(0, lens[0])] };
    let mut out = backend.alloc(dtype, rows, shape.query_width()).unwrap();
    backend.attention(&query, &keys_values, &layout, shape, scores, &mut out).unwrap();
    bytes(backend, &out, dtype, rows, shape.query_width())
}

/// One sequence of `len` positions before 40 rows of keys and values that are not numbers.
pub fn attention_before_nan<B: Backend>(
    backend: &B,
    dtype: DType,
    shape: AttentionShape,
    scores: ScoreRule,
    len: usize,
) -> Vec<u8> {
    let (query, _) = attention_inputs(backend, dtype, shape, len);
    let mut values = random(2, dtype, (len + 40) * 2 * shape.kv_width());
    values[len * 2 * shape.kv_width()..].fill(f32::NAN);
    let mut keys_values = backend.alloc(dtype, len + 40, 2 * shape.kv_width()).unwrap();
    backend.upload(&dtype.from_f32_slice(&values), &mut keys_values).unwrap();
    let segment = AttentionSegment { query_row: 0, start_position: 0, len, keys: vec![(0, len)] };
    let layout = AttentionLayout { segments: vec![segment] };
    let mut out = backend.alloc(dtype, len, shape.query_width()).unwrap();
    backend.attention(&query, &keys_values, &layout, shape, scores, &mut out).unwrap();
    bytes(backend, &out, dtype, len, shape.query_width())
}

/// The queries of positions `from..` of one sequence whose prefix is after its suffix in memory, in two runs.
pub fn attention_of_node<B: Backend>(
    backend: &B,
    dtype: DType,
    shape: AttentionShape,
    scores: ScoreRule,
    len: usize,
    from: usize,
) -> Vec<u8> {
    let (query, keys_values) = attention_inputs(backend, dtype, shape, len);
    let suffix = len - from;
    let order: Vec<u32> = (from as u32..len as u32).chain(0..from as u32).collect();
    let mut moved_query = backend.alloc(dtype, len, shape.query_width()).unwrap();
    let mut moved = backend.alloc(dtype, len, 2 * shape.kv_width()).unwrap();
    backend.gather_rows(&query, &order, &mut moved_query).unwrap();
    backend.gather_rows(&keys_values, &order, &mut moved).unwrap();
    let cut = from / 3;
    let keys = vec![(suffix, cut), (suffix + cut, from - cut), (0, suffix)];
    let node = AttentionSegment { query_row: 0, start_position: from, len: suffix, keys };
    let mut out = backend.alloc(dtype, suffix, shape.query_width()).unwrap();
    let layout = AttentionLayout { segments: vec![node] };
    backend.attention(&moved_query, &moved, &layout, shape, scores, &mut out).unwrap();
    bytes(backend, &out, dtype, suffix, shape.query_width())
}

fn attention_inputs<B: Backend>(
    backend: &B,
    dtype: DType,
    shape: AttentionShape,
    rows: usize,
) -> (B::Tensor, B::Tensor) {
    // Larger queries, so that the softmax is not nearly uniform.
    let query: Vec<f32> = random(1, dtype, rows * shape.query_width()).iter().map(|value| value * 4.0).collect();
    let keys_values = random(2, dtype, rows * 2 * shape.kv_width());
    (
        upload(backend, dtype, rows, shape.query_width(), &query),
        upload(backend, dtype, rows, 2 * shape.kv_width(), &keys_values),
    )
}
