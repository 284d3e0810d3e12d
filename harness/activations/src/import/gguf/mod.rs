//! The GGUF container: metadata, a table of tensors, and blocks of quantised weights.

pub mod dequantise;
pub mod header;
pub mod reader;
#[cfg(test)]
pub(crate) mod test_writer;
#[cfg(test)]
mod tests;
pub mod value;

pub use dequantise::TensorType;
pub use header::TensorInfo;
pub use reader::GgufFile;
pub use value::Value;
