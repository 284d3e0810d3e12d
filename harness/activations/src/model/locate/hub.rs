//! Models of the Hugging Face hub: from the cache that all its clients share, else downloaded into it.

use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use hf_hub::api::sync::{Api, ApiBuilder, ApiRepo};
use hf_hub::{Cache, Repo};

use super::places::Places;
use crate::error::{Error, Result};
use crate::model::weights::{INDEX, WHOLE, shard_names};

/// Files that a model must have beside its weights.
const REQUIRED: [&str; 2] = ["config.json", "tokenizer.json"];

/// Files that are fetched where the model has them.
const OPTIONAL: [&str; 3] = ["tokenizer_config.json", "chat_template.jinja", "special_tokens_map.json"];

/// How long the hub may take for its first answer. Downloads take as long as they take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Whether `name` can be a model's id: `owner/name`, of letters, digits, `-`, `_` and `.`.
pub(super) fn is_model_id(name: &str) -> bool {
    let part = |part: &str| {
        part.starts_with(|c: char| c.is_ascii_alphanumeric())
            && part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
    };
    name.split_once('/').is_some_and(|(owner, name)| part(owner) && part(name))
}

/// The folder of the model `id` in the hub's cache, downloaded first where it is not complete.
///
/// # Errors
/// The model is not in the cache and cannot be downloaded: one line says what was tried and why it failed.
pub(super) fn fetch(id: &str, places: &Places, quiet: bool) -> Result<PathBuf> {
    let fail = |what: String| Error::input(id, format!("no local folder of that name, and {what}"));
    let Some(folder) = &places.hub_cache else {
        return Err(fail("no folder for downloads: set HF_HOME to one".to_owned()));
    };
    let cache = Cache::new(folder.clone());
    let cached = complete_snapshot(&cache, id);
    match &cached {
        // Without this file a chat template may be missing that the hub has.
        Some(snapshot) if snapshot.join("tokenizer_config.json").exists() || places.offline => {
            return Ok(snapshot.clone());
        }
        None if places.offline => {
            return Err(fail(
                "it is not complete in the hub's cache while HF_HUB_OFFLINE forbids downloads".to_owned(),
            ));
        }
        _ => {}
    }
    match (download(id, &cache, places, quiet), cached) {
        (Ok(()), _) => complete_snapshot(&cache, id)
            .ok_or_else(|| fail("the hub's copy changed while it was downloaded: try again".to_owned())),
        (Err(reason), Some(snapshot)) => {
            tracing::warn!("{id}: {reason}; going on with the copy in the cache");
            Ok(snapshot)
        }
        (Err(reason), None) => Err(fail(reason)),
    }
}

/// The cached snapshot of the model's main branch, if it has all that a model must have.
fn complete_snapshot(cache: &Cache, id: &str) -> Option<PathBuf> {
    let config = cache.repo(Repo::model(id.to_owned())).get("config.json")?;
    let snapshot = config.parent()?.to_path_buf();
    let has = |name: &str| snapshot.join(name).exists();
    let weights = has(WHOLE)
        || has(INDEX) && shard_names(&snapshot.join(INDEX)).is_ok_and(|shards| shards.iter().all(|shard| has(shard)));
    (weights && REQUIRED.into_iter().all(has)).then_some(snapshot)
}

/// Downloads a model into the cache. The error is the second half of a sentence.
fn download(id: &str, cache: &Cache, places: &Places, quiet: bool) -> Result<(), String> {
    let mut builder = ApiBuilder::from_cache(cache.clone()).with_progress(!quiet).with_retries(2);
    if let Some(endpoint) = &places.hub_endpoint {
        builder = builder.with_endpoint(endpoint.clone());
    }
    if let Some(token) = &places.hub_token {
        builder = builder.with_token(Some(token.clone()));
    }
    let api = builder.build().map_err(|error| format!("the hub's client does not start: {error}"))?;
    let info = first_answer(&api, id)?;
    let repo = api.model(id.to_owned());
    let listed = |name: &str| info.siblings.iter().any(|sibling| sibling.rfilename == name);
    if let Some(missing) = REQUIRED.into_iter().find(|name| !listed(name)) {
        return Err(format!("the hub's model of that name has no {missing}"));
    }
    let mut names: Vec<String> =
        REQUIRED.into_iter().chain(OPTIONAL).filter(|name| listed(name)).map(str::to_owned).collect();
    // The first download moves the cache's main branch to the hub's commit; then only what that lacks is fetched.
    if branch(cache, id).as_deref() != Some(info.sha.as_str()) {
        get(&repo, "config.json", true)?;
    }
    if listed(WHOLE) {
        names.push(WHOLE.to_owned());
    } else if listed(INDEX) {
        let index = get(&repo, INDEX, false)?;
        names.extend(shard_names(&index).map_err(|error| error.to_string())?);
    } else {
        return Err("the hub's model of that name has no safetensors weights".to_owned());
    }
    names.iter().try_for_each(|name| get(&repo, name, false).map(drop))
}

/// Asks the hub for the model's files, within [`PATIENCE`].
fn first_answer(api: &Api, id: &str) -> Result<hf_hub::api::RepoInfo, String> {
    let repo = api.model(id.to_owned());
    let (sender, receiver) = mpsc::channel();
    // The client waits for a connection as long as the system does, which can be minutes, so it waits elsewhere.
    std::thread::spawn(move || {
        let _ = sender.send(repo.info());
    });
    match receiver.recv_timeout(PATIENCE) {
        Ok(Ok(info)) => Ok(info),
        Ok(Err(error)) => Err(explain(&error.to_string())),
        Err(_) => Err(format!("the hub did not answer within {} s", PATIENCE.as_secs())),
    }
}

/// One file of the model, from the cache unless `anew`.
fn get(repo: &ApiRepo, name: &str, anew: bool) -> Result<PathBuf, String> {
    let file = if anew { repo.download(name) } else { repo.get(name) };
    file.map_err(|error| format!("{name}: {}", explain(&error.to_string())))
}

/// The commit that the cache takes for the main branch.
fn branch(cache: &Cache, id: &str) -> Option<String> {
    let repo = Repo::model(id.to_owned());
    let path: &Path = cache.path();
    std::fs::read_to_string(path.join(repo.folder_name()).join("refs").join(repo.revision())).ok()
}

/// The client's error in words for people, in one line.
fn explain(error: &str) -> String {
    let status = ["401", "403", "404"].into_iter().find(|status| error.contains(&format!("status: {status}")));
    match status {
        Some("404") => "the hub has no such model".to_owned(),
        Some(_) => "the hub has no such model, or it asks for a key (set HF_TOKEN)".to_owned(),
        None => format!(
            "the hub could not be reached ({}): check the network, or name a local folder",
            error.lines().next().unwrap_or_default()
        ),
    }
}
