//! Downloads a file into the cache: announced size and digest, a partial file that resumes, verification, a blob.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use indicatif::ProgressBar;

use super::cache::{RepoCache, create_parent, write_error};
use super::client::Client;
use super::digest::{Announced, sha256, sha256_of};
use super::exchange::{Break, Exchange, unreachable};
use super::lock::DownloadLock;
use super::names::{self, shown};
use super::redirects::Arrival;
use super::{HubError, Repo, Result, interrupt, remote};
use crate::error::Error;
use crate::progress::progress_bar;

/// The bar of a file.
const DOWNLOAD: &str = "{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}";

/// The limit of tries in a row that bring no new byte, where one that ends by silence counts double, as it takes long.
const IDLE_TRIES: u32 = 4;

/// All tries of a file. A connection that ends early may do so often in a large file.
const TRIES: u32 = 50;

/// A file as the hub announces it before its bytes.
struct Facts {
    etag: String,
    digest: Option<Announced>,
    size: Option<u64>,
    /// The path of the request.
    path: String,
}

/// The end of one try.
enum Received {
    /// All bytes are there.
    All,
    /// The connection ended early, by silence if `silent` is set.
    Part { reason: String, silent: bool },
    /// The partial file does not continue: it must be dropped.
    Restart(String),
}

impl Client {
    /// Downloads the file `name` of `commit` into the cache, unless its blob is there, and returns its size.
    ///
    /// # Errors
    /// A hostile name or header; a network failure; bytes that are not the announced ones; a failed write. One line that starts
    /// with the name of the file. After a network failure the bytes so far are kept, and the next call resumes.
    pub(crate) fn fetch(&self, repo: &Repo, cache: &RepoCache, commit: &str, name: &str) -> Result<u64> {
        self.fetch_file(repo, cache, commit, name).map_err(|error| match error {
            HubError::Remote(reason) => HubError::Remote(format!("{}: {reason}", shown_name(name))),
            local => local,
        })
    }

    fn fetch_file(&self, repo: &Repo, cache: &RepoCache, commit: &str, name: &str) -> Result<u64> {
        names::check_file_name(name).map_err(HubError::Remote)?;
        let facts = self.facts(repo, commit, name)?;
        // Only a digest may name a blob. Another ETag may be shared by two files.
        let key = match &facts.digest {
            Some(Announced::Sha256(digest) | Announced::Git(digest)) => digest.clone(),
            None => sha256_of(&format!("{name}\n{}\n{:?}", facts.etag, facts.size)),
        };
        let lock = cache.lock(&key);
        create_parent(&lock)?;
        create_parent(&cache.blobs().join(&key))?;
        let lock = DownloadLock::acquire(&lock, name)?;
        if let Some(digest) = &facts.digest {
            let blob = cache.blobs().join(&key);
            if let Ok(size) = blob.metadata().map(|metadata| metadata.len()) {
                if facts.size.is_none_or(|expected| expected == size) && verified(digest, &blob)? {
                    cache.link(commit, name, &key)?;
                    return Ok(size);
                }
                tracing::warn!("{name}: the hub's cache has a damaged copy; downloading it again");
            }
        }
        // Without a lock another process may write at the same time, so that the file needs a name of its own.
        let own = if lock.is_exclusive() { String::new() } else { format!(".{}", std::process::id()) };
        let partial = cache.blobs().join(format!("{key}{own}.incomplete"));
        let outcome = self.complete(repo, &facts, name, &partial);
        if outcome.is_err() && !lock.is_exclusive() {
            let _ = fs::remove_file(&partial);
        }
        outcome?;
        let blob = if facts.digest.is_some() { key } else { read(&partial, sha256(&partial))? };
        let size = partial.metadata().map_err(Error::io("read", &partial))?.len();
        let target = cache.blobs().join(&blob);
        fs::rename(&partial, &target).map_err(|error| write_error("create", &target, error))?;
        cache.link(commit, name, &blob)?;
        Ok(size)
    }

    /// Asks for the first byte of the file, which brings its size, digest and commit.
    fn facts(&self, repo: &Repo, commit: &str, name: &str) -> Result<Facts> {
        let path = |revision: &str| {
            let kind = match repo.kind {
                super::RepoKind::Model => "",
                super::RepoKind::Dataset => "datasets/",
            };
            format!("/{kind}{}/resolve/{revision}/{}", repo.id, names::encoded(name))
        };
        let mut chosen = path(commit);
        let mut arrival = self.request(repo, &chosen, Some("bytes=0-0"))?;
        if arrival.exchange.status == 404 {
            // A mirror may know the branch only; the commit in the answer shows whether it is the right one.
            let by_branch = path(super::cache::BRANCH);
            let other = self.request(repo, &by_branch, Some("bytes=0-0"))?;
            if other.exchange.status == 404 || other.commit.as_deref() != Some(commit) {
                return remote("the hub lists this file and does not have it");
            }
            (chosen, arrival) = (by_branch, other);
        }
        if let Some(other) = arrival.commit.as_deref().filter(|other| *other != commit) {
            return remote(format!("the hub answers with the commit {} in place of {commit}: try again", shown(other)));
        }
        let Some(etag) = arrival.etag.as_deref().filter(|etag| !etag.trim().is_empty()) else {
            return remote("the server announces no ETag, as a hub does for every file: check HF_ENDPOINT");
        };
        let Some(etag) = names::etag_value(etag) else {
            return remote(format!("the server announces the invalid ETag {}", shown(etag)));
        };
        let facts = Facts {
            etag: etag.to_owned(),
            digest: Announced::parse(etag),
            size: announced_size(&arrival),
            path: chosen,
        };
        if facts.size.is_none() && facts.digest.is_none() {
            return remote(
                "the server announces neither the size nor the digest of the file, so that it cannot be verified",
            );
        }
        Ok(facts)
    }

    /// Completes the partial file and verifies it. If it continued earlier bytes and the digest differs, it starts again once.
    fn complete(&self, repo: &Repo, facts: &Facts, name: &str, partial: &Path) -> Result<()> {
        let bar = progress_bar(DOWNLOAD, facts.size, self.quiet);
        bar.set_message(name.to_owned());
        let mut continued = length(partial) > 0;
        loop {
            let received = self.receive_all(repo, facts, partial, &bar);
            bar.finish_and_clear();
            received?;
            let Some(digest) = &facts.digest else { return Ok(()) };
            if verified(digest, partial)? {
                return Ok(());
            }
            fs::remove_file(partial).map_err(Error::io("remove", partial))?;
            if !continued {
                return remote("the server's bytes do not have the announced digest; nothing was kept");
            }
            continued = false;
        }
    }

    /// Requests the missing bytes until all are there.
    fn receive_all(&self, repo: &Repo, facts: &Facts, partial: &Path, bar: &ProgressBar) -> Result<()> {
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(partial)
            .map_err(|error| write_error("create", partial, error))?;
        let size_now = |file: &File| file.metadata().map(|metadata| metadata.len()).map_err(Error::io("read", partial));
        let restart = |file: &File| file.set_len(0).map_err(|error| write_error("write", partial, error));
        if facts.size.is_none_or(|size| size_now(&file).is_ok_and(|now| now > size)) {
            restart(&file)?;
        }
        check_space(partial, facts.size, size_now(&file)?)?;
        let (mut best, mut idle, mut may_resume) = (size_now(&file)?, 0, true);
        for attempt in 1..=TRIES {
            let (reason, weight) = match self.receive(repo, facts, (&mut file, partial), bar)? {
                Received::All => {
                    file.sync_all().map_err(|error| write_error("write", partial, error))?;
                    return Ok(());
                }
                Received::Part { reason, silent } => (reason, if silent { 2 } else { 1 }),
                Received::Restart(reason) => {
                    restart(&file)?;
                    if !may_resume {
                        return remote(reason);
                    }
                    may_resume = false;
                    (reason, 1)
                }
            };
            let now = size_now(&file)?;
            idle = if now > best { 0 } else { idle + weight };
            best = best.max(now);
            if idle >= IDLE_TRIES || attempt == TRIES {
                return remote(format!("{}; the next try resumes at byte {now}", unreachable(&reason)));
            }
            self.pause(self.patience().pause * (1 << idle.min(3)))?;
        }
        remote("the connection ended too often: try again")
    }

    /// One request for the bytes from the end of the file on.
    fn receive(&self, repo: &Repo, facts: &Facts, target: (&mut File, &Path), bar: &ProgressBar) -> Result<Received> {
        use std::io::{Seek, SeekFrom};
        let (file, partial) = target;
        let failed = |error: io::Error| HubError::from(write_error("write", partial, error));
        let mut at = file.seek(SeekFrom::End(0)).map_err(failed)?;
        if facts.size == Some(at) {
            return Ok(Received::All);
        }
        let range = (at > 0).then(|| format!("bytes={at}-"));
        let mut arrival = self.request(repo, &facts.path, range.as_deref())?;
        check_body(&arrival, facts)?;
        match (arrival.exchange.status, content_range(&arrival.exchange)) {
            (206, Some((Some(start), total))) => {
                if start != at || total.is_some() && facts.size.is_some() && total != facts.size {
                    return Ok(Received::Restart(
                        "the server answers with another part of the file than requested".to_owned(),
                    ));
                }
            }
            (200, _) => {
                file.set_len(0).and_then(|()| file.rewind()).map_err(failed)?;
                at = 0;
            }
            (404, _) => return remote("the hub lists this file and does not have it"),
            (status, _) => return Ok(Received::Restart(format!("the server answers a range with status {status}"))),
        }
        bar.set_position(at);
        loop {
            let block = match arrival.exchange.next_block() {
                Ok(Some(block)) => block,
                Ok(None) => break,
                Err(Break::Silent(reason)) => return Ok(Received::Part { reason, silent: true }),
                Err(Break::Cut(reason) | Break::Unreachable(reason)) => {
                    return Ok(Received::Part { reason, silent: false });
                }
                Err(Break::Interrupted) => return Err(Error::Interrupted.into()),
            };
            at += block.len() as u64;
            if let Some(size) = facts.size.filter(|size| at > *size) {
                file.set_len(0).map_err(failed)?;
                return remote(format!("the server sends more than the announced {size} bytes"));
            }
            file.write_all(&block).map_err(failed)?;
            bar.set_position(at);
        }
        match facts.size {
            Some(size) if at < size => {
                Ok(Received::Part { reason: format!("the connection ended after {at} of {size} bytes"), silent: false })
            }
            _ => Ok(Received::All),
        }
    }
}

/// Refuses a body that cannot be the announced file.
fn check_body(arrival: &Arrival, facts: &Facts) -> Result<()> {
    let exchange = &arrival.exchange;
    if let Some(encoding) = exchange.header("content-encoding").filter(|encoding| *encoding != "identity") {
        return remote(format!("the server compresses the file ({}) although it must not", shown(encoding)));
    }
    if arrival.from_hub
        && let Some(etag) = arrival.etag.as_deref()
        && names::etag_value(etag) != Some(facts.etag.as_str())
    {
        return remote("the hub's file changed during the download: try again");
    }
    let length = exchange.header("content-length").and_then(|text| text.trim().parse::<u64>().ok());
    match (exchange.status, length, facts.size) {
        (200, Some(length), Some(size)) if length > size => {
            remote(format!("the server announces {size} bytes and sends {length}"))
        }
        _ => Ok(()),
    }
}

/// The size of the whole file that a response to the first byte's request announces.
fn announced_size(arrival: &Arrival) -> Option<u64> {
    let exchange = &arrival.exchange;
    let here = match exchange.status {
        200 => exchange.header("content-length").and_then(|text| text.trim().parse().ok()),
        _ => content_range(exchange).and_then(|(_, total)| total),
    };
    arrival.size.or(here)
}

/// First byte and total of `Content-Range: bytes 5-9/10`; either is none where the header has `*`.
fn content_range(exchange: &Exchange) -> Option<(Option<u64>, Option<u64>)> {
    let (range, total) = exchange.header("content-range")?.trim().strip_prefix("bytes ")?.split_once('/')?;
    let start = range.split_once('-').and_then(|(start, _)| start.trim().parse().ok());
    Some((start, total.trim().parse().ok()))
}

fn length(path: &Path) -> u64 {
    path.metadata().map_or(0, |metadata| metadata.len())
}

/// Whether the file has the digest.
fn verified(digest: &Announced, path: &Path) -> Result<bool> {
    read(path, digest.matches(path))
}

/// The result of reading a file, which an interrupt may have ended.
fn read<T>(path: &Path, result: io::Result<T>) -> Result<T> {
    result.map_err(|error| match error {
        _ if interrupt::requested() => Error::Interrupted.into(),
        error => Error::io("read", path)(error).into(),
    })
}

/// Refuses a file that is larger than the free space, before hours of download.
fn check_space(partial: &Path, size: Option<u64>, present: u64) -> Result<()> {
    let directory: PathBuf = partial.parent().map(Path::to_path_buf).unwrap_or_default();
    let (Some(size), Ok(free)) = (size, fs4::available_space(&directory)) else { return Ok(()) };
    let missing = size.saturating_sub(present);
    if missing <= free {
        return Ok(());
    }
    let error = io::Error::new(ErrorKind::StorageFull, format!("{missing} bytes are missing and {free} are free"));
    Err(write_error("write", partial, error).into())
}

/// A file name of the hub for a message.
fn shown_name(name: &str) -> String {
    if names::check_file_name(name).is_ok() { name.to_owned() } else { shown(name) }
}
