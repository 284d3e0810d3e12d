//! What is measured beside time: peaks of memory, and the machine it was measured on.

pub mod clocks;
pub mod environment;
pub mod gpu;
pub mod limit;
pub mod memory;
pub mod mounts;

/// Bytes of a megabyte in every figure here: 2^20.
pub const MEGABYTE: f64 = 1024.0 * 1024.0;
