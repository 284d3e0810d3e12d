//! Writes a model directory completely or not at all, and never overwrites files without `force`.

use std::fs::{self, File, TryLockError};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use tempfile::TempDir;

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
    // Files are moved into an existing directory one by one, so two imports would mix theirs.
    let _destination = if force && out.is_dir() { Some(lock_destination(out)?) } else { None };
    let temporary = UnfinishedImport::create(&parent)?;
    // A temporary directory is private to its owner. A directory created in it has the default permissions.
    let directory = temporary.directory.path().join("model");
    fs::create_dir(&directory).map_err(Error::io("create", &directory))?;
    fill(&directory)?;
    sync_directory(&directory)?;
    if force && out.is_dir() {
        move_into(&directory, out)?;
    } else {
        fs::rename(&directory, out).map_err(|error| match error.kind() {
            ErrorKind::DirectoryNotEmpty | ErrorKind::AlreadyExists => Error::file(
                out,
                "was written by another import in the meantime; use the model in it, or pass another directory",
            ),
            _ => Error::io("create", out)(error),
        })?;
    }
    sync_directory(&parent)
}

/// Locks an existing directory for this import. The kernel releases the lock when the file is closed or the process ends.
fn lock_destination(out: &Path) -> Result<File> {
    let file = File::open(out).map_err(Error::io("open", out))?;
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => {
            Err(Error::file(out, "is being written by another import; wait for it, or pass another directory"))
        }
        // A file system without locks protects nothing.
        Ok(()) | Err(TryLockError::Error(_)) => Ok(file),
    }
}

/// How the names of temporary directories of imports begin and end.
const PREFIX: &str = ".actbench-import-";
const SUFFIX: &str = ".tmp";

/// The temporary directories of the imports of this process.
static UNFINISHED: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// Removes the temporary directories of all imports of this process, for an exit that runs no destructors.
pub fn remove_unfinished() {
    let paths = std::mem::take(&mut *UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner));
    for path in paths {
        // The next import removes what this cannot.
        let _ = fs::remove_dir_all(path);
    }
}

/// A temporary directory. It is locked, so that the next import removes the directory of a killed process, and no other.
struct UnfinishedImport {
    // Before the lock: it is removed while the lock is held.
    directory: TempDir,
    _lock: File,
}

impl UnfinishedImport {
    fn create(parent: &Path) -> Result<Self> {
        remove_leftovers(parent);
        loop {
            let created = tempfile::Builder::new().prefix(PREFIX).suffix(SUFFIX).tempdir_in(parent);
            let directory = created.map_err(Error::io("create a temporary directory in", parent))?;
            let lock = File::open(directory.path()).map_err(Error::io("open", directory.path()))?;
            // An import that looks for leftovers may hold the lock for a moment, and then removes the directory.
            let is_locked = !matches!(lock.try_lock(), Err(TryLockError::WouldBlock));
            if is_locked && directory.path().exists() {
                let mut unfinished = UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner);
                unfinished.push(directory.path().to_path_buf());
                return Ok(UnfinishedImport { directory, _lock: lock });
            }
        }
    }
}

impl Drop for UnfinishedImport {
    fn drop(&mut self) {
        let mut unfinished = UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner);
        unfinished.retain(|path| path != self.directory.path());
    }
}

/// Removes the directories of imports that were killed. Failures are ignored: a leftover wastes space alone.
fn remove_leftovers(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let is_import = name.to_str().is_some_and(|name| name.starts_with(PREFIX) && name.ends_with(SUFFIX));
        // SAFETY: a plain system call without arguments, which cannot fail.
        let user = unsafe { libc::geteuid() };
        let is_own = fs::symlink_metadata(entry.path()).is_ok_and(|it| it.is_dir() && it.uid() == user);
        if is_import && is_own && File::open(entry.path()).is_ok_and(|directory| directory.try_lock().is_ok()) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
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
    fn two_imports_into_one_directory_do_not_mix() {
        let dir = TempDir::new().unwrap();
        let out = dir.path().join("model");
        let second = |force| write(&out, force, |dir| write_file(dir, "config.json", b"second"));
        let error = write(&out, false, |dir| {
            write_file(dir, "config.json", b"first")?;
            second(false)
        });
        assert!(error.unwrap_err().to_string().contains("was written by another import"));
        assert_eq!(fs::read(out.join("config.json")).unwrap(), b"second");
        let mut refused = String::new();
        write(&out, true, |dir| {
            refused = second(true).unwrap_err().to_string();
            write_file(dir, "config.json", b"third")
        })
        .unwrap();
        assert!(refused.contains("is being written by another import"), "{refused}");
        assert_eq!(fs::read(out.join("config.json")).unwrap(), b"third");
        assert_eq!(names(dir.path()), ["model"]);
    }

    #[test]
    fn directory_of_a_killed_import_is_removed() {
        let dir = TempDir::new().unwrap();
        let left = dir.path().join(".actbench-import-abcdef.tmp");
        fs::create_dir_all(left.join("model")).unwrap();
        let held = UnfinishedImport::create(dir.path()).unwrap();
        assert!(!left.exists());
        remove_leftovers(dir.path());
        assert!(held.directory.path().exists(), "the directory of a running import was removed");
        drop(held);
        assert_eq!(names(dir.path()), [""; 0]);
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
