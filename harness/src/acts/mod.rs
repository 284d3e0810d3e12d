//! Room for `acts`.

pub mod batches;
pub mod prefix;
