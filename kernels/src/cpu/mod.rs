//! The CPU backend.

/// The backend that needs nothing but a processor.
pub struct CpuBackend;
