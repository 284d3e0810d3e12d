//! What is measured beside time: peaks of memory, and the machine it was measured on.

pub mod clocks;
pub mod conditions;
pub mod environment;
pub mod fingerprint;
pub mod gpu;
pub mod limit;
pub mod memory;
pub mod mounts;
pub mod page_cache;
pub mod processor;
pub mod resolution;

/// Bytes of a megabyte in every figure here: 2^20.
pub const MEGABYTE: f64 = 1024.0 * 1024.0;
