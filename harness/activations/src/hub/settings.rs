//! The cache, address and token of the hub, from the variables that Hugging Face's own client reads.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How to reach the hub.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct HubSettings {
    /// The cache directory that the hub's clients share, if one is known.
    pub cache: Option<PathBuf>,
    /// The hub's address, unless it is the public one.
    pub endpoint: Option<String>,
    /// The access token.
    pub token: Option<Token>,
    /// Whether the network must not be used.
    pub offline: bool,
    /// Limits of time.
    pub patience: Patience,
}

/// An access token and its source.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// The token, without surrounding white space.
    pub value: String,
    /// The variable or file that has it, for messages.
    pub origin: String,
}

/// How long the client waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// Limit for a connection.
    pub connect: Duration,
    /// Limit for the head of a response.
    pub response: Duration,
    /// Limit for the time without a new byte of a body.
    pub silence: Duration,
    /// The pause before the second try; it doubles with each further one.
    pub pause: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Patience {
            connect: Duration::from_secs(10),
            response: Duration::from_secs(20),
            silence: Duration::from_secs(10),
            pause: Duration::from_secs(1),
        }
    }
}

impl std::fmt::Debug for HubSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Without the token: settings may be logged.
        let HubSettings { cache, endpoint, offline, .. } = self;
        write!(f, "HubSettings {{ cache: {cache:?}, endpoint: {endpoint:?}, offline: {offline} }}")
    }
}

/// The variable `name` of this process. `HOME` falls back to the home directory of the user's account.
pub fn process_variable(name: &str) -> Option<OsString> {
    let value = std::env::var_os(name);
    if name == "HOME" { value.or_else(|| std::env::home_dir().map(PathBuf::into_os_string)) } else { value }
}

/// The directory of the user's caches by the XDG specification, which says to ignore relative paths.
pub fn user_caches(variable: &dyn Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let path = |name: &str| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    path("XDG_CACHE_HOME")
        .filter(|path| path.is_absolute())
        .or_else(|| path("HOME").filter(|home| home.is_absolute()).map(|home| home.join(".cache")))
}

impl HubSettings {
    /// Reads the settings of this process.
    pub fn of_process() -> HubSettings {
        HubSettings::from_environment(&process_variable)
    }

    /// Reads the variables of `huggingface_hub`: `HF_HUB_CACHE`, `HUGGINGFACE_HUB_CACHE`, `HF_HOME`, `XDG_CACHE_HOME`,
    /// `HF_ENDPOINT`, `HF_TOKEN`, `HUGGING_FACE_HUB_TOKEN`, `HF_TOKEN_PATH`, `HF_HUB_DISABLE_IMPLICIT_TOKEN`,
    /// `HF_HUB_OFFLINE`, `TRANSFORMERS_OFFLINE`, `HF_HUB_DOWNLOAD_TIMEOUT` and `HF_HUB_ETAG_TIMEOUT` (whole seconds).
    /// A variable that is set and empty counts as absent. Without a variable the token is in the file `token` of `HF_HOME`.
    pub fn from_environment(variable: &dyn Fn(&str) -> Option<OsString>) -> HubSettings {
        let non_empty = |name: &str| variable(name).filter(|value| !value.is_empty());
        let text = |name: &str| non_empty(name).map(|value| value.to_string_lossy().into_owned());
        let user_home = variable("HOME").map(PathBuf::from);
        let path = |name: &str| non_empty(name).map(|value| expanded(PathBuf::from(value), user_home.as_deref()));
        let home = path("HF_HOME").or_else(|| user_caches(variable).map(|caches| caches.join("huggingface")));
        let is_true = |name: &str| {
            text(name).is_some_and(|value| matches!(value.to_ascii_lowercase().as_str(), "1" | "true" | "yes" | "on"))
        };
        let seconds =
            |name: &str| text(name).and_then(|value| value.trim().parse().ok()).filter(|n| (1..=86_400).contains(n));
        let mut patience = Patience::default();
        if let Some(limit) = seconds("HF_HUB_ETAG_TIMEOUT") {
            patience.response = Duration::from_secs(limit);
            patience.connect = patience.connect.min(patience.response);
        }
        if let Some(limit) = seconds("HF_HUB_DOWNLOAD_TIMEOUT") {
            patience.silence = Duration::from_secs(limit);
        }
        let token = ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"]
            .into_iter()
            .find_map(|name| Some(Token { value: cleaned(&text(name)?)?, origin: name.to_owned() }));
        let token = token.or_else(|| {
            let file = path("HF_TOKEN_PATH").or_else(|| home.as_ref().map(|home| home.join("token")))?;
            let value = cleaned(&String::from_utf8_lossy(&std::fs::read(&file).ok()?))?;
            Some(Token { value, origin: file.display().to_string() })
        });
        HubSettings {
            cache: path("HF_HUB_CACHE")
                .or_else(|| path("HUGGINGFACE_HUB_CACHE"))
                .or_else(|| home.as_ref().map(|home| home.join("hub"))),
            endpoint: text("HF_ENDPOINT").map(|address| address.trim().trim_end_matches('/').to_owned()),
            token: token.filter(|_| !is_true("HF_HUB_DISABLE_IMPLICIT_TOKEN")),
            offline: if non_empty("HF_HUB_OFFLINE").is_some() {
                is_true("HF_HUB_OFFLINE")
            } else {
                is_true("TRANSFORMERS_OFFLINE")
            },
            patience,
        }
    }
}

/// A token without line breaks and surrounding white space; none if nothing is left.
fn cleaned(text: &str) -> Option<String> {
    let token = text.replace(['\r', '\n'], "").trim().to_owned();
    (!token.is_empty()).then_some(token)
}

/// A path with `~` replaced: shells expand it in their own arguments only, and `huggingface_hub` in these variables too.
fn expanded(path: PathBuf, home: Option<&Path>) -> PathBuf {
    match (path.strip_prefix("~"), home) {
        (Ok(rest), Some(home)) => home.join(rest),
        _ => path,
    }
}
