//! The backend of the hand-written CUDA kernels in `kernels/cuda/`, over any [`Device`] that can run them.
//!
//! Each family of operations has a file that chooses the kernel, its launch configuration and its arguments. The device
//! is a GPU or the emulator. There are two sets of kernels: the plain ones accumulate in the order of the CPU backend
//! `cpu-fma-2`, the fast ones use tensor cores where the shapes allow it.

use std::ops::Range;
use std::sync::Arc;

use crate::backend::{
    Activation, AttentionLayout, AttentionShape, Backend, PoolGroups, PoolMethod, QkvProjection, ScoreRule,
};
use crate::check::{self, TensorShape as _};
use crate::device_usage::DeviceUsage;
use crate::dtype::DType;
use crate::error::KernelError;
use crate::folded_norm::FoldedNorm;
use crate::host::HostTensor;
use crate::pending::PendingCopy;
use crate::routes::{RouteRule, Routes, WeightedRows};

mod architecture;
mod attention;
mod checks;
mod clock;
mod compare;
#[cfg(feature = "cuda")]
pub mod compiler;
#[cfg(feature = "cuda")]
pub mod cubins;
mod device;
#[cfg(feature = "cuda")]
pub mod driver;
mod embedding;
#[cfg(feature = "emulator")]
pub mod emulator;
mod experts;
mod folded_norm;
mod linear;
mod norms;
pub mod occupancy;
mod pool;
mod prepare;
mod qkv;
pub mod registry;
mod rows;
pub mod sources;
mod tables;
mod tensor;
mod tiles;
mod timeline;
mod traffic;

pub use architecture::Architecture;
pub use clock::DeviceClock;
pub use compare::DeviceDifference;
pub use device::{Argument, Device, Launch, MemoryUsage, read_blocking, upload_with_write};
pub use embedding::CudaEmbedding;
pub use tensor::{CudaTensor, CudaVector, CudaWeights};
pub use tiles::Tiles;
pub use timeline::Timeline;

use checks::WeightChecks;
use folded_norm::RowSquares;
use registry::Operation;
use tables::Tables;
use traffic::Traffic;

/// The set of kernels of a backend. An operation chooses its kernel by dtype and widths, never by the number of rows:
/// the bits of a row must not depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KernelSet {
    /// One output a thread, as a reference: the bits of the CPU backend `cpu-fma-2`.
    Plain,
    /// Tensor cores (`mma.sync`, from `sm_80` on) for f16 and bf16 with widths that are multiples of 8 elements;
    /// 16-byte loads and stores for rows that are multiples of 16 bytes; plain kernels for the rest.
    Mma,
    /// As [`KernelSet::Mma`], with `wgmma` on `sm_90` for matmuls and for attention with heads of 64 or 128 elements.
    Fast,
}

/// Bytes of a load or store of the wide kernels.
const WIDE_BYTES: usize = 16;

/// The CUDA kernels on a device.
pub struct CudaBackend<D: Device> {
    device: D,
    kernels: KernelSet,
    traffic: Traffic,
    tables: Tables<D::Buffer>,
    checks: WeightChecks<D::Buffer>,
}

impl<D: Device> CudaBackend<D> {
    /// A backend that runs `kernels` on `device`.
    pub fn new(device: D, kernels: KernelSet) -> Self {
        CudaBackend {
            device,
            kernels,
            traffic: Traffic::default(),
            tables: Tables::default(),
            checks: WeightChecks::default(),
        }
    }

    /// The device, to share or to query it.
    pub fn device(&self) -> &D {
        &self.device
    }

    /// Consumes the backend and returns its device.
    pub fn into_device(self) -> D {
        self.device
    }

    /// Whether 16-bit types use tensor cores.
    fn uses_tensor_cores(&self) -> bool {
        self.kernels != KernelSet::Plain
    }

    /// Whether rows of `columns` elements of `dtype` use the kernels with 16-byte loads and stores.
    fn moves_wide(&self, dtype: DType, columns: usize) -> bool {
        self.kernels != KernelSet::Plain && (columns * dtype.size()).is_multiple_of(WIDE_BYTES)
    }

    /// Whether matmuls and attention use the warpgroup instructions, which exist on `sm_90` alone.
    fn uses_wgmma(&self) -> bool {
        self.kernels == KernelSet::Fast && self.device.architecture().is_some_and(Architecture::has_wgmma)
    }

    /// Launches the kernel, unless the grid is empty.
    fn launch(&self, launch: &Launch, arguments: &mut [Argument<'_, D::Buffer>]) -> Result<(), KernelError> {
        if launch.grid.contains(&0) {
            return Ok(());
        }
        self.device.launch(launch, arguments)
    }

    /// A buffer with `values`, a lookup table of a launch.
    fn upload(&self, values: &[u32]) -> Result<Arc<D::Buffer>, KernelError> {
        self.tables.of(values, || {
            let bytes: &[u8] = bytemuck::cast_slice(values);
            self.traffic.add_to_device(bytes.len());
            self.device.upload(bytes)
        })
    }

    /// Copies `bytes` to the start of `buffer` and counts them.
    fn write(&self, buffer: &mut D::Buffer, bytes: &[u8]) -> Result<(), KernelError> {
        self.traffic.add_to_device(bytes.len());
        self.device.write(buffer, bytes)
    }

    /// Copies the start of `buffer` to `out` and counts the bytes.
    fn read(&self, buffer: &D::Buffer, out: &mut [u8]) -> Result<(), KernelError> {
        self.traffic.add_to_host(out.len());
        self.device.read(buffer, out)
    }

    /// Fills rows that the next launch will write with NaN if the device supports it, so that an unwritten row is
    /// visible.
    fn poison(&self, tensor: &mut CudaTensor<D::Buffer>, rows: Range<usize>) -> Result<(), KernelError> {
        let row_bytes = tensor.row_bytes();
        self.device.poison(&mut tensor.buffer, rows.start * row_bytes..rows.end * row_bytes)
    }
}

/// `value` as a 32-bit kernel argument.
///
/// # Errors
/// A value of more than 32 bits.
fn count(op: &'static str, value: usize) -> Result<u32, KernelError> {
    u32::try_from(value).map_err(|_| KernelError::shape(op, format!("{value} does not fit in 32 bits")))
}

impl<D: Device> Backend for CudaBackend<D> {
    type Tensor = CudaTensor<D::Buffer>;
    type Linear = CudaWeights<D::Buffer>;
    type Vector = CudaVector<D::Buffer>;
    type Embedding = CudaEmbedding<D::Buffer>;

    fn describe(&self) -> String {
        let kernels = match self.kernels {
            KernelSet::Plain => "plain",
            KernelSet::Mma => "mma",
            KernelSet::Fast => "fast",
        };
        format!("{} ({kernels} kernels)", self.device.describe())
    }

    fn kernel_id(&self) -> String {
        match self.kernels {
            KernelSet::Plain => "cuda-plain-1".to_owned(),
            KernelSet::Fast if self.uses_wgmma() => "cuda-wgmma-3".to_owned(),
            KernelSet::Fast | KernelSet::Mma => "cuda-mma-4".to_owned(),
        }
    }

    fn alloc(&self, dtype: DType, rows: usize, columns: usize) -> Result<Self::Tensor, KernelError> {
        let bytes = tensor::bytes(dtype, rows, columns)?;
        Ok(CudaTensor { buffer: self.device.alloc(bytes)?, capacity: bytes, dtype, rows, columns })
    }

    fn resize(&self, tensor: &mut Self::Tensor, rows: usize) -> Result<(), KernelError> {
        let bytes = tensor::bytes(tensor.dtype, rows, tensor.columns)?;
        if bytes > tensor.capacity {
            // The old memory is freed first: the device may not have memory for both.
            tensor.capacity = 0;
            tensor.buffer = self.device.alloc(0)?;
            tensor.buffer = self.device.alloc(bytes)?;
            tensor.capacity = bytes;
        }
        tensor.rows = rows;
        self.poison(tensor, 0..rows)
    }

    fn prepare_linear(&self, weights: &[HostTensor], run: DType) -> Result<Self::Linear, KernelError> {
        self.stack_weights(weights, run)
    }

    fn prepare_gated(&self, gate: &HostTensor, up: &HostTensor, run: DType) -> Result<Self::Linear, KernelError> {
        self.interleave_weights(gate, up, run)
    }

    fn folds_norms(&self, run: DType, width: usize) -> bool {
        self.can_fold_norms(run, width)
    }

    fn fold_norm(&self, weight: &mut Self::Linear, scale: &Self::Vector) -> Result<(), KernelError> {
        self.scale_columns(weight, scale)
    }

    fn prepare_vector(&self, parts: &[HostTensor], run: DType) -> Result<Self::Vector, KernelError> {
        self.join_vectors(parts, run)
    }

    fn prepare_embedding(&self, table: &HostTensor, run: DType) -> Result<Self::Embedding, KernelError> {
        self.embedding(table, run)
    }

    fn verify_weights(&self) -> Result<(), KernelError> {
        self.read_checks()
    }

    fn embed(
        &self,
        table: &Self::Embedding,
        tokens: &[u32],
        scale: f32,
        out: &mut Self::Tensor,
    ) -> Result<(), KernelError> {
        const OP: &str = "embed";
        check::embedding_scale(scale)?;
        check::same_dtype(OP, table, out)?;
        check::fits(OP, "out", out, tokens.len(), table.columns())?;
        if let Some(token) = tokens.iter().find(|token| **token as usize >= table.rows()) {
            let what = format!("token {token} is not in the vocabulary of {}", table.rows());
            return Err(KernelError::shape(OP, what));
        }
        self.with_rows(table, tokens, |table, rows| {
            if scale == 1.0 {
                return self.gather(OP, table, rows, out);
            }
            self.embed_scaled(table, rows, scale, out)
        })
    }

    fn add_embedding(
        &self,
        table: &Self::Embedding,
        rows: &[u32],
        stream: &mut Self::Tensor,
    ) -> Result<(), KernelError> {
        const OP: &str = "add embedding";
        check::same_dtype(OP, table, stream)?;
        check::add_embedding(rows, (table.rows(), table.columns()), stream)?;
        self.with_rows(table, rows, |table, rows| self.add_rows(table, rows, stream))
    }

    fn rms_norm(
        &self,
        x: &Self::Tensor,
        scale: &Self::Vector,
        eps: f32,
        out: &mut Self::Tensor,
    ) -> Result<(), KernelError> {
        const OP: &str = "rms norm";
        check::norm(OP, x, scale.len, None, out)?;
        self.poison(out, 0..x.rows)?;
        self.rms_norm_rows(OP, Operation::RmsNorm, x, scale, eps, out)
    }

    fn rms_norm_residual(
        &self,
        x: &Self::Tensor,
        scale: &Self::Vector,
        eps: f32,
        stream: &mut Self::Tensor,
    ) -> Result<(), KernelError> {
        const OP: &str = "rms norm residual";
        check::norm(OP, x, scale.len, None, stream)?;
        self.rms_norm_rows(OP, Operation::RmsNormResidual, x, scale, eps, stream)
    }

    fn rms_norm_heads(
        &self,
        x: &mut Self::Tensor,
        n_heads: usize,
        scale: &Self::Vector,
        eps: f32,
    ) -> Result<(), KernelError> {
        check::norm_heads(x, n_heads, scale.len)?;
        self.rms_norm_of_heads(x, n_heads, scale, eps)
    }

    fn layer_norm(
        &self,
        x: &Self::Tensor,
        scale: &Self::Vector,
        bias: &Self::Vector,
        eps: f32,
        out: &mut Self::Tensor,
    ) -> Result<(), KernelError> {
        check::norm("layer norm", x, scale.len, Some(bias.len), out)?;
        self.layer_norm_rows(x, scale, bias, eps, out)
    }

    fn linear(
        &self,
        x: &Self::Tensor,
        weight: &Self::Linear,
        bias: Option<&Self::Vector>,
        out: &mut Self::Tensor,
    ) -> Result<(), KernelError> {
        check::matmul("linear", x, weight.shape, false, bias.map(|bias| bias.len), 1, out)?;
        self.poison(out, 0..x.rows)?;
        self.matmul(Operation::Linear, x, weight, bias, None, out, RowSquares::None)
    }

    fn linear_residual(
        &self,
        x: &Self::Tensor,
        weight: &Self::Linear,
        bias: Option<&Self::Vector>,
        stream: &mut Self::Tensor,
    ) -> Result<(), KernelError> {
        check::matmul("linear residual", x, weight.shape, false, bias.map(|bias| bias.len), 1, stream)?;
        self.matmul(Operation::LinearResidual, x, weight, bias, None, stream, RowSquares::None)
    }

    fn linear_activated(
        &self,
        x: &Self::Tensor,
        weight: &Self::Linear,
        bias: Option<&Self::Vector>,
        activation: Activation,
        out: &mut Self::Tensor,
    ) -> Result<(), KernelError> {
        check::matmul("linear activated", x, weight.shape, false, bias.map(|bias| bias.len), 1, out)?;
        self.poison(out, 0..x.rows)?;
        self.matmul(Operation::Linear, x, weight, bias, Some(activation), out, RowSquares::None)
    }

    fn linear_gated(
        &self,
        x: &Self::Tensor,
        gate_up: &Self::Linear,
        bias: Option<&Self::Vector>,
        activation: Activation,
        out: &mut Self::Tensor,
    ) -> Result<(), KernelError> {
        check::matmul("linear gated", x, gate_up.shape, true, bias.map(|bias| bias.len), 2, out)?;
        self.poison(out, 0..x.rows)?;
        self.matmul(Operation::LinearGated, x, gate_up, bias, Some(activation), out, RowSquares::None)
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
        const OP: &str = "linear normed";
        let gated = weight.shape.gated;
        if gated && activation.is_none() {
            return Err(KernelError::shape(OP, "gated weights without an activation"));
        }
        let biases_per_output = if gated { 2 } else { 1 };
        check::matmul(OP, x, weight.shape, gated, bias.map(|bias| bias.len), biases_per_output, out)?;
        check::squares(OP, norm.squares, x.rows, x.columns)?;
        self.poison(out, 0..x.rows)?;
        let operation = if gated { Operation::LinearGated } else { Operation::Linear };
        self.matmul(operation, x, weight, bias, activation, out, RowSquares::Scale(norm.squares, norm.eps))
    }

    fn linear_residual_squares(
        &self,
        x: &Self::Tensor,
        weight: &Self::Linear,
        bias: Option<&Self::Vector>,
        stream: &mut Self::Tensor,
        squares: &mut Self::Tensor,
    ) -> Result<(), KernelError> {
        const OP: &str = "linear residual squares";
        check::matmul(OP, x, weight.shape, false, bias.map(|bias| bias.len), 1, stream)?;
        check::squares(OP, squares, x.rows, stream.columns)?;
        self.poison(squares, 0..x.rows)?;
        self.matmul(Operation::LinearResidual, x, weight, bias, None, stream, RowSquares::Write(squares))
    }

    fn square_sums(&self, x: &Self::Tensor, squares: &mut Self::Tensor) -> Result<(), KernelError> {
        check::squares("square sums", squares, x.rows, x.columns)?;
        self.sum_squares(x, x.rows, squares)
    }

    fn route(&self, logits: &Self::Tensor, rule: RouteRule) -> Result<Routes, KernelError> {
        check::route(logits, rule)?;
        self.route_rows(logits, rule)
    }

    fn add_weighted_rows(
        &self,
        x: &Self::Tensor,
        sums: WeightedRows<'_>,
        stream: &mut Self::Tensor,
    ) -> Result<(), KernelError> {
        check::weighted_rows(x, sums, stream)?;
        self.add_sums(x, sums, stream)
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
        check::rope(x, n_heads, head_dim, rotary_dim, positions, cos.len, sin.len)?;
        self.rotate_rows(x, n_heads, head_dim, rotary_dim, positions, cos, sin)
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
        let bias_len = bias.map(|bias| bias.len);
        check::project_qkv(x, weight.shape, bias_len, projection, |vector| vector.len, query, key_value)?;
        if let Some(norm) = &norm {
            check::squares("project qkv", norm.squares, x.rows, x.columns)?;
        }
        if projection.part.has_query() {
            self.poison(query, 0..x.rows)?;
        }
        if projection.part.has_key_value() {
            self.poison(key_value, 0..x.rows)?;
        }
        self.qkv(x, norm, weight, bias, projection, query, key_value)
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
        check::attention(query, keys_values, layout, shape, scores, out)?;
        for segment in &layout.segments {
            self.poison(out, segment.query_row..segment.query_row + segment.len)?;
        }
        self.attend(query, keys_values, layout, shape, scores, out)
    }

    fn pool(
        &self,
        x: &Self::Tensor,
        groups: &PoolGroups,
        method: PoolMethod,
        out: &mut Self::Tensor,
    ) -> Result<(), KernelError> {
        check::pool(x, groups, out)?;
        self.pool_groups(x, groups, method, out)
    }

    fn gather_rows(&self, x: &Self::Tensor, rows: &[u32], out: &mut Self::Tensor) -> Result<(), KernelError> {
        const OP: &str = "gather rows";
        check::same_dtype(OP, x, out)?;
        check::fits(OP, "out", out, rows.len(), x.columns)?;
        check::row_indices(OP, rows, x.rows)?;
        self.gather(OP, x, rows, out)
    }

    fn copy_rows(
        &self,
        x: &Self::Tensor,
        from: usize,
        count: usize,
        out: &mut Self::Tensor,
        to: usize,
    ) -> Result<(), KernelError> {
        check::copy_rows(x, from, count, out, to)?;
        self.copy(x, from, count, out, to)
    }

    fn download(&self, x: &Self::Tensor, rows: usize, out: &mut [u8]) -> Result<(), KernelError> {
        check::fits("download", "x", x, rows, x.columns)?;
        check::width("download", "out", out.len(), rows * x.row_bytes())?;
        self.read(&x.buffer, out)
    }

    fn upload(&self, bytes: &[u8], out: &mut Self::Tensor) -> Result<(), KernelError> {
        check::upload(bytes.len(), out)?;
        self.poison(out, 0..bytes.len() / out.row_bytes().max(1))?;
        self.write(&mut out.buffer, bytes)
    }

    fn launch_grouped(
        &self,
        graph_slot: usize,
        rows: usize,
        work: &mut dyn FnMut() -> Result<(), KernelError>,
    ) -> Result<(), KernelError> {
        self.device.launch_grouped(graph_slot, rows, work)
    }

    fn downloads_are_async(&self) -> bool {
        self.device.downloads_are_async()
    }

    fn download_async(&self, x: Self::Tensor, rows: usize) -> Result<Box<dyn PendingCopy>, KernelError> {
        check::fits("download", "x", &x, rows, x.columns)?;
        let bytes = rows * x.row_bytes();
        self.traffic.add_to_host(bytes);
        self.device.read_async(x.buffer, bytes)
    }

    fn device_usage(&self) -> Result<Option<DeviceUsage>, KernelError> {
        let memory = self.device.memory_usage()?.unwrap_or_default();
        Ok(Some(DeviceUsage {
            peak_used: memory.peak_used,
            peak_reserved: memory.peak_reserved,
            to_device: self.traffic.to_device(),
            to_host: self.traffic.to_host(),
        }))
    }

    fn reset_device_usage(&self) -> Result<(), KernelError> {
        self.traffic.reset();
        self.tables.clear();
        self.device.reset_peak_memory()
    }

    fn free_memory(&self) -> Result<Option<u64>, KernelError> {
        self.device.free_memory()
    }
}
