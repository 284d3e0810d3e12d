//! Room for `workload`.
