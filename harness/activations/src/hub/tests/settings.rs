//! The variables of `huggingface_hub`, as its version 2.4 reads them.

use std::collections::BTreeMap;
use std::time::Duration;

use super::*;

fn settings(variables: &[(&str, &str)]) -> HubSettings {
    let variables: BTreeMap<&str, &str> = variables.iter().copied().collect();
    HubSettings::from_environment(&|name| variables.get(name).map(Into::into))
}

fn path(text: &str) -> Option<PathBuf> {
    Some(PathBuf::from(text))
}

#[test]
fn cache_follows_the_order_of_variables() {
    let all = [
        ("HF_HUB_CACHE", "/a"),
        ("HUGGINGFACE_HUB_CACHE", "/b"),
        ("HF_HOME", "/c"),
        ("XDG_CACHE_HOME", "/d"),
        ("HOME", "/e"),
    ];
    let expected = ["/a", "/b", "/c/hub", "/d/huggingface/hub", "/e/.cache/huggingface/hub"];
    for (first, expected) in expected.into_iter().enumerate() {
        assert_eq!(settings(&all[first..]).cache, path(expected));
    }
    assert_eq!(settings(&[]).cache, None);
    assert_eq!(settings(&[("HOME", "/h"), ("HF_HOME", "~/hf")]).cache, path("/h/hf/hub"), "no shell expanded it");
}

#[test]
fn token_is_trimmed_and_found_in_every_place() {
    let value = |variables: &[(&str, &str)]| settings(variables).token.map(|token| token.value);
    for text in ["hf_x", "hf_x\n", " hf_x\r\n", "\thf_x "] {
        assert_eq!(value(&[("HF_TOKEN", text)]).as_deref(), Some("hf_x"), "{text:?}");
    }
    assert_eq!(value(&[("HF_TOKEN", "\n"), ("HUGGING_FACE_HUB_TOKEN", "old")]).as_deref(), Some("old"));
    assert_eq!(value(&[("HF_TOKEN", "x"), ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")]), None);
    let directory = TempDir::new().unwrap();
    let home = directory.path().to_str().unwrap();
    std::fs::write(directory.path().join("token"), "of_home\n").unwrap();
    std::fs::write(directory.path().join("other"), "of_path\n").unwrap();
    let other = format!("{home}/other");
    assert_eq!(value(&[("HF_HOME", home)]).as_deref(), Some("of_home"));
    assert_eq!(value(&[("HF_HOME", home), ("HF_HUB_CACHE", "/elsewhere")]).as_deref(), Some("of_home"));
    assert_eq!(value(&[("HF_HOME", home), ("HF_TOKEN_PATH", &other)]).as_deref(), Some("of_path"));
    assert_eq!(value(&[("HF_HOME", home), ("HF_TOKEN", "own")]).as_deref(), Some("own"));
    assert!(!format!("{:?}", settings(&[("HF_TOKEN", "secret")])).contains("secret"));
}

#[test]
fn switches_and_limits_are_read() {
    for (text, offline) in
        [("1", true), ("ON", true), ("yes", true), ("true", true), ("0", false), ("", false), ("no", false)]
    {
        assert_eq!(settings(&[("HF_HUB_OFFLINE", text)]).offline, offline, "{text}");
    }
    assert!(settings(&[("TRANSFORMERS_OFFLINE", "1")]).offline);
    assert!(!settings(&[("HF_HUB_OFFLINE", "0"), ("TRANSFORMERS_OFFLINE", "1")]).offline);
    let limits = settings(&[("HF_HUB_DOWNLOAD_TIMEOUT", "3"), ("HF_HUB_ETAG_TIMEOUT", "2")]).patience;
    assert_eq!(
        (limits.silence, limits.response, limits.connect),
        (Duration::from_secs(3), Duration::from_secs(2), Duration::from_secs(2))
    );
    assert_eq!(settings(&[("HF_ENDPOINT", " http://mirror/hf// ")]).endpoint.as_deref(), Some("http://mirror/hf"));
}
