//! Any headers, bodies and names: no path outside of the cache changes, and a cached file has the announced size and digest.

use proptest::prelude::*;

use super::*;
use crate::hub::test_server::{git_hash, listing};

/// Texts that paths are made of, and others.
fn hostile() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        Just("..".to_owned()),
        Just(".".to_owned()),
        Just("/".to_owned()),
        Just("\\".to_owned()),
        Just("victim.txt".to_owned()),
        Just("\"".to_owned()),
        Just("W/".to_owned()),
        Just("%2e%2e%2f".to_owned()),
        Just("~".to_owned()),
        "[a-z0-9]{1,3}",
        "[ -~]{0,4}",
    ];
    prop::collection::vec(part, 0..6).prop_map(|parts| parts.concat())
}

fn or_valid(valid: String) -> impl Strategy<Value = String> {
    prop_oneof![1 => Just(valid), 1 => hostile()]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn no_answer_leads_out_of_the_cache(
        name in or_valid("data.bin".to_owned()),
        commit in prop_oneof![3 => Just(COMMIT.to_owned()), 1 => hostile()],
        etag in or_valid(format!("\"{}\"", git_hash(DATA))),
        linked in prop::option::of(or_valid(git_hash(DATA))),
        location in prop::option::weighted(0.2, hostile()),
        sent in 0..40_usize,
        flip in prop::option::weighted(0.3, 0..36_usize),
        status in prop::sample::select(vec![200_u16, 206, 200, 206, 404, 416, 500]),
    ) {
        let sandbox = Sandbox::new();
        let list = listing(&commit, &[name.as_str()]);
        let announced = linked.clone().unwrap_or_else(|| etag.clone());
        let hub = TestHub::start(move |received| {
            if received.path.starts_with("/api/") {
                return Reply::new(200, list.clone());
            }
            let mut body = DATA.to_vec();
            if let Some(flip) = flip {
                body[flip] ^= 1;
            }
            let start = received.start.unwrap_or(0).min(body.len() - 1);
            let mut reply = Reply::new(status, &body[start..])
                .with("ETag", etag.clone())
                .with("X-Linked-ETag", linked.clone())
                .with("Content-Range", format!("bytes {start}-{}/36", body.len() - 1));
            if let Some(location) = &location {
                reply = Reply { status: 302, ..reply }.with("Location", location.clone());
            }
            reply.sent = reply.sent.min(sent);
            reply
        });
        let outcome = sandbox.fetch(&hub, &name);
        sandbox.assert_contained();
        if let Ok(bytes) = outcome {
            prop_assert_eq!(bytes.len(), DATA.len());
            if announced.contains(&git_hash(DATA)) {
                prop_assert_eq!(bytes, DATA);
            }
        }
        for blob in sandbox.blob_names().iter().filter(|name| !name.ends_with(".incomplete")) {
            let path = sandbox.repo_directory().join("blobs").join(blob);
            let digest = crate::hub::digest::Announced::parse(blob).expect("a blob is named by its digest");
            prop_assert!(digest.matches(&path).unwrap(), "{} has another content", blob);
        }
    }
}
