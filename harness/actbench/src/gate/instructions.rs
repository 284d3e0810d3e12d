//! Instructions of benchmarks, as Valgrind counts them through gungraun: the witness beside time.
//!
//! A count does not depend on who else is at work, so that a tenth of a per cent shows. It says nothing of caches, of
//! branches that are guessed wrong or of how code is laid out: where time is up and instructions are not, it is one of
//! these, and the report says so.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use super::metric::Metric;
use super::report::{CaseReport, Verdict};
use crate::error::{Error, Result};
use crate::runner::program;

/// Instructions by benchmark.
pub type Counts = BTreeMap<String, f64>;

/// The program that gungraun's benches run themselves by.
const RUNNER: &str = "gungraun-runner";

/// What is missing to count instructions here; none if nothing is. `path` is the variable `PATH`.
pub fn missing(path: &OsStr) -> Option<String> {
    let absent: Vec<&str> = ["valgrind", RUNNER]
        .into_iter()
        .filter(|name| !std::env::split_paths(path).any(|folder| folder.join(name).is_file()))
        .collect();
    (!absent.is_empty()).then(|| {
        format!(
            "instructions are not counted: {} not found in PATH (valgrind is a package of most systems; `cargo install \
             gungraun-runner --version 0.20.0 --locked`)",
            absent.join(" and ")
        )
    })
}

/// Counts the instructions of every benchmark of the bench program `path`.
///
/// # Errors
/// It does not come through, or counts nothing.
pub fn count(path: &Path, timeout: Option<Duration>) -> Result<Counts> {
    let path = std::fs::canonicalize(path).map_err(Error::io("find", path))?;
    let folder = tempfile::Builder::new()
        .prefix("actbench-gate-")
        .tempdir()
        .map_err(Error::io("create", std::env::temp_dir()))?;
    let home = folder.path().as_os_str();
    let mut arguments: Vec<OsString> = ["--bench", "--nosummary", "--save-summary=json"].map(OsString::from).into();
    arguments.push(OsString::from_iter([OsStr::new("--home="), home]));
    // Where gungraun keeps its files; it clears the environment of what it counts, so that nothing else of it matters.
    let variables: [(&str, &OsStr); 1] = [("GUNGRAUN_WORKSPACE_ROOT", home)];
    let finished = program::run(&path, &arguments, &variables, Some(folder.path()), timeout)?;
    if let Some(failure) = finished.failure() {
        return Err(Error::file(path, format!("counts no instructions: {failure}")));
    }
    let mut counts = Counts::new();
    for file in files_ending(folder.path(), "summary.json") {
        let text = std::fs::read_to_string(&file).map_err(Error::io("read", &file))?;
        let value: Value = serde_json::from_str(&text).map_err(|error| Error::file(&file, error.to_string()))?;
        let (name, count) = counted(&value)
            .ok_or_else(|| Error::file(&file, "holds no count of instructions in a form that is known"))?;
        counts.insert(name, count);
    }
    match counts.is_empty() {
        true => Err(Error::file(
            path,
            "counted nothing; name a bench program of gungraun, as `cargo bench --no-run` names it",
        )),
        false => Ok(counts),
    }
}

/// All files below `folder` whose paths end with `tail`, in the order of their paths.
pub(super) fn files_ending(folder: &Path, tail: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for path in std::fs::read_dir(&folder).into_iter().flatten().flatten().map(|entry| entry.path()) {
            if path.is_dir() {
                folders.push(path);
            } else if path.ends_with(tail) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// A benchmark's name and its count. Names are identifiers there and have dashes in criterion's.
fn counted(summary: &Value) -> Option<(String, f64)> {
    let name = summary.get("id")?.as_str()?.replace('_', "-");
    Some((name, instructions(summary)?))
}

/// Callgrind's count `Ir` of all threads and parts together, of what was measured now.
fn instructions(summary: &Value) -> Option<f64> {
    let profiles = summary.get("profiles")?.as_array()?;
    let count = profiles.iter().find_map(|profile| profile.pointer("/data/total/metrics/Ir/values/new"))?;
    count.as_f64().filter(|count| count.is_finite() && *count > 0.0)
}

/// Says of each slower benchmark what its instructions witness.
pub fn bear_witness(cases: &mut [CaseReport]) {
    for case in cases {
        let verdict = |metric: Metric| case.metrics.iter().find(|it| it.metric == metric).map(|it| it.verdict);
        let note = match (verdict(Metric::Wall), verdict(Metric::Instructions)) {
            (Some(Verdict::Regressed), Some(Verdict::Pass)) => {
                "time up, instructions flat: layout of the code, caches or branches, not more work"
            }
            (Some(Verdict::Regressed), Some(Verdict::Regressed)) => "time up, instructions up: more work",
            (Some(Verdict::Regressed), Some(Verdict::Improved)) => "time up, instructions down: other, dearer work",
            (Some(Verdict::Pass | Verdict::Improved), Some(Verdict::Regressed)) => {
                "instructions up, time not: more work that costs no time here"
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
    use crate::gate::MetricReport;

    fn case(wall: Verdict, instructions: Verdict) -> CaseReport {
        let metric = |metric: Metric, verdict| MetricReport { verdict, ..crate::gate::judge::empty(metric) };
        let metrics = vec![metric(Metric::Wall, wall), metric(Metric::Instructions, instructions)];
        CaseReport { name: "pool".to_owned(), verdict: wall, reason: None, pairs: 1, metrics }
    }

    #[test]
    fn the_witness_tells_layout_from_work() {
        use Verdict::{Inconclusive, Pass, Regressed};
        let mut cases =
            [case(Regressed, Pass), case(Regressed, Regressed), case(Pass, Regressed), case(Inconclusive, Pass)];
        bear_witness(&mut cases);
        let notes: Vec<&str> = cases.iter().map(|case| case.metrics[0].note.as_deref().unwrap_or("")).collect();
        assert!(notes[0].starts_with("time up, instructions flat"), "{notes:?}");
        assert!(notes[1].starts_with("time up, instructions up"), "{notes:?}");
        assert!(notes[2].starts_with("instructions up, time not"), "{notes:?}");
        assert_eq!(notes[3], "");
    }

    #[test]
    fn counts_are_read_from_gungrauns_summary() {
        // As gungraun 0.20 writes it, cut down to what is read and what could be taken for it.
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
    fn what_is_missing_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().as_os_str();
        assert!(missing(path).unwrap().contains("valgrind and gungraun-runner"));
        std::fs::write(folder.path().join("valgrind"), "").unwrap();
        assert!(missing(path).unwrap().starts_with("instructions are not counted: gungraun-runner not found"));
        std::fs::write(folder.path().join(RUNNER), "").unwrap();
        assert_eq!(missing(path), None);
    }
}
