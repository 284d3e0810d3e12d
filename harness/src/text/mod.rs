//! Room for `text`.
