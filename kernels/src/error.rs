//! Errors of the operations: each names the operation, the actual value and the expected one.

use std::path::PathBuf;

use thiserror::Error;

use crate::dtype::DType;

/// An operation rejected its arguments, or the device failed.
#[derive(Debug, Error)]
pub enum KernelError {
    /// An environment variable names an instruction set that does not exist.
    #[error("{variable}={name}: use one of portable, avx2, avx512, avx512bf16, amx, or unset it")]
    UnknownIsa {
        /// The environment variable.
        variable: &'static str,
        /// Its value.
        name: String,
    },
    /// Shapes that do not match.
    #[error("{op}: {what}")]
    Shape {
        /// The operation.
        op: &'static str,
        /// The mismatch, with both sizes.
        what: String,
    },
    /// A storage type that the operation does not support.
    #[error("{op}: expected {expected}, got {got}")]
    DType {
        /// The operation.
        op: &'static str,
        /// The supported type.
        expected: DType,
        /// The type of the argument.
        got: DType,
    },
    /// A NaN or an infinity where a finite number is required, such as a weight.
    #[error("{op}: element {index} is {value}, weights must be finite")]
    NotFinite {
        /// The operation.
        op: &'static str,
        /// Flat index of the first such element.
        index: usize,
        /// Its value.
        value: f32,
    },
    /// A file with weights cannot be read.
    #[error("read {}: {what}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's message, or how the file is too short.
        what: String,
    },
    /// An allocation failed.
    #[error("{op}: could not allocate {bytes} bytes on {device}")]
    OutOfMemory {
        /// The operation.
        op: &'static str,
        /// The size of the allocation.
        bytes: usize,
        /// The device.
        device: String,
    },
    /// The device or its driver failed.
    #[error("{op} on {device}: {message}")]
    Device {
        /// The operation.
        op: &'static str,
        /// The device.
        device: String,
        /// The driver's message.
        message: String,
    },
}

impl KernelError {
    /// A shape error of `op`.
    pub fn shape(op: &'static str, what: impl Into<String>) -> Self {
        KernelError::Shape { op, what: what.into() }
    }
}
