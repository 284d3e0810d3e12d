//! Room for `measure`.
