//! The GGUF container: metadata, a table of tensors, and blocks of quantized weights.

pub mod dequantize;
pub mod header;
mod k_quants;
pub mod reader;
#[cfg(test)]
pub(crate) mod test_writer;
#[cfg(test)]
mod tests;
pub mod value;

pub use dequantize::GgmlType;
pub use header::GgufTensor;
pub use reader::GgufFile;
pub use value::GgufValue;
