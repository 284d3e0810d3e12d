//! A backend wrapper that times every operation and computes its amount of work.
//!
//! The wrapper remembers the shapes of its tensors, so it works with every [`Backend`]. It times from call to return.
//! Operations of a GPU return before they have completed: `cuda::Timeline` adds the times of the kernels by the
//! device's own clock, each with the call that launched it.

use crate::backend::{
    Activation, AttentionLayout, AttentionShape, Backend, PoolGroups, PoolMethod, QkvPart, QkvProjection, ScoreRule,
};
use crate::device_usage::DeviceUsage;
use crate::dtype::DType;
use crate::error::KernelError;
use crate::folded_norm::FoldedNorm;
use crate::host::HostTensor;
use crate::pending::PendingCopy;
use crate::routes::{RouteRule, Routes, WeightedRows};

mod ranges;
mod record;

pub use record::{
    DeviceSpan, DeviceTrack, HostSpan, OperationCalls, OperationTable, OperationWork, Profile, ProfileRecording,
    SpanKind,
};

/// `B`, with its operations recorded in a profile.
pub struct ProfiledBackend<B> {
    backend: B,
    profile: Profile,
}

impl<B: Backend> ProfiledBackend<B> {
    /// Wraps `backend` and records its operations in `profile`.
    pub fn new(backend: B, profile: Profile) -> Self {
        ProfiledBackend { backend, profile }
    }

    /// Records a gated matmul.
    fn record_gated<T>(
        &self,
        activation: Activation,
        shape: String,
        work: OperationWork,
        run: impl FnOnce() -> T,
    ) -> T {
        match activation {
            Activation::Silu => self.profile.record("linear + swiglu", shape, work, run),
            Activation::Gelu | Activation::GeluTanh => self.profile.record("linear + geglu", shape, work, run),
        }
    }
}

/// A tensor of the wrapped backend and its shape.
pub struct ShapedTensor<T> {
    inner: T,
    dtype: DType,
    rows: usize,
    columns: usize,
}

impl<T> ShapedTensor<T> {
    fn row_bytes(&self) -> u64 {
        (self.columns * self.dtype.size()) as u64
    }

    /// Bytes of `rows` rows.
    fn rows_bytes(&self, rows: usize) -> u64 {
        rows as u64 * self.row_bytes()
    }
}

/// A weight of the wrapped backend and its shape, `[out_features, in_features]`; gated weights count the rows of both
/// projections.
pub struct ShapedLinear<L> {
    inner: L,
    out_features: usize,
    in_features: usize,
    dtype: DType,
    gated: bool,
}

impl<L> ShapedLinear<L> {
    fn shape(&self) -> String {
        format!("{} -> {}", self.in_features, self.out_features)
    }

    /// The work of a matmul of `rows` rows that stores `out_columns` columns and reads each of them `output_reads`
    /// times.
    fn work(&self, rows: usize, out_columns: usize, output_reads: usize) -> OperationWork {
        let weights = self.out_features * self.in_features;
        let elements = weights + rows * self.in_features + rows * out_columns * (1 + output_reads);
        OperationWork { flops: 2 * (rows * weights) as u64, bytes: (elements * self.dtype.size()) as u64 }
    }
}

fn total_out_features(weights: &[HostTensor]) -> usize {
    weights.iter().filter_map(|weight| weight.shape().first()).sum()
}

fn in_features(weights: &[HostTensor]) -> usize {
    weights.first().and_then(|weight| weight.shape().get(1)).copied().unwrap_or(0)
}

impl<B: Backend> Backend for ProfiledBackend<B> {
    type Tensor = ShapedTensor<B::Tensor>;
    type Linear = ShapedLinear<B::Linear>;
    type Vector = B::Vector;
    type Embedding = B::Embedding;

    fn describe(&self) -> String {
        self.backend.describe()
    }

    fn kernel_id(&self) -> String {
        self.backend.kernel_id()
    }

    fn alloc(&self, dtype: DType, rows: usize, columns: usize) -> Result<Self::Tensor, KernelError> {
        Ok(ShapedTensor { inner: self.backend.alloc(dtype, rows, columns)?, dtype, rows, columns })
    }

    fn resize(&self, tensor: &mut Self::Tensor, rows: usize) -> Result<(), KernelError> {
        self.backend.resize(&mut tensor.inner, rows)?;
        tensor.rows = rows;
        Ok(())
    }

    fn prepare_linear(&self, weights: &[HostTensor], run: DType) -> Result<Self::Linear, KernelError> {
        let inner = self.backend.prepare_linear(weights, run)?;
        Ok(ShapedLinear {
            inner,
            out_features: total_out_features(weights),
            in_features: in_features(weights),
            dtype: run,
            gated: false,
        })
    }

    fn prepare_gated(&self, gate: &HostTensor, up: &HostTensor, run: DType) -> Result<Self::Linear, KernelError> {
        let inner = self.backend.prepare_gated(gate, up, run)?;
        let both = [gate.clone(), up.clone()];
        let (out_features, in_features) = (total_out_features(&both), in_features(&both));
        Ok(ShapedLinear { inner, out_features, in_features, dtype: run, gated: true })
    }

    fn folds_norms(&self, run: DType, width: usize) -> bool {
        self.backend.folds_norms(run, width)
    }

    fn fold_norm(&self, weight: &mut Self::Linear, scale: &Self::Vector) -> Result<(), KernelError> {
        self.backend.fold_norm(&mut weight.inner, scale)
    }

    fn prepare_vector(&self, parts: &[HostTensor], run: DType) -> Result<Self::Vector, KernelError> {
        self.backend.prepare_vector(parts, run)
    }

    fn prepare_embedding(&self, table: &HostTensor, run: DType) -> Result<Self::Embedding, KernelError> {
        self.backend.prepare_embedding(table, run)
    }

    fn verify_weights(&self) -> Result<(), KernelError> {
        self.backend.verify_weights()
    }

    fn embed(
        &self,
        table: &Self::Embedding,
        tokens: &[u32],
        scale: f32,
        out: &mut Self::Tensor,
    ) -> Result<(), KernelError> {
        let work = OperationWork { flops: 0, bytes: 2 * out.rows_bytes(tokens.len()) };
        let shape = out.columns.to_string();
        self.profile.record("embed", shape, work, || self.backend.embed(table, tokens, scale, &mut out.inner))
    }

    fn add_embedding(
        &self,
        table: &Self::Embedding,
        rows: &[u32],
        stream: &mut Self::Tensor,
    ) -> Result<(), KernelError> {
        let work = OperationWork { flops: 0, bytes: 3 * stream.rows_bytes(rows.len()) };
        let shape = stream.columns.to_string();
        self.profile.record("add embedding", shape, work, || self.backend.add_embedding(table, rows, &mut stream.inner))
    }

    fn rms_norm(
        &self,
        x: &Self::Tensor,
        scale: &Self::Vector,
        eps: f32,
        out: &mut Self::Tensor,
    ) -> Result<(), KernelError> {
        let work = OperationWork { flops: 0, bytes: 2 * x.rows_bytes(x.rows) };
        let shape = x.columns.to_string();
        self.profile.record("rms norm", shape, work, || self.backend.rms_norm(&x.inner, scale, eps, &mut out.inner))
    }

    fn rms_norm_residual(
        &self,
        x: &Self::Tensor,
        scale: &Self::Vector,
        eps: f32,
        stream: &mut Self::Tensor,
    ) -> Result<(), KernelError> {
        let work = OperationWork { flops: 0, bytes: 3 * x.rows_bytes(x.rows) };
        let shape = x.columns.to_string();
        self.profile.record("rms norm + residual", shape, work, || {
            self.backend.rms_norm_residual(&x.inner, scale, eps, &mut stream.inner)
        })
    }

    fn rms_norm_heads(
        &self,
        x: &mut Self::Tensor,
        n_heads: usize,
        scale: &Self::Vector,
        eps: f32,
    ) -> Result<(), KernelError> {
        let work = OperationWork { flops: 0, bytes: 2 * x.rows_bytes(x.rows) };
        let shape = format!("{n_heads} of {}", x.columns);
        self.profile
            .record("rms norm of heads", shape, work, || self.backend.rms_norm_heads(&mut x.inner, n_heads, scale, eps))
    }

    fn layer_norm(
        &self,
        x: &Self::Tensor,
        scale: &Self::Vector,
        bias: &Self::Vector,
        eps: f32,
        out: &mut Self::Tensor,
    ) -> Result<(), KernelError> {
        let work = OperationWork { flops: 0, bytes: 2 * x.rows_bytes(x.rows) };
        let shape = x.columns.to_string();
        self.profile
            .record("layer norm", shape, work, || self.backend.layer_norm(&x.inner, scale, bias, eps, &mut out.inner))
    }

    fn linear(
        &self,
        x: &Self::Tensor,
        weight: &Self::Linear,
        bias: Option<&Self::Vector>,
        out: &mut Self::Tensor,
    ) -> Result<(), KernelError> {
        let work = weight.work(x.rows, weight.out_features, 0);
        self.profile.record("linear", weight.shape(), work, || {
            self.backend.linear(&x.inner, &weight.inner, bias, &mut out.inner)
        })
    }

    fn linear_residual(
        &self,
        x: &Self::Tensor,
        weight: &Self::Linear,
        bias: Option<&Self::Vector>,
        stream: &mut Self::Tensor,
    ) -> Result<(), KernelError> {
        let work = weight.work(x.rows, weight.out_features, 1);
        self.profile.record("linear + residual", weight.shape(), work, || {
            self.backend.linear_residual(&x.inner, &weight.inner, bias, &mut stream.inner)
        })
    }

    fn linear_activated(
        &self,
        x: &Self::Tensor,
        weight: &Self::Linear,
        bias: Option<&Self::Vector>,
        activation: Activation,
        out: &mut Self::Tensor,
    ) -> Result<(), KernelError> {
        let work = weight.work(x.rows, weight.out_features, 0);
        self.profile.record("linear + activation", weight.shape(), work, || {
            self.backend.linear_activated(&x.inner, &weight.inner, bias, activation, &mut out.inner)
        })
    }

    fn linear_gated(
        &self,
        x: &Self::Tensor,
        gate_up: &Self::Linear,
        bias: Option<&Self::Vector>,
        activation: Activation,
        out: &mut Self::Tensor,
    ) -> Result<(), KernelError> {
        let work = gate_up.work(x.rows, gate_up.out_features / 2, 0);
        let shape = gate_up.shape();
        let run = || self.backend.linear_gated(&x.inner, &gate_up.inner, bias, activation, &mut out.inner);
        self.record_gated(activation, shape, work, run)
    }

    fn linear_normed(
        &self,
        x: &Self::Tensor,
        norm: FoldedNorm<'_, Self::Tensor>,
        weight: &Self::Linear,
        bias: Option<&Self::Vector>,
        activation: Option<Activation>,
        out: &mut Self::Tensor,
    ) -> Result<(), KernelError> {
        let out_columns = if weight.gated { weight.out_features / 2 } else { weight.out_features };
        let mut work = weight.work(x.rows, out_columns, 0);
        work.bytes += norm.squares.rows_bytes(x.rows);
        let shape = weight.shape();
        let norm = FoldedNorm { squares: &norm.squares.inner, eps: norm.eps };
        let run = || self.backend.linear_normed(&x.inner, norm, &weight.inner, bias, activation, &mut out.inner);
        match activation {
            Some(activation) if weight.gated => self.record_gated(activation, shape, work, run),
            Some(_) => self.profile.record("linear + activation", shape, work, run),
            None => self.profile.record("linear", shape, work, run),
        }
    }

    fn linear_residual_squares(
        &self,
        x: &Self::Tensor,
        weight: &Self::Linear,
        bias: Option<&Self::Vector>,
        stream: &mut Self::Tensor,
        squares: &mut Self::Tensor,
    ) -> Result<(), KernelError> {
        let mut work = weight.work(x.rows, weight.out_features, 1);
        work.bytes += squares.rows_bytes(x.rows);
        self.profile.record("linear + residual", weight.shape(), work, || {
            let (stream, squares) = (&mut stream.inner, &mut squares.inner);
            self.backend.linear_residual_squares(&x.inner, &weight.inner, bias, stream, squares)
        })
    }

    fn square_sums(&self, x: &Self::Tensor, squares: &mut Self::Tensor) -> Result<(), KernelError> {
        let work = OperationWork { flops: 0, bytes: x.rows_bytes(x.rows) + squares.rows_bytes(x.rows) };
        let shape = x.columns.to_string();
        self.profile.record("square sums", shape, work, || self.backend.square_sums(&x.inner, &mut squares.inner))
    }

    fn route(&self, logits: &Self::Tensor, rule: RouteRule) -> Result<Routes, KernelError> {
        // An index and a weight for each expert of a row.
        let chosen = (logits.rows * rule.top_k * 2 * size_of::<u32>()) as u64;
        let work = OperationWork { flops: 0, bytes: logits.rows_bytes(logits.rows) + chosen };
        let shape = format!("{} of {}", rule.top_k, logits.columns);
        self.profile.record("route", shape, work, || self.backend.route(&logits.inner, rule))
    }

    fn add_weighted_rows(
        &self,
        x: &Self::Tensor,
        sums: WeightedRows<'_>,
        stream: &mut Self::Tensor,
    ) -> Result<(), KernelError> {
        let work = OperationWork { flops: 0, bytes: x.rows_bytes(sums.rows.len() + 2 * sums.n_results()) };
        let shape = format!("{} x {}", sums.per_row, x.columns);
        self.profile.record("add weighted rows", shape, work, || {
            self.backend.add_weighted_rows(&x.inner, sums, &mut stream.inner)
        })
    }

    fn rope(
        &self,
        x: &mut Self::Tensor,
        n_heads: usize,
        head_dim: usize,
        rotary_dim: usize,
        positions: &[u32],
        cos: &Self::Vector,
        sin: &Self::Vector,
    ) -> Result<(), KernelError> {
        let elements = positions.len() * n_heads * rotary_dim;
        let work = OperationWork { flops: 0, bytes: 2 * (elements * x.dtype.size()) as u64 };
        let shape = format!("{n_heads} x {head_dim}");
        self.profile.record("rope", shape, work, || {
            self.backend.rope(&mut x.inner, n_heads, head_dim, rotary_dim, positions, cos, sin)
        })
    }

    fn project_qkv(
        &self,
        x: &Self::Tensor,
        norm: Option<FoldedNorm<'_, Self::Tensor>>,
        weight: &Self::Linear,
        bias: Option<&Self::Vector>,
        projection: &QkvProjection<'_, Self::Vector>,
        query: &mut Self::Tensor,
        key_value: &mut Self::Tensor,
    ) -> Result<(), KernelError> {
        let width = match projection.part {
            QkvPart::All => weight.out_features,
            QkvPart::Query => projection.shape.query_width(),
            QkvPart::KeyValue => 2 * projection.shape.kv_width(),
        };
        let elements = weight.in_features * (x.rows + width) + x.rows * width;
        let work = OperationWork {
            flops: 2 * (x.rows * weight.in_features * width) as u64,
            bytes: (elements * weight.dtype.size()) as u64
                + norm.as_ref().map_or(0, |norm| norm.squares.rows_bytes(x.rows)),
        };
        let norm = norm.map(|norm| FoldedNorm { squares: &norm.squares.inner, eps: norm.eps });
        let shape = format!("{} -> {width}", weight.in_features);
        let (query, key_value) = (&mut query.inner, &mut key_value.inner);
        let run = || self.backend.project_qkv(&x.inner, norm, &weight.inner, bias, projection, query, key_value);
        match projection.rotation {
            Some(_) => self.profile.record("linear qkv + rope", shape, work, run),
            None => self.profile.record("linear qkv", shape, work, run),
        }
    }

    fn attention(
        &self,
        query: &Self::Tensor,
        keys_values: &Self::Tensor,
        layout: &AttentionLayout,
        shape: AttentionShape,
        scores: ScoreRule,
        out: &mut Self::Tensor,
    ) -> Result<(), KernelError> {
        // Pairs of a query and a key at its position or before, two matmuls of head_dim multiply-adds each.
        let pairs: usize = layout.segments.iter().map(|segment| segment.visible_keys(scores.window)).sum();
        let rows: usize = layout.segments.iter().map(|segment| segment.len).sum();
        let work = OperationWork {
            flops: 4 * (pairs * shape.query_width()) as u64,
            bytes: query.rows_bytes(2 * rows) + keys_values.rows_bytes(keys_values.rows),
        };
        let heads = format!("{} / {} x {}", shape.n_heads, shape.n_kv_heads, shape.head_dim);
        self.profile.record("attention", heads, work, || {
            self.backend.attention(&query.inner, &keys_values.inner, layout, shape, scores, &mut out.inner)
        })
    }

    fn pool(
        &self,
        x: &Self::Tensor,
        groups: &PoolGroups,
        method: PoolMethod,
        out: &mut Self::Tensor,
    ) -> Result<(), KernelError> {
        let work = OperationWork { flops: 0, bytes: x.rows_bytes(groups.n_rows() + groups.len()) };
        let shape = format!("{method}, {}", x.columns);
        self.profile.record("pool", shape, work, || self.backend.pool(&x.inner, groups, method, &mut out.inner))
    }

    fn gather_rows(&self, x: &Self::Tensor, rows: &[u32], out: &mut Self::Tensor) -> Result<(), KernelError> {
        let work = OperationWork { flops: 0, bytes: x.rows_bytes(2 * rows.len()) };
        let shape = x.columns.to_string();
        self.profile.record("gather rows", shape, work, || self.backend.gather_rows(&x.inner, rows, &mut out.inner))
    }

    fn copy_rows(
        &self,
        x: &Self::Tensor,
        from: usize,
        count: usize,
        out: &mut Self::Tensor,
        to: usize,
    ) -> Result<(), KernelError> {
        let work = OperationWork { flops: 0, bytes: x.rows_bytes(2 * count) };
        let shape = x.columns.to_string();
        self.profile
            .record("copy rows", shape, work, || self.backend.copy_rows(&x.inner, from, count, &mut out.inner, to))
    }

    fn download(&self, x: &Self::Tensor, rows: usize, out: &mut [u8]) -> Result<(), KernelError> {
        let work = OperationWork { flops: 0, bytes: x.rows_bytes(2 * rows) };
        let shape = x.columns.to_string();
        self.profile.record("download", shape, work, || self.backend.download(&x.inner, rows, out))
    }

    fn upload(&self, bytes: &[u8], out: &mut Self::Tensor) -> Result<(), KernelError> {
        let work = OperationWork { flops: 0, bytes: 2 * bytes.len() as u64 };
        let shape = out.columns.to_string();
        self.profile.record("upload", shape, work, || self.backend.upload(bytes, &mut out.inner))
    }

    /// Runs `work` without a graph: the launches of an operation must not be deferred beyond its span.
    fn launch_grouped(
        &self,
        _graph_slot: usize,
        _rows: usize,
        work: &mut dyn FnMut() -> Result<(), KernelError>,
    ) -> Result<(), KernelError> {
        work()
    }

    fn downloads_are_async(&self) -> bool {
        self.backend.downloads_are_async()
    }

    /// Records the time to start the copy, which may continue after this returns.
    fn download_async(&self, x: Self::Tensor, rows: usize) -> Result<Box<dyn PendingCopy>, KernelError> {
        let work = OperationWork { flops: 0, bytes: x.rows_bytes(2 * rows) };
        let shape = x.columns.to_string();
        self.profile.record("download", shape, work, || self.backend.download_async(x.inner, rows))
    }

    fn device_usage(&self) -> Result<Option<DeviceUsage>, KernelError> {
        self.backend.device_usage()
    }

    fn reset_device_usage(&self) -> Result<(), KernelError> {
        self.backend.reset_device_usage()
    }

    fn free_memory(&self) -> Result<Option<u64>, KernelError> {
        self.backend.free_memory()
    }
}
