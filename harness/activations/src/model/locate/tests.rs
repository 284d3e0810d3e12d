//! Every form of `--model`, with caches in temporary directories and a local HTTP server as the hub.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use tempfile::TempDir;

use super::*;
use crate::import::gguf::test_writer::tiny_llama;
use crate::model::weights::SHARD_INDEX;

/// Settings under `dir`, with a hub that refuses connections.
fn settings_in(dir: &Path) -> LocateSettings {
    LocateSettings {
        cache: Some(dir.join("cache")),
        hub_cache: Some(dir.join("hub")),
        hub_endpoint: Some("http://127.0.0.1:9".to_owned()),
        ..LocateSettings::default()
    }
}

fn locate_error(model: &str, settings: &LocateSettings) -> String {
    let error = locate_in(Some(model), settings, true).unwrap_err();
    assert_eq!(error.exit_code(), 2, "{error}");
    let message = error.to_string();
    assert_eq!(message.lines().count(), 1, "{message}");
    message
}

#[test]
fn default_embedded_and_synthetic_models_are_presets() {
    let settings = LocateSettings::default();
    let tiny = ModelLocation::Synthetic(Preset::find("tiny").unwrap());
    assert_eq!(locate_in(None, &settings, true).unwrap(), tiny);
    assert_eq!(locate_in(Some("embedded"), &settings, true).unwrap(), tiny);
    assert_eq!(tiny.to_string(), "synthetic:tiny");
    assert!(tiny.weights().unwrap().contains("model.norm.weight"));
    let large = locate_in(Some("synthetic:llama-3.1-8b"), &settings, true).unwrap();
    assert!(large.config_json().unwrap().contains("\"intermediate_size\": 14336"));
    insta::assert_snapshot!(locate_error("synthetic:gpt", &settings), @"unknown preset 'gpt' for synthetic models; use one of tiny, smollm2-135m, smollm2-360m, tinyllama-1.1b, llama-3.2-1b, smollm2-1.7b, llama-3.2-3b, llama-3.1-8b, llama-3.1-70b");
}

#[test]
fn unknown_model_error_lists_accepted_forms() {
    let dir = TempDir::new().unwrap();
    let settings = settings_in(dir.path());
    insta::assert_snapshot!(locate_error("./nowhere", &settings), @"./nowhere: no such model: give a directory, a .gguf file, a hub id like org/name, synthetic:<preset> or embedded");
    insta::assert_snapshot!(locate_error("", &settings), @"--model: no such model: give a directory, a .gguf file, a hub id like org/name, synthetic:<preset> or embedded");
    for strange in ["gpt2", "a/b/c", "/a/b", "../a", "org/na me", "org/", "org/../x", "~/model", "missing.gguf", "ö/x"]
    {
        assert!(locate_error(strange, &settings).contains("no such model"), "{strange}");
    }
    let message = locate_error(dir.path().to_str().unwrap(), &settings);
    assert!(message.ends_with("has no config.json, so it is not a model directory"), "{message}");
    let file = dir.path().join("model.safetensors");
    fs::write(&file, b"").unwrap();
    let message = locate_error(file.to_str().unwrap(), &settings);
    assert!(message.ends_with("is not a .gguf file; for other formats, give the model's directory"), "{message}");
}

#[test]
fn model_directory_is_used_unchanged() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("config.json"), "{}").unwrap();
    let found = locate_in(dir.path().to_str(), &LocateSettings::default(), true).unwrap();
    assert_eq!(found, ModelLocation::Directory(dir.path().to_path_buf()));
    assert_eq!(found.config_json().unwrap(), "{}");
}

#[test]
fn gguf_file_is_imported_once_by_digest() {
    let dir = TempDir::new().unwrap();
    let settings = settings_in(dir.path());
    let file = tiny_llama().write(dir.path(), "model.GGUF");
    let ModelLocation::Directory(first) = locate_in(file.to_str(), &settings, true).unwrap() else { panic!() };
    assert!(first.starts_with(dir.path().join("cache/imported")), "{}", first.display());
    let marker = first.join("marker");
    fs::write(&marker, b"").unwrap();
    let moved = dir.path().join("moved.gguf");
    fs::rename(&file, &moved).unwrap();
    assert_eq!(locate_in(moved.to_str(), &settings, true).unwrap(), ModelLocation::Directory(first));
    assert!(marker.exists(), "not imported again");

    fs::write(&moved, b"GGUF").unwrap();
    let message = locate_error(moved.to_str().unwrap(), &settings);
    assert!(message.contains("moved.gguf: the file is truncated"), "{message}");
    let message = locate_error(moved.to_str().unwrap(), &LocateSettings::default());
    assert!(message.ends_with("set ACTBENCH_CACHE to a directory"), "{message}");
    assert_eq!(fs::read_dir(dir.path().join("cache/imported")).unwrap().count(), 1, "a failed import left files");
}

/// Puts files into a hub cache as the hub's clients do.
fn fill_hub_cache(settings: &LocateSettings, files: &[(&str, &str)]) -> PathBuf {
    let repo = settings.hub_cache.as_ref().unwrap().join("models--org--name");
    let snapshot = repo.join("snapshots/abc");
    fs::create_dir_all(&snapshot).unwrap();
    fs::create_dir_all(repo.join("refs")).unwrap();
    fs::write(repo.join("refs/main"), "abc").unwrap();
    for (name, contents) in files {
        fs::write(snapshot.join(name), contents).unwrap();
    }
    snapshot
}

#[test]
fn cached_hub_model_needs_no_network() {
    let dir = TempDir::new().unwrap();
    let mut settings = settings_in(dir.path());
    let index = r#"{"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}"#;
    let files = [("config.json", "{}"), ("tokenizer.json", "{}"), (SHARD_INDEX, index), ("model-1.safetensors", "")];
    let snapshot = fill_hub_cache(&settings, &files);
    let message = locate_error("org/name", &settings);
    let expected = "org/name: there is no local directory of that name, and the hub could not be reached (";
    assert!(message.starts_with(expected), "a shard is missing: {message}");
    fs::write(snapshot.join("model-2.safetensors"), "").unwrap();
    let found = ModelLocation::Directory(snapshot.clone());
    assert_eq!(locate_in(Some("org/name"), &settings, true).unwrap(), found, "the cached copy is used without the hub");
    settings.offline = true;
    assert_eq!(locate_in(Some("org/name"), &settings, true).unwrap(), found);
    insta::assert_snapshot!(locate_error("org/other", &settings), @"org/other: there is no local directory of that name, and the copy in the hub's cache is incomplete while HF_HUB_OFFLINE forbids downloads");
    insta::assert_snapshot!(locate_error("org/name", &LocateSettings::default()), @"org/name: there is no local directory of that name, and no download directory is known: set HF_HOME to a directory");
}

/// A local server with `files` of `org/name`, and the list of paths that it was asked for.
fn serve(files: &[(&str, &str)]) -> (String, Arc<Mutex<Vec<String>>>) {
    let files: BTreeMap<String, String> =
        files.iter().map(|(name, contents)| ((*name).to_owned(), (*contents).to_owned())).collect();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let requests = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&requests);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(std::result::Result::ok);
            let path = lines.next().unwrap_or_default().split(' ').nth(1).unwrap_or_default().to_owned();
            let range = lines.by_ref().take_while(|line| !line.is_empty()).fold(None, |range, line| {
                line.to_ascii_lowercase().strip_prefix("range: bytes=").map(str::to_owned).or(range)
            });
            log.lock().unwrap().push(path.clone());
            let response = answer(&files, &path, range.as_deref());
            stream.write_all(response.as_bytes()).unwrap();
        }
    });
    (address, requests)
}

fn answer(files: &BTreeMap<String, String>, path: &str, range: Option<&str>) -> String {
    let reply = |status: &str, headers: &str, body: &str| {
        format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n{headers}\r\n{body}", body.len())
    };
    if path == "/api/models/org/name/revision/main" {
        let siblings: Vec<String> = files.keys().map(|name| format!(r#"{{"rfilename": "{name}"}}"#)).collect();
        return reply("200 OK", "", &format!(r#"{{"sha": "c0ffee", "siblings": [{}]}}"#, siblings.join(",")));
    }
    let Some(contents) = path.strip_prefix("/org/name/resolve/main/").and_then(|name| files.get(name)) else {
        return reply("404 Not Found", "", "");
    };
    let body = if range == Some("0-0") { &contents[..1] } else { contents };
    let headers = format!(
        "ETag: \"{}\"\r\nX-Repo-Commit: c0ffee\r\nContent-Range: bytes 0-{}/{}\r\n",
        blake3::hash(contents.as_bytes()).to_hex(),
        body.len() - 1,
        contents.len()
    );
    reply("206 Partial Content", &headers, body)
}

#[test]
fn hub_model_is_downloaded_once_into_cache() {
    let dir = TempDir::new().unwrap();
    let mut settings = settings_in(dir.path());
    // An older snapshot of which only one file was fetched: the new one must not be mixed with it.
    fill_hub_cache(&settings, &[("config.json", "old")]);
    let index = r#"{"weight_map": {"a": "model-1.safetensors"}}"#;
    let (address, requests) = serve(&[
        ("config.json", "new"),
        ("tokenizer.json", "t"),
        ("tokenizer_config.json", "c"),
        (SHARD_INDEX, index),
        ("model-1.safetensors", "weights"),
        ("README.md", "unwanted"),
    ]);
    settings.hub_endpoint = Some(address);
    let found = locate_in(Some("org/name"), &settings, true).unwrap();
    assert_eq!(found.config_json().unwrap(), "new");
    let ModelLocation::Directory(snapshot) = &found else { panic!() };
    assert_eq!(fs::read_to_string(snapshot.join("model-1.safetensors")).unwrap(), "weights");
    assert!(!snapshot.join("README.md").exists());
    let n_requests = requests.lock().unwrap().len();
    assert_eq!(locate_in(Some("org/name"), &settings, true).unwrap(), found);
    assert_eq!(requests.lock().unwrap().len(), n_requests, "the second time must use the cache");

    insta::assert_snapshot!(locate_error("org/other", &settings), @"org/other: there is no local directory of that name, and the hub has no such model");
    let (address, _) = serve(&[("config.json", "{}"), ("tokenizer.json", "{}"), ("pytorch_model.bin", "x")]);
    let mut empty = settings_in(&dir.path().join("empty"));
    empty.hub_endpoint = Some(address);
    insta::assert_snapshot!(locate_error("org/name", &empty), @"org/name: there is no local directory of that name, and the hub's model of that name has no safetensors weights");
}

#[test]
fn settings_are_read_from_environment() {
    let settings = |variables: &[(&str, &str)]| {
        let variables: BTreeMap<String, String> =
            variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        LocateSettings::from_environment(|name| variables.get(name).cloned())
    };
    let path = |text: &str| Some(PathBuf::from(text));
    let home = settings(&[("HOME", "/h"), ("XDG_CACHE_HOME", ""), ("HF_HUB_OFFLINE", "0")]);
    assert_eq!((home.cache, home.hub_cache), (path("/h/.cache/actbench"), path("/h/.cache/huggingface/hub")));
    assert!(!home.offline);
    let xdg = settings(&[("HOME", "/h"), ("XDG_CACHE_HOME", "/x"), ("HF_HOME", "/hf"), ("HF_HUB_OFFLINE", "True")]);
    assert_eq!((xdg.cache, xdg.hub_cache), (path("/x/actbench"), path("/hf/hub")));
    assert!(xdg.offline);
    let own = settings(&[("ACTBENCH_CACHE", "/a"), ("HF_HUB_CACHE", "/c"), ("HF_ENDPOINT", "http://hub/")]);
    assert_eq!((own.cache, own.hub_cache), (path("/a"), path("/c")));
    assert_eq!(own.hub_endpoint.as_deref(), Some("http://hub"));
    assert_eq!(settings(&[]), LocateSettings::default());
}
