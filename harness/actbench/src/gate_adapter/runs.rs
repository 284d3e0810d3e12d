//! Observations of two `actbench` executables: each process is a `run` of one case, once.
//!
//! Each side is run by its command line and read by its result file, because both are stable between versions. The protocol
//! between an executable and its own workers is not.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use super::suite::Suite;
use pairgate::metric::PROCESS_SECONDS;
use pairgate::process::run_program;
use pairgate::source::{Observation, ObservationResult, Side, Source};
use pairgate::temporary::TemporaryDirectory;
use pairgate::{Error, Metric, Result};

/// Why a run without [`Metric::PeakAnonymous`] cannot be judged.
const WITHOUT_ANONYMOUS: &str = "it does not report peak-anonymous, as versions before this metric; name the metrics of both \
                                 sides, as in --metrics wall,cpu,peak-heap,auroc,feature-digest";

/// An `actbench` executable.
#[derive(Clone, Debug)]
pub struct ActbenchExecutable {
    /// The file.
    pub path: PathBuf,
    /// Arguments in addition to those of the case.
    pub arguments: Vec<String>,
}

/// Runs the cases of a suite with two executables.
pub struct ActbenchRuns {
    suite: Suite,
    base: ActbenchExecutable,
    head: ActbenchExecutable,
    metrics: Vec<Metric>,
    timeout: Option<Duration>,
    /// Has the result files and the temporary files of the processes, so that none of them outlives the gate.
    directory: TemporaryDirectory,
}

impl ActbenchRuns {
    /// The two executables on `suite`. Every observation must have all of `metrics`; other metrics are dropped.
    ///
    /// # Errors
    /// An executable does not exist, or there is no directory for temporary files.
    pub fn new(
        suite: Suite,
        base: ActbenchExecutable,
        head: ActbenchExecutable,
        metrics: Vec<Metric>,
        timeout: Option<Duration>,
    ) -> Result<Self> {
        let mut sides = [base, head];
        for side in &mut sides {
            // Absolute, so that a bare name is a file in the working directory and not one in PATH.
            side.path = std::fs::canonicalize(&side.path).map_err(Error::io("find", &side.path))?;
        }
        let [base, head] = sides;
        let directory = TemporaryDirectory::create("actbench-gate-", None)?;
        Ok(ActbenchRuns { suite, base, head, metrics, timeout, directory })
    }
}

impl Source for ActbenchRuns {
    fn cases(&self) -> Vec<String> {
        self.suite.cases.iter().map(|case| case.name.clone()).collect()
    }

    fn metrics(&self, _case: &str) -> Vec<Metric> {
        self.metrics.clone()
    }

    fn observe(&mut self, case: &str, side: Side) -> Result<ObservationResult> {
        let case = self.suite.case(case).ok_or_else(|| Error::internal(format!("the suite has no case {case}")))?;
        let executable = match side {
            Side::Base => &self.base,
            Side::Head => &self.head,
        };
        let output = self.directory.path().join("result.json");
        let mut arguments: Vec<OsString> = self.suite.arguments(case).into_iter().map(OsString::from).collect();
        arguments.extend(["--output".into(), output.clone().into_os_string()]);
        arguments.extend(executable.arguments.iter().map(OsString::from));
        let temporary: &OsStr = self.directory.path().as_os_str();
        let process = run_program(&executable.path, &arguments, &[("TMPDIR", temporary)], None, self.timeout)?;
        remove_contents(self.directory.path());
        Ok(match (observation(&process.stdout), process.failure()) {
            (Ok(observation), None) if self.lacks_anonymous(&observation) => {
                ObservationResult::Failed(WITHOUT_ANONYMOUS.to_owned())
            }
            (Ok(mut observation), None) => {
                self.drop_unlisted(&mut observation);
                ObservationResult::Measured(observation)
            }
            // The row's own reason is more specific than the exit status.
            (Err(Some(reason)), _) => ObservationResult::Failed(reason),
            (_, Some(failure)) => ObservationResult::Failed(failure),
            (Err(None), None) => ObservationResult::Failed("exited with status 0 but printed no result".to_owned()),
        })
    }
}

impl ActbenchRuns {
    fn lacks_anonymous(&self, observation: &Observation) -> bool {
        self.metrics.contains(&Metric::PeakAnonymous) && !observation.has(Metric::PeakAnonymous)
    }

    fn drop_unlisted(&self, observation: &mut Observation) {
        // GPU metrics are null on both sides without a GPU; if one side has them, both must.
        let is_gpu = |metric: Metric| matches!(metric, Metric::GpuUsed | Metric::GpuReserved);
        observation.values.retain(|metric, _| self.metrics.contains(metric) || is_gpu(*metric));
        if !self.metrics.contains(&Metric::ResultDigest) {
            observation.digest = None;
        }
    }
}

/// Removes the files of a process that was killed before it could clean up.
fn remove_contents(directory: &Path) {
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        // A failure is not an error: the directory itself is removed later.
        let _ = match entry.file_type() {
            Ok(kind) if kind.is_dir() => std::fs::remove_dir_all(entry.path()),
            _ => std::fs::remove_file(entry.path()),
        };
    }
}

/// The only row of a printed result file as an observation; if it failed, its reason, if there is one.
fn observation(text: &str) -> Result<Observation, Option<String>> {
    let file: Value = serde_json::from_str(text).map_err(|_| None)?;
    let row = file.get("rows").and_then(Value::as_array).and_then(|rows| rows.first()).ok_or(None)?;
    if row.get("status").and_then(Value::as_str) != Some("ok") {
        let text = |name: &str| row.get(name).and_then(Value::as_str).map(str::to_owned);
        return Err(text("reason").or_else(|| text("status")));
    }
    let extra = row.get("extra");
    let number = |value: Option<&Value>| value.and_then(Value::as_f64).filter(|value| value.is_finite());
    let fields = [
        (Metric::Wall, row.get("elapsed_s")),
        (Metric::Cpu, extra.and_then(|extra| extra.get("cpu_s"))),
        (Metric::PeakRss, row.get("cpu_peak_rss_mb")),
        (Metric::PeakAnonymous, extra.and_then(|extra| extra.get("peak_anonymous_mb"))),
        (Metric::PeakHeap, row.get("cpu_peak_heap_mb")),
        (Metric::GpuUsed, row.get("gpu_peak_alloc_mb")),
        (Metric::GpuReserved, row.get("gpu_peak_reserved_mb")),
        (Metric::Auroc, row.get("metric_value")),
    ];
    if let Some(seconds) = number(row.get("elapsed_s")).filter(|seconds| !PROCESS_SECONDS.contains(seconds)) {
        return Err(Some(format!("it reported a time of {seconds} s, which is impossible")));
    }
    let values = fields.into_iter().filter_map(|(metric, value)| Some((metric, number(value)?))).collect();
    let digest = extra.and_then(|extra| extra.get("feature_digest")).and_then(Value::as_str).map(str::to_owned);
    let rows_of = |name: &str| extra.and_then(|extra| extra.get(name)).and_then(Value::as_u64);
    let auroc_step = rows_of("n_test").zip(rows_of("n_test_positive")).and_then(|(all, positive)| {
        let pairs = positive.saturating_mul(all.checked_sub(positive)?);
        (pairs > 0).then(|| 1.0 / pairs as f64)
    });
    Ok(Observation { values, digest, auroc_step })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn row_becomes_observation_or_failure_reason() {
        let row = r#"{"rows":[{"status":"ok","elapsed_s":0.5,"cpu_peak_rss_mb":30.0,"cpu_peak_heap_mb":9.0,
            "gpu_peak_alloc_mb":null,"metric_value":0.9,"extra":{"n_test":20,"n_test_positive":8,"cpu_s":0.4,
            "peak_anonymous_mb":12.5,"feature_digest":"ab"}}]}"#;
        let found = observation(row).unwrap();
        assert_eq!((found.values[&Metric::Cpu], found.values[&Metric::PeakAnonymous]), (0.4, 12.5));
        assert_eq!((found.values.len(), found.digest.as_deref()), (6, Some("ab")));
        assert_eq!(found.auroc_step, Some(1.0 / 96.0), "8 positive and 12 negative rows");
        for unknown in [r#""n_test":8,"#, r#""n_test":7,"#, ""] {
            let row = row.replace(r#""n_test":20,"#, unknown);
            assert_eq!(observation(&row).unwrap().auroc_step, None, "{unknown}");
        }
        let failed = r#"{"rows":[{"status":"killed","reason":"ended by signal 9"}]}"#;
        assert_eq!(observation(failed).unwrap_err().unwrap(), "ended by signal 9");
        for impossible in ["0", "-1", "1e300", "1e-12"] {
            let row = format!(r#"{{"rows":[{{"status":"ok","elapsed_s":{impossible}}}]}}"#);
            let reason = observation(&row).unwrap_err().unwrap();
            assert!(reason.ends_with("which is impossible"), "{reason}");
        }
        for nothing in ["", "text", "{}", r#"{"rows":[]}"#] {
            assert_eq!(observation(nothing), Err(None), "{nothing}");
        }
    }
}
