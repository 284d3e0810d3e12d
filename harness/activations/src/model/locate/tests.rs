//! Every form of `--model`, with caches in temporary folders and a hub on this machine.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use tempfile::TempDir;

use super::*;
use crate::import::gguf::test_writer::tiny_llama;
use crate::model::weights::INDEX;

/// Places under `dir`, with a hub where nobody listens.
fn places(dir: &Path) -> Places {
    Places {
        cache: Some(dir.join("cache")),
        hub_cache: Some(dir.join("hub")),
        hub_endpoint: Some("http://127.0.0.1:9".to_owned()),
        ..Places::default()
    }
}

fn refusal(model: &str, places: &Places) -> String {
    let error = locate_in(Some(model), places, true).unwrap_err();
    assert_eq!(error.exit_code(), 2, "{error}");
    let message = error.to_string();
    assert_eq!(message.lines().count(), 1, "{message}");
    message
}

#[test]
fn nothing_embedded_and_synthetic_are_presets() {
    let places = Places::default();
    let tiny = ModelLocation::Synthetic(Preset::find("tiny").unwrap());
    assert_eq!(locate_in(None, &places, true).unwrap(), tiny);
    assert_eq!(locate_in(Some("embedded"), &places, true).unwrap(), tiny);
    assert_eq!(tiny.to_string(), "synthetic:tiny");
    assert!(tiny.weights().unwrap().contains("model.norm.weight"));
    let large = locate_in(Some("synthetic:llama-3.1-8b"), &places, true).unwrap();
    assert!(large.config_json().unwrap().contains("\"intermediate_size\": 14336"));
    insta::assert_snapshot!(refusal("synthetic:gpt", &places), @"no preset 'gpt' for synthetic models; there are tiny, smollm2-135m, smollm2-360m, tinyllama-1.1b, llama-3.2-1b, smollm2-1.7b, llama-3.2-3b, llama-3.1-8b, llama-3.1-70b");
}

#[test]
fn paths_that_are_no_models_say_what_would_be_one() {
    let dir = TempDir::new().unwrap();
    let places = places(dir.path());
    insta::assert_snapshot!(refusal("./nowhere", &places), @"./nowhere: no such model: give a folder, a .gguf file, a hub id like org/name, synthetic:<preset> or embedded");
    insta::assert_snapshot!(refusal("", &places), @"--model: no such model: give a folder, a .gguf file, a hub id like org/name, synthetic:<preset> or embedded");
    for strange in ["gpt2", "a/b/c", "/a/b", "../a", "org/na me", "org/", "org/../x", "~/model", "missing.gguf", "ö/x"]
    {
        assert!(refusal(strange, &places).contains("no such model"), "{strange}");
    }
    let message = refusal(dir.path().to_str().unwrap(), &places);
    assert!(message.ends_with("has no config.json, so it is no model folder"), "{message}");
    let file = dir.path().join("model.safetensors");
    fs::write(&file, b"").unwrap();
    let message = refusal(file.to_str().unwrap(), &places);
    assert!(message.ends_with("is no .gguf file; of other models, name the folder"), "{message}");
}

#[test]
fn a_folder_is_taken_as_it_is() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("config.json"), "{}").unwrap();
    let found = locate_in(dir.path().to_str(), &Places::default(), true).unwrap();
    assert_eq!(found, ModelLocation::Directory(dir.path().to_path_buf()));
    assert_eq!(found.config_json().unwrap(), "{}");
}

#[test]
fn a_gguf_file_is_imported_once_and_known_by_its_contents() {
    let dir = TempDir::new().unwrap();
    let places = places(dir.path());
    let file = tiny_llama().write(dir.path(), "model.GGUF");
    let ModelLocation::Directory(first) = locate_in(file.to_str(), &places, true).unwrap() else { panic!() };
    assert!(first.starts_with(dir.path().join("cache/imported")), "{}", first.display());
    let marker = first.join("marker");
    fs::write(&marker, b"").unwrap();
    let moved = dir.path().join("moved.gguf");
    fs::rename(&file, &moved).unwrap();
    assert_eq!(locate_in(moved.to_str(), &places, true).unwrap(), ModelLocation::Directory(first));
    assert!(marker.exists(), "not imported again");

    fs::write(&moved, b"GGUF").unwrap();
    let message = refusal(moved.to_str().unwrap(), &places);
    assert!(message.contains("moved.gguf: the file is truncated"), "{message}");
    let message = refusal(moved.to_str().unwrap(), &Places::default());
    assert!(message.ends_with("set ACTBENCH_CACHE to one"), "{message}");
    assert_eq!(fs::read_dir(dir.path().join("cache/imported")).unwrap().count(), 1, "no remains of the failure");
}

/// Puts files into a hub cache as the hub's clients do.
fn fill_hub_cache(places: &Places, files: &[(&str, &str)]) -> PathBuf {
    let repo = places.hub_cache.as_ref().unwrap().join("models--org--name");
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
fn a_model_in_the_hubs_cache_needs_no_network() {
    let dir = TempDir::new().unwrap();
    let mut places = places(dir.path());
    let index = r#"{"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}"#;
    let files = [("config.json", "{}"), ("tokenizer.json", "{}"), (INDEX, index), ("model-1.safetensors", "")];
    let snapshot = fill_hub_cache(&places, &files);
    let message = refusal("org/name", &places);
    let expected = "org/name: no local folder of that name, and the hub could not be reached (";
    assert!(message.starts_with(expected), "a shard is missing: {message}");
    fs::write(snapshot.join("model-2.safetensors"), "").unwrap();
    let found = ModelLocation::Directory(snapshot.clone());
    assert_eq!(locate_in(Some("org/name"), &places, true).unwrap(), found, "goes on without the hub");
    places.offline = true;
    assert_eq!(locate_in(Some("org/name"), &places, true).unwrap(), found);
    insta::assert_snapshot!(refusal("org/other", &places), @"org/other: no local folder of that name, and it is not complete in the hub's cache while HF_HUB_OFFLINE forbids downloads");
    insta::assert_snapshot!(refusal("org/name", &Places::default()), @"org/name: no local folder of that name, and no folder for downloads: set HF_HOME to one");
}

/// A hub on this machine that has `files` of `org/name` and keeps a list of what it is asked for.
fn serve(files: &[(&str, &str)]) -> (String, Arc<Mutex<Vec<String>>>) {
    let files: BTreeMap<String, String> =
        files.iter().map(|(name, contents)| ((*name).to_owned(), (*contents).to_owned())).collect();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let asked = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&asked);
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
    (address, asked)
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
fn a_model_is_downloaded_into_the_hubs_cache_and_then_found_there() {
    let dir = TempDir::new().unwrap();
    let mut places = places(dir.path());
    // An older snapshot of which only one file was fetched: the new one must not be mixed with it.
    fill_hub_cache(&places, &[("config.json", "old")]);
    let index = r#"{"weight_map": {"a": "model-1.safetensors"}}"#;
    let (address, asked) = serve(&[
        ("config.json", "new"),
        ("tokenizer.json", "t"),
        ("tokenizer_config.json", "c"),
        (INDEX, index),
        ("model-1.safetensors", "weights"),
        ("README.md", "unwanted"),
    ]);
    places.hub_endpoint = Some(address);
    let found = locate_in(Some("org/name"), &places, true).unwrap();
    assert_eq!(found.config_json().unwrap(), "new");
    let ModelLocation::Directory(snapshot) = &found else { panic!() };
    assert_eq!(fs::read_to_string(snapshot.join("model-1.safetensors")).unwrap(), "weights");
    assert!(!snapshot.join("README.md").exists());
    let n_requests = asked.lock().unwrap().len();
    assert_eq!(locate_in(Some("org/name"), &places, true).unwrap(), found);
    assert_eq!(asked.lock().unwrap().len(), n_requests, "the second time comes from the cache");

    insta::assert_snapshot!(refusal("org/other", &places), @"org/other: no local folder of that name, and the hub has no such model");
    let (address, _) = serve(&[("config.json", "{}"), ("tokenizer.json", "{}"), ("pytorch_model.bin", "x")]);
    let mut empty = self::places(&dir.path().join("empty"));
    empty.hub_endpoint = Some(address);
    insta::assert_snapshot!(refusal("org/name", &empty), @"org/name: no local folder of that name, and the hub's model of that name has no safetensors weights");
}

#[test]
fn the_environment_says_where_caches_are() {
    let places = |variables: &[(&str, &str)]| {
        let variables: BTreeMap<String, String> =
            variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Places::from_environment(|name| variables.get(name).cloned())
    };
    let path = |text: &str| Some(PathBuf::from(text));
    let home = places(&[("HOME", "/h"), ("XDG_CACHE_HOME", ""), ("HF_HUB_OFFLINE", "0")]);
    assert_eq!((home.cache, home.hub_cache), (path("/h/.cache/actbench"), path("/h/.cache/huggingface/hub")));
    assert!(!home.offline);
    let xdg = places(&[("HOME", "/h"), ("XDG_CACHE_HOME", "/x"), ("HF_HOME", "/hf"), ("HF_HUB_OFFLINE", "True")]);
    assert_eq!((xdg.cache, xdg.hub_cache), (path("/x/actbench"), path("/hf/hub")));
    assert!(xdg.offline);
    let own = places(&[("ACTBENCH_CACHE", "/a"), ("HF_HUB_CACHE", "/c"), ("HF_ENDPOINT", "http://hub/")]);
    assert_eq!((own.cache, own.hub_cache), (path("/a"), path("/c")));
    assert_eq!(own.hub_endpoint.as_deref(), Some("http://hub"));
    assert_eq!(places(&[]), Places::default());
}
