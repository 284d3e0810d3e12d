//! Directories and addresses from the environment: the user's cache, and the hub and its cache.

use std::path::PathBuf;

/// Where models are cached and downloaded from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LocateSettings {
    /// The user's cache directory of actbench, if one is known.
    pub cache: Option<PathBuf>,
    /// The cache directory that the hub's clients share, if one is known.
    pub hub_cache: Option<PathBuf>,
    /// The hub's address, unless it is the public one.
    pub hub_endpoint: Option<String>,
    /// The key to private models.
    pub hub_token: Option<String>,
    /// Whether the network must not be used.
    pub offline: bool,
}

impl LocateSettings {
    /// Reads the variables that `ACTBENCH_CACHE`, the XDG base directories and Hugging Face's own client define.
    /// A variable that is set and empty counts as absent.
    pub fn from_environment(variable: impl Fn(&str) -> Option<String>) -> LocateSettings {
        let non_empty = |name: &str| variable(name).filter(|value| !value.is_empty());
        let path = |name: &str| non_empty(name).map(PathBuf::from);
        // The XDG specification says to ignore relative paths.
        let caches = path("XDG_CACHE_HOME").filter(|path| path.is_absolute());
        let caches = caches.or_else(|| path("HOME").map(|home| home.join(".cache")));
        let default_cache = |name: &str| caches.as_ref().map(|caches| caches.join(name));
        LocateSettings {
            cache: path("ACTBENCH_CACHE").or_else(|| default_cache("actbench")),
            hub_cache: path("HF_HUB_CACHE")
                .or_else(|| path("HF_HOME").or_else(|| default_cache("huggingface")).map(|home| home.join("hub"))),
            hub_endpoint: non_empty("HF_ENDPOINT").map(|address| address.trim_end_matches('/').to_owned()),
            hub_token: non_empty("HF_TOKEN"),
            offline: non_empty("HF_HUB_OFFLINE")
                .is_some_and(|value| matches!(value.to_ascii_lowercase().as_str(), "1" | "true" | "yes" | "on")),
        }
    }
}
