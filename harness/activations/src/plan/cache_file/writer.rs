//! Writes a cache file as batches come, in any order, and lets it appear only when it is whole.
//!
//! Bytes go to `.<name>.partial` in the same folder, which is locked while it is written, so that a second writer is
//! refused instead of mixing its bytes in. The name is fixed and not random so that what a killed writer left behind
//! is found by the next one, which goes on with it if it is of the same plan ([`CacheWriter::resume`]) and else starts
//! over in the same file. On success: checksums, header, `fsync`, rename, `fsync` of the folder. On failure the partial
//! file is removed: a program that still runs tidies up, only one that was killed leaves something to go on with.

use std::borrow::Cow;
use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::journal::Journal;
use super::layout::{DIGEST_BYTES, Layout, Part};
use super::partial::{lock_partial, partial_path, sync_folder};
use crate::error::{Error, Result};
use crate::plan::fingerprint::Fingerprint;
use crate::plan::signature::Signature;
use crate::plan::tensor::ActTensor;

/// Bytes read back at a time.
const READ_BYTES: usize = 1 << 20;

/// Rows of at least so many bytes are written and digested by two threads.
const SHARED_BYTES: usize = 256 << 10;

/// So many bytes are written before the system is asked to begin bringing them to the disk.
const WRITEBACK_BYTES: usize = 16 << 20;

/// A cache file that is being written.
pub struct CacheWriter {
    layout: Layout,
    file: File,
    partial: PathBuf,
    target: PathBuf,
    /// One a chunk.
    digests: Vec<ChunkDigest>,
    /// Which samples were written.
    written: Vec<bool>,
    /// What a later writer can go on with; none where that is not worth a second digest of every byte.
    journal: Option<Journal>,
    renamed: bool,
    /// Bytes written since the system was last asked to bring them to the disk.
    dirty_bytes: usize,
}

/// How far the digest of a chunk is.
enum ChunkDigest {
    /// Rows came in order up to `next_row`.
    InOrder { next_row: usize, hasher: Box<blake3::Hasher> },
    /// Known.
    Done(blake3::Hash),
    /// Nothing came yet, or rows came out of order: to be read back at the end.
    ReadBack,
}

impl ChunkDigest {
    /// Takes in `bytes`, which are `rows` of a chunk that has `all` rows.
    fn take(&mut self, rows: Range<usize>, all: Range<usize>, bytes: &[u8]) {
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
    /// Starts a file at `path` for activations of `signature`. What is at `path` stays until [`CacheWriter::finish`].
    ///
    /// # Errors
    /// Another process writes to the same path, or the folder does not let a file be made.
    pub fn create(path: &Path, signature: Signature, fingerprint: Fingerprint) -> Result<Self> {
        let writer = Self::locked(path, signature, fingerprint)?;
        writer.start_over()?;
        Ok(writer)
    }

    /// As [`CacheWriter::create`], but keeps a journal of finished samples, and takes over those that a killed writer
    /// of the same plan has left. For activations that are dear to compute.
    ///
    /// # Errors
    /// As [`CacheWriter::create`], or what was left cannot be read.
    pub fn resume(path: &Path, signature: Signature, fingerprint: Fingerprint) -> Result<Self> {
        let mut writer = Self::locked(path, signature, fingerprint)?;
        let mut journal = Journal::at(writer.layout.file_len() as u64);
        if writer.continues_partial().map_err(Error::io("read back", &writer.partial))? {
            writer.take_over(&mut journal).map_err(Error::io("read back", &writer.partial))?;
            // What stands behind the last whole record was being written at the end.
            writer.file.set_len(journal.end()).map_err(Error::io("write", &writer.partial))?;
        } else {
            writer.start_over()?;
        }
        writer.journal = Some(journal);
        Ok(writer)
    }

    /// Whether the sample at `place` is in the file already.
    pub fn has(&self, place: usize) -> bool {
        self.written.get(place).copied().unwrap_or(false)
    }

    /// Opens and locks the partial file as it is. From here on, dropping the writer removes it.
    fn locked(path: &Path, signature: Signature, fingerprint: Fingerprint) -> Result<Self> {
        let layout = Layout::new(signature, fingerprint)?;
        let partial = partial_path(path)?;
        let file = lock_partial(&partial, path)?;
        let n_chunks = layout.data_parts().map(Part::n_chunks).sum();
        let written = vec![false; layout.signature.n_samples];
        Ok(CacheWriter {
            digests: (0..n_chunks).map(|_| ChunkDigest::ReadBack).collect(),
            layout,
            file,
            partial,
            target: path.to_path_buf(),
            written,
            journal: None,
            renamed: false,
            dirty_bytes: 0,
        })
    }

    fn start_over(&self) -> Result<()> {
        let set_len = |len: usize| self.file.set_len(len as u64).map_err(Error::io("write", &self.partial));
        set_len(0)?;
        set_len(self.layout.file_len())?;
        self.write_at(&self.layout.header, 0)
    }

    /// Whether the partial file was begun for this very plan: its header holds the fingerprint and every place.
    fn continues_partial(&self) -> io::Result<bool> {
        if self.file.metadata()?.len() < self.layout.file_len() as u64 {
            return Ok(false);
        }
        let mut header = vec![0; self.layout.header.len()];
        self.file.read_exact_at(&mut header, 0)?;
        Ok(header == self.layout.header)
    }

    /// Believes the samples of a journal whose bytes are those that were written: after a power failure the record of
    /// a sample may have reached the disk without the sample.
    fn take_over(&mut self, journal: &mut Journal) -> io::Result<()> {
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
                    let piece = &mut buffer[..range.len().min(READ_BYTES)];
                    self.file.read_exact_at(piece, range.start as u64)?;
                    hasher.update(piece);
                    range.start += piece.len();
                }
            }
        }
        Ok(hasher.finalize())
    }

    /// Writes samples of `tensor`: each pair is the sample's place in the file and its place in `tensor`.
    ///
    /// # Errors
    /// A tensor of another type than the file's, a sample outside of it, or a failed write.
    pub fn put(&mut self, places: &[(usize, usize)], tensor: &ActTensor) -> Result<()> {
        let expected = self.layout.signature.with_samples(tensor.signature().n_samples);
        if *tensor.signature() != expected {
            return Err(Error::usage(format!("a batch of {} cannot go to a file of {expected}", tensor.signature())));
        }
        let mut places = places.to_vec();
        places.sort_unstable();
        let fits = |(row, sample): &(usize, usize)| *row < self.written.len() && *sample < expected.n_samples;
        if let Some(place) = places.iter().find(|place| !fits(place)) {
            return Err(Error::usage(format!("sample {place:?} is outside of a file of {}", self.layout.signature)));
        }
        let mut hasher = self.journal.is_some().then(blake3::Hasher::new);
        for run in places.chunk_by(|a, b| a.0 + 1 == b.0) {
            let first_row = run[0].0;
            for layer in 0..self.layout.layers.len() {
                let part = self.layout.layers[layer].clone();
                let rows = rows_of(run, layer, tensor);
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
            let samples: Vec<usize> = places.iter().map(|(row, _)| *row).collect();
            journal.append(&self.file, &samples, hasher.finalize()).map_err(Error::io("write", &self.partial))?;
        }
        Ok(())
    }

    /// Writes consecutive rows of a part and takes them into the digests of their chunks.
    fn put_rows(
        &mut self,
        part: &Part,
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
            take_rows(digests, part, first_row..end_row, rows);
        };
        let write = || file.write_all_at(rows, offset);
        // The digests take about half as long as the system takes for the copy, so that they are hidden behind it;
        // handing a few rows to another thread takes longer than their digest.
        let written = match rows.len() >= SHARED_BYTES {
            true => rayon::join(digest, write).1,
            false => {
                digest();
                write()
            }
        };
        written.map_err(Error::io("write", &self.partial))?;
        self.dirty_bytes += rows.len();
        if self.dirty_bytes >= WRITEBACK_BYTES {
            begin_writeback(&self.file);
            self.dirty_bytes = 0;
        }
        Ok(())
    }

    /// Completes the file and gives it its name.
    ///
    /// # Errors
    /// A sample that was never written, or a failed write.
    pub fn finish(mut self) -> Result<()> {
        if let Some(missing) = self.written.iter().position(|written| !written) {
            return Err(Error::Numeric(format!("{}: sample {missing} was never computed", self.target.display())));
        }
        let mut digests = Vec::with_capacity(self.digests.len() * DIGEST_BYTES);
        let mut buffer = Vec::new();
        for part in self.layout.data_parts() {
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
        self.write_at(checksum.as_bytes(), self.layout.checksum_at)?;
        if self.journal.is_some() {
            self.file.set_len(self.layout.file_len() as u64).map_err(Error::io("write", &self.partial))?;
        }
        self.file.sync_all().map_err(Error::io("write", &self.partial))?;
        fs::rename(&self.partial, &self.target).map_err(Error::io("write", &self.target))?;
        self.renamed = true;
        sync_folder(&self.target)
    }

    fn write_at(&self, bytes: &[u8], offset: usize) -> Result<()> {
        self.file.write_all_at(bytes, offset as u64).map_err(Error::io("write", &self.partial))
    }
}

impl Drop for CacheWriter {
    fn drop(&mut self) {
        if !self.renamed {
            // Nothing more can be done about a file that cannot be removed, and the reason for being here is told
            // already. The lock is still held, so this is our file and nobody else's.
            let _ = fs::remove_file(&self.partial);
        }
    }
}

/// Asks the system to begin bringing what was written to the disk now, while the next rows are computed, so that the
/// `fsync` at the end has less to wait for. A hint: systems that do not know it lose nothing.
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
fn take_rows(digests: &mut [ChunkDigest], part: &Part, range: Range<usize>, bytes: &[u8]) {
    let mut row = range.start;
    // Whole stretches at a time: the hash is several times faster on many kilobytes than on one row.
    while row < range.end {
        let chunk = part.chunk_of(row);
        let chunk_rows = part.rows_of_chunk(chunk);
        let end = chunk_rows.end.min(range.end);
        let piece = &bytes[(row - range.start) * part.row_bytes..(end - range.start) * part.row_bytes];
        digests[chunk].take(row..end, chunk_rows, piece);
        row = end;
    }
}

/// One layer of consecutive samples, in one piece; without a copy where it lies so.
fn rows_of<'a>(run: &[(usize, usize)], layer: usize, tensor: &'a ActTensor) -> Cow<'a, [u8]> {
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
