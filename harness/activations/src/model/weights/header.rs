//! Checks a safetensors header against its file, entry by entry, so that a truncated or hostile file gives an error that
//! names the tensor.

use std::collections::BTreeSet;
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

/// Checks the safetensors header at the start of `file`.
pub(super) fn check_header(path: &Path, file: &[u8]) -> Result<()> {
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
    let mut seen = BTreeSet::new();
    let mut spans = Vec::with_capacity(entries.len());
    for (name, value) in entries {
        if !seen.insert(name.clone()) {
            return fail(format!("tensor '{name}' is listed twice"));
        }
        if name == "__metadata__" {
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
        spans.push((begin, end, name));
    }
    spans.sort_unstable();
    for pair in spans.windows(2) {
        if pair[1].0 < pair[0].1 {
            return fail(format!("tensors '{}' and '{}' overlap", pair[0].2, pair[1].2));
        }
    }
    Ok(())
}
