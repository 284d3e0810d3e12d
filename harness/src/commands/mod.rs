//! Room for `commands`.

pub mod import;
