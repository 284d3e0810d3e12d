//! The cache as other clients make it and read it.

use std::fs;

use super::*;
use crate::hub::cache::{CachedFile, may_lack};
use crate::hub::test_server::git_hash;

fn cache(sandbox: &Sandbox) -> RepoCache {
    RepoCache::new(&sandbox.path().join("hub"), &repo())
}

fn put(sandbox: &Sandbox, path: &str, text: &str) {
    let path = sandbox.repo_directory().join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

#[test]
fn branch_is_found_in_every_spelling() {
    let sandbox = Sandbox::new();
    assert_eq!(cache(&sandbox).commit(), Ok(None));
    put(&sandbox, "snapshots/abc/config.json", "{}");
    assert_eq!(cache(&sandbox).commit(), Ok(Some("abc".to_owned())), "the only snapshot, without a branch");
    for text in ["abc", "abc\n", " abc\r\n"] {
        put(&sandbox, "refs/main", text);
        assert_eq!(cache(&sandbox).commit(), Ok(Some("abc".to_owned())), "{text:?}");
    }
    put(&sandbox, "refs/main", "../../..");
    assert_eq!(cache(&sandbox).commit(), Ok(None));
    put(&sandbox, "snapshots/def/config.json", "{}");
    fs::remove_file(sandbox.repo_directory().join("refs/main")).unwrap();
    assert!(cache(&sandbox).commit().unwrap_err().contains("has 2 snapshots of it and no "));
}

#[test]
fn damaged_file_is_found_by_digest_and_size() {
    let sandbox = Sandbox::new();
    let hub = hub_with(|_, reply| reply);
    sandbox.fetch(&hub, "data.bin").unwrap();
    let state = || cache(&sandbox).check(COMMIT, "data.bin");
    assert_eq!(state(), CachedFile::Whole);
    let blob = sandbox.repo_directory().join("blobs").join(git_hash(DATA));
    fs::write(&blob, &DATA[..20]).unwrap();
    assert_eq!(state(), CachedFile::Damaged);
    assert_eq!(sandbox.fetch(&hub, "data.bin").unwrap(), DATA, "a damaged blob is downloaded again");
    assert_eq!(state(), CachedFile::Whole);
    fs::remove_file(&blob).unwrap();
    assert_eq!(state(), CachedFile::Missing, "a link to nothing");
    // A file that does not link to a blob has no announced digest.
    put(&sandbox, "snapshots/abc/data.bin", "anything");
    assert_eq!(cache(&sandbox).check("abc", "data.bin"), CachedFile::Whole);
}

#[test]
#[cfg(unix)]
fn cut_safetensors_file_is_found_by_its_header() {
    let sandbox = Sandbox::new();
    let header = r#"{"a":{"dtype":"F32","shape":[10000000],"data_offsets":[0,40000000]}}"#;
    let blob = "0".repeat(64);
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(header.as_bytes());
    let path = sandbox.repo_directory().join("blobs").join(&blob);
    put(&sandbox, &format!("blobs/{blob}"), "");
    fs::create_dir_all(sandbox.repo_directory().join("snapshots/abc")).unwrap();
    let link = sandbox.repo_directory().join("snapshots/abc/model.safetensors");
    std::os::unix::fs::symlink(format!("../../blobs/{blob}"), link).unwrap();
    let state = |size: u64| {
        fs::write(&path, &bytes).unwrap();
        fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(size).unwrap();
        cache(&sandbox).check("abc", "model.safetensors")
    };
    let whole = 8 + header.len() as u64 + 40_000_000;
    assert_eq!(state(whole), CachedFile::Whole);
    assert_eq!(state(whole - 1), CachedFile::Damaged);
    // The hub's list has the size, which is known to the byte.
    cache(&sandbox).keep_list("abc", [("model.safetensors".to_owned(), Some(whole + 1))].into()).unwrap();
    assert_eq!(state(whole), CachedFile::Damaged);
}

#[test]
fn absent_files_are_known_by_list_or_mark() {
    let sandbox = Sandbox::new();
    put(&sandbox, "snapshots/abc/config.json", "{}");
    let snapshot = sandbox.repo_directory().join("snapshots/abc");
    assert!(may_lack(&snapshot, "chat_template.jinja"));
    assert!(!may_lack(&snapshot, "config.json"), "it is there");
    assert!(!may_lack(sandbox.path(), "chat_template.jinja"), "not a snapshot");
    put(&sandbox, ".no_exist/abc/chat_template.jinja", "");
    assert!(!may_lack(&snapshot, "chat_template.jinja"), "the mark of huggingface_hub");
    assert!(may_lack(&snapshot, "tokenizer_config.json"));
    cache(&sandbox).keep_list("abc", [("tokenizer_config.json".to_owned(), None)].into()).unwrap();
    assert!(may_lack(&snapshot, "tokenizer_config.json"), "the hub has it");
    assert!(!may_lack(&snapshot, "added_tokens.json"), "the hub's list has it not");
}

#[test]
#[cfg(unix)]
fn cache_that_cannot_be_written_names_its_variable() {
    let sandbox = Sandbox::new();
    let hub = hub_with(|_, reply| reply);
    // A file in the place of a directory fails for every user, root included.
    fs::write(sandbox.path().join("file"), "").unwrap();
    let settings = HubSettings { cache: Some("/proc/actbench-cache".into()), ..hub.settings(sandbox.path()) };
    let HubError::Local(error) = sandbox.fetch_with(&settings, "data.bin").unwrap_err() else {
        panic!("not a local error")
    };
    let message = error.to_string();
    assert!(
        message.starts_with("cannot create /proc/") && message.contains("set HF_HOME or HF_HUB_CACHE"),
        "{message}"
    );
    assert_eq!(error.exit_code(), 1);
}

#[test]
fn two_downloads_at_once_make_one_request_for_the_bytes() {
    let sandbox = Sandbox::new();
    let hub = hub_with(|received, reply| {
        if received.end != Some(0) {
            std::thread::sleep(std::time::Duration::from_millis(300));
        }
        reply
    });
    std::thread::scope(|scope| {
        let runs: Vec<_> = (0..4).map(|_| scope.spawn(|| sandbox.fetch(&hub, "data.bin").unwrap())).collect();
        for run in runs {
            assert_eq!(run.join().unwrap(), DATA);
        }
    });
    let bodies = hub.requests().iter().filter(|r| r.path.contains("resolve") && r.end != Some(0)).count();
    assert_eq!(bodies, 1);
    sandbox.assert_contained();
}
