//! What can go wrong in an operation: the operation's name, what it was given and what it expected.

use thiserror::Error;

use crate::dtype::DType;

/// An operation refused its arguments, or the device could not do the work.
#[derive(Debug, Error)]
pub enum KernelError {
    /// A storage type that does not exist here.
    #[error("unknown dtype '{name}': use one of fp32, fp16, bf16 (or float32, float16, bfloat16)")]
    UnknownDType {
        /// What was asked for.
        name: String,
    },
    /// The environment asks for an instruction set that does not exist here.
    #[error("{}={name}: use one of portable, avx2, avx512, avx512bf16, amx, or unset it", crate::cpu::ISA_VARIABLE)]
    UnknownIsa {
        /// What was asked for.
        name: String,
    },
    /// Shapes that do not fit each other.
    #[error("{op}: {what}")]
    Shape {
        /// The operation.
        op: &'static str,
        /// What does not fit, with the sizes.
        what: String,
    },
    /// A storage type that the operation does not take.
    #[error("{op}: expected {expected}, got {got}")]
    DType {
        /// The operation.
        op: &'static str,
        /// The type it takes.
        expected: DType,
        /// The type it was given.
        got: DType,
    },
    /// A value that is not a number where numbers are required, such as a weight.
    #[error("{op}: element {index} is {value}, weights must be finite")]
    NotFinite {
        /// The operation.
        op: &'static str,
        /// Flat index of the first such element.
        index: usize,
        /// Its value.
        value: f32,
    },
    /// The device has not enough memory.
    #[error("{op}: could not allocate {bytes} bytes on {device}")]
    OutOfMemory {
        /// The operation.
        op: &'static str,
        /// Bytes asked for.
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
        /// The driver's own words.
        message: String,
    },
}

impl KernelError {
    /// A shape error of `op`.
    pub fn shape(op: &'static str, what: impl Into<String>) -> Self {
        KernelError::Shape { op, what: what.into() }
    }
}
