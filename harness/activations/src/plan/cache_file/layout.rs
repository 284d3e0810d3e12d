//! The layout of a cache file, which the signature and the fingerprint decide alone.
//!
//! Writer and reader both build it: the reader from the metadata in the file, whose header must then be, byte for byte, the
//! one that the writer would have written.

use std::collections::BTreeMap;
use std::ops::Range;

use actbench_kernels::DType;
use serde_json::{Map, Value, json};

use crate::error::{Error, Result};
use crate::model::LAYER_NUMBERING;
use crate::plan::axes::{Axes, Axis};
use crate::plan::fingerprint::PlanFingerprint;
use crate::plan::signature::Signature;

/// The metadata entry `format`.
pub const FORMAT: &str = "actbench.acts";
/// The metadata entry `format_version`.
pub const FORMAT_VERSION: &str = "2";
/// The version before, whose files lack the layer numbering and the table of samples. They are still read.
const FORMAT_VERSION_1: &str = "1";

/// Bytes under one checksum: small compared with a layer, so that reading a few samples verifies little, and large compared
/// with the 32 bytes of a digest.
const CHUNK_BYTES: usize = 1 << 20;
/// The header is padded so that data starts on a page.
const HEADER_ALIGNMENT: usize = 4096;
/// Bytes of a digest.
pub(super) const DIGEST_BYTES: usize = 32;
/// The placeholder of the checksum in the header until it is known.
const NO_CHECKSUM: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// One tensor of the file: rows (one a sample) in checksummed chunks.
#[derive(Clone, Debug)]
pub(super) struct FilePart {
    name: String,
    dtype: &'static str,
    shape: Vec<usize>,
    /// Offset from the first byte of data.
    offset: usize,
    /// Bytes of one row.
    pub(super) row_bytes: usize,
    n_rows: usize,
    rows_per_chunk: usize,
    /// Number of the first chunk, counted over the file.
    first_chunk: usize,
}

impl FilePart {
    /// The tensor's name in the file.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    fn n_bytes(&self) -> usize {
        self.n_rows * self.row_bytes
    }

    pub(super) fn n_chunks(&self) -> usize {
        self.n_rows.div_ceil(self.rows_per_chunk)
    }

    /// The file-wide number of the chunk of `row`.
    pub(super) fn chunk_of(&self, row: usize) -> usize {
        self.first_chunk + row / self.rows_per_chunk
    }

    /// File-wide chunk numbers of this part.
    pub(super) fn chunks(&self) -> Range<usize> {
        self.first_chunk..self.first_chunk + self.n_chunks()
    }

    /// The rows of a chunk given by its file-wide number.
    pub(super) fn rows_of_chunk(&self, chunk: usize) -> Range<usize> {
        let first = (chunk - self.first_chunk) * self.rows_per_chunk;
        first..(first + self.rows_per_chunk).min(self.n_rows)
    }

    fn entry(&self) -> Value {
        let end = self.offset + self.n_bytes();
        json!({ "dtype": self.dtype, "shape": self.shape, "data_offsets": [self.offset, end] })
    }
}

/// The contents of a file in addition to the activations and their mask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FileContents {
    /// Those of format version 1: none.
    Version1,
    /// The layer numbering.
    Numbering,
    /// The layer numbering and the table of samples.
    NumberingAndSamples,
}

impl FileContents {
    fn version(self) -> &'static str {
        if self == FileContents::Version1 { FORMAT_VERSION_1 } else { FORMAT_VERSION }
    }

    /// The contents that the metadata of a file names. The error completes a sentence that begins with the path.
    pub(super) fn of_metadata(metadata: &BTreeMap<String, String>) -> Result<Self, String> {
        match metadata.get("format_version").map(String::as_str) {
            Some(FORMAT_VERSION_1) => Ok(FileContents::Version1),
            Some(FORMAT_VERSION) if metadata.get("samples").is_some_and(|samples| samples == "true") => {
                Ok(FileContents::NumberingAndSamples)
            }
            Some(FORMAT_VERSION) => Ok(FileContents::Numbering),
            other => Err(format!(
                "has format version {}, but this version of actbench reads versions {FORMAT_VERSION_1} and {FORMAT_VERSION}",
                other.unwrap_or("none")
            )),
        }
    }
}

/// The parts of the table of samples.
#[derive(Clone, Debug)]
pub(super) struct SampleParts {
    pub(super) rows: FilePart,
    pub(super) labels: FilePart,
    pub(super) is_train: FilePart,
}

impl SampleParts {
    /// The columns in the order of their bytes.
    pub(super) fn columns(&self) -> [&FilePart; 3] {
        [&self.rows, &self.labels, &self.is_train]
    }
}

/// The layout of a file.
#[derive(Clone, Debug)]
pub(super) struct FileLayout {
    pub(super) signature: Signature,
    pub(super) fingerprint: PlanFingerprint,
    /// One part per layer, or a single one without axis `l`.
    pub(super) layers: Vec<FilePart>,
    pub(super) mask: Option<FilePart>,
    pub(super) samples: Option<SampleParts>,
    /// The entry `settings` of the metadata; files without one have an empty text.
    pub(super) settings: String,
    pub(super) checksums: FilePart,
    /// Header length and JSON, with zeros for the checksum.
    pub(super) header: Vec<u8>,
    /// Offset of the checksum's 64 characters in the file.
    pub(super) checksum_offset: usize,
}

impl FileLayout {
    /// The layout of a file for activations of `signature`.
    ///
    /// # Errors
    /// A big-endian machine: the format is little-endian.
    pub(super) fn new(
        signature: Signature,
        fingerprint: PlanFingerprint,
        contents: FileContents,
        settings: &str,
    ) -> Result<Self> {
        if cfg!(target_endian = "big") {
            return Err(Error::usage("cache files need a little-endian machine"));
        }
        let mut parts = PartAllocator { offset: 0, chunk: 0 };
        let inner: Vec<usize> = if signature.axes.has(Axis::Sequence) {
            vec![signature.n_samples, signature.seq_len, signature.hidden_size]
        } else {
            vec![signature.n_samples, signature.hidden_size]
        };
        let dtype = safetensors_name(signature.dtype);
        let names: Vec<String> = if signature.axes.has(Axis::Layer) {
            signature.layer_ids.iter().map(|id| format!("layer.{id}")).collect()
        } else {
            vec!["activations".to_owned()]
        };
        let layers: Vec<FilePart> =
            names.into_iter().map(|name| parts.next(name, dtype, inner.clone(), signature.block_bytes())).collect();
        let n_samples = signature.n_samples;
        // The table's eight-byte numbers follow the layers, whose length is a multiple of eight in all but toy models:
        // safetensors' readers for torch need that alignment.
        let mut column = |name: &str, dtype, bytes| parts.next(name.to_owned(), dtype, vec![n_samples], bytes);
        let samples = (contents == FileContents::NumberingAndSamples).then(|| SampleParts {
            rows: column("rows", "I64", size_of::<i64>()),
            labels: column("labels", "U8", 1),
            is_train: column("is_train", "U8", 1),
        });
        let mask = signature
            .has_mask
            .then(|| parts.next("mask".to_owned(), "BOOL", vec![n_samples, signature.seq_len], signature.seq_len));
        let checksums = parts.next("checksums".to_owned(), "U8", vec![parts.chunk, DIGEST_BYTES], DIGEST_BYTES);
        let columns = samples.iter().flat_map(SampleParts::columns);
        let all = layers.iter().chain(columns).chain(&mask).chain([&checksums]);
        let (header, checksum_offset) = header(&signature, &fingerprint, contents, settings, all)?;
        let settings = settings.to_owned();
        Ok(FileLayout { signature, fingerprint, layers, mask, samples, settings, checksums, header, checksum_offset })
    }

    /// Reads the signature and the fingerprint from a file's metadata. The error names the entry that is wrong.
    pub(super) fn from_metadata(metadata: &BTreeMap<String, String>, contents: FileContents) -> Result<Self, String> {
        let entry = |name: &str| metadata.get(name).ok_or_else(|| format!("its metadata has no entry '{name}'"));
        let wrong = |name: &str| format!("the entry '{name}' of its metadata cannot be read");
        let numbers =
            |name: &str| -> Result<Vec<usize>, String> { serde_json::from_str(entry(name)?).map_err(|_| wrong(name)) };
        let axes: Axes = entry("axes")?.parse().map_err(|_| wrong("axes"))?;
        let shape = numbers("shape")?;
        if shape.len() != axes.count() {
            return Err(format!("axes {axes} do not fit shape {shape:?}"));
        }
        let extent = |axis: Axis| axes.name().find(axis.letter()).map_or(1, |index| shape[index]);
        let signature = Signature {
            axes,
            n_samples: extent(Axis::Batch),
            layer_ids: numbers("layer_ids")?.into(),
            seq_len: extent(Axis::Sequence),
            hidden_size: extent(Axis::Hidden),
            dtype: entry("dtype")?.parse().map_err(|_| wrong("dtype"))?,
            has_mask: entry("mask")? == "true",
        };
        if signature.n_layers() != extent(Axis::Layer) {
            return Err(format!("{} layer numbers do not fit shape {shape:?}", signature.n_layers()));
        }
        let fingerprint = serde_json::from_str(entry("fingerprint_parts")?).map_err(|_| wrong("fingerprint_parts"))?;
        let signature = signature.checked().map_err(|error| error.to_string())?;
        let settings = metadata.get("settings").map_or("", String::as_str);
        FileLayout::new(signature, fingerprint, contents, settings).map_err(|error| error.to_string())
    }

    /// The parts that are written batch by batch.
    pub(super) fn data_parts(&self) -> impl Iterator<Item = &FilePart> {
        self.layers.iter().chain(&self.mask)
    }

    /// The parts with checksums, in the order of their bytes.
    pub(super) fn checked_parts(&self) -> impl Iterator<Item = &FilePart> {
        self.layers.iter().chain(self.samples.iter().flat_map(SampleParts::columns)).chain(&self.mask)
    }

    /// Bytes of the whole file.
    pub(super) fn file_len(&self) -> usize {
        self.header.len() + self.checksums.offset + self.checksums.n_bytes()
    }

    /// The bytes of rows of a part in the file.
    pub(super) fn rows(&self, part: &FilePart, rows: Range<usize>) -> Range<usize> {
        let first = self.header.len() + part.offset;
        first + rows.start * part.row_bytes..first + rows.end * part.row_bytes
    }

    /// The bytes of the digests in the file.
    pub(super) fn digests(&self) -> Range<usize> {
        self.rows(&self.checksums, 0..self.checksums.n_rows)
    }

    /// The header's checksum, given all digests.
    pub(super) fn checksum(&self, digests: &[u8]) -> String {
        blake3::Hasher::new().update(&self.header).update(digests).finalize().to_hex().to_string()
    }

    /// The header with `checksum` filled in.
    pub(super) fn header_with(&self, checksum: &str) -> Vec<u8> {
        let mut header = self.header.clone();
        if let Some(placeholder) = header.get_mut(self.checksum_offset..self.checksum_offset + checksum.len()) {
            placeholder.copy_from_slice(checksum.as_bytes());
        }
        header
    }
}

/// Allocates parts one after the other.
struct PartAllocator {
    offset: usize,
    chunk: usize,
}

impl PartAllocator {
    fn next(&mut self, name: String, dtype: &'static str, shape: Vec<usize>, row_bytes: usize) -> FilePart {
        let n_rows = shape[0];
        let rows_per_chunk = (CHUNK_BYTES / row_bytes.max(1)).max(1);
        let (offset, first_chunk) = (self.offset, self.chunk);
        let part = FilePart { name, dtype, shape, offset, row_bytes, n_rows, rows_per_chunk, first_chunk };
        self.offset += part.n_bytes();
        self.chunk += part.n_chunks();
        part
    }
}

/// The header's bytes, and the offset of the checksum in them.
fn header<'a>(
    signature: &Signature,
    fingerprint: &PlanFingerprint,
    contents: FileContents,
    settings: &str,
    parts: impl Iterator<Item = &'a FilePart>,
) -> Result<(Vec<u8>, usize)> {
    let json_text = |value: &Value| value.to_string();
    let parts_of_fingerprint = serde_json::to_string(fingerprint)
        .map_err(|error| Error::internal(format!("the plan's fingerprint cannot be serialized: {error}")))?;
    let mut metadata = json!({
        // First, so that its placeholder is found before any text of a plan.
        "checksum": NO_CHECKSUM,
        "format": FORMAT,
        "format_version": contents.version(),
        "axes": signature.axes.name(),
        "shape": json_text(&json!(signature.shape())),
        "dtype": signature.dtype.name(),
        "layer_ids": json_text(&json!(signature.layer_ids.to_vec())),
        "mask": signature.has_mask.to_string(),
        "chunk_bytes": CHUNK_BYTES.to_string(),
        "plan_fingerprint": fingerprint.digest(),
        "fingerprint_parts": parts_of_fingerprint,
    });
    if contents != FileContents::Version1 {
        metadata["layer_numbering"] = LAYER_NUMBERING.into();
        metadata["samples"] = (contents == FileContents::NumberingAndSamples).to_string().into();
    }
    if !settings.is_empty() {
        metadata["settings"] = settings.into();
    }
    let mut entries = Map::new();
    entries.insert("__metadata__".to_owned(), metadata);
    entries.extend(parts.map(|part| (part.name.clone(), part.entry())));
    let mut text = Value::Object(entries).to_string();
    let padded = (8 + text.len()).next_multiple_of(HEADER_ALIGNMENT) - 8;
    text.extend(std::iter::repeat_n(' ', padded - text.len()));
    let checksum_offset = 8 + text.find(NO_CHECKSUM).unwrap_or_default();
    let mut header = (text.len() as u64).to_le_bytes().to_vec();
    header.extend_from_slice(text.as_bytes());
    Ok((header, checksum_offset))
}

/// The format's name of a storage type.
fn safetensors_name(dtype: DType) -> &'static str {
    match dtype {
        DType::F32 => "F32",
        DType::F16 => "F16",
        DType::Bf16 => "BF16",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signature(axes: Axes, n_samples: usize) -> Signature {
        let sequence = axes.has(Axis::Sequence);
        Signature {
            axes,
            n_samples,
            layer_ids: [3, 1].into(),
            seq_len: if sequence { 700 } else { 1 },
            hidden_size: 500,
            dtype: DType::Bf16,
            has_mask: sequence,
        }
    }

    #[test]
    fn chunks_cover_each_row_once_within_parts() {
        for (axes, n_samples) in [(Axes::BLSH, 5), (Axes::BLH, 3000), (Axes::BH, 1), (Axes::BSH, 0)] {
            let contents = FileContents::NumberingAndSamples;
            let fingerprint = PlanFingerprint::default();
            let layout = FileLayout::new(signature(axes, n_samples), fingerprint, contents, "").unwrap();
            let mut next_chunk = 0;
            for part in layout.checked_parts() {
                let mut next_row = 0;
                assert_eq!(part.chunks().start, next_chunk);
                for chunk in part.chunks() {
                    let rows = part.rows_of_chunk(chunk);
                    assert_eq!(rows.start, next_row);
                    assert!(!rows.is_empty() && rows.clone().all(|row| part.chunk_of(row) == chunk));
                    assert!(rows.len() == 1 || rows.len() * part.row_bytes <= CHUNK_BYTES);
                    next_row = rows.end;
                }
                assert_eq!(next_row, n_samples);
                next_chunk = part.chunks().end;
            }
            assert_eq!(layout.checksums.n_rows, next_chunk);
            assert_eq!(layout.digests().end, layout.file_len());
            assert_eq!(layout.header.len() % HEADER_ALIGNMENT, 0);
        }
    }

    #[test]
    fn checksum_placeholder_in_fingerprint_is_kept() {
        let mut fingerprint = PlanFingerprint::default();
        fingerprint.set("checksum", NO_CHECKSUM);
        fingerprint.set("model", "\"\\ \u{1F600}");
        let contents = FileContents::NumberingAndSamples;
        let layout = FileLayout::new(signature(Axes::BH, 2), fingerprint, contents, NO_CHECKSUM).unwrap();
        let text = String::from_utf8(layout.header_with(&"f".repeat(64))[8..].to_vec()).unwrap();
        let header: Value = serde_json::from_str(&text).unwrap();
        let metadata: BTreeMap<String, String> = serde_json::from_value(header["__metadata__"].clone()).unwrap();
        assert_eq!(metadata["checksum"], "f".repeat(64));
        let contents = FileContents::of_metadata(&metadata).unwrap();
        let again = FileLayout::from_metadata(&metadata, contents).unwrap();
        assert_eq!(again.header, layout.header);
    }
}
