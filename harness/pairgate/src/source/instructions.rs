//! Instructions of benchmarks, as Valgrind counts them through gungraun: a cross-check of the times.
//!
//! A count does not depend on the load of the machine, so that a difference of 0.1 % can be seen. It does not reflect
//! caches, mispredicted branches or code layout: a slowdown without more instructions comes from one of these, and the
//! report says so.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use crate::error::{Error, Result};
use crate::metric::Metric;
use crate::process::run_program;
use crate::report::{CaseReport, Verdict};
use crate::temporary::TemporaryDirectory;

/// Instructions by benchmark.
pub type InstructionCounts = BTreeMap<String, f64>;

/// The executable that gungraun's benchmarks are run by.
const RUNNER: &str = "gungraun-runner";

/// The tools that are missing to count instructions, as a sentence; none if all are there. `path` is the variable `PATH`.
pub fn missing_tools(path: &OsStr) -> Option<String> {
    let absent: Vec<&str> = ["valgrind", RUNNER]
        .into_iter()
        .filter(|name| !std::env::split_paths(path).any(|directory| directory.join(name).is_file()))
        .collect();
    (!absent.is_empty()).then(|| {
        format!(
            "instructions are not counted: {} not found in PATH (valgrind is a package of most systems; `cargo install \
             gungraun-runner --version 0.20.0 --locked`)",
            absent.join(" and ")
        )
    })
}

/// Counts the instructions of every benchmark of the gungraun executable `path`.
///
/// # Errors
/// It fails, or counts nothing.
pub fn count_instructions(path: &Path, timeout: Option<Duration>) -> Result<InstructionCounts> {
    let path = std::fs::canonicalize(path).map_err(Error::io("find", path))?;
    let directory = TemporaryDirectory::create("pairgate-", None)?;
    let home = directory.path().as_os_str();
    let mut arguments: Vec<OsString> = ["--bench", "--nosummary", "--save-summary=json"].map(OsString::from).into();
    arguments.push(OsString::from_iter([OsStr::new("--home="), home]));
    // Where gungraun keeps its files. It clears the environment of the benchmarks, so that no other variable matters.
    let variables: [(&str, &OsStr); 1] = [("GUNGRAUN_WORKSPACE_ROOT", home)];
    let output = run_program(&path, &arguments, &variables, Some(directory.path()), timeout)?;
    if let Some(failure) = output.failure() {
        return Err(Error::file(path, format!("instructions cannot be counted: {failure}")));
    }
    let mut counts = InstructionCounts::new();
    for file in files_ending(directory.path(), "summary.json") {
        let text = std::fs::read_to_string(&file).map_err(Error::io("read", &file))?;
        let value: Value = serde_json::from_str(&text).map_err(|error| Error::file(&file, error.to_string()))?;
        let (name, count) =
            counted(&value).ok_or_else(|| Error::file(&file, "has no count of instructions in a known format"))?;
        counts.insert(name, count);
    }
    if counts.is_empty() {
        return Err(Error::file(
            path,
            "counted no benchmark; name a gungraun executable, as `cargo bench --no-run` prints it",
        ));
    }
    Ok(counts)
}

/// All files below `directory` whose paths end with `tail`, in the order of their paths.
pub(super) fn files_ending(directory: &Path, tail: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut directories = vec![directory.to_path_buf()];
    while let Some(directory) = directories.pop() {
        for path in std::fs::read_dir(&directory).into_iter().flatten().flatten().map(|entry| entry.path()) {
            if path.is_dir() {
                directories.push(path);
            } else if path.ends_with(tail) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// A benchmark's name and its count. gungraun's names have underscores where criterion's have dashes.
fn counted(summary: &Value) -> Option<(String, f64)> {
    let name = summary.get("id")?.as_str()?.replace('_', "-");
    Some((name, instructions(summary)?))
}

/// Callgrind's count `Ir` of all threads and parts together, of the newest run.
fn instructions(summary: &Value) -> Option<f64> {
    let profiles = summary.get("profiles")?.as_array()?;
    let count = profiles.iter().find_map(|profile| profile.pointer("/data/total/metrics/Ir/values/new"))?;
    count.as_f64().filter(|count| count.is_finite() && *count > 0.0)
}

/// Adds a note to each regressed benchmark: whether its instructions changed with its time.
pub fn add_instruction_notes(cases: &mut [CaseReport]) {
    for case in cases {
        let verdict = |metric: Metric| case.metrics.iter().find(|it| it.metric == metric).map(|it| it.verdict);
        let note = match (verdict(Metric::Wall), verdict(Metric::Instructions)) {
            (Some(Verdict::Regressed), Some(Verdict::Pass)) => {
                "slower with the same instructions: code layout, caches or branch prediction changed"
            }
            (Some(Verdict::Regressed), Some(Verdict::Regressed)) => "slower with more instructions: more work",
            (Some(Verdict::Regressed), Some(Verdict::Improved)) => {
                "slower with fewer instructions: the instruction mix changed"
            }
            (Some(Verdict::Pass | Verdict::Improved), Some(Verdict::Regressed)) => {
                "more instructions, not slower: more work that takes no time here"
            }
            _ => continue,
        };
        if let Some(wall) = case.metrics.iter_mut().find(|it| it.metric == Metric::Wall) {
            wall.note = Some(wall.note.take().map_or_else(|| note.to_owned(), |other| format!("{other}; {note}")));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::MetricReport;

    fn case(wall: Verdict, instructions: Verdict) -> CaseReport {
        let metric = |metric: Metric, verdict| MetricReport { verdict, ..MetricReport::unmeasured(metric) };
        let metrics = vec![metric(Metric::Wall, wall), metric(Metric::Instructions, instructions)];
        CaseReport { name: "pool".to_owned(), verdict: wall, reason: None, pairs: 1, metrics }
    }

    #[test]
    fn notes_distinguish_layout_from_work() {
        use Verdict::{Inconclusive, Pass, Regressed};
        let mut cases =
            [case(Regressed, Pass), case(Regressed, Regressed), case(Pass, Regressed), case(Inconclusive, Pass)];
        add_instruction_notes(&mut cases);
        let notes: Vec<&str> = cases.iter().map(|case| case.metrics[0].note.as_deref().unwrap_or("")).collect();
        assert!(notes[0].starts_with("slower with the same instructions"), "{notes:?}");
        assert!(notes[1].starts_with("slower with more instructions"), "{notes:?}");
        assert!(notes[2].starts_with("more instructions, not slower"), "{notes:?}");
        assert_eq!(notes[3], "");
    }

    #[test]
    fn counts_are_read_from_gungraun_summary() {
        // Written by gungraun 0.20, reduced to the fields that are read and those that could be confused with them.
        let summary = serde_json::json!({
            "id": "cache_read",
            "profiles": [{"data": {
                "parts": [{"metrics": {"Ir": {"values": {"new": 7}}}}],
                "total": {"metrics": {"Dr": {"values": {"new": 16}}, "Ir": {"values": {"new": 50, "old": 49}}}}
            }}]
        });
        assert_eq!(counted(&summary), Some(("cache-read".to_owned(), 50.0)));
        for none in ["{}", r#"{"id": "a"}"#, r#"{"id": "a", "profiles": []}"#] {
            assert_eq!(counted(&serde_json::from_str(none).unwrap()), None, "{none}");
        }
    }

    #[test]
    fn missing_tools_are_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().as_os_str();
        assert!(missing_tools(path).unwrap().contains("valgrind and gungraun-runner"));
        std::fs::write(directory.path().join("valgrind"), "").unwrap();
        assert!(missing_tools(path).unwrap().starts_with("instructions are not counted: gungraun-runner not found"));
        std::fs::write(directory.path().join(RUNNER), "").unwrap();
        assert_eq!(missing_tools(path), None);
    }
}
