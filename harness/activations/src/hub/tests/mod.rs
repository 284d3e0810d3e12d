//! The client against a hub that breaks each rule: nothing outside of the cache, nothing unverified inside.

mod body;
mod headers;
mod layout;
mod network;
mod properties;
mod settings;

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::test_server::{COMMIT, Received, Reply, TestHub, tree};
use super::{Client, HubError, HubSettings, Repo, RepoCache, RepoKind};

const DATA: &[u8] = b"0123456789abcdefghijklmnopqrstuvwxyz";

fn repo() -> Repo {
    Repo::new(RepoKind::Model, "org/name").unwrap()
}

/// A directory with a cache and a file outside of it that must not change.
struct Sandbox {
    directory: TempDir,
}

impl Sandbox {
    fn new() -> Sandbox {
        let directory = TempDir::new().unwrap();
        std::fs::write(directory.path().join("victim.txt"), "mine").unwrap();
        Sandbox { directory }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn repo_directory(&self) -> PathBuf {
        self.path().join("hub/models--org--name")
    }

    fn blob_names(&self) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(self.repo_directory().join("blobs"))
            .into_iter()
            .flatten()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    /// Fetches `name` with `settings`: its bytes in the snapshot.
    fn fetch_with(&self, settings: &HubSettings, name: &str) -> Result<Vec<u8>, HubError> {
        let cache = RepoCache::new(settings.cache.as_ref().unwrap(), &repo());
        let client = Client::new(settings, true)?;
        let listing = client.list(&repo(), "main")?;
        client.fetch(&repo(), &cache, &listing.commit, name)?;
        Ok(std::fs::read(cache.snapshot(&listing.commit).join(name)).unwrap())
    }

    fn fetch(&self, hub: &TestHub, name: &str) -> Result<Vec<u8>, HubError> {
        self.fetch_with(&hub.settings(self.path()), name)
    }

    /// The one line with which fetching `name` fails. Nothing lies outside of the cache afterwards.
    #[track_caller]
    fn refusal(&self, hub: &TestHub, name: &str) -> String {
        let error = self.fetch(hub, name).expect_err("a hostile hub was believed");
        self.assert_contained();
        let message = error.to_string();
        assert!(!message.contains(char::is_control) && message.len() < 600, "{message:?}");
        message.replace(&hub.address, "[HUB]")
    }

    /// Nothing but the cache and the victim is there, and no blob or link leads out of the cache.
    #[track_caller]
    fn assert_contained(&self) {
        for (name, content) in tree(self.path()) {
            match content.strip_prefix("-> ") {
                Some(target) => {
                    let ups = target.matches("../").count();
                    assert!(name.starts_with("hub/models--org--name/snapshots/"), "{name} {content}");
                    assert_eq!(target, format!("{}blobs/{}", "../".repeat(ups), target.rsplit('/').next().unwrap()));
                    assert_eq!(ups, name.matches('/').count() - 2, "{name} {content}");
                }
                None if name == "victim.txt" => assert_eq!(content, "mine"),
                None => assert!(name.starts_with("hub/"), "{name}"),
            }
        }
    }
}

/// A hub with the one file `data.bin`, whose replies to requests for that file `change` alters.
fn hub_with(change: impl Fn(&Received, Reply) -> Reply + Send + Sync + 'static) -> TestHub {
    TestHub::with_files(&[("data.bin", DATA)], move |received, reply| {
        if received.path.starts_with("/api/") { reply } else { change(received, reply) }
    })
}

#[test]
fn correct_file_is_fetched_and_linked() {
    let sandbox = Sandbox::new();
    let hub = hub_with(|_, reply| reply);
    assert_eq!(sandbox.fetch(&hub, "data.bin").unwrap(), DATA);
    sandbox.assert_contained();
    let digest = super::test_server::git_hash(DATA);
    assert_eq!(sandbox.blob_names(), std::slice::from_ref(&digest));
    let link = sandbox.repo_directory().join("snapshots").join(COMMIT).join("data.bin");
    assert_eq!(std::fs::read_link(link).unwrap(), Path::new("../../blobs").join(digest));
}
