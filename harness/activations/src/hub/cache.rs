//! A repository in the hub's cache: commits, snapshots, blobs, and the list of a commit's files.
//!
//! The layout is that of `huggingface_hub`. One directory is added, `.actbench`, which other clients ignore: the files of
//! each commit with their sizes, as the hub listed them. It shows whether a snapshot lacks a file that the hub has.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::digest::Announced;
use super::{Repo, names};
use crate::error::{Error, Result};

/// The largest file whose digest is computed each time it is used. Of larger ones the size is compared.
const MAX_HASHED: u64 = 32 << 20;

/// The longest header of a safetensors file, by the format.
const MAX_HEADER: u64 = 100_000_000;

/// The branch that is used.
pub(super) const BRANCH: &str = "main";

/// Names and sizes of a commit's files; the size is none until a file was downloaded.
pub(crate) type FileList = BTreeMap<String, Option<u64>>;

/// The state of a file in a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum CachedFile {
    /// Present, and nothing shows damage.
    Whole,
    /// Not present.
    Missing,
    /// Present with another size or digest than the hub announced.
    Damaged,
}

/// The directory of a repository in the cache.
#[derive(Clone, Debug)]
pub(crate) struct RepoCache {
    root: PathBuf,
    name: String,
}

impl RepoCache {
    /// The directory of `repo` in the cache `root`. It need not exist.
    pub(crate) fn new(root: &Path, repo: &Repo) -> RepoCache {
        RepoCache { root: root.to_path_buf(), name: format!("{}--{}", repo.kind.plural(), repo.id.replace('/', "--")) }
    }

    pub(super) fn directory(&self) -> PathBuf {
        self.root.join(&self.name)
    }

    pub(super) fn blobs(&self) -> PathBuf {
        self.directory().join("blobs")
    }

    pub(super) fn lock(&self, blob: &str) -> PathBuf {
        self.root.join(".locks").join(&self.name).join(format!("{blob}.lock"))
    }

    fn branch_file(&self) -> PathBuf {
        self.directory().join("refs").join(BRANCH)
    }

    /// The directory of the files of `commit`.
    pub(crate) fn snapshot(&self, commit: &str) -> PathBuf {
        self.directory().join("snapshots").join(commit)
    }

    /// The commit of the main branch, else that of the only snapshot.
    ///
    /// # Errors
    /// There are several snapshots and no main branch; the message is the second half of a sentence.
    pub(crate) fn commit(&self) -> Result<Option<String>, String> {
        let branch = fs::read_to_string(self.branch_file()).unwrap_or_default();
        let branch = branch.trim();
        if names::is_component(branch) && self.snapshot(branch).is_dir() {
            return Ok(Some(branch.to_owned()));
        }
        if !branch.is_empty() {
            return Ok(None);
        }
        let snapshots = self.directory().join("snapshots");
        let entries = fs::read_dir(&snapshots).into_iter().flatten().flatten();
        let directories = entries.filter(|entry| entry.path().is_dir());
        let mut found: Vec<String> = directories.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        match found.len() {
            0 | 1 => Ok(found.pop()),
            n => Err(format!(
                "the hub's cache has {n} snapshots of it and no {}: write the commit to use into that file",
                self.branch_file().display()
            )),
        }
    }

    /// Makes `commit` the main branch, unless it is.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(crate) fn set_branch(&self, commit: &str) -> Result<()> {
        let path = self.branch_file();
        if fs::read_to_string(&path).is_ok_and(|text| text.trim() == commit) {
            return Ok(());
        }
        write_whole(&path, commit.as_bytes())
    }

    fn list_file(&self, commit: &str) -> PathBuf {
        self.directory().join(".actbench").join(format!("{commit}.json"))
    }

    /// The files of `commit`, if the hub was asked for them before.
    pub(crate) fn list(&self, commit: &str) -> Option<FileList> {
        serde_json::from_slice(&fs::read(self.list_file(commit)).ok()?).ok()
    }

    /// Keeps the files of `commit`. Sizes that are known already stay known.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(crate) fn keep_list(&self, commit: &str, mut files: FileList) -> Result<()> {
        let known = self.list(commit).unwrap_or_default();
        for (name, size) in &mut files {
            *size = size.or_else(|| known.get(name).copied().flatten());
        }
        if files == known {
            return Ok(());
        }
        let text = serde_json::to_vec(&files).map_err(|error| Error::internal(error.to_string()))?;
        write_whole(&self.list_file(commit), &text)
    }

    /// Whether the hub is known to have no file `name` in `commit`, by the list or by the mark of `huggingface_hub`.
    pub(crate) fn is_absent(&self, commit: &str, name: &str) -> bool {
        self.list(commit).is_some_and(|files| !files.contains_key(name))
            || self.directory().join(".no_exist").join(commit).join(name).exists()
    }

    /// The state of the file `name` of `commit`. A file that is a link to a blob is compared with the digest that names the
    /// blob; files that were put there by other means have no announced digest.
    pub(crate) fn check(&self, commit: &str, name: &str) -> CachedFile {
        let path = self.snapshot(commit).join(name);
        let Ok(size) = path.metadata().map(|metadata| metadata.len()) else { return CachedFile::Missing };
        // The first hop only: newer clients link the blob itself to a store of another naming.
        let blob = fs::read_link(&path).ok().and_then(|target| Some(target.file_name()?.to_str()?.to_owned()));
        let Some(digest) = blob.as_deref().and_then(Announced::parse) else { return CachedFile::Whole };
        let recorded = self.list(commit).and_then(|files| files.get(name).copied().flatten());
        let whole = match recorded {
            Some(recorded) if recorded != size => false,
            _ if size <= MAX_HASHED => digest.matches(&path).unwrap_or(true),
            None if name.ends_with(".safetensors") => safetensors_size(&path).is_none_or(|expected| expected == size),
            _ => true,
        };
        if whole { CachedFile::Whole } else { CachedFile::Damaged }
    }

    /// Links the file `name` of `commit` to a blob.
    ///
    /// # Errors
    /// The link cannot be made.
    pub(super) fn link(&self, commit: &str, name: &str, blob: &str) -> Result<()> {
        let path = self.snapshot(commit).join(name);
        create_parent(&path)?;
        let up = "../".repeat(2 + name.matches('/').count());
        let target = PathBuf::from(format!("{up}blobs/{blob}"));
        if fs::read_link(&path).is_ok_and(|current| current == target) {
            return Ok(());
        }
        let temporary = temporary_name(&path);
        let source = self.blobs().join(blob);
        let placed = symlink(&target, &temporary)
            // As `huggingface_hub` does on file systems without links.
            .or_else(|_| fs::copy(&source, &temporary).map(drop))
            .and_then(|()| fs::rename(&temporary, &path));
        placed.map_err(|error| {
            let _ = fs::remove_file(&temporary);
            write_error("create", &path, error)
        })
    }
}

/// Whether `directory` is a snapshot in the hub's cache that may lack the file `name`: it is not there, and the hub is not
/// known to have none.
pub(crate) fn may_lack(directory: &Path, name: &str) -> bool {
    let parts = || {
        let commit = directory.file_name()?.to_str()?;
        let snapshots =
            directory.parent().filter(|parent| parent.file_name().is_some_and(|name| name == "snapshots"))?;
        let repo = snapshots.parent()?;
        let name = repo.file_name()?.to_str().filter(|name| name.contains("--"))?;
        Some((RepoCache { root: repo.parent()?.to_path_buf(), name: name.to_owned() }, commit.to_owned()))
    };
    parts().is_some_and(|(cache, commit)| !directory.join(name).exists() && !cache.is_absent(&commit, name))
}

/// The size that a safetensors file must have by its own header; none if the header cannot be read.
fn safetensors_size(path: &Path) -> Option<u64> {
    use std::io::Read;
    #[derive(serde::Deserialize)]
    struct Tensor {
        data_offsets: Option<(u64, u64)>,
    }
    let mut file = fs::File::open(path).ok()?;
    let mut length = [0; 8];
    file.read_exact(&mut length).ok()?;
    let length = u64::from_le_bytes(length);
    if length > MAX_HEADER {
        return None;
    }
    let mut header = Vec::new();
    file.take(length).read_to_end(&mut header).ok()?;
    let tensors: BTreeMap<String, serde_json::Value> = serde_json::from_slice(&header).ok()?;
    let ends = tensors.into_values().filter_map(|entry| {
        let tensor: Tensor = serde_json::from_value(entry).ok()?;
        Some(tensor.data_offsets?.1)
    });
    ends.max().unwrap_or(0).checked_add(8)?.checked_add(length)
}

/// Creates the directory of a file.
pub(super) fn create_parent(path: &Path) -> Result<()> {
    let Some(parent) = path.parent() else { return Ok(()) };
    fs::create_dir_all(parent).map_err(|error| write_error("create", parent, error))
}

/// The error of a file that cannot be written, with the remedy.
pub(super) fn write_error(action: &'static str, path: &Path, error: io::Error) -> Error {
    let remedy = match error.kind() {
        ErrorKind::ReadOnlyFilesystem | ErrorKind::PermissionDenied | ErrorKind::NotFound => {
            "set HF_HOME or HF_HUB_CACHE to a directory that can be written"
        }
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
            "free disk space, or set HF_HOME or HF_HUB_CACHE to a directory on another disk; the download then resumes"
        }
        _ => return Error::Io { action, path: path.to_path_buf(), source: error },
    };
    let source = io::Error::new(error.kind(), format!("{error}; {remedy}"));
    Error::Io { action, path: path.to_path_buf(), source }
}

/// A name next to `path` that is unused. A leftover of a killed process is removed: writing through a link would change
/// its blob.
fn temporary_name(path: &Path) -> PathBuf {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    let temporary = path.with_file_name(format!(".actbench-{}-{n}.tmp", std::process::id()));
    let _ = fs::remove_file(&temporary);
    temporary
}

/// Writes a small file under a temporary name and renames it.
fn write_whole(path: &Path, text: &[u8]) -> Result<()> {
    create_parent(path)?;
    let temporary = temporary_name(path);
    fs::write(&temporary, text).and_then(|()| fs::rename(&temporary, path)).map_err(|error| {
        let _ = fs::remove_file(&temporary);
        write_error("write", path, error)
    })
}

#[cfg(unix)]
fn symlink(target: &Path, link: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(target, link)
}

#[cfg(not(unix))]
fn symlink(_target: &Path, _link: &Path) -> io::Result<()> {
    Err(ErrorKind::Unsupported.into())
}
