//! Room for `probe`.
