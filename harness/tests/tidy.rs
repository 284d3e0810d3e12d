//! The invariants of ARCHITECTURE.md that can be read off the sources.
#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used)]

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Every file below `folder` with one of the `extensions`, build outputs apart.
fn files(folder: &Path, extensions: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() {
                if !name.starts_with("target") && !name.starts_with('.') {
                    folders.push(path);
                }
            } else if path.extension().is_some_and(|extension| extensions.iter().any(|known| extension == *known)) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn sources() -> Vec<(String, String)> {
    let root = root();
    let sources: Vec<(String, String)> = ["fixtures", "kernels", "harness", "benches"]
        .iter()
        .flat_map(|crate_folder| files(&root.join(crate_folder), &["rs"]))
        .map(|path| {
            let name = path.strip_prefix(&root).unwrap().to_string_lossy().into_owned();
            (name, fs::read_to_string(path).unwrap())
        })
        .collect();
    assert!(sources.len() > 40, "the sources were not found");
    sources
}

#[track_caller]
fn assert_none(offenders: Vec<String>, rule: &str) {
    assert!(offenders.is_empty(), "{rule}:\n  {}", offenders.join("\n  "));
}

#[test]
fn every_source_file_opens_by_saying_what_it_is() {
    let offenders = sources().into_iter().filter(|(_, text)| !text.starts_with("//! ")).map(|(name, _)| name).collect();
    assert_none(offenders, "files must open with a `//!` line");
}

#[test]
fn no_file_is_too_long_to_see_across() {
    let offenders = sources()
        .into_iter()
        .filter(|(_, text)| text.lines().count() > 600)
        .map(|(name, text)| format!("{name}: {} lines", text.lines().count()))
        .collect();
    assert_none(offenders, "files are split by responsibility before 600 lines");
}

#[test]
fn crates_name_only_those_before_them() {
    let forbidden = [
        ("fixtures/", ["actbench_kernels", "actbench::", "actbench_benches"].as_slice()),
        ("kernels/", ["actbench_fixtures", "actbench::", "actbench_benches"].as_slice()),
        ("kernels/check/", ["actbench_fixtures", "actbench::", "actbench_benches"].as_slice()),
        ("harness/src", ["actbench_benches"].as_slice()),
    ];
    let mut offenders = Vec::new();
    for (name, text) in sources() {
        for (prefix, words) in forbidden {
            for word in words.iter().filter(|word| name.starts_with(prefix) && text.contains(**word)) {
                offenders.push(format!("{name} names {word}"));
            }
        }
    }
    assert_none(offenders, "data flows fixtures -> kernels -> harness -> benches");
}

#[test]
fn only_the_workload_chooses_a_backend() {
    let offenders = sources()
        .into_iter()
        .filter(|(name, text)| {
            name.starts_with("harness/src")
                && text.contains("CpuBackend")
                && !name.starts_with("harness/src/workload")
                && !name.starts_with("harness/src/model")
        })
        .map(|(name, _)| name)
        .collect();
    assert_none(offenders, "plans, probes and reports know no device");
}

#[test]
fn statistics_and_reports_touch_no_file_and_no_clock() {
    let words = ["std::fs", "File::", "Instant", "SystemTime", "std::process", "jiff::"];
    let mut offenders = Vec::new();
    for (name, text) in sources() {
        // Their tests read reference values.
        if name.ends_with("/tests.rs") {
            continue;
        }
        if ["harness/src/stats", "harness/src/crossover", "harness/src/report", "harness/src/probe"]
            .iter()
            .any(|pure| name.starts_with(pure))
        {
            offenders.extend(words.iter().filter(|word| text.contains(**word)).map(|word| format!("{name}: {word}")));
        }
    }
    assert_none(offenders, "statistics, probes and reports are pure");
}

#[test]
fn the_map_names_every_module() {
    let map = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let library = fs::read_to_string(root().join("harness/src/lib.rs")).unwrap();
    let offenders = library
        .lines()
        .filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'))
        .filter(|module| !map.contains(&format!("`{module}")))
        .map(str::to_owned)
        .collect();
    assert_none(offenders, "ARCHITECTURE.md must name each module of the harness");
}
