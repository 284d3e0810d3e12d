//! Writes a cache file as batches come, in any order, and lets it appear only when it is whole.
//!
//! Bytes go to `.<name>.partial` in the same folder, which is locked while it is written, so that a second writer is
//! refused instead of mixing its bytes in. The name is fixed and not random so that what a killed writer left behind
//! is found by the next one, which starts over in the same file. On success: checksums, header, `fsync`, rename,
//! `fsync` of the folder. On failure the partial file is removed.

use std::borrow::Cow;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::layout::{DIGEST_BYTES, Layout, Part};
use crate::acts::fingerprint::Fingerprint;
use crate::acts::signature::Signature;
use crate::acts::tensor::ActTensor;
use crate::error::{Error, Result};

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
    renamed: bool,
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
        let layout = Layout::new(signature, fingerprint)?;
        let Some(name) = path.file_name() else {
            return Err(Error::usage(format!("{} does not name a file to write", path.display())));
        };
        let mut partial_name = std::ffi::OsString::from(".");
        partial_name.push(name);
        partial_name.push(".partial");
        let partial = path.with_file_name(partial_name);
        let file = lock_partial(&partial, path)?;
        let n_chunks = layout.data_parts().map(Part::n_chunks).sum();
        let written = vec![false; layout.signature.n_samples];
        let writer = CacheWriter {
            digests: (0..n_chunks).map(|_| ChunkDigest::ReadBack).collect(),
            layout,
            file,
            partial,
            target: path.to_path_buf(),
            written,
            renamed: false,
        };
        // From here on, dropping the writer removes the partial file.
        let io = || Error::io("write", &writer.partial);
        writer.file.set_len(0).map_err(io())?;
        writer.file.set_len(writer.layout.file_len() as u64).map_err(io())?;
        writer.write_at(&writer.layout.header, 0)?;
        Ok(writer)
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
        for run in places.chunk_by(|a, b| a.0 + 1 == b.0) {
            let first_row = run[0].0;
            for layer in 0..self.layout.layers.len() {
                let part = self.layout.layers[layer].clone();
                self.put_rows(&part, first_row, &rows_of(run, layer, tensor))?;
            }
            if let (Some(part), Some(mask)) = (self.layout.mask.clone(), tensor.mask()) {
                let flags: Vec<u8> =
                    run.iter().flat_map(|(_, sample)| mask.row(*sample)).map(|flag| u8::from(*flag)).collect();
                self.put_rows(&part, first_row, &flags)?;
            }
            run.iter().for_each(|(row, _)| self.written[*row] = true);
        }
        Ok(())
    }

    /// Writes consecutive rows of a part and takes them into the digests of their chunks.
    fn put_rows(&mut self, part: &Part, first_row: usize, rows: &[u8]) -> Result<()> {
        let end_row = first_row + rows.len() / part.row_bytes.max(1);
        let mut row = first_row;
        // Whole stretches at a time: the hash is several times faster on many kilobytes than on one row.
        while row < end_row {
            let chunk = part.chunk_of(row);
            let chunk_rows = part.rows_of_chunk(chunk);
            let end = chunk_rows.end.min(end_row);
            let bytes = &rows[(row - first_row) * part.row_bytes..(end - first_row) * part.row_bytes];
            self.digests[chunk].take(row..end, chunk_rows, bytes);
            row = end;
        }
        self.write_at(rows, self.layout.rows(part, first_row..end_row).start)
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

/// Opens the partial file and locks it.
fn lock_partial(partial: &Path, target: &Path) -> Result<File> {
    loop {
        // Not truncated before the lock is held: it may be another writer's.
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(partial);
        let file = file.map_err(Error::io("create", partial))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Error::file(
                    target,
                    format!(
                        "another process is writing this cache file ({} is locked); wait for it or use another path",
                        partial.display()
                    ),
                ));
            }
            Err(TryLockError::Error(source)) => {
                return Err(Error::Io { action: "lock", path: partial.to_path_buf(), source });
            }
        }
        // Between opening and locking, another writer may have finished and renamed or removed this very file.
        let identity = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
        let ours = file.metadata().map(identity).map_err(Error::io("write", partial))?;
        match fs::metadata(partial).map(identity) {
            Ok(named) if named == ours => return Ok(file),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(Error::Io { action: "write", path: partial.to_path_buf(), source }),
        }
    }
}

/// Makes a rename in the folder of `path` last.
fn sync_folder(path: &Path) -> Result<()> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(Error::io("write", folder))
}
