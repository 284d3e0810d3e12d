//! An open GGUF file: metadata by key, and tensors with their blocks.

use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Bound;
use std::path::{Path, PathBuf};

use memmap2::Mmap;

use super::header::{self, GgufTensor};
use super::value::GgufValue;
use crate::error::{Error, Result};

/// An open, memory-mapped GGUF file.
#[derive(Debug)]
pub struct GgufFile {
    path: PathBuf,
    map: Mmap,
    metadata: BTreeMap<String, GgufValue>,
    tensors: Vec<GgufTensor>,
}

impl GgufFile {
    /// Maps a file and reads its header. The file must not be changed while it is open.
    ///
    /// # Errors
    /// Not a complete GGUF file of version 2 or 3, or a tensor of an unsupported type.
    pub fn open(path: &Path) -> Result<GgufFile> {
        let file = File::open(path).map_err(Error::io("open", path))?;
        if file.metadata().map_err(Error::io("read", path))?.is_dir() {
            return Err(Error::file(path, "is a directory, not a GGUF file"));
        }
        // SAFETY: the map is only read. If another process truncates the file meanwhile, this one is killed by SIGBUS;
        // copying gigabytes to rule that out is too expensive.
        let map = unsafe { Mmap::map(&file) }.map_err(Error::io("map", path))?;
        let (metadata, tensors) = header::parse(path, &map)?;
        Ok(GgufFile { path: path.to_path_buf(), map, metadata, tensors })
    }

    /// The path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The tensors in file order.
    pub fn tensors(&self) -> &[GgufTensor] {
        &self.tensors
    }

    /// The tensor called `name`, if there is one.
    pub fn find_tensor(&self, name: &str) -> Option<&GgufTensor> {
        self.tensors.iter().find(|tensor| tensor.name == name)
    }

    /// The stored blocks of a tensor of this file.
    pub fn blocks(&self, tensor: &GgufTensor) -> &[u8] {
        self.map.get(tensor.range.clone()).unwrap_or_default()
    }

    /// The metadata value of `key`, if there is one.
    pub fn find(&self, key: &str) -> Option<&GgufValue> {
        self.metadata.get(key)
    }

    /// The keys that begin with `prefix` and their values, sorted by key.
    pub fn keys_under<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a str, &'a GgufValue)> {
        let from = self.metadata.range::<str, _>((Bound::Included(prefix), Bound::Unbounded));
        from.take_while(move |(key, _)| key.starts_with(prefix)).map(|(key, value)| (key.as_str(), value))
    }

    /// The token that `key` names by its id, if it names one of `n_tokens` tokens.
    ///
    /// Converters write -1, or the largest integer of the key's type, for a token that a model does not have.
    ///
    /// # Errors
    /// The value is not an integer, or another integer outside of the vocabulary.
    pub fn token_id(&self, key: &str, n_tokens: usize) -> Result<Option<usize>> {
        let id = match self.optional(key, "a token id", |value| value.is_integer().then_some(value))? {
            None | Some(GgufValue::Signed(-1)) => return Ok(None),
            Some(value) => value,
        };
        match id.as_u64() {
            Some(id) if id < n_tokens as u64 => Ok(Some(id as usize)),
            Some(id) if [u8::MAX.into(), u16::MAX.into(), u32::MAX.into(), u64::MAX].contains(&id) => Ok(None),
            _ => {
                let what = format!("metadata '{key}' is {}, but there are {n_tokens} tokens", id.describe());
                Err(Error::file(&self.path, what))
            }
        }
    }

    /// The string value of `key`, if there is one.
    pub fn find_string(&self, key: &str) -> Option<&str> {
        self.find(key).and_then(GgufValue::as_str)
    }

    /// The value of `key`, converted by `read`; `None` if the key is absent.
    ///
    /// # Errors
    /// `read` returns `None`: the value is not `expected`.
    pub fn optional<'a, T>(
        &'a self,
        key: &str,
        expected: &str,
        read: impl FnOnce(&'a GgufValue) -> Option<T>,
    ) -> Result<Option<T>> {
        match self.find(key) {
            None => Ok(None),
            Some(value) => read(value).map(Some).ok_or_else(|| {
                Error::file(&self.path, format!("metadata '{key}' is {}, expected {expected}", value.kind()))
            }),
        }
    }

    /// An integer below 2^32, if the key is present. The limit prevents overflow of the product of two counts.
    ///
    /// # Errors
    /// The value is not such an integer.
    pub fn optional_count(&self, key: &str) -> Result<Option<usize>> {
        self.optional(key, "an integer from 0 to 2^32", |value| value.as_u64().filter(|&count| count < 1 << 32))
            .map(|count| count.map(|count| count as usize))
    }

    /// A number, if the key is present.
    ///
    /// # Errors
    /// The value is not a number.
    pub fn optional_number(&self, key: &str) -> Result<Option<f64>> {
        self.optional(key, "a number", GgufValue::as_f64)
    }

    /// Like [`GgufFile::optional`], for a required key.
    ///
    /// # Errors
    /// The key is absent, or its value is not `expected`.
    pub fn required<'a, T>(
        &'a self,
        key: &str,
        expected: &str,
        read: impl FnOnce(&'a GgufValue) -> Option<T>,
    ) -> Result<T> {
        self.optional(key, expected, read)?
            .ok_or_else(|| Error::file(&self.path, format!("has no metadata '{key}' ({expected})")))
    }

    /// The string value of a required key.
    ///
    /// # Errors
    /// The key is absent, or its value is not a string.
    pub fn string(&self, key: &str) -> Result<&str> {
        self.required(key, "a string", GgufValue::as_str)
    }
}
