//! The client of the Hugging Face hub: lists and downloads files into the cache that all clients of the hub share.
//!
//! Nothing that a server sends is trusted. Commit hashes, ETags and file names are checked before they become parts of a
//! path ([`names`]); a file enters the cache only when it has the announced size and, if its ETag is a digest, that digest
//! ([`download`]); redirects, silence and the size of a list are bounded ([`exchange`], [`listing`]); the access token goes
//! to the configured address only.
//!
//! The layout of the cache is that of the Python package `huggingface_hub`, which reads these files and whose files are
//! read here: `models--owner--name/{blobs,refs,snapshots}`, `.locks`, `*.incomplete`, `.no_exist`. The crate `hf-hub` 0.5
//! builds paths from unchecked headers and keeps short bodies, which a wrapper cannot prevent.

pub(crate) mod cache;
mod client;
mod digest;
mod download;
mod exchange;
pub mod interrupt;
mod listing;
mod lock;
mod names;
mod redirects;
pub mod settings;
mod status;
#[cfg(test)]
pub(crate) mod test_server;
#[cfg(test)]
mod tests;

use crate::error::Error;

pub(crate) use cache::RepoCache;
pub(crate) use client::Client;
pub(crate) use listing::Listing;
pub use settings::HubSettings;

/// The kind of a repository of the hub.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RepoKind {
    /// A model.
    Model,
    /// A data set.
    Dataset,
}

impl RepoKind {
    /// The name of the kind in directories of the cache and in addresses of the hub.
    fn plural(self) -> &'static str {
        match self {
            RepoKind::Model => "models",
            RepoKind::Dataset => "datasets",
        }
    }

    /// The name of the kind in messages.
    fn noun(self) -> &'static str {
        match self {
            RepoKind::Model => "model",
            RepoKind::Dataset => "data set",
        }
    }
}

/// A repository of the hub.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Repo {
    kind: RepoKind,
    id: String,
}

impl Repo {
    /// The repository `owner/name`; none if `id` has another form.
    pub(crate) fn new(kind: RepoKind, id: &str) -> Option<Repo> {
        names::is_repo_id(id).then(|| Repo { kind, id: id.to_owned() })
    }
}

/// The reason why the hub gave no file.
#[derive(Debug)]
pub(crate) enum HubError {
    /// The network or the server: one line that continues a sentence about the repository.
    Remote(String),
    /// This machine, such as a full disk, or an interrupt.
    Local(Error),
}

impl From<Error> for HubError {
    fn from(error: Error) -> Self {
        HubError::Local(error)
    }
}

impl std::fmt::Display for HubError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            HubError::Remote(reason) => f.write_str(reason),
            HubError::Local(error) => error.fmt(f),
        }
    }
}

type Result<T, E = HubError> = std::result::Result<T, E>;

/// A failure of the network or the server.
fn remote<T>(reason: impl Into<String>) -> Result<T> {
    Err(HubError::Remote(reason.into()))
}
