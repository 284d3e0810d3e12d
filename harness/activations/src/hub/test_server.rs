//! A hub on loopback for tests: correct by itself, and hostile where a test changes its replies.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sha1::{Digest, Sha1};

use super::settings::{HubSettings, Patience};

/// The commit of the server's main branch.
pub(crate) const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// A request as the server received it.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    /// The path with its query.
    pub path: String,
    /// The first byte of a range, if one was requested.
    pub start: Option<usize>,
    /// The last byte of the range, if it is bounded.
    pub end: Option<usize>,
    /// The header `Authorization`.
    pub authorization: Option<String>,
}

/// A response.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// How many bytes of the body are sent; all by default.
    pub sent: usize,
    /// Whether the connection stays open and silent after that.
    pub stalls: bool,
}

impl Reply {
    pub(crate) fn new(status: u16, body: impl Into<Vec<u8>>) -> Reply {
        let body = body.into();
        let headers = vec![("Content-Length".to_owned(), body.len().to_string())];
        Reply { status, headers, sent: body.len(), body, stalls: false }
    }

    /// Sets a header, or removes it if `value` is none.
    pub(crate) fn with(mut self, name: &str, value: impl Into<Option<String>>) -> Reply {
        self.headers.retain(|(known, _)| !known.eq_ignore_ascii_case(name));
        self.headers.extend(value.into().map(|value| (name.to_owned(), value)));
        self
    }

    fn write(&self, stream: &mut TcpStream) {
        let mut head = format!("HTTP/1.1 {} X\r\nConnection: close\r\n", self.status);
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&self.body[..self.sent]));
        let _ = stream.flush();
        if self.stalls {
            std::thread::sleep(Duration::from_secs(20));
        }
    }
}

/// The files of a repository; the last part of each path of a request selects one.
pub(crate) type Files = BTreeMap<String, Vec<u8>>;

/// A running server.
pub(crate) struct TestHub {
    /// Its address.
    pub address: String,
    requests: Arc<Mutex<Vec<Received>>>,
}

impl TestHub {
    /// Serves with `answer`.
    pub(crate) fn start(answer: impl Fn(&Received) -> Reply + Send + Sync + 'static) -> TestHub {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (log, answer) = (Arc::clone(&requests), Arc::new(answer));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (log, answer) = (Arc::clone(&log), Arc::clone(&answer));
                std::thread::spawn(move || {
                    let mut stream = stream.unwrap();
                    if let Some(received) = read(&stream) {
                        log.lock().unwrap().push(received.clone());
                        answer(&received).write(&mut stream);
                    }
                });
            }
        });
        TestHub { address, requests }
    }

    /// A correct hub with `files`, whose replies `change` may alter.
    pub(crate) fn with_files(
        files: &[(&str, &[u8])],
        change: impl Fn(&Received, Reply) -> Reply + Send + Sync + 'static,
    ) -> TestHub {
        let files: Files = files.iter().map(|(name, bytes)| ((*name).to_owned(), bytes.to_vec())).collect();
        TestHub::start(move |received| change(received, correct(&files, received)))
    }

    /// The paths requested so far.
    pub(crate) fn paths(&self) -> Vec<String> {
        self.requests.lock().unwrap().iter().map(|received| received.path.clone()).collect()
    }

    /// The requests so far.
    pub(crate) fn requests(&self) -> Vec<Received> {
        self.requests.lock().unwrap().clone()
    }

    /// Settings for this hub with a cache in `directory`, and short limits.
    pub(crate) fn settings(&self, directory: &Path) -> HubSettings {
        HubSettings { endpoint: Some(self.address.clone()), ..settings(directory) }
    }
}

/// Settings with a cache in `directory`, a hub that refuses connections, and short limits.
pub(crate) fn settings(directory: &Path) -> HubSettings {
    let patience = Patience {
        connect: Duration::from_secs(5),
        response: Duration::from_secs(5),
        silence: Duration::from_millis(700),
        pause: Duration::from_millis(1),
    };
    HubSettings {
        cache: Some(directory.join("hub")),
        endpoint: Some("http://127.0.0.1:9".to_owned()),
        patience,
        ..HubSettings::default()
    }
}

/// Git's hash of a blob.
pub(crate) fn git_hash(bytes: &[u8]) -> String {
    let mut hasher = Sha1::new();
    hasher.update(format!("blob {}\0", bytes.len()));
    hasher.update(bytes);
    hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The list of `names` as the hub answers it.
pub(crate) fn listing(commit: &str, names: &[&str]) -> String {
    let siblings: Vec<serde_json::Value> = names.iter().map(|name| serde_json::json!({ "rfilename": name })).collect();
    serde_json::json!({ "sha": commit, "siblings": siblings }).to_string()
}

/// The reply of a correct hub to `received`.
pub(crate) fn correct(files: &Files, received: &Received) -> Reply {
    if received.path.starts_with("/api/") {
        let names: Vec<&str> = files.keys().map(String::as_str).collect();
        let reply = Reply::new(200, listing(COMMIT, &names));
        return if received.path.contains("/org/name/") { reply } else { Reply::new(404, "") };
    }
    let prefix = |revision: &str| format!("/org/name/resolve/{revision}/");
    let path = received.path.strip_prefix("/datasets").unwrap_or(&received.path);
    let name = [COMMIT, "main"].iter().find_map(|revision| path.strip_prefix(&prefix(revision)));
    let Some(bytes) = name.and_then(|name| files.get(name)) else { return Reply::new(404, "") };
    let reply = match received.start {
        Some(start) if start < bytes.len() => {
            let end = received.end.unwrap_or(usize::MAX).min(bytes.len() - 1);
            let range = format!("bytes {start}-{end}/{}", bytes.len());
            Reply::new(206, &bytes[start..=end]).with("Content-Range", range)
        }
        Some(_) => Reply::new(416, "").with("Content-Range", format!("bytes */{}", bytes.len())),
        None => Reply::new(200, bytes.clone()),
    };
    reply.with("ETag", format!("\"{}\"", git_hash(bytes))).with("X-Repo-Commit", COMMIT.to_owned())
}

fn read(stream: &TcpStream) -> Option<Received> {
    let mut lines = BufReader::new(stream.try_clone().ok()?).lines().map_while(std::result::Result::ok);
    let path = lines.next()?.split(' ').nth(1)?.to_owned();
    let mut received = Received { path, start: None, end: None, authorization: None };
    for line in lines.take_while(|line| !line.is_empty()) {
        let Some((name, value)) = line.split_once(':') else { continue };
        match name.to_ascii_lowercase().as_str() {
            "authorization" => received.authorization = Some(value.trim().to_owned()),
            "range" => {
                let (start, end) = value.trim().strip_prefix("bytes=")?.split_once('-')?;
                (received.start, received.end) = (start.parse().ok(), end.parse().ok());
            }
            _ => {}
        }
    }
    Some(received)
}

/// All files and links below `directory` with their contents or targets, by path.
pub(crate) fn tree(directory: &Path) -> BTreeMap<String, String> {
    fn walk(root: &Path, directory: &Path, tree: &mut BTreeMap<String, String>) {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let path = entry.path();
            let name = path.strip_prefix(root).unwrap().display().to_string();
            let kind = entry.file_type().unwrap();
            if kind.is_symlink() {
                tree.insert(name, format!("-> {}", fs::read_link(&path).unwrap().display()));
            } else if kind.is_dir() {
                walk(root, &path, tree);
            } else {
                tree.insert(name, String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned());
            }
        }
    }
    let mut found = BTreeMap::new();
    walk(directory, directory, &mut found);
    found
}
