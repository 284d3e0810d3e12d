//! The operations of a Llama forward pass and of pooling, behind one [`Backend`] interface.
//!
//! A kernel is one operation; no operation knows the model. The composition of operations into a model lives in
//! the crate `actbench`. Every backend keeps the same promise: the bits of a row of a result depend on that row's
//! inputs alone, never on the other rows of the batch, their number or the number of threads.

pub mod backend;
mod check;
pub mod cpu;
pub mod cuda;
pub mod device_use;
pub mod dtype;
pub mod error;
pub mod host;
pub mod pending;
pub mod profiled;

pub use backend::{AttentionLayout, AttentionShape, Backend, PoolGroups, PoolMethod};
pub use cpu::CpuBackend;
pub use cuda::CudaBackend;
pub use device_use::DeviceUse;
pub use dtype::DType;
pub use error::KernelError;
pub use host::HostTensor;
pub use pending::PendingCopy;
pub use profiled::{Profile, Profiled};
