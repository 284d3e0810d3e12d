//! Room for `runner`.
