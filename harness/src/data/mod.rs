//! Room for `data`.
