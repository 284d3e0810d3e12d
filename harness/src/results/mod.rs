//! Room for `results`.
