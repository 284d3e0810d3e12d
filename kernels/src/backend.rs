//! The interface that every device implements: one method an operation. No operation knows the model.
//!
//! # Numerics, the same on every device
//! Activations are stored in the run's dtype. An operation widens them to `f32`, computes in `f32`, and rounds once
//! when it stores its result. The order of every sum depends only on the row (its width, its position in its sequence).
//! The bits of a row therefore do not depend on the other rows, on the batch, on the order of the rows or on the number
//! of threads.

use crate::device_usage::DeviceUsage;
use crate::dtype::DType;
use crate::error::KernelError;
use crate::folded_norm::FoldedNorm;
use crate::host::HostTensor;
use crate::pending::PendingCopy;
pub use crate::pooling::{PoolGroups, PoolMethod};
use crate::routes::{RouteRule, Routes, WeightedRows};

/// Consecutive query rows at consecutive positions of one sequence, and the rows of that sequence's keys.
///
/// A whole sequence is one segment with one run of key rows. A node of a prefix tree is a segment whose runs are the
/// rows of its ancestors, root first, and then its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttentionSegment {
    /// First row of the segment in the query tensor.
    pub query_row: usize,
    /// Position of that row in its sequence, from 0.
    pub start_position: usize,
    /// Number of query rows.
    pub len: usize,
    /// Runs `(first row, length)` of the key/value tensor that hold positions `0..start_position + len`, in order.
    pub keys: Vec<(usize, usize)>,
}

impl AttentionSegment {
    /// Pairs of a query of this segment and a key that it sees: those at its position or before, and with a window at most so
    /// many of them.
    pub fn visible_keys(&self, window: Option<usize>) -> usize {
        let (first, end) = (self.start_position, self.start_position + self.len);
        // Queries from the position of the window on see as many keys as it has.
        let full = window.map_or(end, |window| window.clamp(first, end));
        let growing = full - first;
        growing * first + growing * (growing + 1) / 2 + (end - full) * window.unwrap_or(0)
    }
}

/// The segments of a batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AttentionLayout {
    /// In any order. Output rows of query rows outside of all segments are not written.
    pub segments: Vec<AttentionSegment>,
}

/// The number and the width of the heads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttentionShape {
    /// Query heads.
    pub n_heads: usize,
    /// Key/value heads; divides `n_heads`.
    pub n_kv_heads: usize,
    /// Elements of one head.
    pub head_dim: usize,
}

impl AttentionShape {
    /// Columns of a query tensor.
    pub fn query_width(self) -> usize {
        self.n_heads * self.head_dim
    }

    /// Columns of a key tensor, and of a value tensor.
    pub fn kv_width(self) -> usize {
        self.n_kv_heads * self.head_dim
    }
}

/// The part of the fused projection of queries, keys and values that is computed. A row's bits do not depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QkvPart {
    /// Queries, keys and values.
    All,
    /// Queries alone.
    Query,
    /// Keys and values alone.
    KeyValue,
}

impl QkvPart {
    /// Whether it has the queries.
    pub fn has_query(self) -> bool {
        self != QkvPart::KeyValue
    }

    /// Whether it has the keys and values.
    pub fn has_key_value(self) -> bool {
        self != QkvPart::Query
    }
}

/// The rotary embedding of heads: the arguments of [`Backend::rope`], with vectors of type `V`.
#[derive(Debug)]
pub struct Rotation<'a, V> {
    /// Leading columns of each head that are rotated.
    pub rotary_dim: usize,
    /// The position of each row.
    pub positions: &'a [u32],
    /// Cosines, `rotary_dim / 2` a position.
    pub cos: &'a V,
    /// Sines, `rotary_dim / 2` a position.
    pub sin: &'a V,
}

/// A fused projection of queries, keys and values.
#[derive(Debug)]
pub struct QkvProjection<'a, V> {
    /// The heads.
    pub shape: AttentionShape,
    /// What is computed.
    pub part: QkvPart,
    /// How queries and keys are rotated; none if they are not, or only after a norm.
    pub rotation: Option<Rotation<'a, V>>,
}

/// What is done to a score of attention before the softmax.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ScoreRule {
    /// The factor of the product of query and key.
    pub scale: f32,
    /// A row sees so many positions, its own included; all where this is none. At least 1.
    pub window: Option<usize>,
    /// Replaces a score by `cap * tanh(score / cap)` (Gemma 2). Positive.
    pub soft_cap: Option<f32>,
}

impl ScoreRule {
    /// The usual scale `1 / sqrt(head_dim)`, all positions, no cap (Vaswani et al. 2017).
    pub fn of_head_dim(head_dim: usize) -> Self {
        ScoreRule { scale: 1.0 / (head_dim as f32).sqrt(), window: None, soft_cap: None }
    }
}

/// The activation of an MLP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Activation {
    /// `x / (1 + e^-x)` (Elfwing et al. 2018).
    Silu,
    /// `x * Phi(x)` with the normal distribution's `Phi` (Hendrycks and Gimpel 2016).
    Gelu,
    /// `x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3)))`, the approximation of the same paper.
    GeluTanh,
}

impl Activation {
    /// All, in the order of the CUDA kernels' parameter.
    pub const ALL: [Activation; 3] = [Activation::Silu, Activation::Gelu, Activation::GeluTanh];

    /// The name in reports and errors.
    pub const fn name(self) -> &'static str {
        match self {
            Activation::Silu => "silu",
            Activation::Gelu => "gelu",
            Activation::GeluTanh => "gelu_tanh",
        }
    }
}

/// A device that runs the operations. Tensors are two-dimensional, `[rows, columns]`, row-major.
///
/// An operation reads all rows of its input and writes as many leading rows of `out`, which may have more rows.
///
/// No method has a default body: [`crate::ProfiledBackend`] wraps a backend, and a method that it does not forward must
/// not compile.
///
/// # Errors
/// Every operation fails with [`KernelError::Shape`] or [`KernelError::DType`] for arguments that do not match, and
/// with [`KernelError::Device`] if the device fails.
pub trait Backend: Send + Sync + 'static {
    /// A tensor on the device, in the run's dtype.
    type Tensor: Send + Sync;
    /// A weight matrix prepared for [`Backend::linear`].
    type Linear: Send + Sync;
    /// A vector of `f32`, such as a norm's scale or a bias.
    type Vector: Send + Sync;
    /// An embedding table prepared for [`Backend::embed`].
    type Embedding: Send + Sync;

    /// A description of the device for reports: `cpu (avx512, 2 threads)`.
    fn describe(&self) -> String;

    /// A short, stable name of the arithmetic. Results of backends with different names may differ in their last bits.
    fn kernel_id(&self) -> String;

    /// A new `[rows, columns]` tensor with unspecified contents.
    fn alloc(&self, dtype: DType, rows: usize, columns: usize) -> Result<Self::Tensor, KernelError>;

    /// Changes the number of rows, reusing the memory if it is large enough. Contents become unspecified.
    fn resize(&self, tensor: &mut Self::Tensor, rows: usize) -> Result<(), KernelError>;

    /// Prepares weights `[out_features, in_features]` for matmuls with activations of type `run`.
    ///
    /// Several matrices with the same `in_features` are stacked: their outputs are adjacent columns.
    ///
    /// # Errors
    /// Shapes that do not match, or an element that is not finite after rounding to `run`. A backend may report the element
    /// only in [`Backend::verify_weights`].
    fn prepare_linear(&self, weights: &[HostTensor], run: DType) -> Result<Self::Linear, KernelError>;

    /// Prepares a gate and an up projection, both `[out_features, in_features]`, for [`Backend::linear_gated`].
    ///
    /// # Errors
    /// As [`Backend::prepare_linear`].
    fn prepare_gated(&self, gate: &HostTensor, up: &HostTensor, run: DType) -> Result<Self::Linear, KernelError>;

    /// Whether norms of rows of `width` elements of `run` are folded into the matmuls that read them. Where they are not, every
    /// operation with a [`FoldedNorm`], [`Backend::fold_norm`], [`Backend::linear_residual_squares`] and [`Backend::square_sums`] fail.
    fn folds_norms(&self, run: DType, width: usize) -> bool;

    /// Multiplies column `k` of `weight` by `scale[k]`, the weights of a norm; each product is rounded once.
    ///
    /// # Errors
    /// A product that is not finite, which a backend may report only in [`Backend::verify_weights`].
    fn fold_norm(&self, weight: &mut Self::Linear, scale: &Self::Vector) -> Result<(), KernelError>;

    /// Concatenates vectors. Every element is rounded to `run`, as in a model stored in `run`, and kept in `f32`.
    ///
    /// # Errors
    /// An element that is not finite after rounding.
    fn prepare_vector(&self, parts: &[HostTensor], run: DType) -> Result<Self::Vector, KernelError>;

    /// Prepares an embedding table `[vocab_size, hidden_size]`. A table of a file may be read row by row, as tokens need them.
    ///
    /// # Errors
    /// A tensor that is not a matrix, or, where the table is converted here, an element that is not finite; a backend may
    /// report the element only in [`Backend::verify_weights`].
    fn prepare_embedding(&self, table: &HostTensor, run: DType) -> Result<Self::Embedding, KernelError>;

    /// Waits until all weights prepared so far are on the device.
    ///
    /// # Errors
    /// A weight that is not finite after rounding, the first one in the order of their preparation.
    fn verify_weights(&self) -> Result<(), KernelError>;

    /// `out[i] = scale * table[tokens[i]]`, `out` `[tokens, hidden_size]`; the product is rounded once. With a scale of 1 the
    /// rows are copied.
    fn embed(
        &self,
        table: &Self::Embedding,
        tokens: &[u32],
        scale: f32,
        out: &mut Self::Tensor,
    ) -> Result<(), KernelError>;

    /// `stream[i] = stream[i] + table[rows[i]]`: added in `f32` and rounded once.
    fn add_embedding(
        &self,
        table: &Self::Embedding,
        rows: &[u32],
        stream: &mut Self::Tensor,
    ) -> Result<(), KernelError>;

    /// `out[i] = x[i] / sqrt(mean(x[i]^2) + eps) * scale`, for every row of `x` (Zhang and Sennrich 2019).
    fn rms_norm(
        &self,
        x: &Self::Tensor,
        scale: &Self::Vector,
        eps: f32,
        out: &mut Self::Tensor,
    ) -> Result<(), KernelError>;

    /// `stream[i] = stream[i] + x[i] / sqrt(mean(x[i]^2) + eps) * scale`: added in `f32` and rounded once.
    fn rms_norm_residual(
        &self,
        x: &Self::Tensor,
        scale: &Self::Vector,
        eps: f32,
        stream: &mut Self::Tensor,
    ) -> Result<(), KernelError>;

    /// [`Backend::rms_norm`] of each of the first `n_heads` heads of every row, in place. A head has as many columns as `scale`
    /// has elements, and all heads share `scale`.
    fn rms_norm_heads(
        &self,
        x: &mut Self::Tensor,
        n_heads: usize,
        scale: &Self::Vector,
        eps: f32,
    ) -> Result<(), KernelError>;

    /// `out[i] = (x[i] - mean(x[i])) / sqrt(variance(x[i]) + eps) * scale + bias`, with the biased variance (Ba et al. 2016).
    fn layer_norm(
        &self,
        x: &Self::Tensor,
        scale: &Self::Vector,
        bias: &Self::Vector,
        eps: f32,
        out: &mut Self::Tensor,
    ) -> Result<(), KernelError>;

    /// `out = x W^T + bias`, `x` `[rows, in_features]`, `out` `[rows, out_features]`.
    fn linear(
        &self,
        x: &Self::Tensor,
        weight: &Self::Linear,
        bias: Option<&Self::Vector>,
        out: &mut Self::Tensor,
    ) -> Result<(), KernelError>;

    /// `stream = stream + x W^T + bias`: added in `f32` and rounded once.
    fn linear_residual(
        &self,
        x: &Self::Tensor,
        weight: &Self::Linear,
        bias: Option<&Self::Vector>,
        stream: &mut Self::Tensor,
    ) -> Result<(), KernelError>;

    /// `out = activation(x W^T + bias)`, rounded once.
    fn linear_activated(
        &self,
        x: &Self::Tensor,
        weight: &Self::Linear,
        bias: Option<&Self::Vector>,
        activation: Activation,
        out: &mut Self::Tensor,
    ) -> Result<(), KernelError>;

    /// `out = activation(x G^T + bias_gate) * (x U^T + bias_up)`, with `bias` as `[bias_gate | bias_up]` (Shazeer 2020).
    fn linear_gated(
        &self,
        x: &Self::Tensor,
        gate_up: &Self::Linear,
        bias: Option<&Self::Vector>,
        activation: Activation,
        out: &mut Self::Tensor,
    ) -> Result<(), KernelError>;

    /// [`Backend::linear`], [`Backend::linear_activated`] with an activation, or [`Backend::linear_gated`] with gated weights, of
    /// a folded norm: each row of `x W^T` is multiplied by its `1 / sqrt(mean(x[i]^2) + eps)` before bias and activation.
    fn linear_normed(
        &self,
        x: &Self::Tensor,
        norm: FoldedNorm<'_, Self::Tensor>,
        weight: &Self::Linear,
        bias: Option<&Self::Vector>,
        activation: Option<Activation>,
        out: &mut Self::Tensor,
    ) -> Result<(), KernelError>;

    /// [`Backend::linear_residual`], and [`Backend::square_sums`] of the result.
    fn linear_residual_squares(
        &self,
        x: &Self::Tensor,
        weight: &Self::Linear,
        bias: Option<&Self::Vector>,
        stream: &mut Self::Tensor,
        squares: &mut Self::Tensor,
    ) -> Result<(), KernelError>;

    /// `squares[i][b]` = the sum of the squares of columns `64 b` to `64 b + 63` of `x[i]`, in the order of `epilogue.cuh`;
    /// `squares` is `f32`, with [`square_blocks`](crate::square_blocks) columns.
    fn square_sums(&self, x: &Self::Tensor, squares: &mut Self::Tensor) -> Result<(), KernelError>;

    /// The experts of each row by `logits`, `[rows, experts]`, in host memory, for which a device waits: the `top_k` largest
    /// probabilities of a softmax in `f32` over all experts, of equal ones the first.
    ///
    /// # Errors
    /// More than [`MAX_EXPERTS`](crate::MAX_EXPERTS) experts.
    fn route(&self, logits: &Self::Tensor, rule: RouteRule) -> Result<Routes, KernelError>;

    /// `stream[i] = stream[i] + sum of weight * x[row]` over the rows of result `i`, in their order: summed and added in `f32`
    /// and rounded once.
    fn add_weighted_rows(
        &self,
        x: &Self::Tensor,
        sums: WeightedRows<'_>,
        stream: &mut Self::Tensor,
    ) -> Result<(), KernelError>;

    /// Rotates the first `rotary_dim` columns of each of the first `n_heads` heads of `head_dim` columns of every row, in place
    /// (Su et al. 2021, in the half-split layout of Hugging Face: column `j` pairs with `j + rotary_dim / 2`).
    ///
    /// `cos` and `sin` hold `rotary_dim / 2` values a position, row `i` is at `positions[i]`.
    #[allow(clippy::too_many_arguments)] // Shapes and tables belong together in no other operation.
    fn rope(
        &self,
        x: &mut Self::Tensor,
        n_heads: usize,
        head_dim: usize,
        rotary_dim: usize,
        positions: &[u32],
        cos: &Self::Vector,
        sin: &Self::Vector,
    ) -> Result<(), KernelError>;

    /// Queries, keys and values of `x` in one matmul, `x W^T + bias`, with queries and keys rotated as by [`Backend::rope`].
    ///
    /// `weight` and `bias` are stacked as `[queries | keys | values]`. `query` is `[rows, n_heads * head_dim]`, `key_value`
    /// `[rows, 2 * n_kv_heads * head_dim]` with the keys first; both may have more rows. The tensor that is not of
    /// [`QkvProjection::part`] is not written. A device may round once, after the rotation, or also before it. With `norm`, a
    /// folded one, rows are scaled as by [`Backend::linear_normed`].
    #[allow(clippy::too_many_arguments)] // The operands of a GEMM with two outputs.
    fn project_qkv(
        &self,
        x: &Self::Tensor,
        norm: Option<FoldedNorm<'_, Self::Tensor>>,
        weight: &Self::Linear,
        bias: Option<&Self::Vector>,
        projection: &QkvProjection<'_, Self::Vector>,
        query: &mut Self::Tensor,
        key_value: &mut Self::Tensor,
    ) -> Result<(), KernelError>;

    /// Causal attention with grouped query heads: a row at position `q` sees the keys of positions `p <= q`, and with a window
    /// of those only `p > q - window`.
    ///
    /// `query` is `[rows, n_heads * head_dim]`, `keys_values` is `[rows, 2 * n_kv_heads * head_dim]` with the keys
    /// first, `out` is like `query`.
    ///
    /// Where a device multiplies pairs of bf16 or f16 (tensor cores, AVX-512 BF16, AMX), the weights of the softmax are rounded
    /// to that type before they are multiplied with the values. On the CPU, only in bf16, the sum that divides the output adds
    /// the rounded weights.
    fn attention(
        &self,
        query: &Self::Tensor,
        keys_values: &Self::Tensor,
        layout: &AttentionLayout,
        shape: AttentionShape,
        scores: ScoreRule,
        out: &mut Self::Tensor,
    ) -> Result<(), KernelError>;

    /// `out[g] = pool(x[rows of group g])`, accumulated in `f32` in the order of the group, rounded once.
    fn pool(
        &self,
        x: &Self::Tensor,
        groups: &PoolGroups,
        method: PoolMethod,
        out: &mut Self::Tensor,
    ) -> Result<(), KernelError>;

    /// `out[i] = x[rows[i]]`.
    fn gather_rows(&self, x: &Self::Tensor, rows: &[u32], out: &mut Self::Tensor) -> Result<(), KernelError>;

    /// Copies rows `from..from + count` of `x` to the rows of `out` that start at `to`.
    fn copy_rows(
        &self,
        x: &Self::Tensor,
        from: usize,
        count: usize,
        out: &mut Self::Tensor,
        to: usize,
    ) -> Result<(), KernelError>;

    /// Copies the first `rows` rows of `x` to host memory. `out` has exactly as many bytes.
    fn download(&self, x: &Self::Tensor, rows: usize, out: &mut [u8]) -> Result<(), KernelError>;

    /// Copies `bytes`, whole rows, from host memory to the first rows of `out`. The caller may change `bytes` when this
    /// returns.
    ///
    /// # Errors
    /// A number of bytes that is not a whole number of rows, or more rows than `out` has.
    fn upload(&self, bytes: &[u8], out: &mut Self::Tensor) -> Result<(), KernelError>;

    /// Runs `work` once. The device may launch the operations of `work` as one CUDA graph when `work` returns, which
    /// costs the host less time than single launches. Results are the same. This pays off for many operations on few
    /// `rows` without a download in between. The device caches the graph in `graph_slot`: callers use one slot for each
    /// sequence of operations.
    ///
    /// # Errors
    /// Those of `work`, and a failure of the device.
    fn launch_grouped(
        &self,
        graph_slot: usize,
        rows: usize,
        work: &mut dyn FnMut() -> Result<(), KernelError>,
    ) -> Result<(), KernelError>;

    /// Whether [`Backend::download_async`] returns before the copy has completed.
    fn downloads_are_async(&self) -> bool;

    /// Copies the first `rows` rows of `x` to host memory. Operations that are issued after this may run during the
    /// copy, which is why it takes `x` by value.
    ///
    /// # Errors
    /// More rows than `x` has, or a failure of the device.
    fn download_async(&self, x: Self::Tensor, rows: usize) -> Result<Box<dyn PendingCopy>, KernelError>;

    /// Peak memory and transferred bytes since [`Backend::reset_device_usage`]; none if the device is the host.
    ///
    /// # Errors
    /// A failure of the device.
    fn device_usage(&self) -> Result<Option<DeviceUsage>, KernelError>;

    /// Resets the counters of [`Backend::device_usage`] and releases cached memory that is not in use.
    ///
    /// # Errors
    /// A failure of the device.
    fn reset_device_usage(&self) -> Result<(), KernelError>;

    /// Bytes that can still be allocated; none if the backend does not know.
    ///
    /// # Errors
    /// A failure of the device.
    fn free_memory(&self) -> Result<Option<u64>, KernelError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn visible_keys_equal_a_count() {
        for (start_position, len) in [(0, 1), (0, 7), (3, 5), (9, 0), (12, 4)] {
            let segment = AttentionSegment { query_row: 0, start_position, len, keys: Vec::new() };
            for window in [None, Some(1), Some(2), Some(4), Some(6), Some(14), Some(100)] {
                let seen = |position: usize| window.map_or(position + 1, |window: usize| window.min(position + 1));
                let counted: usize = (start_position..start_position + len).map(seen).sum();
                assert_eq!(segment.visible_keys(window), counted, "{start_position} {len} {window:?}");
            }
        }
    }
}
