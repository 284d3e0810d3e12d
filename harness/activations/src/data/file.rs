//! Selects the reader of a data file by the extension of its name.

use std::path::Path;

use crate::error::{Error, Result};

use super::place::FileRows;
use super::registered::REGISTERED;
use super::{csv_file, jsonl_file, parquet_file};

/// The dialogues of the file at `path`, in file order.
///
/// # Errors
/// An unknown extension, a missing file, a directory, or an error of the reader.
pub(super) fn read(path: &Path) -> Result<FileRows> {
    let extension = path.extension().map(|extension| extension.to_string_lossy().to_ascii_lowercase());
    let read: fn(&Path) -> Result<FileRows> = match extension.as_deref() {
        Some("jsonl") => jsonl_file::read,
        Some("csv") => csv_file::read,
        Some("parquet") => parquet_file::read,
        _ => {
            return Err(Error::usage(format!(
                "unknown data set `{}`; use one of {} or the path of a .jsonl, .csv or .parquet file",
                path.display(),
                REGISTERED.join(", "),
            )));
        }
    };
    if let Ok(false) = path.try_exists() {
        return Err(Error::file(path, "no such file; check the path of the data set"));
    }
    if path.is_dir() {
        return Err(Error::file(path, "is a directory; give the path of a file in it"));
    }
    read(path)
}
