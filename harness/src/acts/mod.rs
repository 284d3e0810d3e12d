//! Room for `acts`.
