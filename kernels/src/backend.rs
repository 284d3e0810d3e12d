//! The interface that every device implements: one method an operation, none of which knows the model.
//!
//! # Numerics, the same on every device
//! Activations are stored in the run's dtype; an operation widens them to `f32`, computes in `f32`, and rounds once
//! when it stores its result. The order of every sum is fixed by the row alone (its width, its position in its
//! sequence), so the bits of a row do not depend on the other rows, on how rows are cut into batches, on the order
//! of the rows or on the number of threads.

use std::fmt;
use std::str::FromStr;

use crate::device_use::DeviceUse;
use crate::dtype::DType;
use crate::error::KernelError;
use crate::host::HostTensor;
use crate::pending::PendingCopy;

/// How the masked positions of one sample become one vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PoolMethod {
    /// The sum divided by the count.
    Mean,
    /// The elementwise maximum.
    Max,
    /// The last masked position.
    Last,
    /// The sum.
    Sum,
}

impl PoolMethod {
    /// All methods, in the order users see them.
    pub const ALL: [PoolMethod; 4] = [PoolMethod::Mean, PoolMethod::Max, PoolMethod::Last, PoolMethod::Sum];

    /// The name on the command line and in files.
    pub const fn name(self) -> &'static str {
        match self {
            PoolMethod::Mean => "mean",
            PoolMethod::Max => "max",
            PoolMethod::Last => "last",
            PoolMethod::Sum => "sum",
        }
    }
}

impl fmt::Display for PoolMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for PoolMethod {
    type Err = KernelError;

    fn from_str(text: &str) -> Result<Self, KernelError> {
        PoolMethod::ALL
            .into_iter()
            .find(|method| method.name() == text)
            .ok_or_else(|| KernelError::shape("pool", format!("unknown pool '{text}': use mean, max, last or sum")))
    }
}

/// Which rows of a tensor are pooled into which output row: a compressed list of lists.
///
/// Rows of one group are listed by increasing position in their sample; sums run in that order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PoolGroups {
    /// `offsets[g]..offsets[g + 1]` are group `g`'s entries in `rows`; one longer than the number of groups.
    offsets: Vec<usize>,
    /// Row numbers, group after group.
    rows: Vec<u32>,
}

impl PoolGroups {
    /// No groups yet.
    pub fn new() -> Self {
        PoolGroups { offsets: vec![0], rows: Vec::new() }
    }

    /// Appends a group of rows. An empty group pools to zeros.
    pub fn push(&mut self, rows: impl IntoIterator<Item = u32>) {
        if self.offsets.is_empty() {
            self.offsets.push(0);
        }
        self.rows.extend(rows);
        self.offsets.push(self.rows.len());
    }

    /// The number of groups.
    pub fn len(&self) -> usize {
        self.offsets.len().saturating_sub(1)
    }

    /// Whether there is no group.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The rows of group `group`.
    pub fn rows_of(&self, group: usize) -> &[u32] {
        &self.rows[self.offsets[group]..self.offsets[group + 1]]
    }

    /// The largest row number named, if any is.
    pub fn max_row(&self) -> Option<u32> {
        self.rows.iter().copied().max()
    }

    /// How many rows the groups name in all.
    pub fn n_rows(&self) -> usize {
        self.rows.len()
    }
}

/// Consecutive query rows at consecutive positions of one sequence, and where that sequence's keys lie.
///
/// A whole sequence is one segment over one run of keys. A node of a prefix tree is a segment whose runs are its
/// ancestors' rows, root first, and then its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttentionSegment {
    /// First row of the segment in the query tensor.
    pub query_row: usize,
    /// Position of that row in its sequence.
    pub start_position: usize,
    /// Query rows in the segment.
    pub len: usize,
    /// Runs `(first row, length)` of the key/value tensor that hold positions `0..start_position + len`, in order.
    pub keys: Vec<(usize, usize)>,
}

/// The segments of a batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AttentionLayout {
    /// In any order; query rows that no segment names are left untouched.
    pub segments: Vec<AttentionSegment>,
}

/// The head geometry of an attention call.
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

/// A device that runs the operations. Tensors are two-dimensional, `[rows, columns]`, row-major.
///
/// An operation works on all rows of its input and writes as many leading rows of `out`, which may have more.
pub trait Backend: Send + Sync + 'static {
    /// A tensor on the device, in the run's dtype.
    type Tensor: Send + Sync;
    /// A weight matrix prepared for [`Backend::linear`].
    type Linear: Send + Sync;
    /// A vector of `f32`, such as a norm's scale or a bias.
    type Vector: Send + Sync;
    /// An embedding table prepared for [`Backend::embed`].
    type Embedding: Send + Sync;

    /// What the device is, for people: `cpu (avx512, 2 threads)`.
    fn describe(&self) -> String;

    /// A short stable name of the arithmetic in use. Two runs whose names differ may differ in their last bits.
    fn kernel_id(&self) -> String;

    /// A tensor of `rows x columns`. Its contents are unspecified until an operation writes them.
    fn alloc(&self, dtype: DType, rows: usize, columns: usize) -> Result<Self::Tensor, KernelError>;

    /// Gives `tensor` another number of rows, reusing its memory where it fits. Contents become unspecified.
    fn resize(&self, tensor: &mut Self::Tensor, rows: usize) -> Result<(), KernelError>;

    /// Prepares weights `[out_features, in_features]` for products with activations of type `run`.
    ///
    /// Several matrices with the same `in_features` are stacked: their outputs stand side by side.
    ///
    /// # Errors
    /// Shapes that do not fit, or an element that is not finite once it is rounded to `run`.
    fn prepare_linear(&self, weights: &[HostTensor], run: DType) -> Result<Self::Linear, KernelError>;

    /// Prepares a gate and an up projection, both `[out_features, in_features]`, for [`Backend::linear_swiglu`].
    fn prepare_gated(&self, gate: &HostTensor, up: &HostTensor, run: DType) -> Result<Self::Linear, KernelError>;

    /// Prepares vectors, laid end to end; every element is rounded to `run` first, as the stored model would be.
    fn prepare_vector(&self, parts: &[HostTensor], run: DType) -> Result<Self::Vector, KernelError>;

    /// Prepares an embedding table `[vocabulary, hidden]`.
    fn prepare_embedding(&self, table: &HostTensor, run: DType) -> Result<Self::Embedding, KernelError>;

    /// `out[i] = table[tokens[i]]`.
    fn embed(&self, table: &Self::Embedding, tokens: &[u32], out: &mut Self::Tensor) -> Result<(), KernelError>;

    /// `out[i] = x[i] / sqrt(mean(x[i]^2) + eps) * scale`, Zhang & Sennrich 2019, over rows of `x`.
    fn rms_norm(
        &self,
        x: &Self::Tensor,
        scale: &Self::Vector,
        eps: f32,
        out: &mut Self::Tensor,
    ) -> Result<(), KernelError>;

    /// `out = x W^T + bias`.
    fn linear(
        &self,
        x: &Self::Tensor,
        weight: &Self::Linear,
        bias: Option<&Self::Vector>,
        out: &mut Self::Tensor,
    ) -> Result<(), KernelError>;

    /// `stream = stream + x W^T + bias`: the product is added in `f32` and rounded once.
    fn linear_residual(
        &self,
        x: &Self::Tensor,
        weight: &Self::Linear,
        bias: Option<&Self::Vector>,
        stream: &mut Self::Tensor,
    ) -> Result<(), KernelError>;

    /// `out = silu(x G^T + bias_gate) * (x U^T + bias_up)`, with `bias` as `[bias_gate | bias_up]`.
    fn linear_swiglu(
        &self,
        x: &Self::Tensor,
        gate_up: &Self::Linear,
        bias: Option<&Self::Vector>,
        out: &mut Self::Tensor,
    ) -> Result<(), KernelError>;

    /// Rotates the first `n_heads` heads of `head_dim` columns of every row, in place (Su et al. 2021, in the
    /// half-split layout of Hugging Face: column `j` pairs with `j + head_dim / 2`).
    ///
    /// `cos` and `sin` hold `head_dim / 2` angles a position; row `i` is at `positions[i]`.
    fn rope(
        &self,
        x: &mut Self::Tensor,
        n_heads: usize,
        head_dim: usize,
        positions: &[u32],
        cos: &Self::Vector,
        sin: &Self::Vector,
    ) -> Result<(), KernelError>;

    /// Causal attention with grouped query heads, scale `1/sqrt(head_dim)`.
    ///
    /// `query` is `[rows, n_heads * head_dim]`, `keys_values` is `[rows, 2 * n_kv_heads * head_dim]` with the keys
    /// first, `out` is like `query`.
    fn attention(
        &self,
        query: &Self::Tensor,
        keys_values: &Self::Tensor,
        layout: &AttentionLayout,
        shape: AttentionShape,
        out: &mut Self::Tensor,
    ) -> Result<(), KernelError>;

    /// `out[g] = pool(x[rows of group g])`, accumulated in `f32` in the listed order, rounded once.
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

    /// Copies the first `rows` rows of `x` to host memory. `out` is exactly that many bytes.
    fn download(&self, x: &Self::Tensor, rows: usize, out: &mut [u8]) -> Result<(), KernelError>;

    /// Copies the rows `bytes` from host memory to the first rows of `out`, which has at least as many. `bytes` may change
    /// as soon as this returns.
    ///
    /// # Errors
    /// No whole number of rows, or more than `out` has.
    fn upload(&self, bytes: &[u8], out: &mut Self::Tensor) -> Result<(), KernelError>;

    /// Runs `work` once. Operations in it may reach the device together when it is over, which takes the host less time
    /// than one by one; results are the same. Worth it where many operations of few `rows` follow one another and no rows
    /// are downloaded. `place` tells groups of other operations apart: what was made of a group serves the next one of
    /// that place.
    ///
    /// # Errors
    /// Those of `work`, and a failure of the device.
    fn grouped(
        &self,
        _place: usize,
        _rows: usize,
        work: &mut dyn FnMut() -> Result<(), KernelError>,
    ) -> Result<(), KernelError> {
        work()
    }

    /// Whether [`Backend::download_later`] returns before the copy is over.
    fn copies_overlap(&self) -> bool {
        false
    }

    /// Copies the first `rows` rows of `x` to host memory while the device goes on: what it computes from now on may be
    /// under way beside the copy.
    ///
    /// # Errors
    /// More rows than `x` has, or a failure of the device.
    fn download_later(&self, x: Self::Tensor, rows: usize) -> Result<Box<dyn PendingCopy>, KernelError>;

    /// What the device has used since [`Backend::reset_device_use`]; none where the device is the host itself.
    ///
    /// # Errors
    /// A failure of the device.
    fn device_use(&self) -> Result<Option<DeviceUse>, KernelError> {
        Ok(None)
    }

    /// Starts what [`Backend::device_use`] counts anew, and gives memory back that nothing is in.
    ///
    /// # Errors
    /// A failure of the device.
    fn reset_device_use(&self) -> Result<(), KernelError> {
        Ok(())
    }

    /// Bytes that can still be allocated; none where nobody counts them.
    ///
    /// # Errors
    /// A failure of the device.
    fn free_memory(&self) -> Result<Option<u64>, KernelError> {
        Ok(None)
    }
}
