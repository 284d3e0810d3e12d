//! Room for `commands`.
