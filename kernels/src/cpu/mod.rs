//! The CPU backend: the default on a machine without a GPU, and the reference for the GPU backends.
//!
//! Every operation runs on the backend's own thread pool, or on the thread of a stream alone (see [`Streams`]). [`isa`]
//! compiles one kernel body for several instruction sets with the same bits. [`crate::backend`] states the numerics of the operations.

use std::marker::PhantomData;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rayon::ThreadPool;

use self::aligned::AlignedBytes;
use self::gemm::activation::with_activation;
use self::gemm::epilogue::{
    ActivatedEpilogue, GatedEpilogue, OutputRows, QkvEpilogue, ResidualEpilogue, StoreEpilogue,
};
use self::gemm::pack::PANEL;
use self::rows::{RopeAngles, RopeHeads};
use self::tensor::with_element;
use crate::backend::{
    Activation, AttentionLayout, AttentionShape, Backend, PoolGroups, PoolMethod, QkvPart, QkvProjection, Rotation,
    ScoreRule,
};
use crate::check;
use crate::device_usage::DeviceUsage;
use crate::dtype::DType;
use crate::error::KernelError;
use crate::folded_norm::FoldedNorm;
use crate::host::HostTensor;
use crate::pending::{CompletedCopy, PendingCopy};
use crate::routes::{RouteRule, Routes, WeightedRows};

mod aligned;
mod attention;
mod cache;
mod experts;
mod gemm;
mod isa;
mod math;
mod norms;
mod pool;
mod rows;
mod streams;
mod tensor;

pub use aligned::allocated_bytes;
pub use gemm::{PackedWeights, scratch_bytes};
pub use isa::{ISA_VARIABLE, Isa};
pub use streams::Streams;
pub use tensor::CpuTensor;

/// The backend of the host processor.
pub struct CpuBackend {
    isa: Isa,
    pool: ThreadPool,
    /// Buffers of packed activations, one for each matmul that runs at a time, kept so that the steady state does not allocate.
    scratch: Mutex<Vec<AlignedBytes>>,
}

impl CpuBackend {
    /// A backend with `threads` threads that uses the best instruction set of the processor.
    ///
    /// # Errors
    /// When the threads cannot be started, or [`ISA_VARIABLE`] does not name an instruction set.
    pub fn new(threads: usize) -> Result<Self, KernelError> {
        if let Some(name) = std::env::var_os(ISA_VARIABLE).filter(|name| !Isa::is_name(name)) {
            let name = name.to_string_lossy().into_owned();
            return Err(KernelError::UnknownIsa { variable: ISA_VARIABLE, name });
        }
        Self::with_isa(threads, Isa::detect())
    }

    /// As [`CpuBackend::new`], with the instruction set `isa`, or the best one of the processor if that is lower.
    ///
    /// # Errors
    /// When the threads cannot be started.
    pub fn with_isa(threads: usize, isa: Isa) -> Result<Self, KernelError> {
        let pool = thread_pool(threads.max(1), "kernel")?;
        Ok(CpuBackend { isa: isa.min(Isa::detect()), pool, scratch: Mutex::default() })
    }

    /// The thread pool of the operations, for other host work of the same run.
    pub fn thread_pool(&self) -> &ThreadPool {
        &self.pool
    }

    /// Runs `operation` on the thread pool, or on the thread of a stream that computes alone.
    fn run<R: Send>(&self, operation: impl FnOnce() -> R + Send) -> R {
        if streams::is_alone() { operation() } else { self.pool.install(operation) }
    }

    /// As [`CpuBackend::run`], with working memory for a matmul.
    fn run_matmul(
        &self,
        operation: impl FnOnce(&mut AlignedBytes) -> Result<(), KernelError> + Send,
    ) -> Result<(), KernelError> {
        let spare = self.scratch().pop();
        let mut scratch = spare.map_or_else(|| AlignedBytes::zeroed("linear", 0), Ok)?;
        let result = self.run(|| operation(&mut scratch));
        self.scratch().push(scratch);
        result
    }

    fn scratch(&self) -> MutexGuard<'_, Vec<AlignedBytes>> {
        // The buffers have no state between calls, so a poisoned lock is harmless.
        self.scratch.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The error of an operation of folded norms.
fn not_folded(op: &'static str) -> KernelError {
    KernelError::shape(op, "the CPU backend folds no norms")
}

/// A pool of `threads` threads named `name`.
fn thread_pool(threads: usize, name: &'static str) -> Result<ThreadPool, KernelError> {
    let named =
        rayon::ThreadPoolBuilder::new().num_threads(threads).thread_name(move |index| format!("{name}-{index}"));
    let refused = |error: rayon::ThreadPoolBuildError| KernelError::Device {
        op: "start threads",
        device: "cpu".to_owned(),
        message: error.to_string(),
    };
    named.build().map_err(refused)
}

impl Backend for CpuBackend {
    type Tensor = CpuTensor;
    type Linear = PackedWeights;
    type Vector = Vec<f32>;
    type Embedding = HostTensor;

    fn describe(&self) -> String {
        format!("cpu ({}, {} threads)", self.isa, self.pool.current_num_threads())
    }

    fn kernel_id(&self) -> String {
        self.isa.kernel_id().to_owned()
    }

    fn alloc(&self, dtype: DType, rows: usize, columns: usize) -> Result<CpuTensor, KernelError> {
        CpuTensor::new(dtype, rows, columns)
    }

    fn resize(&self, tensor: &mut CpuTensor, rows: usize) -> Result<(), KernelError> {
        tensor.resize(rows)
    }

    fn prepare_linear(&self, weights: &[HostTensor], run: DType) -> Result<PackedWeights, KernelError> {
        self.pool.install(|| PackedWeights::stacked(weights, run, self.isa.splits_f32()))
    }

    fn prepare_gated(&self, gate: &HostTensor, up: &HostTensor, run: DType) -> Result<PackedWeights, KernelError> {
        self.pool.install(|| PackedWeights::gated(gate, up, run, self.isa.splits_f32()))
    }

    /// Never: the CPU reads its caches for a norm, which is a small part of a forward pass.
    fn folds_norms(&self, _run: DType, _width: usize) -> bool {
        false
    }

    fn fold_norm(&self, _weight: &mut PackedWeights, _scale: &Vec<f32>) -> Result<(), KernelError> {
        Err(not_folded("fold norm"))
    }

    fn prepare_vector(&self, parts: &[HostTensor], run: DType) -> Result<Vec<f32>, KernelError> {
        let mut values = Vec::new();
        for part in parts {
            let rounded = run.to_f32_vec(&run.from_f32_slice(&part.to_f32_vec()));
            if let Some(index) = rounded.iter().position(|value| !value.is_finite()) {
                return Err(KernelError::NotFinite { op: "prepare vector", index, value: rounded[index] });
            }
            values.extend(rounded);
        }
        Ok(values)
    }

    /// Keeps the table in its stored dtype: `embed` converts the rows that it gathers. Pages of a mapped file without a
    /// used token are therefore never read.
    fn prepare_embedding(&self, table: &HostTensor, _run: DType) -> Result<HostTensor, KernelError> {
        match table.shape() {
            [_, _] => Ok(table.clone()),
            other => Err(KernelError::shape("prepare embedding", format!("not a matrix: {other:?}"))),
        }
    }

    /// Weights are checked while they are packed, and rows of an embedding when they are used.
    fn verify_weights(&self) -> Result<(), KernelError> {
        Ok(())
    }

    fn embed(&self, table: &HostTensor, tokens: &[u32], scale: f32, out: &mut CpuTensor) -> Result<(), KernelError> {
        check::embedding_scale(scale)?;
        check::fits("embed", "out", out, tokens.len(), table.shape()[1])?;
        self.run(|| rows::embed(self.isa, table, tokens, scale, out))
    }

    fn add_embedding(&self, table: &HostTensor, rows: &[u32], stream: &mut CpuTensor) -> Result<(), KernelError> {
        check::add_embedding(rows, (table.shape()[0], table.shape()[1]), stream)?;
        self.run(|| rows::add_embedding(self.isa, table, rows, stream))
    }

    fn rms_norm(&self, x: &CpuTensor, scale: &Vec<f32>, eps: f32, out: &mut CpuTensor) -> Result<(), KernelError> {
        check::norm("rms norm", x, scale.len(), None, out)?;
        self.run(|| norms::rms_norm(self.isa, x, scale, eps, out));
        Ok(())
    }

    fn rms_norm_residual(
        &self,
        x: &CpuTensor,
        scale: &Vec<f32>,
        eps: f32,
        stream: &mut CpuTensor,
    ) -> Result<(), KernelError> {
        check::norm("rms norm residual", x, scale.len(), None, stream)?;
        self.run(|| norms::rms_norm_residual(self.isa, x, scale, eps, stream));
        Ok(())
    }

    fn rms_norm_heads(&self, x: &mut CpuTensor, n_heads: usize, scale: &Vec<f32>, eps: f32) -> Result<(), KernelError> {
        check::norm_heads(x, n_heads, scale.len())?;
        self.run(|| norms::rms_norm_heads(self.isa, x, n_heads, scale, eps));
        Ok(())
    }

    fn layer_norm(
        &self,
        x: &CpuTensor,
        scale: &Vec<f32>,
        bias: &Vec<f32>,
        eps: f32,
        out: &mut CpuTensor,
    ) -> Result<(), KernelError> {
        check::norm("layer norm", x, scale.len(), Some(bias.len()), out)?;
        self.run(|| norms::layer_norm(self.isa, x, scale, bias, eps, out));
        Ok(())
    }

    fn linear(
        &self,
        x: &CpuTensor,
        weight: &PackedWeights,
        bias: Option<&Vec<f32>>,
        out: &mut CpuTensor,
    ) -> Result<(), KernelError> {
        check::matmul("linear", x, weight.shape(), false, bias.map(Vec::len), 1, out)?;
        let bias = bias.map(Vec::as_slice);
        with_element!(x.dtype(), E => {
            let epilogue = StoreEpilogue::<E> { out: OutputRows::new(out), bias };
            self.run_matmul(|scratch| gemm::matmul(self.isa, x, weight, &epilogue, scratch))
        })
    }

    fn linear_residual(
        &self,
        x: &CpuTensor,
        weight: &PackedWeights,
        bias: Option<&Vec<f32>>,
        stream: &mut CpuTensor,
    ) -> Result<(), KernelError> {
        check::matmul("linear residual", x, weight.shape(), false, bias.map(Vec::len), 1, stream)?;
        let bias = bias.map(Vec::as_slice);
        with_element!(x.dtype(), E => {
            let epilogue = ResidualEpilogue::<E> { stream: OutputRows::new(stream), bias };
            self.run_matmul(|scratch| gemm::matmul(self.isa, x, weight, &epilogue, scratch))
        })
    }

    fn linear_normed(
        &self,
        _x: &CpuTensor,
        _norm: FoldedNorm<'_, CpuTensor>,
        _weight: &PackedWeights,
        _bias: Option<&Vec<f32>>,
        _activation: Option<Activation>,
        _out: &mut CpuTensor,
    ) -> Result<(), KernelError> {
        Err(not_folded("linear normed"))
    }

    fn linear_residual_squares(
        &self,
        _x: &CpuTensor,
        _weight: &PackedWeights,
        _bias: Option<&Vec<f32>>,
        _stream: &mut CpuTensor,
        _squares: &mut CpuTensor,
    ) -> Result<(), KernelError> {
        Err(not_folded("linear residual squares"))
    }

    fn square_sums(&self, _x: &CpuTensor, _squares: &mut CpuTensor) -> Result<(), KernelError> {
        Err(not_folded("square sums"))
    }

    fn linear_activated(
        &self,
        x: &CpuTensor,
        weight: &PackedWeights,
        bias: Option<&Vec<f32>>,
        activation: Activation,
        out: &mut CpuTensor,
    ) -> Result<(), KernelError> {
        check::matmul("linear activated", x, weight.shape(), false, bias.map(Vec::len), 1, out)?;
        let bias = bias.map(Vec::as_slice);
        with_element!(x.dtype(), E => with_activation!(activation, A => {
            let epilogue = ActivatedEpilogue::<E, A> { out: OutputRows::new(out), bias, activation: PhantomData };
            self.run_matmul(|scratch| gemm::matmul(self.isa, x, weight, &epilogue, scratch))
        }))
    }

    fn linear_gated(
        &self,
        x: &CpuTensor,
        gate_up: &PackedWeights,
        bias: Option<&Vec<f32>>,
        activation: Activation,
        out: &mut CpuTensor,
    ) -> Result<(), KernelError> {
        check::matmul("linear gated", x, gate_up.shape(), true, bias.map(Vec::len), 2, out)?;
        let bias = bias.map(|bias| bias.split_at(gate_up.out_features()));
        with_element!(x.dtype(), E => with_activation!(activation, A => {
            let epilogue = GatedEpilogue::<E, A> { out: OutputRows::new(out), bias, activation: PhantomData };
            self.run_matmul(|scratch| gemm::matmul(self.isa, x, gate_up, &epilogue, scratch))
        }))
    }

    fn route(&self, logits: &CpuTensor, rule: RouteRule) -> Result<Routes, KernelError> {
        check::route(logits, rule)?;
        self.run(|| experts::route(self.isa, logits, rule))
    }

    fn add_weighted_rows(
        &self,
        x: &CpuTensor,
        sums: WeightedRows<'_>,
        stream: &mut CpuTensor,
    ) -> Result<(), KernelError> {
        check::weighted_rows(x, sums, stream)?;
        self.run(|| experts::add_weighted_rows(self.isa, x, sums, stream));
        Ok(())
    }

    fn rope(
        &self,
        x: &mut CpuTensor,
        n_heads: usize,
        head_dim: usize,
        rotary_dim: usize,
        positions: &[u32],
        cos: &Vec<f32>,
        sin: &Vec<f32>,
    ) -> Result<(), KernelError> {
        check::rope(x, n_heads, head_dim, rotary_dim, positions, cos.len(), sin.len())?;
        let heads = RopeHeads { n_heads, head_dim, rotary_dim };
        self.run(|| rows::rope(self.isa, x, heads, positions, RopeAngles { cos, sin }));
        Ok(())
    }

    fn project_qkv(
        &self,
        x: &CpuTensor,
        norm: Option<FoldedNorm<'_, CpuTensor>>,
        weight: &PackedWeights,
        bias: Option<&Vec<f32>>,
        projection: &QkvProjection<'_, Vec<f32>>,
        query: &mut CpuTensor,
        key_value: &mut CpuTensor,
    ) -> Result<(), KernelError> {
        if norm.is_some() {
            return Err(not_folded("project qkv"));
        }
        check::project_qkv(x, weight.shape(), bias.map(Vec::len), projection, Vec::len, query, key_value)?;
        let QkvProjection { shape, part, rotation } = projection;
        let (query_width, bias) = (shape.query_width(), bias.map(Vec::as_slice));
        let columns = match part {
            QkvPart::All => 0..weight.out_features(),
            QkvPart::Query => 0..query_width,
            QkvPart::KeyValue => query_width..weight.out_features(),
        };
        let panels = columns.start / PANEL..columns.end.div_ceil(PANEL);
        with_element!(x.dtype(), E => {
            let (query, key_value) = (OutputRows::new(query), OutputRows::new(key_value));
            let epilogue = QkvEpilogue::<E> { query, key_value, query_width, columns, bias };
            self.run_matmul(|scratch| gemm::matmul_panels(self.isa, x, weight, panels, &epilogue, scratch))?;
        });
        let Some(Rotation { rotary_dim, positions, cos, sin }) = rotation else { return Ok(()) };
        let rotated = [(part.has_query(), query, shape.n_heads), (part.has_key_value(), key_value, shape.n_kv_heads)];
        for (_, tensor, n_heads) in rotated.into_iter().filter(|(is_computed, ..)| *is_computed) {
            let heads = RopeHeads { n_heads, head_dim: shape.head_dim, rotary_dim: *rotary_dim };
            self.run(|| rows::rope(self.isa, tensor, heads, positions, RopeAngles { cos, sin }));
        }
        Ok(())
    }

    fn attention(
        &self,
        query: &CpuTensor,
        keys_values: &CpuTensor,
        layout: &AttentionLayout,
        shape: AttentionShape,
        scores: ScoreRule,
        out: &mut CpuTensor,
    ) -> Result<(), KernelError> {
        check::attention(query, keys_values, layout, shape, scores, out)?;
        self.run(|| attention::attention(self.isa, query, keys_values, layout, shape, scores, out));
        Ok(())
    }

    fn pool(
        &self,
        x: &CpuTensor,
        groups: &PoolGroups,
        method: PoolMethod,
        out: &mut CpuTensor,
    ) -> Result<(), KernelError> {
        check::pool(x, groups, out)?;
        self.run(|| pool::pool(self.isa, x, groups, method, out));
        Ok(())
    }

    fn gather_rows(&self, x: &CpuTensor, rows: &[u32], out: &mut CpuTensor) -> Result<(), KernelError> {
        check::same_dtype("gather rows", x, out)?;
        check::fits("gather rows", "out", out, rows.len(), x.columns())?;
        rows::gather_rows(x, rows, out)
    }

    fn copy_rows(
        &self,
        x: &CpuTensor,
        from: usize,
        count: usize,
        out: &mut CpuTensor,
        to: usize,
    ) -> Result<(), KernelError> {
        check::copy_rows(x, from, count, out, to)?;
        let row_bytes = x.row_bytes();
        let source = &x.bytes()[from * row_bytes..(from + count) * row_bytes];
        out.bytes_mut()[to * row_bytes..(to + count) * row_bytes].copy_from_slice(source);
        Ok(())
    }

    fn download(&self, x: &CpuTensor, rows: usize, out: &mut [u8]) -> Result<(), KernelError> {
        check::fits("download", "x", x, rows, x.columns())?;
        check::width("download", "out", out.len(), rows * x.row_bytes())?;
        out.copy_from_slice(&x.bytes()[..rows * x.row_bytes()]);
        Ok(())
    }

    fn upload(&self, bytes: &[u8], out: &mut CpuTensor) -> Result<(), KernelError> {
        check::upload(bytes.len(), out)?;
        out.bytes_mut()[..bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    /// Runs `work`: there are no launches to group.
    fn launch_grouped(
        &self,
        _graph_slot: usize,
        _rows: usize,
        work: &mut dyn FnMut() -> Result<(), KernelError>,
    ) -> Result<(), KernelError> {
        work()
    }

    fn downloads_are_async(&self) -> bool {
        false
    }

    fn download_async(&self, x: CpuTensor, rows: usize) -> Result<Box<dyn PendingCopy>, KernelError> {
        check::fits("download", "x", &x, rows, x.columns())?;
        Ok(Box::new(CompletedCopy(x.bytes()[..rows * x.row_bytes()].to_vec())))
    }

    fn device_usage(&self) -> Result<Option<DeviceUsage>, KernelError> {
        Ok(None)
    }

    fn reset_device_usage(&self) -> Result<(), KernelError> {
        Ok(())
    }

    /// None: the free memory of the host is not queried.
    fn free_memory(&self) -> Result<Option<u64>, KernelError> {
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scratch_bytes_equal_those_of_a_matmul() {
        // A row of 4096 bf16 has a stride that conflicts in caches, and 33 columns are padded.
        for (rows, columns) in [(1, 33), (37, 64), (40, 4096)] {
            for isa in Isa::ALL.into_iter().filter(|isa| *isa <= Isa::detect()) {
                for run in [DType::F32, DType::Bf16, DType::F16] {
                    let backend = CpuBackend::with_isa(1, isa).unwrap();
                    let weight =
                        HostTensor::from_f32(DType::Bf16, vec![32, columns], &vec![0.5; 32 * columns]).unwrap();
                    let weight = backend.prepare_linear(&[weight], run).unwrap();
                    let mut x = backend.alloc(run, rows, columns).unwrap();
                    backend.upload(&run.from_f32_slice(&vec![1.0; rows * columns]), &mut x).unwrap();
                    let mut out = backend.alloc(run, rows, 32).unwrap();
                    backend.linear(&x, &weight, None, &mut out).unwrap();
                    let used: usize = backend.scratch().iter().map(|scratch| scratch.as_slice().len()).sum();
                    let stored = if run == DType::F32 && isa.splits_f32() { DType::Bf16 } else { run };
                    assert_eq!(scratch_bytes(isa, run, stored, rows, columns), used, "{isa} {run:?} {columns}");
                }
            }
        }
    }
}
