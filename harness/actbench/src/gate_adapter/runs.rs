//! Observations of two `actbench` programs: each runs its own command `run`, one case, once.
//!
//! The command line is what stays the same from one version to the next, where the messages between a program and its
//! own children do not; so each side is run as people run it, and what it measured is read from its result file.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use super::metric::Metric;
use super::source::{Observation, Observed, Side, Source};
use super::suite::Suite;
use crate::error::{Error, Result};
use crate::runner::program;

/// A program to be measured.
#[derive(Clone, Debug)]
pub struct Program {
    /// Its file.
    pub path: PathBuf,
    /// Arguments beside those of the case.
    pub arguments: Vec<String>,
}

/// Where a suite's observations come from.
pub struct Programs {
    suite: Suite,
    base: Program,
    head: Program,
    metrics: Vec<Metric>,
    timeout: Option<Duration>,
    /// For the result files and the programs' own temporary files, so that none outlives the gate.
    folder: tempfile::TempDir,
}

impl Programs {
    /// The two programs on `suite`; every observation must have all of `metrics`, and others are not looked at.
    ///
    /// # Errors
    /// A program that is not there, or no folder for temporary files.
    pub fn new(
        suite: Suite,
        base: Program,
        head: Program,
        metrics: Vec<Metric>,
        timeout: Option<Duration>,
    ) -> Result<Self> {
        let mut programs = [base, head];
        for program in &mut programs {
            // Made absolute, so that a bare name is a file here and not something in PATH.
            program.path = std::fs::canonicalize(&program.path).map_err(Error::io("find", &program.path))?;
        }
        let [base, head] = programs;
        let folder = tempfile::Builder::new()
            .prefix("actbench-gate-")
            .tempdir()
            .map_err(Error::io("create", std::env::temp_dir()))?;
        Ok(Programs { suite, base, head, metrics, timeout, folder })
    }
}

impl Source for Programs {
    fn cases(&self) -> Vec<String> {
        self.suite.cases.iter().map(|case| case.name.clone()).collect()
    }

    fn metrics(&self, _case: &str) -> Vec<Metric> {
        self.metrics.clone()
    }

    fn observe(&mut self, case: &str, side: Side) -> Result<Observed> {
        let case = self.suite.case(case).ok_or_else(|| Error::usage(format!("the suite has no case {case}")))?;
        let program = match side {
            Side::Base => &self.base,
            Side::Head => &self.head,
        };
        let output = self.folder.path().join("result.json");
        let mut arguments: Vec<OsString> = self.suite.arguments(case).into_iter().map(OsString::from).collect();
        arguments.extend(["--output".into(), output.clone().into_os_string()]);
        arguments.extend(program.arguments.iter().map(OsString::from));
        let temporary: &OsStr = self.folder.path().as_os_str();
        let finished = program::run(&program.path, &arguments, &[("TMPDIR", temporary)], None, self.timeout)?;
        remove_all_in(self.folder.path());
        Ok(match (observation(&finished.stdout), finished.failure()) {
            (Ok(mut observation), None) => {
                self.keep_listed(&mut observation);
                Observed::Measured(observation)
            }
            // The row's own reason says more than the exit status that follows from it.
            (Err(Some(reason)), _) => Observed::Failed(reason),
            (_, Some(failure)) => Observed::Failed(failure),
            (Err(None), None) => Observed::Failed("ended well and printed no result".to_owned()),
        })
    }
}

impl Programs {
    fn keep_listed(&self, observation: &mut Observation) {
        // Without a GPU its metrics are null on both sides; where one side has them, both must.
        let gpu = |metric: Metric| matches!(metric, Metric::GpuUsed | Metric::GpuReserved);
        observation.values.retain(|metric, _| self.metrics.contains(metric) || gpu(*metric));
        if !self.metrics.contains(&Metric::FeatureDigest) {
            observation.digest = None;
        }
    }
}

/// What a program left behind that was ended before it could clean up.
fn remove_all_in(folder: &Path) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        // What cannot be removed now goes with the folder.
        let _ = match entry.file_type() {
            Ok(kind) if kind.is_dir() => std::fs::remove_dir_all(entry.path()),
            _ => std::fs::remove_file(entry.path()),
        };
    }
}

/// The one row of a printed result file; else the reason that its row gives, if there is a row.
fn observation(text: &str) -> Result<Observation, Option<String>> {
    let file: Value = serde_json::from_str(text).map_err(|_| None)?;
    let row = file.get("rows").and_then(Value::as_array).and_then(|rows| rows.first()).ok_or(None)?;
    if row.get("status").and_then(Value::as_str) != Some("ok") {
        let text = |name: &str| row.get(name).and_then(Value::as_str).map(str::to_owned);
        return Err(text("reason").or_else(|| text("status")));
    }
    let extra = row.get("extra");
    let number = |value: Option<&Value>| value.and_then(Value::as_f64).filter(|value| value.is_finite());
    let places = [
        (Metric::Wall, row.get("elapsed_s")),
        (Metric::Cpu, extra.and_then(|extra| extra.get("cpu_s"))),
        (Metric::PeakRss, row.get("cpu_peak_rss_mb")),
        (Metric::PeakHeap, row.get("cpu_peak_heap_mb")),
        (Metric::GpuUsed, row.get("gpu_peak_alloc_mb")),
        (Metric::GpuReserved, row.get("gpu_peak_reserved_mb")),
        (Metric::Auroc, row.get("metric_value")),
    ];
    let values = places.into_iter().filter_map(|(metric, value)| Some((metric, number(value)?))).collect();
    let digest = extra.and_then(|extra| extra.get("feature_digest")).and_then(Value::as_str).map(str::to_owned);
    Ok(Observation { values, digest })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_becomes_an_observation_or_its_reason() {
        let row = r#"{"rows":[{"status":"ok","elapsed_s":0.5,"cpu_peak_rss_mb":30.0,"cpu_peak_heap_mb":9.0,
            "gpu_peak_alloc_mb":null,"metric_value":0.9,"extra":{"cpu_s":0.4,"feature_digest":"ab"}}]}"#;
        let found = observation(row).unwrap();
        assert_eq!(found.values[&Metric::Cpu], 0.4);
        assert_eq!((found.values.len(), found.digest.as_deref()), (5, Some("ab")));
        let failed = r#"{"rows":[{"status":"killed","reason":"ended by signal 9"}]}"#;
        assert_eq!(observation(failed).unwrap_err().unwrap(), "ended by signal 9");
        for nothing in ["", "text", "{}", r#"{"rows":[]}"#] {
            assert_eq!(observation(nothing), Err(None), "{nothing}");
        }
    }
}
