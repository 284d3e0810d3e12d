//! Every form of `--model`, with caches in temporary directories and a local HTTP server as the hub.

use std::collections::BTreeMap;
use std::fs;

use tempfile::TempDir;

use super::*;
use crate::hub::test_server::{COMMIT, TestHub, settings as hub_settings};
use crate::import::gguf::test_writer::tiny_llama;
use crate::model::spec::DecoderSpec;
use crate::model::weights::SHARD_INDEX;

/// Settings under `dir`, with a hub that refuses connections.
fn settings_in(dir: &Path) -> LocateSettings {
    LocateSettings { cache: Some(dir.join("cache")), hub: hub_settings(dir) }
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
    let spec = DecoderSpec::parse(&tiny.config_json().unwrap(), "tiny").unwrap();
    assert!(tiny.weights(&spec).unwrap().contains("model.norm.weight"));
    let large = locate_in(Some("synthetic:llama-3.1-8b"), &settings, true).unwrap();
    assert!(large.config_json().unwrap().contains("\"intermediate_size\": 14336"));
    insta::assert_snapshot!(locate_error("synthetic:gpt", &settings), @"unknown preset 'gpt' for synthetic models; use one of tiny, gpt2, smollm2-135m, pythia-160m, gpt2-medium, smollm2-360m, qwen2.5-0.5b, qwen3-0.6b, gemma-3-1b, tinyllama-1.1b, llama-3.2-1b, pythia-1.4b, olmo-2-1b, qwen2.5-1.5b, smollm2-1.7b, qwen3-1.7b, gemma-2b, gemma-2-2b, smollm3-3b, llama-3.2-3b, phi-3-mini, phi-4-mini, gemma-3-4b, mistral-7b, qwen2.5-7b, llama-3.1-8b, qwen3-8b, gemma-2-9b, gemma-3-12b, qwen3-30b-a3b, mixtral-8x7b, llama-3.1-70b");
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
fn fill_hub_cache(settings: &LocateSettings, commit: &str, files: &[(&str, &str)]) -> PathBuf {
    let repo = settings.hub.cache.as_ref().unwrap().join("models--org--name");
    let snapshot = repo.join("snapshots").join(commit);
    fs::create_dir_all(&snapshot).unwrap();
    fs::create_dir_all(repo.join("refs")).unwrap();
    fs::write(repo.join("refs/main"), commit).unwrap();
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
    let snapshot = fill_hub_cache(&settings, "abc", &files);
    let message = locate_error("org/name", &settings);
    let expected = "org/name: there is no local directory of that name, and the hub could not be reached (";
    assert!(message.starts_with(expected), "a shard is missing: {message}");
    settings.hub.offline = true;
    insta::assert_snapshot!(locate_error("org/name", &settings), @"org/name: there is no local directory of that name, and the copy in the hub's cache has no model-2.safetensors while HF_HUB_OFFLINE forbids downloads");
    settings.hub.offline = false;
    fs::write(snapshot.join("model-2.safetensors"), "").unwrap();
    let found = ModelLocation::Directory(snapshot.clone());
    assert_eq!(locate_in(Some("org/name"), &settings, true).unwrap(), found, "the cached copy is used without the hub");
    settings.hub.offline = true;
    assert_eq!(locate_in(Some("org/name"), &settings, true).unwrap(), found);
    insta::assert_snapshot!(locate_error("org/other", &settings), @"org/other: there is no local directory of that name, and the hub's cache has no copy while HF_HUB_OFFLINE forbids downloads");
    insta::assert_snapshot!(locate_error("org/name", &LocateSettings::default()), @"org/name: there is no local directory of that name, and no download directory is known: set HF_HOME to a directory");
}

/// The files of a small model on the hub.
const ON_HUB: [(&str, &[u8]); 5] = [
    ("config.json", b"{}"),
    ("tokenizer.json", b"t"),
    ("tokenizer_config.json", b"{\"chat_template\": \"old\"}"),
    ("chat_template.jinja", b"new"),
    ("model.safetensors", b"weights"),
];

#[test]
fn template_that_the_cache_lacks_is_fetched() {
    for commit in [COMMIT, "abc"] {
        let dir = TempDir::new().unwrap();
        let mut settings = settings_in(dir.path());
        let files = ["config.json", "tokenizer.json", "model.safetensors"].map(|name| (name, "{}"));
        fill_hub_cache(&settings, commit, &files);
        let snapshot = fill_hub_cache(&settings, commit, &[("tokenizer_config.json", r#"{"chat_template": "old"}"#)]);
        settings.hub.offline = true;
        let offline = locate_in(Some("org/name"), &settings, true).unwrap();
        assert_eq!(offline, ModelLocation::Directory(snapshot.clone()), "with a warning");
        let hub = TestHub::with_files(&ON_HUB, |_, reply| reply);
        settings.hub = hub.settings(dir.path());
        let ModelLocation::Directory(found) = locate_in(Some("org/name"), &settings, true).unwrap() else { panic!() };
        assert_eq!(fs::read_to_string(found.join("chat_template.jinja")).unwrap(), "new", "{commit}");
        let weights = hub.paths().iter().any(|path| path.ends_with("model.safetensors"));
        assert_eq!(weights, commit != COMMIT, "only another commit is downloaded as a whole");
        let n_requests = hub.paths().len();
        assert_eq!(locate_in(Some("org/name"), &settings, true).unwrap(), ModelLocation::Directory(found));
        assert_eq!(hub.paths().len(), n_requests, "afterwards the list of files is known");
    }
}

#[test]
fn template_that_the_hub_lacks_is_asked_for_once() {
    let dir = TempDir::new().unwrap();
    let hub = TestHub::with_files(&ON_HUB[..3], |_, reply| reply);
    let settings = LocateSettings { hub: hub.settings(dir.path()), ..settings_in(dir.path()) };
    let files =
        ["config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"].map(|name| (name, "{}"));
    let snapshot = fill_hub_cache(&settings, COMMIT, &files);
    for _ in 0..2 {
        let found = locate_in(Some("org/name"), &settings, true).unwrap();
        assert_eq!(found, ModelLocation::Directory(snapshot.clone()));
        assert_eq!(hub.paths().len(), 1, "{:?}", hub.paths());
    }
}

#[test]
fn hub_model_is_downloaded_once_into_cache() {
    let dir = TempDir::new().unwrap();
    let mut settings = settings_in(dir.path());
    // An older snapshot of which only one file was fetched: the new one must not be mixed with it.
    fill_hub_cache(&settings, "abc", &[("config.json", "old")]);
    let index = br#"{"weight_map": {"a": "model-1.safetensors"}}"#;
    let files: [(&str, &[u8]); 6] = [
        ("config.json", b"new"),
        ("tokenizer.json", b"t"),
        ("tokenizer_config.json", b"c"),
        (SHARD_INDEX, index),
        ("model-1.safetensors", b"weights"),
        ("README.md", b"unwanted"),
    ];
    let hub = TestHub::with_files(&files, |_, reply| reply);
    settings.hub = hub.settings(dir.path());
    let found = locate_in(Some("org/name"), &settings, true).unwrap();
    assert_eq!(found.config_json().unwrap(), "new");
    let ModelLocation::Directory(snapshot) = &found else { panic!() };
    assert_eq!(fs::read_to_string(snapshot.join("model-1.safetensors")).unwrap(), "weights");
    assert!(!snapshot.join("README.md").exists());
    let n_requests = hub.paths().len();
    assert_eq!(locate_in(Some("org/name"), &settings, true).unwrap(), found);
    assert_eq!(hub.paths().len(), n_requests, "the second time must use the cache");

    insta::assert_snapshot!(locate_error("org/other", &settings), @"org/other: there is no local directory of that name, and the hub has no such model");
    let hub = TestHub::with_files(
        &[("config.json", b"{}"), ("tokenizer.json", b"{}"), ("pytorch_model.bin", b"x")],
        |_, r| r,
    );
    let empty = LocateSettings { hub: hub.settings(&dir.path().join("empty")), ..LocateSettings::default() };
    insta::assert_snapshot!(locate_error("org/name", &empty), @"org/name: there is no local directory of that name, and the hub's model of that name has no safetensors weights");
}

#[test]
fn interrupted_download_leaves_the_branch_of_the_cache() {
    let dir = TempDir::new().unwrap();
    let mut settings = settings_in(dir.path());
    let old = fill_hub_cache(&settings, "abc", &[("config.json", "old")]);
    let hub = TestHub::with_files(&ON_HUB, |received, reply| match received.path.ends_with("model.safetensors") {
        true => crate::hub::test_server::Reply::new(403, ""),
        false => reply,
    });
    settings.hub = hub.settings(dir.path());
    assert!(locate_error("org/name", &settings).contains("model.safetensors: the hub refuses access"));
    let branch = old.parent().unwrap().parent().unwrap().join("refs/main");
    assert_eq!(fs::read_to_string(branch).unwrap(), "abc");
}

#[test]
fn damaged_cached_file_is_downloaded_again() {
    let dir = TempDir::new().unwrap();
    let hub = TestHub::with_files(&ON_HUB, |_, reply| reply);
    let mut settings = LocateSettings { hub: hub.settings(dir.path()), ..settings_in(dir.path()) };
    let ModelLocation::Directory(snapshot) = locate_in(Some("org/name"), &settings, true).unwrap() else { panic!() };
    let weights = snapshot.join("model.safetensors");
    // As older clients kept it: the right name, and the bytes before the connection ended.
    fs::write(&weights, "wei").unwrap();
    settings.hub.offline = true;
    assert!(
        locate_error("org/name", &settings)
            .contains("model.safetensors in the hub's cache is damaged while HF_HUB_OFFLINE")
    );
    settings.hub.offline = false;
    locate_in(Some("org/name"), &settings, true).unwrap();
    assert_eq!(fs::read_to_string(&weights).unwrap(), "weights");
}

#[test]
fn hostile_shard_name_is_refused() {
    let dir = TempDir::new().unwrap();
    let index = br#"{"weight_map": {"a": "../../../../victim.safetensors"}}"#;
    let files: [(&str, &[u8]); 3] = [("config.json", b"{}"), ("tokenizer.json", b"{}"), (SHARD_INDEX, index)];
    let hub = TestHub::with_files(&files, |_, reply| reply);
    let settings = LocateSettings { hub: hub.settings(dir.path()), ..LocateSettings::default() };
    assert!(locate_error("org/name", &settings).contains("is not the path of a file in the index's directory"));
}

#[test]
fn cache_that_cannot_be_written_is_named_with_its_variable() {
    let dir = TempDir::new().unwrap();
    let file = tiny_llama().write(dir.path(), "model.gguf");
    // A file in the place of a directory fails for every user, root included.
    let settings = LocateSettings { cache: Some(file.join("cache")), ..LocateSettings::default() };
    let message = locate_in(file.to_str(), &settings, true).unwrap_err().to_string();
    assert!(message.contains("set ACTBENCH_CACHE to a directory"), "{message}");
}

#[test]
fn settings_are_read_from_environment() {
    let settings = |variables: &[(&str, &str)]| {
        let variables: BTreeMap<String, String> =
            variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        LocateSettings::from_environment(&|name| variables.get(name).map(Into::into))
    };
    let path = |text: &str| Some(PathBuf::from(text));
    let home = settings(&[("HOME", "/h"), ("XDG_CACHE_HOME", ""), ("HF_HUB_OFFLINE", "0")]);
    assert_eq!((home.cache, home.hub.cache), (path("/h/.cache/actbench"), path("/h/.cache/huggingface/hub")));
    assert!(!home.hub.offline);
    let xdg = settings(&[("HOME", "/h"), ("XDG_CACHE_HOME", "/x"), ("HF_HOME", "/hf"), ("HF_HUB_OFFLINE", "True")]);
    assert_eq!((xdg.cache, xdg.hub.cache), (path("/x/actbench"), path("/hf/hub")));
    assert!(xdg.hub.offline);
    let own = settings(&[("ACTBENCH_CACHE", "/a"), ("HF_HUB_CACHE", "/c"), ("HF_ENDPOINT", "http://hub/")]);
    assert_eq!((own.cache, own.hub.cache), (path("/a"), path("/c")));
    assert_eq!(own.hub.endpoint.as_deref(), Some("http://hub"));
    assert_eq!(settings(&[]), LocateSettings::default());
}
