//! Estimates and intervals for few, noisy, paired observations. Pure: no I/O, no clock, no randomness.

pub mod hodges_lehmann;
pub mod ratio;
pub mod signed_rank;
pub mod summary;
