//! Parses the header of a GGUF file: metadata and the table of tensors. Layout: the GGUF specification, versions 2 and
//! 3, which are the same in a little-endian file.
//!
//! Every count and length is compared with the rest of the file before memory is allocated for it, so that a
//! truncated or hostile file cannot cause large allocations.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use super::dequantize::GgmlType;
use super::value::GgufValue;
use crate::error::{Error, Result};

/// Axes that ggml allows.
const MAX_AXES: u32 = 4;

/// The alignment of tensor data if the file does not declare one.
const DEFAULT_ALIGNMENT: u64 = 32;

/// The minimum sizes of a metadata entry (key length, type, one byte) and of a tensor (name length, number of axes, one
/// extent, type, offset).
const MIN_METADATA_BYTES: u64 = 8 + 4 + 1;
const MIN_TENSOR_BYTES: u64 = 8 + 4 + 8 + 4 + 8;

/// A tensor in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GgufTensor {
    /// ggml's name, such as `blk.0.attn_q.weight`.
    pub name: String,
    /// Extents, outermost first: the reverse of the file's order.
    pub shape: Vec<usize>,
    /// The storage type of the elements.
    pub kind: GgmlType,
    /// The byte range in the file.
    pub(super) range: Range<usize>,
}

/// Metadata by key, and the tensors in file order.
pub(super) type GgufHeader = (BTreeMap<String, GgufValue>, Vec<GgufTensor>);

/// Parses the header at the start of `bytes`, the whole content of the file at `path`.
pub(super) fn parse(path: &Path, bytes: &[u8]) -> Result<GgufHeader> {
    GgufCursor { path, bytes, position: 0 }.header()
}

/// A read position in the file.
struct GgufCursor<'a> {
    path: &'a Path,
    bytes: &'a [u8],
    position: usize,
}

impl<'a> GgufCursor<'a> {
    fn fail<T>(&self, what: impl std::fmt::Display) -> Result<T> {
        Err(Error::file(self.path, format!("{what} (at byte {})", self.position)))
    }

    /// The next `length` bytes; `what` names them in errors.
    fn take(&mut self, length: u64, what: &str) -> Result<&'a [u8]> {
        let rest = &self.bytes[self.position..];
        let Some(taken) = usize::try_from(length).ok().and_then(|length| rest.get(..length)) else {
            let left = rest.len();
            return self.fail(format!("the file is truncated: {what} needs {length} bytes, {left} are left"));
        };
        self.position += taken.len();
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N as u64, what)?);
        Ok(array)
    }

    fn u32(&mut self, what: &str) -> Result<u32> {
        self.array(what).map(u32::from_le_bytes)
    }

    fn u64(&mut self, what: &str) -> Result<u64> {
        self.array(what).map(u64::from_le_bytes)
    }

    fn string(&mut self, what: &str) -> Result<String> {
        let length = self.u64(what)?;
        let start = self.position;
        match std::str::from_utf8(self.take(length, what)?) {
            Ok(text) => Ok(text.to_owned()),
            Err(_) => {
                self.position = start;
                self.fail(format!("{what} is not UTF-8 text"))
            }
        }
    }

    /// The number of items that take at least `min_bytes` bytes each.
    fn count(&mut self, what: &str, min_bytes: u64) -> Result<usize> {
        let count = self.u64(what)?;
        let left = (self.bytes.len() - self.position) as u64;
        if count.checked_mul(min_bytes).is_none_or(|bytes| bytes > left) {
            return self.fail(format!("the file is truncated or corrupt: {what} is {count}, {left} bytes are left"));
        }
        Ok(count as usize)
    }

    fn header(&mut self) -> Result<GgufHeader> {
        if self.bytes.get(..4) != Some(b"GGUF") {
            return self.fail("is not a GGUF file: it does not start with 'GGUF'");
        }
        self.position = 4;
        match self.u32("the version")? {
            2 | 3 => {}
            1 => return self.fail("is a GGUF file of version 1, which is obsolete; convert it again"),
            version if matches!(version.swap_bytes(), 1..=3) => {
                return self.fail("is a big-endian GGUF file; convert it again");
            }
            version => {
                return self.fail(format!("is a GGUF file of version {version}; only versions 2 and 3 are supported"));
            }
        }
        let n_tensors = self.u64("the number of tensors")?;
        let n_metadata = self.count("the number of metadata entries", MIN_METADATA_BYTES)?;
        let metadata = self.metadata(n_metadata)?;
        let left = (self.bytes.len() - self.position) as u64;
        if n_tensors.checked_mul(MIN_TENSOR_BYTES).is_none_or(|bytes| bytes > left) {
            return self.fail(format!("the file is truncated or corrupt: {n_tensors} tensors, {left} bytes left"));
        }
        let alignment = match metadata.get("general.alignment") {
            None => DEFAULT_ALIGNMENT,
            Some(value) => match value.as_u64() {
                Some(alignment) if alignment.is_power_of_two() => alignment,
                _ => return self.fail("metadata 'general.alignment' is not a power of two"),
            },
        };
        let tensors = self.tensors(n_tensors as usize, alignment)?;
        Ok((metadata, tensors))
    }

    fn metadata(&mut self, count: usize) -> Result<BTreeMap<String, GgufValue>> {
        let mut metadata = BTreeMap::new();
        for index in 0..count {
            let key = self.string(&format!("the key of metadata entry {index}"))?;
            let what = format!("metadata '{key}'");
            let kind = self.u32(&what)?;
            let value = self.value(kind, &what)?;
            if metadata.insert(key, value).is_some() {
                return self.fail(format!("{what} is duplicated"));
            }
        }
        Ok(metadata)
    }

    /// A value whose type has the number `kind`.
    fn value(&mut self, kind: u32, what: &str) -> Result<GgufValue> {
        Ok(match kind {
            0 => GgufValue::Unsigned(u8::from_le_bytes(self.array(what)?).into()),
            1 => GgufValue::Signed(i8::from_le_bytes(self.array(what)?).into()),
            2 => GgufValue::Unsigned(u16::from_le_bytes(self.array(what)?).into()),
            3 => GgufValue::Signed(i16::from_le_bytes(self.array(what)?).into()),
            4 => GgufValue::Unsigned(u32::from_le_bytes(self.array(what)?).into()),
            5 => GgufValue::Signed(i32::from_le_bytes(self.array(what)?).into()),
            6 => GgufValue::Float32(f32::from_le_bytes(self.array(what)?)),
            7 => match self.array::<1>(what)?[0] {
                0 => GgufValue::Bool(false),
                1 => GgufValue::Bool(true),
                other => return self.fail(format!("{what} is a boolean with the value {other}")),
            },
            8 => GgufValue::String(self.string(what)?),
            9 => {
                let element = self.u32(what)?;
                let min_bytes = match element {
                    0 | 1 | 7 => 1,
                    2 | 3 => 2,
                    4..=6 => 4,
                    8 | 10..=12 => 8,
                    9 => return self.fail(format!("{what} is an array of arrays")),
                    other => return self.fail(format!("{what} is an array of the unknown type {other}")),
                };
                let count = self.count(&format!("the length of {what}"), min_bytes)?;
                // Values are up to 32 times larger in memory than in the file. The vector grows while they are read,
                // so a false length does not cause a large allocation.
                let mut values = Vec::new();
                for _ in 0..count {
                    values.push(self.value(element, what)?);
                }
                GgufValue::Array(values)
            }
            10 => GgufValue::Unsigned(self.u64(what)?),
            11 => GgufValue::Signed(i64::from_le_bytes(self.array(what)?)),
            12 => GgufValue::Float64(f64::from_le_bytes(self.array(what)?)),
            other => return self.fail(format!("{what} has the unknown type {other}")),
        })
    }

    fn tensors(&mut self, count: usize, alignment: u64) -> Result<Vec<GgufTensor>> {
        let mut listed = Vec::with_capacity(count);
        for index in 0..count {
            let name = self.string(&format!("the name of tensor {index}"))?;
            let what = format!("tensor '{name}'");
            let n_axes = self.u32(&what)?;
            if n_axes == 0 || n_axes > MAX_AXES {
                return self.fail(format!("{what} has {n_axes} axes, expected 1 to {MAX_AXES}"));
            }
            let mut shape = Vec::with_capacity(n_axes as usize);
            for _ in 0..n_axes {
                match usize::try_from(self.u64(&what)?) {
                    Ok(extent) if extent > 0 => shape.push(extent),
                    _ => return self.fail(format!("{what} has an invalid extent")),
                }
            }
            shape.reverse();
            let id = self.u32(&what)?;
            let Some(kind) = GgmlType::ALL.into_iter().find(|kind| kind.id() == id) else {
                let known = GgmlType::ALL.map(GgmlType::name).join(" ");
                return self.fail(format!("{what} is stored as {}; supported are: {known}", type_name(id)));
            };
            let offset = self.u64(&what)?;
            if !offset.is_multiple_of(alignment) {
                return self.fail(format!("{what} is at offset {offset}, not a multiple of {alignment}"));
            }
            listed.push((name, shape, kind, offset));
        }
        let data = (self.position as u64).next_multiple_of(alignment);
        let tensors =
            listed.into_iter().map(|(name, shape, kind, offset)| self.locate(name, shape, kind, data, offset));
        let tensors = tensors.collect::<Result<Vec<_>>>()?;
        self.check_disjoint(&tensors)?;
        Ok(tensors)
    }

    /// Computes the byte range of a tensor and checks that the file contains it.
    fn locate(&self, name: String, shape: Vec<usize>, kind: GgmlType, data: u64, offset: u64) -> Result<GgufTensor> {
        let row = shape.last().copied().unwrap_or(1);
        let rows = shape[..shape.len() - 1].iter().try_fold(1usize, |rows, &extent| rows.checked_mul(extent));
        let bytes = kind.bytes_of(row).and_then(|bytes| rows.and_then(|rows| rows.checked_mul(bytes)));
        let Some(bytes) = bytes else {
            return Err(Error::file(
                self.path,
                format!("tensor '{name}' of shape {shape:?} cannot be stored as {}", kind.name()),
            ));
        };
        let start = data.checked_add(offset);
        let end = start.and_then(|start| start.checked_add(bytes as u64));
        match (start, end) {
            (Some(start), Some(end)) if end <= self.bytes.len() as u64 => {
                Ok(GgufTensor { name, shape, kind, range: start as usize..end as usize })
            }
            _ => Err(Error::file(
                self.path,
                format!(
                    "the file is truncated: tensor '{name}' needs {bytes} bytes at offset {offset} of the data, which \
                     starts at byte {data} of {}",
                    self.bytes.len()
                ),
            )),
        }
    }

    /// Checks that names are unique and byte ranges disjoint.
    fn check_disjoint(&self, tensors: &[GgufTensor]) -> Result<()> {
        let mut by_name: Vec<&GgufTensor> = tensors.iter().collect();
        by_name.sort_by(|a, b| a.name.cmp(&b.name));
        for pair in by_name.windows(2) {
            if pair[0].name == pair[1].name {
                return Err(Error::file(self.path, format!("tensor '{}' is duplicated", pair[0].name)));
            }
        }
        by_name.sort_by_key(|tensor| tensor.range.start);
        for pair in by_name.windows(2) {
            if pair[1].range.start < pair[0].range.end {
                let what = format!("tensors '{}' and '{}' overlap", pair[0].name, pair[1].name);
                return Err(Error::file(self.path, what));
            }
        }
        Ok(())
    }
}

/// ggml's name of an unsupported type.
fn type_name(id: u32) -> String {
    let name = match id {
        9 => "Q8_1",
        15 => "Q8_K",
        16 => "IQ2_XXS",
        17 => "IQ2_XS",
        18 => "IQ3_XXS",
        19 => "IQ1_S",
        21 => "IQ3_S",
        22 => "IQ2_S",
        23 => "IQ4_XS",
        24 => "I8",
        25 => "I16",
        26 => "I32",
        27 => "I64",
        28 => "F64",
        29 => "IQ1_M",
        34 => "TQ1_0",
        35 => "TQ2_0",
        39 => "MXFP4",
        40 => "NVFP4",
        _ => return format!("the unknown type {id}"),
    };
    name.to_owned()
}
