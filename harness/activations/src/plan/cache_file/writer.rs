//! Writes a cache file batch by batch, in any order, and gives it its name only when it is complete.
//!
//! Bytes are written to `.<name>.partial` in the same directory, which is locked, so that a second writer is refused instead
//! of mixing its bytes in. The name is fixed and not random so that the next writer finds the file of a killed one: it
//! resumes the file if it is of the same plan ([`CacheWriter::resume`]) and overwrites it otherwise. On success: checksums,
//! header, `fsync`, rename, `fsync` of the directory. On failure the partial file is removed. An interrupted write
//! ([`CacheWriter::keep_finished`]) and a killed process leave one to resume.

use std::borrow::Cow;
use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::journal::WriteJournal;
use super::layout::{DIGEST_BYTES, FileContents, FileLayout, FilePart};
use super::partial::{lock_partial, partial_path, sync_directory};
use super::samples::SampleTable;
use crate::error::{Error, Result};
use crate::plan::fingerprint::PlanFingerprint;
use crate::plan::signature::Signature;
use crate::plan::tensor::ActTensor;

/// Bytes read back at a time.
const READ_BYTES: usize = 1 << 20;

/// Writes of at least this many bytes are digested on a second thread.
const PARALLEL_DIGEST_BYTES: usize = 256 << 10;

/// Bytes that are written before the system is asked to start writeback.
const WRITEBACK_BYTES: usize = 16 << 20;

/// A cache file that is being written.
pub struct CacheWriter {
    layout: FileLayout,
    file: File,
    partial: PathBuf,
    target: PathBuf,
    /// One per chunk.
    digests: Vec<ChunkDigest>,
    /// Which samples were written.
    written: Vec<bool>,
    /// Lets a later writer resume; none if that is not worth a second digest of every byte.
    journal: Option<WriteJournal>,
    /// Removed when the writer is dropped, unless the file is renamed or kept.
    removes_partial: bool,
    /// Bytes written since the last request for writeback.
    dirty_bytes: usize,
}

/// The state of the digest of a chunk.
enum ChunkDigest {
    /// Rows were written in order up to `next_row`.
    InOrder { next_row: usize, hasher: Box<blake3::Hasher> },
    /// Complete.
    Done(blake3::Hash),
    /// No row was written, or rows out of order: the chunk is read back at the end.
    ReadBack,
}

impl ChunkDigest {
    /// Adds `bytes`, which are `rows` of a chunk that has `all` rows.
    fn update(&mut self, rows: Range<usize>, all: Range<usize>, bytes: &[u8]) {
        if rows.start == all.start {
            *self = ChunkDigest::InOrder { next_row: rows.start, hasher: Box::default() };
        }
        match self {
            ChunkDigest::InOrder { next_row, hasher } if *next_row == rows.start => {
                hasher.update(bytes);
                *next_row = rows.end;
                if rows.end == all.end {
                    *self = ChunkDigest::Done(hasher.finalize());
                }
            }
            _ => *self = ChunkDigest::ReadBack,
        }
    }
}

impl CacheWriter {
    /// Starts a file at `path` for activations of `signature`, with `table` if there is one. An existing file stays until
    /// [`CacheWriter::finish`].
    ///
    /// # Errors
    /// Another process writes to the same path, the directory is not writable, or the table has another number of samples.
    pub fn create(
        path: &Path,
        signature: Signature,
        fingerprint: PlanFingerprint,
        table: Option<&SampleTable>,
    ) -> Result<Self> {
        let writer = Self::locked(path, signature, fingerprint, table)?;
        writer.start_over()?;
        writer.write_table(table)?;
        Ok(writer)
    }

    /// As [`CacheWriter::create`], but keeps a journal of finished samples, and resumes the file of an interrupted or killed
    /// writer of the same plan. For activations that are expensive to compute.
    ///
    /// # Errors
    /// As [`CacheWriter::create`], or the partial file cannot be read.
    pub fn resume(
        path: &Path,
        signature: Signature,
        fingerprint: PlanFingerprint,
        table: Option<&SampleTable>,
    ) -> Result<Self> {
        let mut writer = Self::locked(path, signature, fingerprint, table)?;
        let mut journal = WriteJournal::at(writer.layout.file_len() as u64);
        if writer.continues_partial().map_err(Error::io("read back", &writer.partial))? {
            writer.resume_from(&mut journal).map_err(Error::io("read back", &writer.partial))?;
            // Truncates a torn record.
            writer.file.set_len(journal.end()).map_err(Error::io("write", &writer.partial))?;
        } else {
            writer.start_over()?;
        }
        // Also over the table of the earlier writer, which may have had other labels for the same tokens.
        writer.write_table(table)?;
        writer.journal = Some(journal);
        Ok(writer)
    }

    /// Whether the sample at `position` is in the file already.
    pub fn has(&self, position: usize) -> bool {
        self.written.get(position).copied().unwrap_or(false)
    }

    /// Opens and locks the partial file without changing it. From here on, dropping the writer removes it.
    fn locked(
        path: &Path,
        signature: Signature,
        fingerprint: PlanFingerprint,
        table: Option<&SampleTable>,
    ) -> Result<Self> {
        if let Some(table) = table {
            table.check_length(signature.n_samples)?;
        }
        let contents = if table.is_some() { FileContents::NumberingAndSamples } else { FileContents::Numbering };
        let settings = table.map_or("", |table| table.settings.as_str());
        let layout = FileLayout::new(signature, fingerprint, contents, settings)?;
        let partial = partial_path(path)?;
        let file = lock_partial(&partial, path)?;
        let n_chunks = layout.checked_parts().map(FilePart::n_chunks).sum();
        let written = vec![false; layout.signature.n_samples];
        Ok(CacheWriter {
            digests: (0..n_chunks).map(|_| ChunkDigest::ReadBack).collect(),
            layout,
            file,
            partial,
            target: path.to_path_buf(),
            written,
            journal: None,
            removes_partial: true,
            dirty_bytes: 0,
        })
    }

    fn start_over(&self) -> Result<()> {
        let set_len = |len: usize| self.file.set_len(len as u64).map_err(Error::io("write", &self.partial));
        set_len(0)?;
        set_len(self.layout.file_len())?;
        self.write_at(&self.layout.header, 0)
    }

    /// Writes the columns of the table, whose digests are computed at the end.
    fn write_table(&self, table: Option<&SampleTable>) -> Result<()> {
        let (Some(parts), Some(table)) = (&self.layout.samples, table) else { return Ok(()) };
        for (part, bytes) in parts.columns().into_iter().zip(table.columns()) {
            self.write_at(bytes, self.layout.rows(part, 0..0).start)?;
        }
        Ok(())
    }

    /// Whether the partial file belongs to the same plan: its header has the fingerprint and all offsets.
    fn continues_partial(&self) -> io::Result<bool> {
        if self.file.metadata()?.len() < self.layout.file_len() as u64 {
            return Ok(false);
        }
        let mut header = vec![0; self.layout.header.len()];
        self.file.read_exact_at(&mut header, 0)?;
        Ok(header == self.layout.header)
    }

    /// Accepts the samples of a journal whose bytes have the recorded digest: after a power failure the record of a sample
    /// may be on the disk without the sample.
    fn resume_from(&mut self, journal: &mut WriteJournal) -> io::Result<()> {
        while let Some(record) = journal.read_next(&self.file, self.written.len())? {
            if self.digest_of(&record.samples)? == record.digest {
                record.samples.iter().for_each(|sample| self.written[*sample] = true);
            }
        }
        Ok(())
    }

    /// The digest of the bytes of `samples` in the file, in the order in which [`CacheWriter::put`] writes them.
    fn digest_of(&self, samples: &[usize]) -> io::Result<blake3::Hash> {
        let mut hasher = blake3::Hasher::new();
        let mut buffer = vec![0; READ_BYTES];
        for run in samples.chunk_by(|a, b| a + 1 == *b) {
            for part in self.layout.data_parts() {
                let mut range = self.layout.rows(part, run[0]..run[0] + run.len());
                while !range.is_empty() {
                    let chunk = &mut buffer[..range.len().min(READ_BYTES)];
                    self.file.read_exact_at(chunk, range.start as u64)?;
                    hasher.update(chunk);
                    range.start += chunk.len();
                }
            }
        }
        Ok(hasher.finalize())
    }

    /// Writes samples of `tensor`: each pair is the sample's position in the file and its position in `tensor`.
    ///
    /// # Errors
    /// A tensor of another type than the file's, a sample outside of it, or a failed write.
    pub fn put(&mut self, positions: &[(usize, usize)], tensor: &ActTensor) -> Result<()> {
        let expected = self.layout.signature.with_samples(tensor.signature().n_samples);
        if *tensor.signature() != expected {
            return Err(Error::usage(format!("a batch of {} does not fit a file of {expected}", tensor.signature())));
        }
        let mut positions = positions.to_vec();
        positions.sort_unstable();
        let fits = |(row, sample): &(usize, usize)| *row < self.written.len() && *sample < expected.n_samples;
        if let Some(pair) = positions.iter().find(|pair| !fits(pair)) {
            return Err(Error::usage(format!("sample {pair:?} is outside of a file of {}", self.layout.signature)));
        }
        let mut hasher = self.journal.is_some().then(blake3::Hasher::new);
        for run in positions.chunk_by(|a, b| a.0 + 1 == b.0) {
            let first_row = run[0].0;
            for layer in 0..self.layout.layers.len() {
                let part = self.layout.layers[layer].clone();
                let rows = layer_rows(run, layer, tensor);
                self.put_rows(&part, first_row, &rows, hasher.as_mut())?;
            }
            if let (Some(part), Some(mask)) = (self.layout.mask.clone(), tensor.mask()) {
                let flags: Vec<u8> =
                    run.iter().flat_map(|(_, sample)| mask.row(*sample)).map(|flag| u8::from(*flag)).collect();
                self.put_rows(&part, first_row, &flags, hasher.as_mut())?;
            }
            run.iter().for_each(|(row, _)| self.written[*row] = true);
        }
        if let (Some(journal), Some(hasher)) = (&mut self.journal, hasher) {
            let samples: Vec<usize> = positions.iter().map(|(row, _)| *row).collect();
            journal.append(&self.file, &samples, hasher.finalize()).map_err(Error::io("write", &self.partial))?;
        }
        Ok(())
    }

    /// Writes consecutive rows of a part and updates the digests of their chunks.
    fn put_rows(
        &mut self,
        part: &FilePart,
        first_row: usize,
        rows: &[u8],
        journal: Option<&mut blake3::Hasher>,
    ) -> Result<()> {
        let end_row = first_row + rows.len() / part.row_bytes.max(1);
        let offset = self.layout.rows(part, first_row..end_row).start as u64;
        let (file, digests) = (&self.file, &mut self.digests);
        let digest = || {
            if let Some(hasher) = journal {
                hasher.update(rows);
            }
            update_digests(digests, part, first_row..end_row, rows);
        };
        let write = || file.write_all_at(rows, offset);
        // A digest takes about half as long as the write, which hides it; for small writes starting another thread takes
        // longer than the digest.
        let written = if rows.len() >= PARALLEL_DIGEST_BYTES {
            rayon::join(digest, write).1
        } else {
            digest();
            write()
        };
        written.map_err(Error::io("write", &self.partial))?;
        self.dirty_bytes += rows.len();
        if self.dirty_bytes >= WRITEBACK_BYTES {
            begin_writeback(&self.file);
            self.dirty_bytes = 0;
        }
        Ok(())
    }

    /// Completes the file and renames it to its final name.
    ///
    /// # Errors
    /// A sample that was never written, or a failed write.
    pub fn finish(mut self) -> Result<()> {
        if let Some(missing) = self.written.iter().position(|written| !written) {
            return Err(Error::Numeric(format!("{}: sample {missing} was never computed", self.target.display())));
        }
        let mut digests = Vec::with_capacity(self.digests.len() * DIGEST_BYTES);
        let mut buffer = Vec::new();
        for part in self.layout.checked_parts() {
            for chunk in part.chunks() {
                let digest = match &self.digests[chunk] {
                    ChunkDigest::Done(digest) => *digest,
                    _ => {
                        let range = self.layout.rows(part, part.rows_of_chunk(chunk));
                        buffer.resize(range.len(), 0);
                        let read = self.file.read_exact_at(&mut buffer, range.start as u64);
                        read.map_err(Error::io("read back", &self.partial))?;
                        blake3::hash(&buffer)
                    }
                };
                digests.extend_from_slice(digest.as_bytes());
            }
        }
        self.write_at(&digests, self.layout.digests().start)?;
        let checksum = self.layout.checksum(&digests);
        self.write_at(checksum.as_bytes(), self.layout.checksum_offset)?;
        if self.journal.is_some() {
            self.file.set_len(self.layout.file_len() as u64).map_err(Error::io("write", &self.partial))?;
        }
        self.file.sync_all().map_err(Error::io("write", &self.partial))?;
        fs::rename(&self.partial, &self.target).map_err(Error::io("write", &self.target))?;
        self.removes_partial = false;
        sync_directory(&self.target)
    }

    /// Ends an interrupted write: finished samples stay in the partial file, where [`CacheWriter::resume`] finds them. Without
    /// a journal or a finished sample there is nothing to resume, and the partial file is removed.
    ///
    /// # Errors
    /// The samples cannot be written to the disk. The partial file is removed.
    pub fn keep_finished(mut self) -> Result<()> {
        if self.journal.is_some() && self.written.contains(&true) {
            self.file.sync_data().map_err(Error::io("write", &self.partial))?;
            self.removes_partial = false;
        }
        Ok(())
    }

    fn write_at(&self, bytes: &[u8], offset: usize) -> Result<()> {
        self.file.write_all_at(bytes, offset as u64).map_err(Error::io("write", &self.partial))
    }
}

impl Drop for CacheWriter {
    fn drop(&mut self) {
        if self.removes_partial {
            // A failure to remove it is ignored: the error that ended the write is reported already. The lock is still held,
            // so the file belongs to this writer.
            let _ = fs::remove_file(&self.partial);
        }
    }
}

/// Starts writeback while the next rows are computed, so that the `fsync` at the end takes less time. A hint, without effect
/// on other systems.
fn begin_writeback(file: &File) {
    #[cfg(target_os = "linux")]
    {
        use std::os::fd::AsRawFd;
        // SAFETY: a system call without pointers; the descriptor is open for as long as `file` is borrowed.
        unsafe { libc::sync_file_range(file.as_raw_fd(), 0, 0, libc::SYNC_FILE_RANGE_WRITE) };
    }
    #[cfg(not(target_os = "linux"))]
    let _ = file;
}

/// Takes rows of a part into the digests of their chunks.
fn update_digests(digests: &mut [ChunkDigest], part: &FilePart, range: Range<usize>, bytes: &[u8]) {
    let mut row = range.start;
    // Many rows at a time: the hash is several times faster on many kilobytes than on one row.
    while row < range.end {
        let chunk = part.chunk_of(row);
        let chunk_rows = part.rows_of_chunk(chunk);
        let end = chunk_rows.end.min(range.end);
        let chunk_bytes = &bytes[(row - range.start) * part.row_bytes..(end - range.start) * part.row_bytes];
        digests[chunk].update(row..end, chunk_rows, chunk_bytes);
        row = end;
    }
}

/// One layer of consecutive samples; without a copy if it is contiguous.
fn layer_rows<'a>(run: &[(usize, usize)], layer: usize, tensor: &'a ActTensor) -> Cow<'a, [u8]> {
    let first = run[0].1;
    let in_order = run.iter().enumerate().all(|(index, (_, sample))| *sample == first + index);
    if in_order && tensor.signature().n_layers() == 1 {
        let len = tensor.signature().sample_bytes();
        return Cow::Borrowed(&tensor.bytes()[first * len..(first + run.len()) * len]);
    }
    let mut rows = Vec::with_capacity(run.len() * tensor.signature().block_bytes());
    run.iter().for_each(|(_, sample)| rows.extend_from_slice(tensor.block(*sample, layer)));
    Cow::Owned(rows)
}
