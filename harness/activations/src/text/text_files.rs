//! Reads one file of a tokenizer directory.

use std::fs;
use std::path::Path;

use crate::error::{Error, Result};
use crate::lfs;

/// The largest file that is read, in bytes. The `tokenizer.json` of large vocabularies has 35 MB.
const LARGEST_FILE: u64 = 256 << 20;

/// The content of a file.
pub(super) fn read_bytes(path: &Path) -> Result<Vec<u8>> {
    let size = fs::metadata(path).map_err(Error::io("read", path))?.len();
    if size > LARGEST_FILE {
        return Err(Error::file(path, format!("has {size} bytes; a file of a tokenizer has at most {LARGEST_FILE}")));
    }
    let bytes = fs::read(path).map_err(Error::io("read", path))?;
    lfs::reject_pointer(path, &bytes)?;
    Ok(bytes)
}
