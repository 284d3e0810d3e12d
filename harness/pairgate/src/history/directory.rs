//! A directory with one file a run. Files are only added, so that it can be committed or kept on a branch of its own.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::atomic_file::temporary_in;
use crate::error::{Error, Result};
use crate::temporary::remove_leftovers;

/// The largest number of files of one name; far more runs than one commit has.
const MAX_SAME_NAME: usize = 1000;

/// The result of adding a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AddedFile {
    /// The new file.
    New(PathBuf),
    /// The file that was there already, with the same bytes.
    Existing(PathBuf),
}

/// Adds a file with `bytes` to `directory`, which is created if it does not exist, as `STEM.json` or `STEM-2.json` and so on.
/// Existing files are never changed.
///
/// # Errors
/// The directory cannot be written to.
pub fn add_file(directory: &Path, stem: &str, bytes: &[u8]) -> Result<AddedFile> {
    fs::create_dir_all(directory).map_err(Error::io("create", directory))?;
    remove_leftovers(directory);
    let mut file = temporary_in(directory).map_err(Error::io("write", directory))?;
    // Through the file, as an error of the temporary file would name it.
    file.as_file_mut()
        .write_all(bytes)
        .and_then(|()| file.as_file().sync_all())
        .map_err(Error::io("write", directory))?;
    for number in 1..MAX_SAME_NAME {
        let suffix = if number == 1 { String::new() } else { format!("-{number}") };
        let target = directory.join(format!("{stem}{suffix}.json"));
        // One atomic step, so that two processes that add at the same time do not overwrite each other.
        match file.persist_noclobber(&target) {
            Ok(_) => {
                let synced = fs::File::open(directory).and_then(|directory| directory.sync_all());
                synced.map_err(Error::io("write", directory))?;
                return Ok(AddedFile::New(target));
            }
            Err(error) if error.error.kind() == std::io::ErrorKind::AlreadyExists => {
                // Anything but a file is not read: a pipe would wait for its writer.
                if target.is_file() && fs::read(&target).map_err(Error::io("read", &target))? == bytes {
                    return Ok(AddedFile::Existing(target));
                }
                file = error.file;
            }
            Err(error) => return Err(Error::io("write", &target)(error.error)),
        }
    }
    Err(Error::file(directory, format!("has {MAX_SAME_NAME} runs named {stem}; use another directory")))
}

/// A key that orders files of one directory as they were added: `a.json` before `a-2.json` before `a-10.json`.
pub fn name_order(name: &str) -> (&str, usize) {
    let stem = name.strip_suffix(".json").unwrap_or(name);
    // Digests and dates have more digits than the number of a file.
    let numbered = stem.rsplit_once('-').and_then(|(before, number)| {
        let number = number.parse().ok().filter(|number| (2..MAX_SAME_NAME).contains(number))?;
        Some((before, number))
    });
    numbered.unwrap_or((stem, 1))
}

/// The `.json` files in `directory`, by [`name_order`]. Subdirectories are not read.
///
/// # Errors
/// The directory cannot be read.
pub fn json_files(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).map_err(Error::io("read", directory))? {
        let path = entry.map_err(Error::io("read", directory))?.path();
        if path.is_file() && path.extension().is_some_and(|extension| extension == "json") {
            found.push(path);
        }
    }
    let name = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    found.sort_by(|a, b| name_order(&name(a)).cmp(&name_order(&name(b))));
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbered_names_follow_the_first_one() {
        let mut names = ["b-a1.json", "a-12345678-10.json", "a-12345678-2.json", "a-12345678.json", "a-12345677.json"];
        names.sort_by(|a, b| name_order(a).cmp(&name_order(b)));
        assert_eq!(
            names,
            ["a-12345677.json", "a-12345678.json", "a-12345678-2.json", "a-12345678-10.json", "b-a1.json"]
        );
    }

    #[test]
    fn files_are_added_once_and_never_overwritten() {
        let parent = tempfile::tempdir().unwrap();
        let directory = parent.path().join("history");
        let first = directory.join("a.json");
        assert_eq!(add_file(&directory, "a", b"1").unwrap(), AddedFile::New(first.clone()));
        assert_eq!(add_file(&directory, "a", b"1").unwrap(), AddedFile::Existing(first.clone()));
        let second = directory.join("a-2.json");
        assert_eq!(add_file(&directory, "a", b"2").unwrap(), AddedFile::New(second.clone()));
        assert_eq!(fs::read(&first).unwrap(), b"1");
        assert_eq!(json_files(&directory).unwrap(), [first, second]);
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 2, "a temporary file was left behind");
        assert!(json_files(&parent.path().join("absent")).is_err());
    }
}
