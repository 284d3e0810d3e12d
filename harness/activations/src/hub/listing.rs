//! The list of a commit's files.

use std::time::{Duration, Instant};

use serde::Deserialize;

use super::cache::FileList;
use super::client::Client;
use super::names::{self, shown};
use super::{Repo, Result, remote};

/// The longest list that is read. That of a hundred thousand files takes about a tenth.
const MAX_LIST: usize = 64 << 20;

/// The time limit of a list as a whole.
const LIST_TIME: Duration = Duration::from_secs(60);

#[derive(Deserialize)]
struct Answer {
    sha: Option<String>,
    siblings: Option<Vec<Sibling>>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
}

/// A commit and its files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Listing {
    /// The hash of the commit.
    pub commit: String,
    /// Its files, without sizes.
    pub files: FileList,
}

impl Client {
    /// The files of `revision`, a branch or a commit.
    ///
    /// # Errors
    /// The hub cannot be reached, has no such revision, or its answer is not that of a hub.
    pub(crate) fn list(&self, repo: &Repo, revision: &str) -> Result<Listing> {
        let path = format!("/api/{}/{}/revision/{}", repo.kind.plural(), repo.id, names::encoded(revision));
        let mut arrival = self.request(repo, &path, None)?;
        if arrival.exchange.status == 404 {
            return remote(format!("the hub has no such {}", repo.kind.noun()));
        }
        let not_a_hub =
            |what: &str| remote(format!("the server at {} is not a hub: {what}; check HF_ENDPOINT", self.endpoint()));
        if let Some(encoding) = arrival.exchange.header("content-encoding").filter(|encoding| *encoding != "identity") {
            return not_a_hub(&format!("it compresses its answer ({}) without being asked", shown(encoding)));
        }
        let is_page = arrival.exchange.header("content-type").is_some_and(|kind| kind.contains("html"));
        let start = Instant::now();
        let mut text = Vec::new();
        while let Some(block) = arrival.exchange.next_block()? {
            text.extend_from_slice(&block);
            if text.len() > MAX_LIST {
                return not_a_hub(&format!("its list of files is longer than {} MiB", MAX_LIST >> 20));
            }
            if start.elapsed() > LIST_TIME {
                return remote(format!(
                    "the hub's list of files took longer than {} s: try again",
                    LIST_TIME.as_secs()
                ));
            }
        }
        let answer: Answer = match serde_json::from_slice(&text) {
            Ok(answer) => answer,
            Err(_) if is_page || text.trim_ascii_start().starts_with(b"<") => {
                return not_a_hub("it answers with a web page");
            }
            Err(error) => return not_a_hub(&format!("its list of files cannot be read ({error})")),
        };
        let Some(commit) = answer.sha.filter(|commit| !commit.is_empty()) else {
            return not_a_hub("its list of files names no commit");
        };
        if !names::is_commit(&commit) {
            return remote(format!("the hub names a commit that is not a hash: {}", shown(&commit)));
        }
        let Some(siblings) = answer.siblings else { return not_a_hub("its list of files has no `siblings`") };
        Ok(Listing { commit, files: siblings.into_iter().map(|sibling| (sibling.rfilename, None)).collect() })
    }
}
