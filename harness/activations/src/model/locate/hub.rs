//! Models of the Hugging Face hub: from the cache that its clients share, else downloaded into it.

use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use hf_hub::api::sync::{Api, ApiBuilder, ApiRepo};
use hf_hub::{Cache, Repo};

use super::settings::LocateSettings;
use crate::error::{Error, Result};
use crate::model::weights::{SHARD_INDEX, SINGLE_FILE, shard_names};

/// Files that a model must have in addition to its weights.
const REQUIRED: [&str; 2] = ["config.json", "tokenizer.json"];

/// Files that are downloaded if the model has them.
const OPTIONAL: [&str; 3] = ["tokenizer_config.json", "chat_template.jinja", "special_tokens_map.json"];

/// The timeout for the hub's first response. Downloads have none.
const HUB_TIMEOUT: Duration = Duration::from_secs(30);

/// Whether `name` can be a model's id: `owner/name`, of letters, digits, `-`, `_` and `.`.
pub(super) fn is_model_id(name: &str) -> bool {
    let part = |part: &str| {
        part.starts_with(|c: char| c.is_ascii_alphanumeric())
            && part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
    };
    name.split_once('/').is_some_and(|(owner, name)| part(owner) && part(name))
}

/// The directory of the model `id` in the hub's cache, downloaded first if it is incomplete.
///
/// # Errors
/// The model is not in the cache and cannot be downloaded; the message is one line.
pub(super) fn fetch(id: &str, settings: &LocateSettings, quiet: bool) -> Result<PathBuf> {
    let fail = |what: String| Error::input(id, format!("there is no local directory of that name, and {what}"));
    let Some(directory) = &settings.hub_cache else {
        return Err(fail("no download directory is known: set HF_HOME to a directory".to_owned()));
    };
    let cache = Cache::new(directory.clone());
    let cached = complete_snapshot(&cache, id);
    match &cached {
        // Without this file the chat template may be missing, although the hub has it.
        Some(snapshot) if snapshot.join("tokenizer_config.json").exists() || settings.offline => {
            return Ok(snapshot.clone());
        }
        None if settings.offline => {
            return Err(fail(
                "the copy in the hub's cache is incomplete while HF_HUB_OFFLINE forbids downloads".to_owned(),
            ));
        }
        _ => {}
    }
    match (download(id, &cache, settings, quiet), cached) {
        (Ok(()), _) => complete_snapshot(&cache, id)
            .ok_or_else(|| fail("the hub's copy changed during the download: try again".to_owned())),
        (Err(reason), Some(snapshot)) => {
            tracing::warn!("{id}: {reason}; using the copy in the cache");
            Ok(snapshot)
        }
        (Err(reason), None) => Err(fail(reason)),
    }
}

/// The cached snapshot of the model's main branch, if it has all required files.
fn complete_snapshot(cache: &Cache, id: &str) -> Option<PathBuf> {
    let config = cache.repo(Repo::model(id.to_owned())).get("config.json")?;
    let snapshot = config.parent()?.to_path_buf();
    let has = |name: &str| snapshot.join(name).exists();
    let weights = has(SINGLE_FILE)
        || has(SHARD_INDEX)
            && shard_names(&snapshot.join(SHARD_INDEX)).is_ok_and(|shards| shards.iter().all(|shard| has(shard)));
    (weights && REQUIRED.into_iter().all(has)).then_some(snapshot)
}

/// Downloads a model into the cache. The error is the second half of the sentence that [`fetch`] begins.
fn download(id: &str, cache: &Cache, settings: &LocateSettings, quiet: bool) -> Result<(), String> {
    let mut builder = ApiBuilder::from_cache(cache.clone()).with_progress(!quiet).with_retries(2);
    if let Some(endpoint) = &settings.hub_endpoint {
        builder = builder.with_endpoint(endpoint.clone());
    }
    if let Some(token) = &settings.hub_token {
        builder = builder.with_token(Some(token.clone()));
    }
    let api = builder.build().map_err(|error| format!("the hub client failed to start: {error}"))?;
    let info = model_info(&api, id)?;
    let repo = api.model(id.to_owned());
    let listed = |name: &str| info.siblings.iter().any(|sibling| sibling.rfilename == name);
    if let Some(missing) = REQUIRED.into_iter().find(|name| !listed(name)) {
        return Err(format!("the hub's model of that name has no {missing}"));
    }
    let mut names: Vec<String> =
        REQUIRED.into_iter().chain(OPTIONAL).filter(|name| listed(name)).map(str::to_owned).collect();
    // The first download moves the main branch of the cache to the hub's commit; then only missing files are downloaded.
    if branch(cache, id).as_deref() != Some(info.sha.as_str()) {
        get(&repo, "config.json", true)?;
    }
    if listed(SINGLE_FILE) {
        names.push(SINGLE_FILE.to_owned());
    } else if listed(SHARD_INDEX) {
        let index = get(&repo, SHARD_INDEX, false)?;
        names.extend(shard_names(&index).map_err(|error| error.to_string())?);
    } else {
        return Err("the hub's model of that name has no safetensors weights".to_owned());
    }
    names.iter().try_for_each(|name| get(&repo, name, false).map(drop))
}

/// Asks the hub for the list of the model's files, within [`HUB_TIMEOUT`].
fn model_info(api: &Api, id: &str) -> Result<hf_hub::api::RepoInfo, String> {
    let repo = api.model(id.to_owned());
    let (sender, receiver) = mpsc::channel();
    // The client has no timeout for connecting, and the system's can be minutes, so it runs on a thread of its own.
    std::thread::spawn(move || {
        let _ = sender.send(repo.info());
    });
    match receiver.recv_timeout(HUB_TIMEOUT) {
        Ok(Ok(info)) => Ok(info),
        Ok(Err(error)) => Err(explain(&error.to_string())),
        Err(_) => Err(format!("the hub did not respond within {} s", HUB_TIMEOUT.as_secs())),
    }
}

/// Downloads one file of the model unless it is cached; with `force` always.
fn get(repo: &ApiRepo, name: &str, force: bool) -> Result<PathBuf, String> {
    let file = if force { repo.download(name) } else { repo.get(name) };
    file.map_err(|error| format!("{name}: {}", explain(&error.to_string())))
}

/// The commit of the main branch in the cache.
fn branch(cache: &Cache, id: &str) -> Option<String> {
    let repo = Repo::model(id.to_owned());
    let path: &Path = cache.path();
    std::fs::read_to_string(path.join(repo.folder_name()).join("refs").join(repo.revision())).ok()
}

/// The client's error for people, in one line.
fn explain(error: &str) -> String {
    let status = ["401", "403", "404"].into_iter().find(|status| error.contains(&format!("status: {status}")));
    match status {
        Some("404") => "the hub has no such model".to_owned(),
        Some(_) => "the hub has no such model, or it needs an access token (set HF_TOKEN)".to_owned(),
        None => format!(
            "the hub could not be reached ({}): check the network, or give a local directory",
            error.lines().next().unwrap_or_default()
        ),
    }
}
