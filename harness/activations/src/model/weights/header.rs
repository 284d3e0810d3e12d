//! Checks a safetensors header against its file, entry by entry, so that a truncated or hostile file gives an error that
//! names the tensor.

use std::collections::HashSet;
use std::path::Path;

use safetensors::tensor::TensorInfo;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};

use crate::error::{Error, Result};

/// Bytes of the field before the JSON header, which has its length.
pub(super) const LENGTH_FIELD: usize = 8;

/// The longest header that the format allows, and the longest index that is accepted.
pub(super) const MAX_HEADER: u64 = 100_000_000;

/// A header's entries in its own order, repeated names included.
struct HeaderEntries(Vec<(String, serde_json::Value)>);

impl<'de> Deserialize<'de> for HeaderEntries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct HeaderVisitor;
        impl<'de> Visitor<'de> for HeaderVisitor {
            type Value = HeaderEntries;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object of tensors")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<HeaderEntries, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(HeaderEntries(entries))
            }
        }
        deserializer.deserialize_map(HeaderVisitor)
    }
}

/// A checked header: the offset of the data in the file, and the tensors by name, at offsets in the data.
pub(in crate::model) type Header = (usize, Vec<(String, TensorInfo)>);

/// Reads and checks the safetensors header at the start of `file`. The crate's own reader would parse it again and name no tensor.
pub(in crate::model) fn read_header(path: &Path, file: &[u8]) -> Result<Header> {
    let fail = |what: String| Err(Error::file(path, what));
    let Some((length, rest)) = file.split_first_chunk::<LENGTH_FIELD>() else {
        return fail(format!("is {} bytes long, too short for a safetensors file", file.len()));
    };
    let length = u64::from_le_bytes(*length);
    if length > MAX_HEADER || length > rest.len() as u64 {
        return fail(format!(
            "claims a header of {length} bytes, but {} bytes follow: not a safetensors file, or truncated",
            rest.len()
        ));
    }
    let (header, data) = rest.split_at(length as usize);
    let HeaderEntries(entries) = match serde_json::from_slice(header) {
        Ok(entries) => entries,
        Err(error) => return fail(format!("its safetensors header is not valid: {error}")),
    };
    let mut seen = HashSet::with_capacity(entries.len());
    if let Some((name, _)) = entries.iter().find(|(name, _)| !seen.insert(name.as_str())) {
        return fail(format!("tensor '{name}' is listed twice"));
    }
    let mut tensors = Vec::with_capacity(entries.len());
    for (name, value) in entries {
        if name == "__metadata__" {
            let is_text = value.as_object().is_some_and(|map| map.values().all(serde_json::Value::is_string));
            if !value.is_null() && !is_text {
                return fail("its safetensors header is not valid: __metadata__ is not an object of texts".to_owned());
            }
            continue;
        }
        let info: TensorInfo = match serde_json::from_value(value) {
            Ok(info) => info,
            Err(error) => return fail(format!("tensor '{name}': {error}")),
        };
        let (begin, end) = info.data_offsets;
        if begin > end || end > data.len() {
            return fail(format!(
                "tensor '{name}' lies at bytes {begin} to {end} of {} bytes of data: the file is truncated or corrupt",
                data.len()
            ));
        }
        let bits = info.shape.iter().try_fold(info.dtype.bitsize(), |product, &extent| product.checked_mul(extent));
        if bits != Some((end - begin) * 8) {
            return fail(format!(
                "tensor '{name}' of type {} and shape {:?} does not match its {} bytes",
                info.dtype,
                info.shape,
                end - begin
            ));
        }
        tensors.push((name, info));
    }
    // By offsets first: names decide between tensors without elements.
    tensors.sort_by(|(a_name, a), (b_name, b)| (a.data_offsets, a_name).cmp(&(b.data_offsets, b_name)));
    let (mut covered, mut before) = (0, "");
    for (name, info) in &tensors {
        let (begin, end) = info.data_offsets;
        if begin < covered {
            return fail(format!("tensors '{before}' and '{name}' overlap"));
        }
        if begin > covered {
            return fail(uncovered(covered, begin));
        }
        (covered, before) = (end, name);
    }
    if covered < data.len() {
        return fail(uncovered(covered, data.len()));
    }
    Ok((LENGTH_FIELD + header.len(), tensors))
}

/// The error for bytes that the format wants to belong to a tensor.
fn uncovered(begin: usize, end: usize) -> String {
    format!("not a valid safetensors file: bytes {begin} to {end} of its data belong to no tensor")
}
