//! Models of the Hugging Face hub: from the cache that its clients share, else downloaded into it.

use std::path::PathBuf;

use crate::error::{Error, Result};
use crate::hub::cache::CachedFile;
use crate::hub::{Client, HubError, HubSettings, Listing, Repo, RepoCache, RepoKind};
use crate::model::weights::{SHARD_INDEX, SINGLE_FILE, shard_names};

/// Files that a model must have in addition to its weights.
const REQUIRED: [&str; 2] = ["config.json", "tokenizer.json"];

/// Files that are downloaded if the model has them.
const OPTIONAL: [&str; 6] = [
    TOKENIZER_CONFIG,
    TEMPLATE,
    "additional_chat_templates/default.jinja",
    "special_tokens_map.json",
    "added_tokens.json",
    "adapter_config.json",
];

const TOKENIZER_CONFIG: &str = "tokenizer_config.json";
const TEMPLATE: &str = "chat_template.jinja";

/// The repository of the model `name`; none if `name` has not the form of an id.
pub(super) fn model_repo(name: &str) -> Option<Repo> {
    Repo::new(RepoKind::Model, name)
}

/// The directory of the model `repo` in the hub's cache, downloaded first if it is incomplete.
///
/// # Errors
/// The model is not in the cache and cannot be downloaded; the message is one line.
pub(super) fn fetch(id: &str, repo: &Repo, settings: &HubSettings, quiet: bool) -> Result<PathBuf> {
    let fail = |what: String| Error::input(id, format!("there is no local directory of that name, and {what}"));
    let Some(directory) = &settings.cache else {
        return Err(fail("no download directory is known: set HF_HOME to a directory".to_owned()));
    };
    let cache = RepoCache::new(directory, repo);
    let cached = match cache.commit() {
        Ok(commit) => commit.map(|commit| Snapshot::inspect(&cache, commit)),
        Err(reason) if settings.offline => return Err(fail(reason)),
        Err(_) => None,
    };
    if settings.offline {
        return offline(id, &cache, cached.as_ref()).map_err(fail);
    }
    if let Some(snapshot) = cached.filter(Snapshot::is_complete) {
        if !snapshot.unknown.is_empty() {
            match complete_by_list(repo, &cache, &snapshot, settings, quiet) {
                Ok(Some(newer)) => return Ok(newer),
                Ok(None) => {}
                Err(HubError::Local(error)) => return Err(error),
                Err(HubError::Remote(reason)) => tracing::warn!("{id}: {reason}; using the copy in the cache"),
            }
        }
        return Ok(cache.snapshot(&snapshot.commit));
    }
    let downloaded = Client::new(settings, quiet).and_then(|client| download(&client, repo, &cache));
    downloaded.map_err(|error| match error {
        HubError::Local(error) => error,
        HubError::Remote(reason) => fail(reason),
    })
}

/// A model's snapshot in the cache.
struct Snapshot {
    commit: String,
    /// Necessary files that are not there.
    missing: Vec<String>,
    /// Files that are not the hub's.
    damaged: Vec<String>,
    /// Optional files that are not there, while the hub may have them.
    unknown: Vec<&'static str>,
}

impl Snapshot {
    fn inspect(cache: &RepoCache, commit: String) -> Snapshot {
        let mut names: Vec<String> = REQUIRED.map(str::to_owned).to_vec();
        let at = cache.snapshot(&commit);
        let present = |name: &str| cache.check(&commit, name) != CachedFile::Missing;
        if present(SHARD_INDEX) && !present(SINGLE_FILE) {
            names.push(SHARD_INDEX.to_owned());
            // An index that cannot be read names no shard: the model's own check reports it, or its digest shows the damage.
            names.extend(shard_names(&at.join(SHARD_INDEX)).unwrap_or_default());
        } else {
            names.push(SINGLE_FILE.to_owned());
        }
        names.extend(OPTIONAL.into_iter().filter(|name| present(name)).map(str::to_owned));
        let in_state =
            |state: CachedFile| names.iter().filter(|name| cache.check(&commit, name) == state).cloned().collect();
        let unknown = OPTIONAL.into_iter().filter(|name| !present(name) && !cache.is_absent(&commit, name)).collect();
        Snapshot { missing: in_state(CachedFile::Missing), damaged: in_state(CachedFile::Damaged), unknown, commit }
    }

    fn is_complete(&self) -> bool {
        self.missing.is_empty() && self.damaged.is_empty()
    }
}

/// The cached copy, without the network. The error is the second half of the sentence that [`fetch`] begins.
fn offline(id: &str, cache: &RepoCache, cached: Option<&Snapshot>) -> Result<PathBuf, String> {
    let Some(snapshot) = cached else {
        return Err("the hub's cache has no copy while HF_HUB_OFFLINE forbids downloads".to_owned());
    };
    let directory = cache.snapshot(&snapshot.commit);
    if let Some(first) = snapshot.missing.first() {
        return Err(format!("the copy in the hub's cache has no {first} while HF_HUB_OFFLINE forbids downloads"));
    }
    if let Some(first) = snapshot.damaged.first() {
        return Err(format!(
            "{} in the hub's cache is damaged while HF_HUB_OFFLINE forbids downloads: unset it to download the file again",
            directory.join(first).display()
        ));
    }
    let has_inline = || {
        std::fs::read_to_string(directory.join(TOKENIZER_CONFIG)).is_ok_and(|text| text.contains("\"chat_template\""))
    };
    for name in &snapshot.unknown {
        // Without any template the tokenizer's own error names the file.
        if *name == TOKENIZER_CONFIG || *name == TEMPLATE && has_inline() {
            tracing::warn!(
                "{id}: the copy in the hub's cache has no {name}, which the hub may have and which would be used; unset \
                 HF_HUB_OFFLINE once to ask the hub"
            );
        }
    }
    Ok(directory)
}

/// Asks the hub which files the cached commit has, and downloads the missing ones; the directory of a newer copy if the hub
/// does not have the commit any more.
fn complete_by_list(
    repo: &Repo,
    cache: &RepoCache,
    snapshot: &Snapshot,
    settings: &HubSettings,
    quiet: bool,
) -> Result<Option<PathBuf>, HubError> {
    let client = Client::new(settings, quiet)?;
    let commit = &snapshot.commit;
    let listing = match client.list(repo, commit) {
        Ok(listing) if listing.commit == *commit => listing,
        Err(HubError::Local(error)) => return Err(error.into()),
        // The commit is not the hub's, or the server knows branches only.
        _ => client.list(repo, "main")?,
    };
    if listing.commit != *commit {
        return download(&client, repo, cache).map(Some);
    }
    let mut files = listing.files;
    for name in snapshot.unknown.iter().filter(|name| files.contains_key(**name)).copied().collect::<Vec<_>>() {
        let size = client.fetch(repo, cache, commit, name)?;
        files.insert(name.to_owned(), Some(size));
    }
    // A cache that cannot be written is asked about again the next time.
    let _ = cache.keep_list(commit, files);
    Ok(None)
}

/// Downloads the main branch into the cache and returns its directory. The cache's own branch moves last, so that it never
/// leads to an incomplete copy.
fn download(client: &Client, repo: &Repo, cache: &RepoCache) -> Result<PathBuf, HubError> {
    let remote = |reason: &str| HubError::Remote(reason.to_owned());
    let Listing { commit, mut files } = client.list(repo, "main")?;
    if let Some(missing) = REQUIRED.into_iter().find(|name| !files.contains_key(*name)) {
        return Err(remote(&format!("the hub's model of that name has no {missing}")));
    }
    let weights = [SINGLE_FILE, SHARD_INDEX].into_iter().find(|name| files.contains_key(*name));
    let weights = weights.ok_or_else(|| remote("the hub's model of that name has no safetensors weights"))?;
    let small = REQUIRED.into_iter().chain(OPTIONAL).filter(|name| files.contains_key(*name));
    let names: Vec<&str> = small.chain([weights]).collect();
    let mut get = |name: &str| -> Result<(), HubError> {
        if cache.check(&commit, name) != CachedFile::Whole {
            files.insert(name.to_owned(), Some(client.fetch(repo, cache, &commit, name)?));
        }
        Ok(())
    };
    names.into_iter().try_for_each(&mut get)?;
    if weights == SHARD_INDEX {
        let index = cache.snapshot(&commit).join(SHARD_INDEX);
        shard_names(&index).map_err(|error| remote(&error.to_string()))?.iter().try_for_each(|name| get(name))?;
    }
    cache.keep_list(&commit, files)?;
    cache.set_branch(&commit)?;
    Ok(cache.snapshot(&commit))
}
