//! Hostile ETags, commits, names and sizes.

use super::*;
use crate::hub::test_server::listing;

#[test]
fn hostile_etag_is_refused() {
    let hostile = [
        "../../../victim.txt",
        "\"../../../victim.txt\"",
        "W/\"../../victim\"",
        "/etc/passwd",
        "\"C:\\\\victim\"",
        "\"a/b\"",
        "\"..\"",
        ".",
        "\"\"",
        "\"",
        "",
        "\"x",
        "\"a b\"",
        "\"a\\u0000b\"",
        "\"a\tb\"",
        "\"ä\"",
    ];
    for etag in hostile {
        let sandbox = Sandbox::new();
        let hub = hub_with(move |_, reply| reply.with("ETag", etag.to_owned()));
        let message = sandbox.refusal(&hub, "data.bin");
        assert!(message.starts_with("data.bin: the server announces "), "{etag:?}: {message}");
        assert_eq!(sandbox.blob_names(), [""; 0], "{etag:?}");
        let hub = hub_with(move |_, reply| reply.with("X-Linked-ETag", etag.to_owned()));
        // The valid ETag of the same response does not replace it.
        let message = sandbox.refusal(&hub, "data.bin");
        assert!(message.starts_with("data.bin: the server announces "), "{etag:?}: {message}");
    }
    let sandbox = Sandbox::new();
    let hub = hub_with(|_, reply| reply.with("ETag", None));
    insta::assert_snapshot!(sandbox.refusal(&hub, "data.bin"), @"data.bin: the server announces no ETag, as a hub does for every file: check HF_ENDPOINT");
    let hub = hub_with(|_, reply| reply.with("ETag", "a".repeat(5000)));
    assert!(sandbox.refusal(&hub, "data.bin").contains("invalid ETag"));
    let hub = hub_with(|_, reply| reply.with("ETag", "a".repeat(100_000)));
    assert!(sandbox.refusal(&hub, "data.bin").starts_with("data.bin: "));
}

#[test]
fn valid_etags_of_other_forms_are_accepted() {
    let sha256 = crate::hub::digest::sha256_of(std::str::from_utf8(DATA).unwrap());
    for etag in [format!("W/\"{sha256}\""), sha256.clone(), format!("\"{sha256}\"")] {
        let sandbox = Sandbox::new();
        let hub = hub_with(move |_, reply| reply.with("ETag", etag.clone()));
        assert_eq!(sandbox.fetch(&hub, "data.bin").unwrap(), DATA);
        assert_eq!(sandbox.blob_names(), std::slice::from_ref(&sha256));
    }
}

#[test]
fn etag_that_is_no_digest_does_not_name_blob() {
    let sandbox = Sandbox::new();
    let hub = TestHub::with_files(&[("a.bin", b"first"), ("b.bin", b"other")], |_, reply| {
        reply.with("ETag", "\"same\"".to_owned())
    });
    assert_eq!(sandbox.fetch(&hub, "a.bin").unwrap(), b"first");
    assert_eq!(sandbox.fetch(&hub, "b.bin").unwrap(), b"other", "two files share an ETag");
    let mut digests = [crate::hub::digest::sha256_of("first"), crate::hub::digest::sha256_of("other")];
    digests.sort();
    assert_eq!(sandbox.blob_names(), digests);
}

#[test]
fn hostile_commit_is_refused() {
    for commit in ["../../x", "/tmp/x", "..", "", "main", "0123", "0123456789ABCDEF0123456789abcdef01234567", "a\u{0}b"]
    {
        let sandbox = Sandbox::new();
        let text = listing(commit, &["data.bin"]);
        let hub = TestHub::start(move |_| Reply::new(200, text.clone()));
        let message = sandbox.refusal(&hub, "data.bin");
        assert!(message.contains("commit"), "{commit:?}: {message}");
        assert!(!sandbox.repo_directory().exists());
    }
    let sandbox = Sandbox::new();
    let hub = hub_with(|_, reply| reply.with("X-Repo-Commit", "../../x".to_owned()));
    insta::assert_snapshot!(sandbox.refusal(&hub, "data.bin"), @r#"data.bin: the hub answers with the commit "../../x" in place of 0123456789abcdef0123456789abcdef01234567: try again"#);
}

#[test]
fn hostile_file_name_is_refused_without_request() {
    let long = "a/".repeat(600) + "b";
    let names = [
        "../../../../evil.csv",
        "/etc/evil.csv",
        "a/../../b",
        "a//b",
        "./a",
        "a/",
        "",
        "..",
        "a\\b",
        "C:x",
        "a\nb",
        "a\u{0}",
        &long,
    ];
    for name in names {
        let sandbox = Sandbox::new();
        let hub = TestHub::with_files(&[(name, DATA)], |_, reply| reply);
        let message = sandbox.refusal(&hub, name);
        assert!(message.contains("would lie outside of the repository"), "{name:?}: {message}");
        assert_eq!(hub.paths().len(), 1, "the list only: {:?}", hub.paths());
    }
}

#[test]
fn unusual_file_names_are_encoded() {
    let sandbox = Sandbox::new();
    let hub = TestHub::start(|received| {
        let files = [("data/ä b#?%.csv".to_owned(), DATA.to_vec())].into();
        let path = received.path.replace("%C3%A4%20b%23%3F%25", "ä b#?%");
        crate::hub::test_server::correct(&files, &Received { path, ..received.clone() })
    });
    assert_eq!(sandbox.fetch(&hub, "data/ä b#?%.csv").unwrap(), DATA);
    sandbox.assert_contained();
}
