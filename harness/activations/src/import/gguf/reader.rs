//! An open GGUF file: its metadata by key and its tensors' blocks by name.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use memmap2::Mmap;

use super::header::{self, TensorInfo};
use super::value::Value;
use crate::error::{Error, Result};

/// An open GGUF file.
#[derive(Debug)]
pub struct GgufFile {
    path: PathBuf,
    map: Mmap,
    metadata: BTreeMap<String, Value>,
    tensors: Vec<TensorInfo>,
}

impl GgufFile {
    /// Maps a file and reads its header. The file must not be changed meanwhile.
    ///
    /// # Errors
    /// Not a whole GGUF file of version 2 or 3, or a tensor of a type that is not read here.
    pub fn open(path: &Path) -> Result<GgufFile> {
        let file = File::open(path).map_err(Error::io("open", path))?;
        if file.metadata().map_err(Error::io("read", path))?.is_dir() {
            return Err(Error::file(path, "is a folder, not a GGUF file"));
        }
        // SAFETY: the map is only read. Another program that cuts the file meanwhile would end this one; copying
        // gigabytes to rule that out is not worth it.
        let map = unsafe { Mmap::map(&file) }.map_err(Error::io("map", path))?;
        let (metadata, tensors) = header::parse(path, &map)?;
        Ok(GgufFile { path: path.to_path_buf(), map, metadata, tensors })
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The tensors, in the file's order.
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    /// The tensor called `name`, if there is one.
    pub fn find_tensor(&self, name: &str) -> Option<&TensorInfo> {
        self.tensors.iter().find(|tensor| tensor.name == name)
    }

    /// The stored blocks of a tensor of this file.
    pub fn blocks(&self, tensor: &TensorInfo) -> &[u8] {
        self.map.get(tensor.range.clone()).unwrap_or_default()
    }

    /// A metadata value, if there is one under `key`.
    pub fn find(&self, key: &str) -> Option<&Value> {
        self.metadata.get(key)
    }

    /// The text under `key`, if there is one.
    pub fn find_string(&self, key: &str) -> Option<&str> {
        self.find(key).and_then(Value::as_str)
    }

    /// The value under `key` as `read` takes it, or `None` where the key is absent.
    ///
    /// # Errors
    /// The value is there and is not `expected`, which is what `read` returns `None` for.
    pub fn optional<'a, T>(
        &'a self,
        key: &str,
        expected: &str,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>> {
        match self.find(key) {
            None => Ok(None),
            Some(value) => read(value).map(Some).ok_or_else(|| {
                Error::file(&self.path, format!("metadata '{key}' is {}, expected {expected}", value.kind()))
            }),
        }
    }

    /// Like [`GgufFile::optional`], for a key that must be there.
    ///
    /// # Errors
    /// The key is absent, or its value is not `expected`.
    pub fn required<'a, T>(
        &'a self,
        key: &str,
        expected: &str,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<T> {
        self.optional(key, expected, read)?
            .ok_or_else(|| Error::file(&self.path, format!("has no metadata '{key}' ({expected})")))
    }

    /// The text that must be under `key`.
    ///
    /// # Errors
    /// The key is absent, or its value is no text.
    pub fn string(&self, key: &str) -> Result<&str> {
        self.required(key, "a string", Value::as_str)
    }
}
