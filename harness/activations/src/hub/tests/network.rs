//! Redirects, tokens, statuses and answers that no hub gives.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::hub::settings::Token;
use crate::hub::test_server::{correct, git_hash};

fn token(value: &str) -> Option<Token> {
    Some(Token { value: value.to_owned(), origin: "HF_TOKEN".to_owned() })
}

fn redirect(to: &str) -> Reply {
    Reply::new(302, "").with("Location", to.to_owned())
}

#[test]
fn token_is_sent_to_the_hub_only() {
    let sandbox = Sandbox::new();
    let files = [("data.bin".to_owned(), DATA.to_vec())].into();
    let store = Arc::new(TestHub::start(move |received| {
        correct(&files, &Received { path: format!("/org/name/resolve/main{}", received.path), ..received.clone() })
    }));
    let target = store.address.clone();
    let hub = hub_with(move |_, _| {
        redirect(&format!("{target}/data.bin"))
            .with("X-Linked-ETag", format!("\"{}\"", git_hash(DATA)))
            .with("X-Linked-Size", DATA.len().to_string())
            .with("X-Repo-Commit", COMMIT.to_owned())
    });
    let settings = HubSettings { token: token("hf_secret"), ..hub.settings(sandbox.path()) };
    assert_eq!(sandbox.fetch_with(&settings, "data.bin").unwrap(), DATA);
    assert!(hub.requests().iter().all(|received| received.authorization.as_deref() == Some("Bearer hf_secret")));
    assert!(!store.requests().is_empty() && store.requests().iter().all(|received| received.authorization.is_none()));
}

#[test]
fn token_stays_with_relative_redirects() {
    let sandbox = Sandbox::new();
    let hub = TestHub::with_files(&[("data.bin", DATA)], |received, reply| {
        if received.path.contains("/old/") { redirect(&received.path.replace("/old/", "/org/")) } else { reply }
    });
    let settings = HubSettings { token: token("hf_secret"), ..hub.settings(sandbox.path()) };
    let old = Repo::new(RepoKind::Model, "old/name").unwrap();
    assert_eq!(Client::new(&settings, true).unwrap().list(&old, "main").unwrap().commit, COMMIT);
    assert_eq!(hub.requests()[1].authorization.as_deref(), Some("Bearer hf_secret"));
}

#[test]
fn hostile_redirects_are_refused() {
    for (location, expected) in [
        ("file:///etc/passwd", "which is not the address of a file"),
        ("ftp://127.0.0.1/x", "which is not the address of a file"),
        ("/org/name/resolve/loop", "more than 10 times"),
        ("http://user:password@127.0.0.1/", "which is not the address of a file"),
    ] {
        let sandbox = Sandbox::new();
        let hub = hub_with(move |_, _| redirect(location));
        let message = sandbox.refusal(&hub, "data.bin");
        assert!(message.contains(expected), "{location}: {message}");
        assert!(hub.paths().len() <= 12, "{}", hub.paths().len());
    }
    let sandbox = Sandbox::new();
    let hub = hub_with(|_, _| Reply::new(302, ""));
    assert!(sandbox.refusal(&hub, "data.bin").contains("to nowhere"));
}

#[test]
fn token_that_no_header_can_carry_names_its_source() {
    let sandbox = Sandbox::new();
    let hub = hub_with(|_, reply| reply);
    for value in ["hf_ü", "hf a", "hf\u{1}", "hf\tb"] {
        let settings = HubSettings { token: token(value), ..hub.settings(sandbox.path()) };
        let message = sandbox.fetch_with(&settings, "data.bin").unwrap_err().to_string();
        assert!(message.contains("HF_TOKEN") && !message.contains(value), "{message}");
    }
    assert_eq!(hub.paths(), [""; 0]);
}

#[test]
fn statuses_are_named() {
    let sandbox = Sandbox::new();
    let refusal = |status: u16, with_token: bool| {
        let hub = TestHub::start(move |_| Reply::new(status, "<html>"));
        let token = with_token.then(|| token("hf_x")).flatten();
        let settings = HubSettings { token, ..hub.settings(sandbox.path()) };
        sandbox.fetch_with(&settings, "data.bin").unwrap_err().to_string()
    };
    insta::assert_snapshot!(refusal(401, false), @"the hub has no such model, or it needs an access token (set HF_TOKEN)");
    insta::assert_snapshot!(refusal(401, true), @"the hub has no such model, or it refuses the access token (status 401): check HF_TOKEN and its permissions");
    insta::assert_snapshot!(refusal(403, false), @"the hub refuses access (status 403): the model needs an access token (set HF_TOKEN), and perhaps a request on its page");
    insta::assert_snapshot!(refusal(403, true), @"the hub refuses access (status 403): ask for access on the page of the model, or use an access token (HF_TOKEN) that has it");
    insta::assert_snapshot!(refusal(404, false), @"the hub has no such model");
    insta::assert_snapshot!(refusal(429, false), @"the hub limits the rate of requests (status 429): try again later");
    insta::assert_snapshot!(refusal(500, false), @"the hub has a server error (status 500): try again later");
    insta::assert_snapshot!(refusal(503, false), @"the hub has a server error (status 503): try again later");
    insta::assert_snapshot!(refusal(418, false), @"the hub answers with status 418, which no hub should: check HF_ENDPOINT");
}

#[test]
fn busy_server_is_asked_again_for_a_moment() {
    let sandbox = Sandbox::new();
    let n = AtomicUsize::new(0);
    let hub = hub_with(move |_, reply| match n.fetch_add(1, Ordering::SeqCst) {
        0 => Reply::new(503, ""),
        1 => Reply::new(429, "").with("Retry-After", "0".to_owned()),
        _ => reply,
    });
    assert_eq!(sandbox.fetch(&hub, "data.bin").unwrap(), DATA);
    let hub = TestHub::start(|_| Reply::new(429, "").with("Retry-After", "3600".to_owned()));
    assert_eq!(sandbox.refusal(&hub, "x"), "the hub limits the rate of requests (status 429): try again in 3600 s");
    assert_eq!(hub.paths().len(), 1, "an hour is not waited for");
}

#[test]
fn answers_of_other_servers_are_named() {
    let sandbox = Sandbox::new();
    let refusal = |body: &str, kind: &str| {
        let (body, kind) = (body.to_owned(), kind.to_owned());
        let hub = TestHub::start(move |_| Reply::new(200, body.clone()).with("Content-Type", kind.clone()));
        sandbox.refusal(&hub, "data.bin")
    };
    insta::assert_snapshot!(refusal("<!doctype html><html>", "text/html"), @"the server at [HUB] is not a hub: it answers with a web page; check HF_ENDPOINT");
    insta::assert_snapshot!(refusal("", "text/plain"), @"the server at [HUB] is not a hub: its list of files cannot be read (EOF while parsing a value at line 1 column 0); check HF_ENDPOINT");
    insta::assert_snapshot!(refusal("null", "application/json"), @"the server at [HUB] is not a hub: its list of files cannot be read (invalid type: null, expected struct Answer at line 1 column 4); check HF_ENDPOINT");
    insta::assert_snapshot!(refusal("{}", "application/json"), @"the server at [HUB] is not a hub: its list of files names no commit; check HF_ENDPOINT");
    let deep = "[".repeat(1_000_000);
    assert!(refusal(&deep, "application/json").contains("is not a hub"));
    let hub = TestHub::start(|_| Reply::new(200, vec![b' '; 65 << 20]));
    assert!(sandbox.refusal(&hub, "x").contains("longer than 64 MiB"));
    let gzip = TestHub::start(|_| Reply::new(200, "x").with("Content-Encoding", "gzip".to_owned()));
    assert!(sandbox.refusal(&gzip, "x").contains("compresses its answer"));
    for endpoint in ["nowhere", "ftp://x", "", "http://", "file:///x"] {
        let settings = HubSettings { endpoint: Some(endpoint.to_owned()), ..gzip.settings(sandbox.path()) };
        let message = sandbox.fetch_with(&settings, "x").unwrap_err().to_string();
        assert!(message.starts_with("HF_ENDPOINT is "), "{endpoint}: {message}");
    }
}

#[test]
fn silent_server_ends() {
    let sandbox = Sandbox::new();
    let hub = TestHub::start(|_| {
        std::thread::sleep(std::time::Duration::from_secs(20));
        Reply::new(200, "")
    });
    let mut settings = hub.settings(sandbox.path());
    settings.patience.response = std::time::Duration::from_millis(500);
    let message = sandbox.fetch_with(&settings, "x").unwrap_err().to_string();
    assert_eq!(message, "the hub could not be reached (no answer within the time limit): check the network");
}
