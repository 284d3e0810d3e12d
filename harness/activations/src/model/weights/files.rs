//! Mapped safetensors files: the tensors in them, their ranges, and a check that the files are complete.
//!
//! The header is read by the `safetensors` crate, after [`check_header`] has compared it with the file.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::ops::Range;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use actbench_kernels::{DType, HostTensor};
use bytes::Bytes;
use memmap2::{Mmap, UncheckedAdvice};
use rayon::prelude::*;
use safetensors::SafeTensors;
use safetensors::tensor::Dtype;

use super::header::{LENGTH_FIELD, MAX_HEADER, check_header};
use super::parallel_digest;
use crate::error::{Error, Result};

/// The weight file of a model that is not sharded.
pub(crate) const SINGLE_FILE: &str = "model.safetensors";
/// The file that lists the shards of a model.
pub(crate) const SHARD_INDEX: &str = "model.safetensors.index.json";

/// The weight files of one model.
#[derive(Debug)]
pub(super) struct WeightFiles {
    dir: PathBuf,
    maps: Vec<FileMap>,
    entries: BTreeMap<String, TensorEntry>,
}

/// A tensor of a file.
#[derive(Debug)]
struct TensorEntry {
    /// Index of its file.
    file: usize,
    dtype: Dtype,
    /// Extents, outermost first.
    shape: Vec<usize>,
    /// Its bytes in the file.
    range: Range<usize>,
}

#[derive(Debug)]
struct FileMap {
    path: PathBuf,
    map: Arc<Mmap>,
    bytes: Bytes,
}

/// Keeps a mapping alive as the owner of `Bytes`.
struct SharedMap(Arc<Mmap>);

impl AsRef<[u8]> for SharedMap {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl WeightFiles {
    /// See [`super::Weights::open`].
    pub(super) fn open(dir: &Path) -> Result<Self> {
        let mut files = WeightFiles { dir: dir.to_path_buf(), maps: Vec::new(), entries: BTreeMap::new() };
        if dir.join(SINGLE_FILE).exists() {
            for (name, entry) in files.map(dir.join(SINGLE_FILE))? {
                files.entries.insert(name, entry);
            }
        } else if dir.join(SHARD_INDEX).exists() {
            files.open_shards(&dir.join(SHARD_INDEX))?;
        } else {
            return Err(Error::file(dir, no_weights(dir)));
        }
        Ok(files)
    }

    fn open_shards(&mut self, index_path: &Path) -> Result<()> {
        let weight_map = read_index(index_path)?;
        let shards: BTreeSet<&String> = weight_map.values().collect();
        for shard in shards {
            let path = self.dir.join(shard);
            if !path.exists() {
                let what = format!("names the shard '{shard}', which is not in the same directory; download it too");
                return Err(Error::file(index_path, what));
            }
            let mut found: BTreeMap<String, TensorEntry> = self.map(path)?.into_iter().collect();
            for (name, _) in weight_map.iter().filter(|(_, file)| *file == shard) {
                let entry = found.remove(name).ok_or_else(|| {
                    Error::file(index_path, format!("lists tensor '{name}' in '{shard}', which does not contain it"))
                })?;
                self.entries.insert(name.clone(), entry);
            }
        }
        Ok(())
    }

    /// Maps a file and lists its tensors.
    fn map(&mut self, path: PathBuf) -> Result<Vec<(String, TensorEntry)>> {
        let file = File::open(&path).map_err(Error::io("open", &path))?;
        // SAFETY: the map is only read. `Weights::open` documents that the files must not be changed meanwhile. No process
        // can prevent that, and a private copy of all weights would defeat the purpose of a map.
        let map = unsafe { Mmap::map(&file) }.map_err(Error::io("map", &path))?;
        let map = Arc::new(map);
        check_header(&path, &map)?;
        let (header, metadata) = SafeTensors::read_metadata(&map)
            .map_err(|error| Error::file(&path, format!("not a valid safetensors file: {error}")))?;
        let data = LENGTH_FIELD + header;
        let file = self.maps.len();
        let entries = metadata.tensors().into_iter().map(|(name, info)| {
            let (begin, end) = info.data_offsets;
            (name, TensorEntry { file, dtype: info.dtype, shape: info.shape.clone(), range: data + begin..data + end })
        });
        let entries = entries.collect();
        let bytes = Bytes::from_owner(SharedMap(Arc::clone(&map)));
        self.maps.push(FileMap { path, map, bytes });
        Ok(entries)
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    pub(super) fn shape(&self, name: &str) -> Option<&[usize]> {
        self.entries.get(name).map(|entry| entry.shape.as_slice())
    }

    /// The file that contains `name`, or the directory if no file does.
    pub(super) fn path_of(&self, name: &str) -> &Path {
        self.entries.get(name).map_or(&self.dir, |entry| &self.maps[entry.file].path)
    }

    /// The tensor `name`, sharing the mapped bytes.
    pub(super) fn tensor(&self, name: &str) -> Result<HostTensor> {
        let entry = self.entries.get(name).ok_or_else(|| Error::file(&self.dir, format!("no tensor '{name}'")))?;
        let dtype = match entry.dtype {
            Dtype::F32 => DType::F32,
            Dtype::F16 => DType::F16,
            Dtype::BF16 => DType::Bf16,
            other => {
                let what =
                    format!("tensor '{name}' is stored as {other}; only F32, F16 and BF16 weights are supported");
                return Err(Error::file(&self.maps[entry.file].path, what));
            }
        };
        let bytes = self.maps[entry.file].bytes.slice(entry.range.clone());
        Ok(HostTensor::new(dtype, entry.shape.clone(), bytes)?)
    }

    /// See [`super::Weights::release`].
    pub(super) fn release(&self, bytes: &[u8]) {
        let address = bytes.as_ptr() as usize;
        for file in &self.maps {
            let start = file.map.as_ptr() as usize;
            if (start..start + file.map.len()).contains(&address) {
                file.release_pages(address - start..address - start + bytes.len());
            }
        }
    }

    /// See [`super::Weights::fingerprint`].
    pub(super) fn fingerprint(&self) -> String {
        let digests: Vec<blake3::Hash> = self
            .entries
            .par_iter()
            .map(|(_, entry)| {
                let file = &self.maps[entry.file];
                let start = entry.range.start;
                let release = |range: Range<usize>| file.release_pages(start + range.start..start + range.end);
                parallel_digest(&file.map[entry.range.clone()], release)
            })
            .collect();
        let mut hasher = blake3::Hasher::new();
        for ((name, entry), digest) in self.entries.iter().zip(digests) {
            hasher.update(format!("{name:?} {} {:?} ", entry.dtype, entry.shape).as_bytes());
            hasher.update(digest.as_bytes());
        }
        hasher.finalize().to_hex().to_string()
    }
}

impl FileMap {
    /// Releases the resident pages of a range of the file.
    fn release_pages(&self, range: Range<usize>) {
        let end = range.end.min(self.map.len());
        if range.start >= end {
            return;
        }
        // SAFETY: the map is shared, read-only and backed by a file, so dropped pages are read again with the same contents.
        let advised =
            unsafe { self.map.unchecked_advise_range(UncheckedAdvice::DontNeed, range.start, end - range.start) };
        if let Err(error) = advised {
            // A failed hint costs memory, never correctness.
            tracing::debug!(path = %self.path.display(), %error, "cannot release mapped pages");
        }
    }
}

/// The error for a directory without safetensors files.
fn no_weights(dir: &Path) -> String {
    let mut what = format!("no {SINGLE_FILE} or {SHARD_INDEX} in this directory");
    if dir.join("pytorch_model.bin").exists() || dir.join("pytorch_model.bin.index.json").exists() {
        what += "; pickled weights (.bin) are not read: save the model again as safetensors";
    }
    what
}

/// The names of the shards that an index lists: plain names of files in its directory.
///
/// # Errors
/// The index cannot be read, or a shard is outside its directory.
pub(crate) fn shard_names(index: &Path) -> Result<BTreeSet<String>> {
    Ok(read_index(index)?.into_values().collect())
}

/// The map from tensor names to shards.
fn read_index(path: &Path) -> Result<BTreeMap<String, String>> {
    #[derive(serde::Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let size = path.metadata().map_err(Error::io("read", path))?.len();
    if size > MAX_HEADER {
        return Err(Error::file(path, format!("is {size} bytes, too many for an index of tensors")));
    }
    let text = std::fs::read(path).map_err(Error::io("read", path))?;
    let index: Index = serde_json::from_slice(&text)
        .map_err(|error| Error::file(path, format!("not an index of safetensors shards: {error}")))?;
    for (name, shard) in &index.weight_map {
        let mut components = Path::new(shard).components();
        let plain = matches!((components.next(), components.next()), (Some(Component::Normal(part)), None) if part == shard.as_str());
        if !plain {
            let what = format!("tensor '{name}': shard '{shard}' is not the plain name of a file next to the index");
            return Err(Error::file(path, what));
        }
    }
    Ok(index.weight_map)
}
