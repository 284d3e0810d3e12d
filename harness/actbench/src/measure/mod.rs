//! What is measured besides time: peaks of memory, and the machine and build that figures come from.
//!
//! [`environment`] is the plain record of machine and build, [`fingerprint`] and [`resolution`] are computed from it, and
//! [`machine_record`] is what a result file keeps of all three.

pub mod allocated;
pub mod clocks;
pub mod conditions;
pub mod environment;
pub mod fingerprint;
pub mod gpu;
pub mod limit;
pub mod machine_record;
pub mod memory;
pub mod mounts;
pub mod page_cache;
pub mod process_start;
pub mod processor;
pub mod resolution;

/// Bytes of a mebibyte. Fields and JSON keys that end in `_mb` count in this unit.
pub const MIB: f64 = 1024.0 * 1024.0;
