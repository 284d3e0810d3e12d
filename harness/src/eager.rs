//! The eager baseline.
