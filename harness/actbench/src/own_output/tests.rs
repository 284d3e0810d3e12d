//! Files that are replaced and files that are not.

use std::fs;
use std::path::PathBuf;

use super::*;

struct Scratch {
    directory: tempfile::TempDir,
}

impl Scratch {
    fn new() -> Self {
        Scratch { directory: tempfile::tempdir().unwrap() }
    }

    fn file(&self, bytes: &[u8]) -> PathBuf {
        let path = self.directory.path().join("file");
        fs::write(&path, bytes).unwrap();
        path
    }

    /// The error of an output of `format` over a file of these bytes.
    fn refused(&self, format: &OutputFormat, bytes: &[u8]) -> Option<String> {
        let path = self.file(bytes);
        let refused = check_own_output(&path, "--out", format).err().map(|error| error.to_string());
        assert_eq!(fs::read(&path).unwrap(), bytes, "the check changes nothing");
        refused
    }
}

fn safetensors(metadata: &[(&str, &str)]) -> Vec<u8> {
    let metadata = metadata.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let view = safetensors::tensor::TensorView::new(safetensors::Dtype::U8, vec![1], &[1]).unwrap();
    safetensors::serialize([("x", view)], Some(metadata)).unwrap()
}

#[test]
fn file_of_other_content_is_refused_with_advice() {
    let scratch = Scratch::new();
    for bytes in [&b"my notes\n"[..], b"{\"schema\": \"other/1\"}", b"{\"schema\": 1}", b"[1]", b"\xff\xfe", b"{", b"1"]
    {
        for format in [
            OutputFormat::RESULTS,
            OutputFormat::GATE,
            OutputFormat::SELFTEST,
            OutputFormat::CHECK,
            OutputFormat::TRACE,
            OutputFormat::FEATURES,
            OutputFormat::REPORT_HTML,
            OutputFormat::HISTORY,
            OutputFormat::EXPORT_JUNIT,
        ] {
            let error = scratch.refused(&format, bytes).unwrap_or_else(|| panic!("{format:?} replaces {bytes:?}"));
            assert!(error.contains("file: exists and is not") && error.contains(format.0.description()), "{error}");
            assert!(error.contains("(--out); use another path, or remove the file first"), "{error}");
        }
    }
}

#[test]
fn own_files_are_replaced() {
    let scratch = Scratch::new();
    let features = safetensors(&[("format", FEATURES_FORMAT)]);
    let older = safetensors(&[("model", "m"), ("pool", "mean"), ("dtype", "bf16"), ("extract_s", "1.5")]);
    let cases: [(OutputFormat, &[u8]); 11] = [
        (OutputFormat::RESULTS, b"{\"schema\": \"actbench/1\", \"rows\": []}"),
        (OutputFormat::GATE, b"{\"schema\": \"actbench-gate/1\"}"),
        (OutputFormat::SELFTEST, b"{\"schema\": \"actbench-replay/1\"}"),
        (OutputFormat::CHECK, b"{\"device\": \"cpu\", \"passed\": true, \"findings\": []}"),
        (OutputFormat::TRACE, b"{\"traceEvents\": []}"),
        (OutputFormat::FEATURES, &features),
        (OutputFormat::FEATURES, &older),
        (OutputFormat::REPORT_MARKDOWN, b"\n# Lazy versus eager activations\n"),
        (OutputFormat::EXPORT_BENCHER, b"{\"case\": {\"wall\": {\"value\": 1}}}"),
        (OutputFormat::EXPORT_ACTION, b"[]\n"),
        (OutputFormat::EXPORT_ACTION, b"[{\"name\": \"case\", \"extra\": \"\"}]"),
    ];
    for (format, bytes) in cases {
        assert_eq!(scratch.refused(&format, bytes), None, "{format:?}");
    }
}

#[test]
fn files_of_other_commands_are_refused() {
    let scratch = Scratch::new();
    let cache = safetensors(&[("format", "actbench.acts"), ("model", "m"), ("pool", "mean")]);
    assert!(scratch.refused(&OutputFormat::FEATURES, &cache).is_some());
    assert!(scratch.refused(&OutputFormat::FEATURES, &safetensors(&[])).is_some());
    assert!(scratch.refused(&OutputFormat::RESULTS, b"{\"schema\": \"actbench-gate/1\"}").is_some());
    assert!(scratch.refused(&OutputFormat::GATE, b"{\"schema\": \"actbench/1\"}").is_some());
}

#[test]
fn empty_and_missing_files_and_devices_are_accepted() {
    let scratch = Scratch::new();
    assert_eq!(scratch.refused(&OutputFormat::RESULTS, b""), None);
    let missing = scratch.directory.path().join("missing");
    check_own_output(&missing, "--out", &OutputFormat::RESULTS).unwrap();
    assert!(!missing.exists());
    check_own_output(Path::new("/dev/null"), "--out", &OutputFormat::RESULTS).unwrap();
}

#[test]
fn link_to_a_file_of_other_content_is_refused() {
    let scratch = Scratch::new();
    let link = scratch.directory.path().join("link");
    std::os::unix::fs::symlink(scratch.file(b"my notes\n"), &link).unwrap();
    assert!(check_own_output(&link, "--out", &OutputFormat::RESULTS).is_err());
}
