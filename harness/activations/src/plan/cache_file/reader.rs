//! Reads a cache file through a mapping: opening checks the header, and each chunk is verified when it is first read.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use memmap2::Mmap;

use super::layout::{DIGEST_BYTES, FORMAT, FileContents, FileLayout, FilePart};
use super::samples::SampleTable;
use crate::error::{Error, Result};
use crate::plan::fingerprint::PlanFingerprint;
use crate::plan::mask::SequenceMask;
use crate::plan::signature::Signature;

/// The advice for an incomplete file.
const DELETE_IT: &str = "delete it and extract again";
/// The longest header that safetensors allows.
const MAX_HEADER_BYTES: u64 = 100_000_000;

/// An open cache file.
pub struct CacheFile {
    path: PathBuf,
    map: Arc<Mmap>,
    layout: FileLayout,
    mask: Option<SequenceMask>,
    /// For each chunk, whether its digest was compared.
    verified: Vec<AtomicBool>,
}

impl CacheFile {
    /// Opens the file and checks its structure, sizes, version and checksum; activations are not read yet.
    ///
    /// # Errors
    /// The file cannot be read, is not a cache file, or is incomplete.
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(Error::io("open", path))?;
        let metadata = file.metadata().map_err(Error::io("read", path))?;
        if !metadata.is_file() {
            return Err(Error::file(path, "is not a file; give the path of a cache file"));
        }
        if metadata.len() < 8 {
            return Err(Error::file(path, format!("is not a cache file: it has {} bytes", metadata.len())));
        }
        // SAFETY: a mapped file must not be changed or truncated. Writers of this crate never touch a file under its final
        // name: they rename a new file over it, which leaves the mapped one unchanged.
        let map = unsafe { Mmap::map(&file) }.map_err(Error::io("map", path))?;
        let layout = read_layout(&map).map_err(|what| Error::file(path, what))?;
        let n_chunks = layout.checked_parts().map(FilePart::n_chunks).sum();
        let verified = (0..n_chunks).map(|_| AtomicBool::new(false)).collect();
        let mut file = CacheFile { path: path.to_path_buf(), map: Arc::new(map), layout, mask: None, verified };
        file.mask = file.read_mask()?;
        Ok(file)
    }

    /// The path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Axes, extents, layers and dtype.
    pub fn signature(&self) -> &Signature {
        &self.layout.signature
    }

    /// The fingerprint of the plan that wrote it.
    pub fn fingerprint(&self) -> &PlanFingerprint {
        &self.layout.fingerprint
    }

    /// Refuses a file of another fingerprint than `wanted`, that of what `name` names, and says what differs.
    ///
    /// # Errors
    /// Another fingerprint.
    pub fn check_fingerprint(&self, wanted: &PlanFingerprint, name: &str) -> Result<()> {
        let differences = self.fingerprint().describe_differences(wanted, ["file", name]);
        differences.map_or(Ok(()), |differences| {
            Err(Error::file(
                &self.path,
                format!("was written for other settings: {differences} changed; delete it or use another path"),
            ))
        })
    }

    /// The positions that are pooled; only with axis `s`.
    pub fn mask(&self) -> Option<&SequenceMask> {
        self.mask.as_ref()
    }

    /// Rows, labels and sides of the samples, verified; none if the file was written without them.
    ///
    /// # Errors
    /// A chunk whose digest differs from the one written.
    pub fn sample_table(&self) -> Result<Option<SampleTable>> {
        let Some(parts) = &self.layout.samples else { return Ok(None) };
        for part in parts.columns() {
            self.verify_part(part)?;
        }
        let n_samples = self.layout.signature.n_samples;
        let bytes = parts.columns().map(|part| &self.map[self.layout.rows(part, 0..n_samples)]);
        Ok(Some(SampleTable::of_columns(bytes, &self.layout.settings)))
    }

    /// Verifies the chunks of `samples` of the layer at position `layer` and gives access to them.
    ///
    /// # Errors
    /// A chunk whose digest differs from the one written.
    pub fn read(&self, layer: usize, samples: &[usize]) -> Result<LayerSamples> {
        let part = &self.layout.layers[layer];
        let mut release: Option<Range<usize>> = None;
        for sample in samples {
            let chunk = part.chunk_of(*sample);
            let range = self.layout.rows(part, part.rows_of_chunk(chunk));
            if !self.verified[chunk].load(Ordering::Acquire) {
                self.verify(part, chunk, range.clone())?;
            }
            release = Some(match release {
                Some(known) => known.start.min(range.start)..known.end.max(range.end),
                None => range,
            });
        }
        Ok(LayerSamples {
            map: self.map.clone(),
            first: self.layout.rows(part, 0..0).start,
            row_bytes: part.row_bytes,
            release: release.unwrap_or(0..0),
        })
    }

    /// Compares the digest of a chunk, `range` of the file.
    fn verify(&self, part: &FilePart, chunk: usize, range: Range<usize>) -> Result<()> {
        let digests = &self.map[self.layout.digests()];
        let expected = &digests[chunk * DIGEST_BYTES..(chunk + 1) * DIGEST_BYTES];
        if blake3::hash(&self.map[range.clone()]).as_bytes() != expected {
            let rows = part.rows_of_chunk(chunk);
            return Err(Error::file(
                &self.path,
                format!(
                    "is damaged: {} of samples {} to {} (chunk {chunk}, bytes {} to {}) differs from what was written; {DELETE_IT}",
                    part.name(),
                    rows.start,
                    rows.end - 1,
                    range.start,
                    range.end - 1
                ),
            ));
        }
        self.verified[chunk].store(true, Ordering::Release);
        Ok(())
    }

    fn verify_part(&self, part: &FilePart) -> Result<()> {
        part.chunks().try_for_each(|chunk| self.verify(part, chunk, self.layout.rows(part, part.rows_of_chunk(chunk))))
    }

    fn read_mask(&self) -> Result<Option<SequenceMask>> {
        let Some(part) = &self.layout.mask else { return Ok(None) };
        self.verify_part(part)?;
        let signature = &self.layout.signature;
        let bytes = &self.map[self.layout.rows(part, 0..signature.n_samples)];
        let flags: Vec<bool> = bytes.iter().map(|byte| *byte != 0).collect();
        SequenceMask::new(signature.n_samples, signature.seq_len, flags).map(Some)
    }
}

impl fmt::Debug for CacheFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CacheFile").field("path", &self.path).field("signature", self.signature()).finish()
    }
}

/// Samples of one layer in the mapped file. Dropping it releases the pages of their chunks, so that reading a large file
/// chunk by chunk does not count as memory in use.
pub struct LayerSamples {
    map: Arc<Mmap>,
    /// Offset of sample 0 in the file.
    first: usize,
    row_bytes: usize,
    /// The chunks of the samples asked for.
    release: Range<usize>,
}

impl LayerSamples {
    /// The block of one of the samples asked for, `[s, h]` or `[h]`.
    pub fn block(&self, sample: usize) -> &[u8] {
        &self.map[self.range(sample..sample + 1)]
    }

    /// The blocks of consecutive `samples`, without a copy.
    pub fn into_bytes(self, samples: &[usize]) -> Bytes {
        let (Some(first), Some(last)) = (samples.first(), samples.last()) else { return Bytes::new() };
        let range = self.range(*first..*last + 1);
        Bytes::from_owner(MappedBytes { samples: self, range })
    }

    fn range(&self, samples: Range<usize>) -> Range<usize> {
        self.first + samples.start * self.row_bytes..self.first + samples.end * self.row_bytes
    }
}

impl Drop for LayerSamples {
    fn drop(&mut self) {
        if self.release.is_empty() {
            return;
        }
        // A failed hint costs memory, never correctness.
        // SAFETY: the mapping is shared, read-only and of a file that does not change, so a released page is read again
        // with the same bytes, through this reference or any other.
        let _ = unsafe {
            self.map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, self.release.start, self.release.len())
        };
    }
}

/// Keeps the mapping alive under a `Bytes`.
struct MappedBytes {
    samples: LayerSamples,
    range: Range<usize>,
}

impl AsRef<[u8]> for MappedBytes {
    fn as_ref(&self) -> &[u8] {
        &self.samples.map[self.range.clone()]
    }
}

/// Reads and checks everything except the activations. The error completes a sentence that begins with the path.
fn read_layout(map: &[u8]) -> Result<FileLayout, String> {
    let metadata = read_metadata(map)?;
    if metadata.get("format").map(String::as_str) != Some(FORMAT) {
        return Err("is a safetensors file, but not an activation cache of actbench; give another path".to_owned());
    }
    let contents = FileContents::of_metadata(&metadata).map_err(|what| format!("{what}; {DELETE_IT}"))?;
    let damaged = |what: &str| format!("is damaged: {what}; {DELETE_IT}");
    let layout = FileLayout::from_metadata(&metadata, contents).map_err(|what| damaged(&what))?;
    if layout.file_len() != map.len() {
        let what = if layout.file_len() > map.len() { "truncated" } else { "too long" };
        return Err(format!("is {what}: it has {} of {} bytes; {DELETE_IT}", map.len(), layout.file_len()));
    }
    // The header must be, byte for byte, the one that the writer makes from this metadata, so names, types, shapes and
    // offsets need no checks of their own.
    let checksum = layout.checksum(&map[layout.digests()]);
    if layout.header_with(&checksum) != map[..layout.header.len()] {
        return Err(damaged("its header or its table of checksums differs from what was written"));
    }
    Ok(layout)
}

/// The `__metadata__` of a safetensors header.
fn read_metadata(map: &[u8]) -> Result<BTreeMap<String, String>, String> {
    let foreign = || "is not a safetensors file and therefore not an activation cache; give another path".to_owned();
    let (length, rest) = map.split_first_chunk::<8>().ok_or_else(foreign)?;
    let length = u64::from_le_bytes(*length);
    if length > MAX_HEADER_BYTES {
        return Err(foreign());
    }
    let header = usize::try_from(length).ok().and_then(|length| rest.get(..length)).ok_or_else(|| {
        format!("is truncated: its header alone should have {length} bytes, the file has {}; {DELETE_IT}", map.len())
    })?;
    // Ordered maps: the instructions of a hash map vary from run to run, and instruction counts are gated.
    let entries: BTreeMap<String, serde_json::Value> = serde_json::from_slice(header).map_err(|_| foreign())?;
    let metadata = entries.get("__metadata__").cloned().unwrap_or_default();
    Ok(serde_json::from_value(metadata).unwrap_or_default())
}
