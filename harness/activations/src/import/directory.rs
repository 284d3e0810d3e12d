//! Writes a model directory completely or not at all, and never overwrites files without `force`.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// Files of an earlier model that would contradict the imported ones.
const STALE_FILES: [&str; 4] =
    ["model.safetensors.index.json", "chat_template.jinja", "chat_template.json", "import_warnings.txt"];

/// Checks that an import can write to `out`.
///
/// # Errors
/// `out` is a file, or a directory that is not empty while `force` is not set.
pub fn check_destination(out: &Path, force: bool) -> Result<()> {
    let metadata = match fs::metadata(out) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        metadata => metadata.map_err(Error::io("read", out))?,
    };
    if !metadata.is_dir() {
        return Err(Error::file(out, "is a file; pass a directory for the model"));
    }
    let empty = fs::read_dir(out).map_err(Error::io("read", out))?.next().is_none();
    if !empty && !force {
        return Err(Error::file(
            out,
            "exists already; pass another directory, or use --force to replace the model in it",
        ));
    }
    Ok(())
}

/// Calls `fill` with a temporary directory next to `out`, and renames that directory to `out` when `fill` has
/// succeeded.
///
/// With `force`, the files are moved one by one into an existing directory, weights before configuration.
///
/// # Errors
/// Errors of `fill` and of the file system. The temporary directory is removed.
pub fn write(out: &Path, force: bool, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let parent = parent_of(out);
    fs::create_dir_all(&parent).map_err(Error::io("create", &parent))?;
    let temporary = tempfile::Builder::new()
        .prefix(".actbench-import-")
        .tempdir_in(&parent)
        .map_err(Error::io("create a temporary directory in", &parent))?;
    // A temporary directory is private to its owner. A directory created in it has the default permissions.
    let directory = temporary.path().join("model");
    fs::create_dir(&directory).map_err(Error::io("create", &directory))?;
    fill(&directory)?;
    sync_directory(&directory)?;
    if force && out.is_dir() {
        move_into(&directory, out)?;
    } else {
        fs::rename(&directory, out).map_err(Error::io("create", out))?;
    }
    sync_directory(&parent)
}

/// Writes a small file and flushes it to disk.
///
/// # Errors
/// Errors of the file system.
pub fn write_file(dir: &Path, name: &str, contents: &[u8]) -> Result<()> {
    let path = dir.join(name);
    let mut file = File::create_new(&path).map_err(Error::io("create", &path))?;
    file.write_all(contents).and_then(|()| file.sync_all()).map_err(Error::io("write", &path))
}

/// The parent directory of `out`.
fn parent_of(out: &Path) -> PathBuf {
    match out.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_path_buf(),
        _ => PathBuf::from("."),
    }
}

/// Moves the files of `directory` into `out`.
fn move_into(directory: &Path, out: &Path) -> Result<()> {
    for name in STALE_FILES {
        let path = out.join(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::io("remove", &path)(error));
            }
            _ => {}
        }
    }
    let mut names = Vec::new();
    for entry in fs::read_dir(directory).map_err(Error::io("read", directory))? {
        names.push(entry.map_err(Error::io("read", directory))?.file_name());
    }
    // Without a configuration a directory is not a model, so an interrupted move leaves none: it comes last.
    names.sort_by_key(|name| (name == "config.json", name.clone()));
    for name in names {
        let target = out.join(&name);
        fs::rename(directory.join(&name), &target).map_err(Error::io("write", &target))?;
    }
    sync_directory(out)
}

/// Flushes the entries of a directory to disk.
fn sync_directory(path: &Path) -> Result<()> {
    File::open(path).and_then(|directory| directory.sync_all()).map_err(Error::io("write", path))
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn failed_write_leaves_no_directory() {
        let dir = TempDir::new().unwrap();
        let out = dir.path().join("deep/model");
        write(&out, false, |dir| write_file(dir, "config.json", b"{}")).unwrap();
        assert_eq!(names(&dir.path().join("deep")), ["model"]);
        assert_eq!(names(&out), ["config.json"]);
        let other = dir.path().join("deep/other");
        let failed = write(&other, false, |dir| {
            write_file(dir, "config.json", b"{}")?;
            Err(Error::internal("the test fails here"))
        });
        assert!(failed.is_err());
        assert_eq!(names(&dir.path().join("deep")), ["model"]);
    }

    #[test]
    fn existing_directory_requires_force_and_keeps_files() {
        let dir = TempDir::new().unwrap();
        let out = dir.path().join("model");
        check_destination(&out, false).unwrap();
        fs::create_dir(&out).unwrap();
        check_destination(&out, false).unwrap();
        fs::write(out.join("notes.txt"), "mine").unwrap();
        fs::write(out.join("model.safetensors.index.json"), "old").unwrap();
        fs::write(out.join("config.json"), "old").unwrap();
        assert!(check_destination(&out, false).unwrap_err().to_string().contains("--force"));
        check_destination(&out, true).unwrap();
        write(&out, true, |dir| write_file(dir, "config.json", b"new")).unwrap();
        assert_eq!(names(&out), ["config.json", "notes.txt"]);
        assert_eq!(fs::read(out.join("config.json")).unwrap(), b"new");
        assert_eq!(names(dir.path()), ["model"]);
        assert!(check_destination(&out.join("notes.txt"), true).unwrap_err().to_string().contains("is a file"));
    }
}
