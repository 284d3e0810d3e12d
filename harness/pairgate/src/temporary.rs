//! Temporary directories that the next run removes if this one is killed.
//!
//! Their names end in [`SUFFIX`], and the process that uses one holds its lock. Before a process creates its own, it removes
//! those in the same parent directory that are of the same user and that no process holds.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use tempfile::{Builder, TempDir};

use crate::error::{Error, Result};
use crate::lock::{lock_at, sweep};
use crate::process::interrupt::{ForcedExitRemoval, at_forced_exit};

/// How the name of a file begins while it is being written.
pub const TEMPORARY_PREFIX: &str = ".pairgate-";

/// How the names of temporary files and directories end.
pub const SUFFIX: &str = ".tmp";

/// How their names may begin; another program's are never removed.
const OWN_PREFIXES: [&str; 3] = ["actbench-", "pairgate-", TEMPORARY_PREFIX];

/// Attempts to create one: only a process that removes leftovers at this very moment can make an attempt fail.
const ATTEMPTS: usize = 100;

/// Directories in which leftovers were looked for: once per process is enough.
static SWEPT: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

/// A temporary directory, removed when this is dropped, or by the next process that creates one if this process is killed.
#[derive(Debug)]
pub struct TemporaryDirectory {
    // Before the lock: it is removed while the lock is held.
    directory: TempDir,
    _lock: File,
    _removal: ForcedExitRemoval,
}

impl TemporaryDirectory {
    /// Creates a directory in `parent`, or in the system's temporary directory, whose name begins with `prefix`.
    ///
    /// # Errors
    /// The parent directory cannot be written to.
    pub fn create(prefix: &str, parent: Option<&Path>) -> Result<Self> {
        let parent = parent.map_or_else(std::env::temp_dir, Path::to_path_buf);
        remove_leftovers(&parent);
        for _ in 0..ATTEMPTS {
            let created = Builder::new().prefix(prefix).suffix(SUFFIX).tempdir_in(&parent);
            let directory = created.map_err(Error::io("create a directory in", &parent))?;
            let lock = File::open(directory.path()).map_err(Error::io("open", directory.path()))?;
            if lock_at(&lock, directory.path()) {
                let path = directory.path().to_path_buf();
                let removal = at_forced_exit(move || drop(std::fs::remove_dir_all(path)));
                return Ok(TemporaryDirectory { directory, _lock: lock, _removal: removal });
            }
        }
        Err(Error::internal(format!("temporary directories in {} are removed at once", parent.display())))
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }
}

/// Removes what killed processes left in `directory`, the first time it is named.
pub(crate) fn remove_leftovers(directory: &Path) {
    let swept = &mut SWEPT.lock().unwrap_or_else(PoisonError::into_inner);
    if swept.insert(directory.to_path_buf()) {
        sweep(directory, is_own);
    }
}

fn is_own(name: &str) -> bool {
    name.ends_with(SUFFIX) && OWN_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directory_of_a_killed_process_is_removed_and_others_stay() {
        let parent = tempfile::tempdir().unwrap();
        let names = ["actbench-run-abcdef.tmp", "pairgate-rev-abcdef.tmp", "actbench-run-mine", "notes.tmp"];
        for name in names {
            std::fs::create_dir(parent.path().join(name)).unwrap();
        }
        let own = TemporaryDirectory::create("actbench-run-", Some(parent.path())).unwrap();
        let exists = names.map(|name| parent.path().join(name).exists());
        assert_eq!(exists, [false, false, true, true]);
        sweep(parent.path(), is_own);
        assert!(own.path().is_dir(), "the directory of a living process was removed");
        let path = own.path().to_path_buf();
        drop(own);
        assert!(!path.exists());
        let error = TemporaryDirectory::create("actbench-", Some(Path::new("/no/such/parent"))).unwrap_err();
        assert!(error.to_string().contains("/no/such/parent"), "{error}");
    }
}
