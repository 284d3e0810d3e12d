//! The files of a data set of the Hugging Face hub: from the cache that its clients share, else downloaded into it.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::hub::cache::{CachedFile, FileList};
use crate::hub::{Client, HubError, HubSettings, Listing, Repo, RepoCache, RepoKind};

/// Extensions of readable files, the most compact format first.
const READABLE_EXTENSIONS: [&str; 3] = [".parquet", ".jsonl", ".csv"];

/// The local paths of the data files of the data set `id`, sorted by name: all files of the first readable format, because
/// each split is a separate file. A complete copy in the cache is used without a request.
///
/// # Errors
/// The reason why no file is available, on one line and without the name of the data set; or a failure of this machine.
pub(super) fn fetch(id: &str, settings: &HubSettings) -> Result<Vec<PathBuf>, HubError> {
    let remote = |reason: &str| HubError::Remote(reason.to_owned());
    let repo = Repo::new(RepoKind::Dataset, id).ok_or_else(|| remote("its name has not the form owner/name"))?;
    let directory =
        settings.cache.as_ref().ok_or_else(|| remote("no download directory is known: set HF_HOME to a directory"))?;
    let cache = RepoCache::new(directory, &repo);
    let commit = match cache.commit() {
        Ok(commit) => commit,
        Err(reason) if settings.offline => return Err(HubError::Remote(reason)),
        Err(_) => None,
    };
    if let Some(commit) = &commit
        && let Some(files) = cache.list(commit)
    {
        let names = readable(&files)?;
        let state = |state: CachedFile| names.iter().find(|name| cache.check(commit, name) == state);
        match (state(CachedFile::Missing), state(CachedFile::Damaged)) {
            (None, None) => return Ok(paths(&cache, commit, &names)),
            (Some(name), _) if settings.offline => {
                return Err(remote(&format!("the hub's cache has no {name} while HF_HUB_OFFLINE forbids downloads")));
            }
            (_, Some(name)) if settings.offline => {
                return Err(remote(&format!(
                    "{} is damaged while HF_HUB_OFFLINE forbids downloads: unset it to download the file again",
                    cache.snapshot(commit).join(name).display()
                )));
            }
            _ => {}
        }
    } else if let Some(commit) = &commit
        && settings.offline
    {
        return unlisted(id, &cache, commit);
    }
    if settings.offline {
        return Err(remote("the hub's cache has no copy while HF_HUB_OFFLINE forbids downloads"));
    }
    download(&repo, &cache, settings).or_else(|error| match (&error, &commit) {
        // Without the list only the hub knows whether the copy is complete, so that it is the second choice.
        (HubError::Remote(reason), Some(commit)) if cache.list(commit).is_none() => {
            let found = unlisted(id, &cache, commit).map_err(|_| remote(reason))?;
            tracing::warn!("{id}: {reason}; using the copy in the hub's cache");
            Ok(found)
        }
        _ => Err(error),
    })
}

/// The files of a copy that another client made, which has no list of files.
fn unlisted(id: &str, cache: &RepoCache, commit: &str) -> Result<Vec<PathBuf>, HubError> {
    let root = cache.snapshot(commit);
    let mut files = FileList::new();
    collect(&root, "", &mut files);
    let names = readable(&files)?;
    if let Some(name) = names.iter().find(|name| cache.check(commit, name) == CachedFile::Damaged) {
        return Err(HubError::Remote(format!("{} is damaged: delete it", root.join(name).display())));
    }
    tracing::warn!(
        "{id}: the hub's cache has {} of its files and no list of all, so that some may be missing: {}",
        names.len(),
        names.join(", ")
    );
    Ok(paths(cache, commit, &names))
}

/// The files below `directory`, by their paths from the snapshot.
fn collect(directory: &Path, prefix: &str, files: &mut FileList) {
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let Ok(name) = entry.file_name().into_string() else { continue };
        let name = format!("{prefix}{name}");
        if entry.path().is_dir() {
            collect(&entry.path(), &format!("{name}/"), files);
        } else {
            files.insert(name, None);
        }
    }
}

/// The names of the first readable format, in order.
fn readable(files: &FileList) -> Result<Vec<String>, HubError> {
    let of = |ending: &&str| files.keys().filter(|name| name.ends_with(*ending)).cloned().collect::<Vec<String>>();
    let names = READABLE_EXTENSIONS.iter().map(of).find(|names| !names.is_empty());
    names.ok_or_else(|| HubError::Remote("it has no .parquet, .jsonl or .csv file".to_owned()))
}

fn paths(cache: &RepoCache, commit: &str, names: &[String]) -> Vec<PathBuf> {
    names.iter().map(|name| cache.snapshot(commit).join(name)).collect()
}

/// Downloads the main branch. The cache's own branch moves last, so that it never leads to an incomplete copy.
fn download(repo: &Repo, cache: &RepoCache, settings: &HubSettings) -> Result<Vec<PathBuf>, HubError> {
    let client = Client::new(settings, true)?;
    let Listing { commit, mut files } = client.list(repo, "main")?;
    let names = readable(&files)?;
    for name in &names {
        if cache.check(&commit, name) != CachedFile::Whole {
            files.insert(name.clone(), Some(client.fetch(repo, cache, &commit, name)?));
        }
    }
    cache.keep_list(&commit, files)?;
    cache.set_branch(&commit)?;
    Ok(paths(cache, &commit, &names))
}

/// The error of the data set `name` that [`fetch`] could not provide.
pub(super) fn error(name: &str, id: &str, advice: &str, error: HubError) -> Error {
    match error {
        HubError::Local(error) => error,
        HubError::Remote(reason) => {
            Error::input(name, format!("cannot be downloaded from the hub ({id}: {reason}); {advice}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;
    use crate::hub::test_server::{COMMIT, TestHub, settings};

    const FILES: [(&str, &[u8]); 3] =
        [("README.md", b"x"), ("data/test.csv", b"statement,label\n"), ("train.csv", b"statement,label\nx,1\n")];

    fn reason(settings: &HubSettings) -> String {
        let reason = fetch("org/name", settings).unwrap_err().to_string();
        assert!(!reason.is_empty() && !reason.contains('\n'), "{reason}");
        reason
    }

    #[test]
    fn data_set_is_downloaded_once_and_then_needs_no_network() {
        let directory = TempDir::new().unwrap();
        let hub = TestHub::with_files(&FILES, |_, reply| reply);
        let mut settings = hub.settings(directory.path());
        let paths = fetch("org/name", &settings).unwrap();
        let snapshot = directory.path().join("hub/datasets--org--name/snapshots").join(COMMIT);
        assert_eq!(paths, [snapshot.join("data/test.csv"), snapshot.join("train.csv")]);
        let n_requests = hub.paths().len();
        for offline in [false, true] {
            settings.offline = offline;
            assert_eq!(fetch("org/name", &settings).unwrap(), paths);
            assert_eq!(hub.paths().len(), n_requests);
        }
        std::fs::remove_file(&paths[1]).unwrap();
        assert_eq!(reason(&settings), "the hub's cache has no train.csv while HF_HUB_OFFLINE forbids downloads");
        settings.offline = false;
        assert_eq!(fetch("org/name", &settings).unwrap(), paths, "the missing file is downloaded again");
    }

    #[test]
    fn copy_of_another_client_is_used_offline() {
        let directory = TempDir::new().unwrap();
        let snapshot = directory.path().join("hub/datasets--org--name/snapshots/abc");
        std::fs::create_dir_all(snapshot.join("data")).unwrap();
        std::fs::write(snapshot.join("data/a.csv"), "").unwrap();
        let mut settings = settings(directory.path());
        assert_eq!(fetch("org/name", &settings).unwrap(), [snapshot.join("data/a.csv")], "the hub refuses connections");
        settings.offline = true;
        assert_eq!(fetch("org/name", &settings).unwrap(), [snapshot.join("data/a.csv")]);
        // Online, the hub's list decides.
        let hub = TestHub::with_files(&FILES, |_, reply| reply);
        assert_eq!(fetch("org/name", &hub.settings(directory.path())).unwrap().len(), 2);
    }

    #[test]
    fn missing_data_set_gives_one_line_reason() {
        let directory = TempDir::new().unwrap();
        let mut settings = settings(directory.path());
        assert!(reason(&settings).starts_with("the hub could not be reached ("));
        settings.endpoint = Some("nowhere".to_owned());
        assert!(reason(&settings).starts_with("HF_ENDPOINT is "));
        settings.offline = true;
        assert_eq!(reason(&settings), "the hub's cache has no copy while HF_HUB_OFFLINE forbids downloads");
        settings.cache = None;
        assert_eq!(reason(&settings), "no download directory is known: set HF_HOME to a directory");
    }

    #[test]
    fn hostile_name_of_a_data_file_is_refused() {
        let directory = TempDir::new().unwrap();
        let hub = TestHub::with_files(&[("../../../../evil.csv", b"x"), ("a.csv", b"x")], |_, reply| reply);
        assert!(reason(&hub.settings(directory.path())).contains("would lie outside of the repository"));
        assert!(!directory.path().join("evil.csv").exists());
    }
}
