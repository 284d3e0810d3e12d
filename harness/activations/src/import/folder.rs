//! Writing a model folder: whole or not at all, and never over something that is not to be lost.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// Files of a model folder that would contradict an import put beside them.
const STALE: [&str; 3] = ["model.safetensors.index.json", "chat_template.jinja", "chat_template.json"];

/// Whether an import may go to `out`.
///
/// # Errors
/// There is a file of that name, or a folder that is not empty and `force` is not set.
pub fn check_destination(out: &Path, force: bool) -> Result<()> {
    let metadata = match fs::metadata(out) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        metadata => metadata.map_err(Error::io("read", out))?,
    };
    if !metadata.is_dir() {
        return Err(Error::file(out, "is a file; name a folder for the model"));
    }
    let empty = fs::read_dir(out).map_err(Error::io("read", out))?.next().is_none();
    if !empty && !force {
        return Err(Error::file(out, "exists already; name another folder, or use --force to replace the model in it"));
    }
    Ok(())
}

/// Lets `fill` write into a temporary folder beside `out`, and gives it the name `out` when it is complete.
///
/// With `force`, the files are moved one by one into a folder that exists, weights before configuration.
///
/// # Errors
/// Those of `fill` and of the file system. The temporary folder is gone then.
pub fn write(out: &Path, force: bool, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let parent = parent_of(out);
    fs::create_dir_all(&parent).map_err(Error::io("create", &parent))?;
    let temporary = tempfile::Builder::new()
        .prefix(".actbench-import-")
        .tempdir_in(&parent)
        .map_err(Error::io("create a temporary folder in", &parent))?;
    // A temporary folder is private to its owner; one made in it has the permissions that folders have here.
    let folder = temporary.path().join("model");
    fs::create_dir(&folder).map_err(Error::io("create", &folder))?;
    fill(&folder)?;
    sync_folder(&folder)?;
    if force && out.is_dir() {
        move_into(&folder, out)?;
    } else {
        fs::rename(&folder, out).map_err(Error::io("create", out))?;
    }
    sync_folder(&parent)
}

/// Writes a small file durably.
///
/// # Errors
/// Those of the file system.
pub fn write_file(dir: &Path, name: &str, contents: &[u8]) -> Result<()> {
    let path = dir.join(name);
    let mut file = File::create_new(&path).map_err(Error::io("create", &path))?;
    file.write_all(contents).and_then(|()| file.sync_all()).map_err(Error::io("write", &path))
}

/// The folder that holds `out`.
fn parent_of(out: &Path) -> PathBuf {
    match out.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_path_buf(),
        _ => PathBuf::from("."),
    }
}

/// Moves the files of `folder` into `out`.
fn move_into(folder: &Path, out: &Path) -> Result<()> {
    for name in STALE {
        let path = out.join(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::io("remove", &path)(error));
            }
            _ => {}
        }
    }
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(Error::io("read", folder))? {
        names.push(entry.map_err(Error::io("read", folder))?.file_name());
    }
    // Without its configuration a folder is no model, so that comes last.
    names.sort_by_key(|name| (name == "config.json", name.clone()));
    for name in names {
        let to = out.join(&name);
        fs::rename(folder.join(&name), &to).map_err(Error::io("write", &to))?;
    }
    sync_folder(out)
}

/// Makes the entries of a folder durable.
fn sync_folder(path: &Path) -> Result<()> {
    File::open(path).and_then(|folder| folder.sync_all()).map_err(Error::io("write", path))
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
    fn a_folder_appears_whole_and_a_failure_leaves_nothing() {
        let dir = TempDir::new().unwrap();
        let out = dir.path().join("deep/model");
        write(&out, false, |dir| write_file(dir, "config.json", b"{}")).unwrap();
        assert_eq!(names(&dir.path().join("deep")), ["model"]);
        assert_eq!(names(&out), ["config.json"]);
        let other = dir.path().join("deep/other");
        let failed = write(&other, false, |dir| {
            write_file(dir, "config.json", b"{}")?;
            Err(Error::usage("no"))
        });
        assert!(failed.is_err());
        assert_eq!(names(&dir.path().join("deep")), ["model"]);
    }

    #[test]
    fn an_existing_folder_is_refused_unless_forced_and_then_keeps_other_files() {
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
