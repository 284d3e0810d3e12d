//! Mapped safetensors files: the tensors in them, their ranges, and a check that the files are complete.
//!
//! As in transformers, all tensors of all shards count, whether the index lists them or not, and `names` maps the names of older and
//! wrapped checkpoints to those of the family.

use std::borrow::Cow;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::ops::{Bound, Range};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use actbench_kernels::{DType, HostTensor, SourceFile};
use bytes::Bytes;
use memmap2::{Mmap, UncheckedAdvice};
use rayon::prelude::*;
use safetensors::tensor::Dtype;

use super::header::{MAX_HEADER, read_header};
use super::{names, parallel_digest};
use crate::error::{Error, Result};
use crate::lfs;
use crate::model::tensor_names::TensorNames;

/// The weight file of a model that is not sharded.
pub(crate) const SINGLE_FILE: &str = "model.safetensors";
/// The file that lists the shards of a model.
pub(crate) const SHARD_INDEX: &str = "model.safetensors.index.json";

/// The weight files of one model.
#[derive(Debug)]
pub(super) struct WeightFiles {
    dir: PathBuf,
    /// The names of the family.
    names: TensorNames,
    maps: Vec<FileMap>,
    /// By the name that transformers gives it.
    entries: BTreeMap<String, TensorEntry>,
    /// Names of tensors that another one replaces, because both have the same name in transformers.
    shadowed: Vec<String>,
}

/// A tensor of a file.
#[derive(Clone, Debug)]
struct TensorEntry {
    /// Its name in the file.
    stored: String,
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
    /// For devices, which read weights into memory of their own.
    file: Arc<SourceFile>,
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
    /// See [`super::Weights::open`]; `initial_norm` is the weight with which transformers initializes a norm.
    pub(super) fn open(dir: &Path, names: &TensorNames, initial_norm: f32) -> Result<Self> {
        let mut files = WeightFiles {
            dir: dir.to_path_buf(),
            names: *names,
            maps: Vec::new(),
            entries: BTreeMap::new(),
            shadowed: Vec::new(),
        };
        let mut stored = BTreeMap::new();
        if dir.join(SINGLE_FILE).exists() {
            stored = files.map(dir.join(SINGLE_FILE))?.collect();
        } else if dir.join(SHARD_INDEX).exists() {
            let index = dir.join(SHARD_INDEX);
            for shard in shard_names(&index)? {
                let path = dir.join(&shard);
                if !path.exists() {
                    let what = format!("names the shard '{shard}', which is not in the directory; download it too");
                    return Err(Error::file(&index, what));
                }
                // A name in two shards is read from the later one, as in transformers.
                stored.extend(files.map(path)?);
            }
        } else {
            return Err(Error::file(dir, no_weights(dir)));
        }
        files.rename(stored, initial_norm);
        Ok(files)
    }

    /// Enters the tensors under the names that transformers gives them. Of two with one name it takes the first in order.
    fn rename(&mut self, stored: BTreeMap<String, TensorEntry>, initial_norm: f32) {
        for (name, entry) in stored {
            match self.entries.entry(names::renamed(&name, &self.names)) {
                Entry::Vacant(place) => drop(place.insert(entry)),
                Entry::Occupied(_) => self.shadowed.push(name),
            }
        }
        for (name, entry) in self.initial_gammas(initial_norm) {
            self.entries.remove(&entry.stored);
            self.entries.insert(name, entry);
        }
    }

    /// Norm weights under the old name `gamma` that are all `initial_norm`, with their present name. transformers does not know the
    /// old name and initializes the norm with that value, which is right for these alone.
    fn initial_gammas(&self, initial_norm: f32) -> Vec<(String, TensorEntry)> {
        let norms =
            self.entries.iter().filter_map(|(name, entry)| Some((names::norm_of_gamma(name, &self.names)?, entry)));
        let missing = norms.filter(|(name, _)| !self.entries.contains_key(name));
        let is_initial = |entry: &TensorEntry| {
            self.read(entry).is_ok_and(|tensor| tensor.to_f32_vec().into_iter().all(|value| value == initial_norm))
        };
        missing.filter(|(_, entry)| is_initial(entry)).map(|(name, entry)| (name, entry.clone())).collect()
    }

    /// Maps a file and lists its tensors.
    fn map(&mut self, path: PathBuf) -> Result<impl Iterator<Item = (String, TensorEntry)> + use<>> {
        let source = File::open(&path).map_err(Error::io("open", &path))?;
        // SAFETY: the map is only read. `Weights::open` documents that the files must not be changed meanwhile. No process
        // can prevent that, and a private copy of all weights would defeat the purpose of a map.
        let map = unsafe { Mmap::map(&source) }.map_err(Error::io("map", &path))?;
        let map = Arc::new(map);
        lfs::reject_pointer(&path, &map)?;
        let (data, tensors) = read_header(&path, &map)?;
        let file = self.maps.len();
        let bytes = Bytes::from_owner(SharedMap(Arc::clone(&map)));
        self.maps.push(FileMap { file: Arc::new(SourceFile::new(source, &path)), path, map, bytes });
        Ok(tensors.into_iter().map(move |(name, info)| {
            let (begin, end) = info.data_offsets;
            let range = data + begin..data + end;
            (name.clone(), TensorEntry { stored: name, file, dtype: info.dtype, shape: info.shape, range })
        }))
    }

    /// The names in the files, those of tensors that another one replaces excepted.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.values().map(|entry| entry.stored.as_str())
    }

    /// See [`super::Weights::renamed`].
    pub(super) fn renamed(&self) -> impl Iterator<Item = (Cow<'_, str>, &str, bool)> {
        let used =
            self.entries.iter().map(|(name, entry)| (Cow::Borrowed(name.as_str()), entry.stored.as_str(), false));
        used.chain(
            self.shadowed.iter().map(|name| (Cow::Owned(names::renamed(name, &self.names)), name.as_str(), true)),
        )
    }

    /// The name in the file of the tensor `name`, if there is one.
    pub(super) fn stored_name(&self, name: &str) -> Option<&str> {
        self.entries.get(name).map(|entry| entry.stored.as_str())
    }

    /// The base model's prefix in the family's names.
    pub(super) fn base_prefix(&self) -> &'static str {
        self.names.base
    }

    /// The names in the files of the tensors whose names begin with `prefix`.
    pub(super) fn names_from<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = &'a str> {
        let after = self.entries.range::<str, _>((Bound::Included(prefix), Bound::Unbounded));
        after.take_while(move |(name, _)| name.starts_with(prefix)).map(|(_, entry)| entry.stored.as_str())
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
        self.read(entry)
    }

    fn read(&self, entry: &TensorEntry) -> Result<HostTensor> {
        let dtype = match entry.dtype {
            Dtype::F32 => DType::F32,
            Dtype::F16 => DType::F16,
            Dtype::BF16 => DType::Bf16,
            Dtype::F64 => return self.read_f64(entry),
            other => {
                let name = &entry.stored;
                let what =
                    format!("tensor '{name}' is stored as {other}; only F64, F32, F16 and BF16 weights are supported");
                return Err(Error::file(&self.maps[entry.file].path, what));
            }
        };
        let FileMap { file, bytes, .. } = &self.maps[entry.file];
        let tensor = HostTensor::new(dtype, entry.shape.clone(), bytes.slice(entry.range.clone()))?;
        Ok(tensor.with_file(file.clone(), entry.range.start as u64))
    }

    /// A copy of a tensor of `f64` in `f32`. PyTorch rounds `f64` to every shorter type through `f32`, so that the run's type is
    /// reached as there.
    fn read_f64(&self, entry: &TensorEntry) -> Result<HostTensor> {
        let file = &self.maps[entry.file];
        let (numbers, _) = file.map[entry.range.clone()].as_chunks::<8>();
        let values: Vec<f32> = numbers.iter().map(|bytes| f64::from_le_bytes(*bytes) as f32).collect();
        file.release_pages(entry.range.clone());
        Ok(HostTensor::from_f32(DType::F32, entry.shape.clone(), &values)?)
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
        for (entry, digest) in self.entries.values().zip(digests) {
            let name = &entry.stored;
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
    if let Some(file) = adapter_file(dir) {
        what +=
            &format!("; '{file}' is of an adapter: name its base model by --model, and this directory by --adapter");
        return what;
    }
    if dir.join("pytorch_model.bin").exists() || dir.join("pytorch_model.bin.index.json").exists() {
        what += "; pickled weights (.bin) are not read: save the model again as safetensors";
    }
    what
}

/// The file in `dir` that belongs to an adapter of PEFT, if there is one.
pub(crate) fn adapter_file(dir: &Path) -> Option<&'static str> {
    ["adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"]
        .into_iter()
        .find(|file| dir.join(file).exists())
}

/// The names of the shards that an index lists: paths of files in its directory.
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
    lfs::reject_pointer(path, &text)?;
    let index: Index = serde_json::from_slice(&text)
        .map_err(|error| Error::file(path, format!("not an index of safetensors shards: {error}")))?;
    for (name, shard) in &index.weight_map {
        let inside = Path::new(shard).components().all(|part| matches!(part, Component::Normal(_)));
        if !inside || shard.is_empty() {
            let what = format!("tensor '{name}': shard '{shard}' is not the path of a file in the index's directory");
            return Err(Error::file(path, what));
        }
    }
    Ok(index.weight_map)
}
