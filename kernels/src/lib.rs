//! The operations of a Llama forward pass and of pooling, behind one [`Backend`] interface.
//!
//! No operation knows the model: users of this crate compose operations into a model. Every backend guarantees that the
//! bits of a result row depend on the inputs of that row alone, and not on the other rows of the batch, on their number
//! or on the number of threads.

pub mod backend;
mod check;
pub mod cpu;
pub mod cuda;
pub mod device_usage;
pub mod dtype;
pub mod error;
pub mod folded_norm;
pub mod host;
pub mod pending;
pub mod pooling;
pub mod profiled;
pub mod routes;

pub use backend::{
    Activation, AttentionLayout, AttentionShape, Backend, PoolGroups, PoolMethod, QkvPart, QkvProjection, Rotation,
    ScoreRule,
};
pub use cpu::CpuBackend;
pub use cuda::CudaBackend;
pub use device_usage::DeviceUsage;
pub use dtype::{DType, UnknownDType};
pub use error::KernelError;
pub use folded_norm::{FoldedNorm, square_blocks};
pub use host::{HostTensor, SourceFile};
pub use pending::{CompletedCopy, PendingCopy};
pub use profiled::{Profile, ProfiledBackend};
pub use routes::{ExpertRows, MAX_EXPERTS, RouteRule, Routes, WeightedRows};
