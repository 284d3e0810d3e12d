//! The three storage types, their names and their conversions to and from `f32`.

use std::fmt;
use std::str::FromStr;

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use thiserror::Error;

/// The storage type of an element. Arithmetic is in `f32` for every storage type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DType {
    /// IEEE single precision, 4 bytes.
    F32,
    /// IEEE half precision, 2 bytes.
    F16,
    /// bfloat16: the upper half of a single, 2 bytes.
    Bf16,
}

impl DType {
    /// Bytes of one element.
    pub const fn size(self) -> usize {
        match self {
            DType::F32 => 4,
            DType::F16 | DType::Bf16 => 2,
        }
    }

    /// The short name: the one of safetensors headers, in lower case (`f32`, `f16`, `bf16`).
    pub const fn name(self) -> &'static str {
        match self {
            DType::F32 => "f32",
            DType::F16 => "f16",
            DType::Bf16 => "bf16",
        }
    }

    /// Widens `bytes` (native-endian elements of this type) to `f32`. Exact for every type.
    ///
    /// # Panics
    /// When `bytes` is not exactly `out.len()` elements long, which is a bug in the caller.
    pub fn widen(self, bytes: &[u8], out: &mut [f32]) {
        assert_eq!(bytes.len(), out.len() * self.size(), "widen: lengths differ");
        // The bytes of a mapped file may be unaligned: then the cast fails and elements are read byte by byte.
        match self {
            DType::F32 => match bytemuck::try_cast_slice::<u8, f32>(bytes) {
                Ok(source) => out.copy_from_slice(source),
                Err(_) => {
                    for (value, chunk) in out.iter_mut().zip(bytes.chunks_exact(4)) {
                        *value = f32::from_ne_bytes([chunk[0], chunk[1], chunk[2], chunk[3]]);
                    }
                }
            },
            DType::F16 => match bytemuck::try_cast_slice::<u8, f16>(bytes) {
                Ok(source) => source.convert_to_f32_slice(out),
                Err(_) => {
                    for (value, chunk) in out.iter_mut().zip(bytes.chunks_exact(2)) {
                        *value = f16::from_ne_bytes([chunk[0], chunk[1]]).to_f32();
                    }
                }
            },
            DType::Bf16 => match bytemuck::try_cast_slice::<u8, bf16>(bytes) {
                Ok(source) => source.convert_to_f32_slice(out),
                Err(_) => {
                    for (value, chunk) in out.iter_mut().zip(bytes.chunks_exact(2)) {
                        *value = bf16::from_ne_bytes([chunk[0], chunk[1]]).to_f32();
                    }
                }
            },
        }
    }

    /// Rounds `values` to this type (nearest, ties to even) into `bytes`, native-endian.
    ///
    /// # Panics
    /// When `bytes` is not exactly `values.len()` elements long, which is a bug in the caller.
    pub fn narrow(self, values: &[f32], bytes: &mut [u8]) {
        assert_eq!(bytes.len(), values.len() * self.size(), "narrow: lengths differ");
        match self {
            DType::F32 => {
                for (chunk, value) in bytes.chunks_exact_mut(4).zip(values) {
                    chunk.copy_from_slice(&value.to_ne_bytes());
                }
            }
            DType::F16 => {
                for (chunk, value) in bytes.chunks_exact_mut(2).zip(values) {
                    chunk.copy_from_slice(&f16::from_f32(*value).to_ne_bytes());
                }
            }
            DType::Bf16 => {
                for (chunk, value) in bytes.chunks_exact_mut(2).zip(values) {
                    chunk.copy_from_slice(&bf16::from_f32(*value).to_ne_bytes());
                }
            }
        }
    }

    /// Widens `bytes` (native-endian elements of this type) to a new vector.
    pub fn to_f32_vec(self, bytes: &[u8]) -> Vec<f32> {
        let mut values = vec![0.0; bytes.len() / self.size()];
        self.widen(bytes, &mut values);
        values
    }

    /// Rounds `values` to this type, as native-endian bytes.
    pub fn from_f32_slice(self, values: &[f32]) -> Vec<u8> {
        let mut bytes = vec![0; values.len() * self.size()];
        self.narrow(values, &mut bytes);
        bytes
    }
}

/// A name that [`DType::from_str`] does not accept.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("unknown dtype '{name}': use one of fp32, fp16, bf16 (or float32, float16, bfloat16)")]
pub struct UnknownDType {
    /// The rejected name.
    pub name: String,
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for DType {
    type Err = UnknownDType;

    /// Accepts `fp32`, `float32`, `f32`, `fp16`, `float16`, `f16`, `bf16` and `bfloat16`, in upper or lower case.
    fn from_str(text: &str) -> Result<Self, UnknownDType> {
        match text.to_ascii_lowercase().as_str() {
            "fp32" | "float32" | "f32" => Ok(DType::F32),
            "fp16" | "float16" | "f16" => Ok(DType::F16),
            "bf16" | "bfloat16" => Ok(DType::Bf16),
            _ => Err(UnknownDType { name: text.to_owned() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn narrow_then_widen_rounds_to_nearest_even() {
        // 1 + 2^-8 lies halfway between two bf16 neighbors; the even one is 1.
        let values = [1.0 + f32::powi(2.0, -8), 1.0 + 3.0 * f32::powi(2.0, -8), -0.0, f32::INFINITY];
        let bytes = DType::Bf16.from_f32_slice(&values);
        let back = DType::Bf16.to_f32_vec(&bytes);
        assert_eq!(back, [1.0, 1.0 + f32::powi(2.0, -6), -0.0, f32::INFINITY]);
    }

    #[test]
    fn unaligned_bytes_widen_equally() {
        for dtype in [DType::F32, DType::F16, DType::Bf16] {
            let bytes = dtype.from_f32_slice(&[0.5, -2.0, 3.25]);
            let mut shifted = vec![0u8; bytes.len() + 1];
            shifted[1..].copy_from_slice(&bytes);
            assert_eq!(dtype.to_f32_vec(&shifted[1..]), [0.5, -2.0, 3.25], "{dtype}");
        }
    }

    #[test]
    fn dtype_names_parse_and_unknown_ones_fail() {
        assert_eq!("BFloat16".parse::<DType>().unwrap(), DType::Bf16);
        assert_eq!("float16".parse::<DType>().unwrap(), DType::F16);
        assert!("int8".parse::<DType>().unwrap_err().to_string().contains("int8"));
    }
}
