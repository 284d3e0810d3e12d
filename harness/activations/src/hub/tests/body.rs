//! Bodies that are short, long, wrong, slow, compressed or of another range.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::hub::test_server::git_hash;

fn is_probe(received: &Received) -> bool {
    received.end == Some(0)
}

/// The partial file of `data.bin`, if there is one.
fn partial(sandbox: &Sandbox) -> Option<Vec<u8>> {
    std::fs::read(sandbox.repo_directory().join("blobs").join(git_hash(DATA) + ".incomplete")).ok()
}

/// Cuts every body after `n` bytes. With `honest` the announced length is that of the cut body, as a clean end.
fn cut(n: usize, honest: bool) -> impl Fn(&Received, Reply) -> Reply + Send + Sync {
    move |received, mut reply| {
        if !is_probe(received) {
            reply.sent = reply.sent.min(n);
            if honest {
                reply.body.truncate(n);
                let length = reply.body.len().to_string();
                reply = reply.with("Content-Length", length);
            }
        }
        reply
    }
}

#[test]
fn short_body_is_resumed() {
    for honest in [false, true] {
        let sandbox = Sandbox::new();
        let hub = hub_with(cut(10, honest));
        assert_eq!(sandbox.fetch(&hub, "data.bin").unwrap(), DATA, "honest: {honest}");
        let starts: Vec<Option<usize>> =
            hub.requests().iter().filter(|r| r.path.contains("resolve") && !is_probe(r)).map(|r| r.start).collect();
        assert_eq!(starts, [None, Some(10), Some(20), Some(30)], "honest: {honest}");
        assert_eq!(partial(&sandbox), None);
    }
}

#[test]
fn short_body_is_never_kept_as_file() {
    for honest in [false, true] {
        let sandbox = Sandbox::new();
        let limit = 10;
        let hub = hub_with(move |received, reply| match received.start {
            Some(_) if !is_probe(received) => Reply::new(200, ""),
            _ => cut(limit, honest)(received, reply),
        });
        let message = sandbox.refusal(&hub, "data.bin");
        assert!(message.contains("could not be reached"), "{message}");
        assert_eq!(sandbox.blob_names(), [git_hash(DATA) + ".incomplete"]);
        // The next run gets the rest from a better hub.
        let hub = hub_with(|_, reply| reply);
        assert_eq!(sandbox.fetch(&hub, "data.bin").unwrap(), DATA);
        assert_eq!(sandbox.blob_names(), [git_hash(DATA)]);
    }
}

#[test]
fn short_body_of_unknown_size_is_refused() {
    let sandbox = Sandbox::new();
    // Neither a length nor a chunked end: only the digest shows that bytes are missing.
    let hub = hub_with(|_, mut reply| {
        reply.status = 200;
        reply.body = DATA[..20].to_vec();
        reply.sent = 20;
        reply.with("Content-Length", None).with("Content-Range", None)
    });
    insta::assert_snapshot!(sandbox.refusal(&hub, "data.bin"), @"data.bin: the server's bytes do not have the announced digest; nothing was kept");
    assert_eq!(sandbox.blob_names(), [""; 0]);
    let hub = hub_with(|_, reply| {
        Reply { status: 200, ..reply }
            .with("Content-Length", None)
            .with("Content-Range", None)
            .with("ETag", "x".to_owned())
    });
    insta::assert_snapshot!(sandbox.refusal(&hub, "data.bin"), @"data.bin: the server announces neither the size nor the digest of the file, so that it cannot be verified");
}

#[test]
fn long_and_wrong_bodies_are_refused() {
    let sandbox = Sandbox::new();
    let hub = hub_with({
        let longer = [DATA, b"more"].concat();
        move |received, reply| {
            let reply = if is_probe(received) { reply } else { Reply::new(200, longer.clone()) };
            reply.with("ETag", format!("\"{}\"", git_hash(DATA)))
        }
    });
    insta::assert_snapshot!(sandbox.refusal(&hub, "data.bin"), @"data.bin: the server announces 36 bytes and sends 40");
    let hub = hub_with(|received, mut reply| {
        if !is_probe(received) {
            reply.body[3] ^= 1;
        }
        reply
    });
    insta::assert_snapshot!(sandbox.refusal(&hub, "data.bin"), @"data.bin: the server's bytes do not have the announced digest; nothing was kept");
    assert!(sandbox.blob_names().iter().all(|name| name.ends_with(".incomplete")), "{:?}", sandbox.blob_names());
}

#[test]
fn chunked_body_is_read_and_bounded() {
    let chunked = |bytes: &[u8]| [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n0\r\n\r\n"].concat();
    let serve = move |content: Vec<u8>| {
        hub_with(move |received, reply| {
            if is_probe(received) {
                return reply;
            }
            let body = chunked(&content);
            Reply { sent: body.len(), body, status: 200, ..reply }
                .with("Content-Length", None)
                .with("Transfer-Encoding", "chunked".to_owned())
        })
    };
    let sandbox = Sandbox::new();
    let message = sandbox.refusal(&serve([DATA, DATA].concat()), "data.bin");
    assert_eq!(message, "data.bin: the server sends more than the announced 36 bytes");
    assert_eq!(sandbox.fetch(&serve(DATA.to_vec()), "data.bin").unwrap(), DATA);
}

#[test]
fn damaged_partial_file_is_replaced() {
    let sandbox = Sandbox::new();
    let blobs = sandbox.repo_directory().join("blobs");
    std::fs::create_dir_all(&blobs).unwrap();
    for leftover in [&b"not these bytes"[..], &[b'x'; 36], &[b'x'; 100]] {
        std::fs::write(blobs.join(git_hash(DATA) + ".incomplete"), leftover).unwrap();
        let hub = hub_with(|_, reply| reply);
        assert_eq!(sandbox.fetch(&hub, "data.bin").unwrap(), DATA);
        std::fs::remove_dir_all(&blobs).unwrap();
        std::fs::create_dir_all(&blobs).unwrap();
    }
}

#[test]
fn server_without_ranges_starts_again() {
    let sandbox = Sandbox::new();
    let n = AtomicUsize::new(0);
    let hub = hub_with(move |received, _| {
        let mut reply = Reply::new(200, DATA).with("ETag", format!("\"{}\"", git_hash(DATA)));
        if !is_probe(received) && n.fetch_add(1, Ordering::SeqCst) == 0 {
            reply.sent = 10;
        }
        reply
    });
    assert_eq!(sandbox.fetch(&hub, "data.bin").unwrap(), DATA);
}

#[test]
fn answer_of_another_range_is_not_appended() {
    for range in ["bytes 0-35/36", "bytes 10-35/99", "bytes 11-35/36"] {
        let sandbox = Sandbox::new();
        let blobs = sandbox.repo_directory().join("blobs");
        std::fs::create_dir_all(&blobs).unwrap();
        std::fs::write(blobs.join(git_hash(DATA) + ".incomplete"), &DATA[..10]).unwrap();
        let hub = hub_with(move |received, reply| match received.start {
            Some(10) => reply.with("Content-Range", range.to_owned()),
            _ => reply,
        });
        assert_eq!(sandbox.fetch(&hub, "data.bin").unwrap(), DATA, "{range}");
    }
}

#[test]
fn compressed_body_is_refused() {
    let sandbox = Sandbox::new();
    let hub = hub_with(
        |received, reply| {
            if is_probe(received) { reply } else { reply.with("Content-Encoding", "gzip".to_owned()) }
        },
    );
    insta::assert_snapshot!(sandbox.refusal(&hub, "data.bin"), @r#"data.bin: the server compresses the file ("gzip") although it must not"#);
}

#[test]
fn stalled_body_ends_and_resumes() {
    let sandbox = Sandbox::new();
    let stall = |received: &Received, mut reply: Reply| {
        if !is_probe(received) {
            reply.sent = reply.sent.min(10);
            reply.stalls = true;
        }
        reply
    };
    let n = AtomicUsize::new(0);
    let hub = hub_with(move |received, reply| {
        if is_probe(received) || n.fetch_add(1, Ordering::SeqCst) > 0 { reply } else { stall(received, reply) }
    });
    assert_eq!(sandbox.fetch(&hub, "data.bin").unwrap(), DATA);
    let starts: Vec<Option<usize>> = hub.requests().iter().filter(|r| !is_probe(r)).map(|r| r.start).collect();
    assert_eq!(starts, [None, None, Some(10)], "the list, a stalled try, and the rest");

    let sandbox = Sandbox::new();
    let hub = hub_with(move |received, reply| {
        if received.start == Some(10) { Reply { sent: 0, stalls: true, ..reply } } else { stall(received, reply) }
    });
    let message = sandbox.refusal(&hub, "data.bin");
    assert!(message.contains("no answer within") && message.ends_with("resumes at byte 10"), "{message}");
    assert_eq!(partial(&sandbox).as_deref(), Some(&DATA[..10]));
}

#[test]
fn empty_file_is_fetched() {
    let sandbox = Sandbox::new();
    let hub = TestHub::with_files(&[("empty", b"")], |_, reply| reply);
    assert_eq!(sandbox.fetch(&hub, "empty").unwrap(), b"");
}
