//! The folders and addresses that the environment sets: the user's cache, and the hub and its cache.

use std::path::PathBuf;

/// Where models are kept and where they come from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Places {
    /// The user's cache for actbench, if there is a place for one.
    pub cache: Option<PathBuf>,
    /// The cache that the hub's clients share, if there is a place for one.
    pub hub_cache: Option<PathBuf>,
    /// The hub's address, where it is not the public one.
    pub hub_endpoint: Option<String>,
    /// The key to private models.
    pub hub_token: Option<String>,
    /// Whether the network must not be used.
    pub offline: bool,
}

impl Places {
    /// Reads the variables that `ACTBENCH_CACHE`, the XDG base directories and Hugging Face's own client define.
    /// A variable that is set and empty counts as absent.
    pub fn from_environment(variable: impl Fn(&str) -> Option<String>) -> Places {
        let set = |name: &str| variable(name).filter(|value| !value.is_empty());
        let path = |name: &str| set(name).map(PathBuf::from);
        // The XDG specification has relative paths ignored.
        let caches = path("XDG_CACHE_HOME").filter(|path| path.is_absolute());
        let caches = caches.or_else(|| path("HOME").map(|home| home.join(".cache")));
        let under = |name: &str| caches.as_ref().map(|caches| caches.join(name));
        Places {
            cache: path("ACTBENCH_CACHE").or_else(|| under("actbench")),
            hub_cache: path("HF_HUB_CACHE")
                .or_else(|| path("HF_HOME").or_else(|| under("huggingface")).map(|home| home.join("hub"))),
            hub_endpoint: set("HF_ENDPOINT").map(|address| address.trim_end_matches('/').to_owned()),
            hub_token: set("HF_TOKEN"),
            offline: set("HF_HUB_OFFLINE")
                .is_some_and(|value| matches!(value.to_ascii_lowercase().as_str(), "1" | "true" | "yes" | "on")),
        }
    }
}
