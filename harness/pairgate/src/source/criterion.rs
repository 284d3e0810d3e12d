//! Observations of two criterion executables: each process measures one benchmark, and its median is one observation.
//!
//! Criterion's own comparison treats the iterations of one process as independent. They are not, because they share the
//! process's memory layout. Here every sample is a process, and the two executables alternate.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use super::instructions::{InstructionCounts, files_ending};
use super::{Observation, ObservationResult, Side, Source};
use crate::error::{Error, Result};
use crate::metric::Metric;
use crate::process::run_program;
use crate::temporary::TemporaryDirectory;

/// How long each process warms up and measures.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BenchDuration {
    /// Seconds of warm-up.
    pub warm_up_s: f64,
    /// Seconds of measurement.
    pub measurement_s: f64,
}

/// The benchmarks of one side.
#[derive(Clone, Debug)]
pub struct BenchSide {
    /// The criterion executable.
    pub executable: PathBuf,
    /// Instructions by benchmark, where they were counted.
    pub counts: Option<InstructionCounts>,
}

/// Runs the benchmarks that both executables have.
pub struct CriterionSource {
    base: BenchSide,
    head: BenchSide,
    cases: Vec<String>,
    duration: BenchDuration,
    timeout: Option<Duration>,
    /// Has criterion's files, so that a developer's own results are not overwritten.
    directory: TemporaryDirectory,
}

/// Benchmarks that only one side has, which cannot be compared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnpairedBenchmarks {
    /// Benchmarks that head lacks.
    pub only_base: Vec<String>,
    /// Benchmarks that base lacks.
    pub only_head: Vec<String>,
}

impl CriterionSource {
    /// The benchmarks that both executables have and whose names contain `filter`.
    ///
    /// # Errors
    /// An executable that does not exist or does not list its benchmarks as criterion's do, or no common benchmark.
    pub fn new(
        base: BenchSide,
        head: BenchSide,
        filter: &str,
        duration: BenchDuration,
        timeout: Option<Duration>,
    ) -> Result<(Self, UnpairedBenchmarks)> {
        let directory = TemporaryDirectory::create("pairgate-", None)?;
        let mut sides = [base, head];
        for side in &mut sides {
            // Absolute, so that a bare name is a file in the working directory and not one in PATH.
            side.executable = std::fs::canonicalize(&side.executable).map_err(Error::io("find", &side.executable))?;
        }
        let [base, head] = sides;
        let (base_names, head_names) = (list(&base.executable, timeout)?, list(&head.executable, timeout)?);
        let select = |names: &[String], others: &[String], in_both: bool| -> Vec<String> {
            let selected = names.iter().filter(|name| name.contains(filter) && others.contains(name) == in_both);
            selected.cloned().collect()
        };
        let cases = select(&base_names, &head_names, true);
        if cases.is_empty() {
            return Err(Error::usage(format!(
                "no common benchmark has a name that contains '{filter}'; base has {}; head has {}",
                base_names.join(", "),
                head_names.join(", ")
            )));
        }
        let unpaired = UnpairedBenchmarks {
            only_base: select(&base_names, &head_names, false),
            only_head: select(&head_names, &base_names, false),
        };
        Ok((CriterionSource { base, head, cases, duration, timeout, directory }, unpaired))
    }

    fn side(&self, side: Side) -> &BenchSide {
        match side {
            Side::Base => &self.base,
            Side::Head => &self.head,
        }
    }
}

impl Source for CriterionSource {
    fn cases(&self) -> Vec<String> {
        self.cases.clone()
    }

    /// Instructions are judged where they were counted on both sides.
    fn metrics(&self, case: &str) -> Vec<Metric> {
        let is_counted = |side: &BenchSide| side.counts.as_ref().is_some_and(|counts| counts.contains_key(case));
        if is_counted(&self.base) && is_counted(&self.head) {
            vec![Metric::Wall, Metric::Instructions]
        } else {
            vec![Metric::Wall]
        }
    }

    fn observe(&mut self, case: &str, side: Side) -> Result<ObservationResult> {
        let sample = tempfile::Builder::new()
            .prefix("sample-")
            .tempdir_in(self.directory.path())
            .map_err(Error::io("create", self.directory.path()))?;
        let seconds = |seconds: f64| OsString::from(format!("{seconds}"));
        let arguments = [
            "--bench".into(),
            "--exact".into(),
            case.into(),
            "--noplot".into(),
            "--warm-up-time".into(),
            seconds(self.duration.warm_up_s),
            "--measurement-time".into(),
            seconds(self.duration.measurement_s),
            // Few resamples: the interval that they bootstrap is not read.
            "--nresamples".into(),
            "1000".into(),
        ];
        let variables: [(&str, &OsStr); 2] =
            [("CRITERION_HOME", sample.path().as_os_str()), ("TMPDIR", sample.path().as_os_str())];
        let output = run_program(&self.side(side).executable, &arguments, &variables, None, self.timeout)?;
        if let Some(failure) = output.failure() {
            return Ok(ObservationResult::Failed(failure));
        }
        let seconds = match estimates(sample.path()).as_slice() {
            [file] => median_s(file),
            // The last line is the reason why a benchmark was skipped.
            [] => {
                Err(output.stderr.lines().last().map_or_else(|| "no benchmark was measured".to_owned(), str::to_owned))
            }
            several => Err(format!("{} benchmarks were measured instead of {case} alone", several.len())),
        };
        let wall = match seconds {
            Ok(seconds) => seconds,
            Err(reason) => return Ok(ObservationResult::Failed(reason)),
        };
        let mut values = BTreeMap::from([(Metric::Wall, wall)]);
        let counts = self.side(side).counts.as_ref();
        if self.metrics(case).contains(&Metric::Instructions) {
            values.extend(counts.and_then(|counts| counts.get(case)).map(|count| (Metric::Instructions, *count)));
        }
        Ok(ObservationResult::Measured(Observation { values, ..Observation::default() }))
    }
}

/// The benchmarks that an executable lists, a line each as `name: benchmark`.
fn list(path: &Path, timeout: Option<Duration>) -> Result<Vec<String>> {
    let directory = TemporaryDirectory::create("pairgate-", None)?;
    let variables: [(&str, &OsStr); 1] = [("CRITERION_HOME", directory.path().as_os_str())];
    let output = run_program(path, &["--bench".into(), "--list".into()], &variables, None, timeout)?;
    if let Some(failure) = output.failure() {
        return Err(Error::file(path, format!("does not list its benchmarks: {failure}; name a criterion executable")));
    }
    let names: Vec<String> =
        output.stdout.lines().filter_map(|line| line.strip_suffix(": benchmark")).map(str::to_owned).collect();
    if names.is_empty() {
        return Err(Error::file(
            path,
            "lists no benchmark; name a criterion executable, as `cargo bench --no-run` prints it",
        ));
    }
    Ok(names)
}

/// The files of this measurement; criterion's own comparison is in the directories `base` and `change` next to them.
fn estimates(directory: &Path) -> Vec<PathBuf> {
    files_ending(directory, "new/estimates.json")
}

/// The median time of an iteration, in seconds; criterion writes nanoseconds.
fn median_s(file: &Path) -> Result<f64, String> {
    let text = std::fs::read_to_string(file).map_err(|error| format!("its estimates cannot be read: {error}"))?;
    let value: Value = serde_json::from_str(&text).map_err(|error| format!("its estimates are not JSON: {error}"))?;
    let nanoseconds = value.pointer("/median/point_estimate").and_then(Value::as_f64);
    nanoseconds
        .map(|nanoseconds| nanoseconds * 1e-9)
        .filter(|seconds| seconds.is_finite() && *seconds > 0.0)
        .ok_or_else(|| "its estimates have no median above 0".to_owned())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const DURATION: BenchDuration = BenchDuration { warm_up_s: 0.1, measurement_s: 0.2 };

    /// An executable that lists `names` and reports `nanoseconds` for each of them.
    fn executable(directory: &Path, name: &str, names: &[&str], nanoseconds: &str) -> BenchSide {
        let path = directory.join(name);
        let lines: Vec<String> = names.iter().map(|name| format!("echo '{name}: benchmark'")).collect();
        let text = format!(
            "#!/bin/sh\nif [ \"$2\" = --list ]; then\n{}\nexit 0; fi\nmkdir -p \"$CRITERION_HOME/$3/new\"\n\
             echo '{{\"median\":{{\"point_estimate\":{nanoseconds}}}}}' > \"$CRITERION_HOME/$3/new/estimates.json\"\n",
            lines.join("\n")
        );
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        BenchSide { executable: path, counts: None }
    }

    #[test]
    fn common_benchmarks_are_measured_and_others_named() {
        let directory = tempfile::tempdir().unwrap();
        let mut base = executable(directory.path(), "base", &["pool", "plan", "old"], "2500000");
        let mut head = executable(directory.path(), "head", &["pool", "plan", "new"], "5000000");
        base.counts = Some(InstructionCounts::from([("pool".to_owned(), 1000.0), ("plan".to_owned(), 10.0)]));
        head.counts = Some(InstructionCounts::from([("pool".to_owned(), 1001.0)]));
        let (mut source, unpaired) = CriterionSource::new(base, head, "", DURATION, None).unwrap();
        assert_eq!(source.cases(), ["pool", "plan"]);
        assert_eq!((unpaired.only_base, unpaired.only_head), (vec!["old".to_owned()], vec!["new".to_owned()]));
        assert_eq!(source.metrics("pool"), [Metric::Wall, Metric::Instructions]);
        assert_eq!(source.metrics("plan"), [Metric::Wall], "one side did not count it");
        let ObservationResult::Measured(found) = source.observe("pool", Side::Head).unwrap() else { panic!("failed") };
        assert!((found.values[&Metric::Wall] - 0.005).abs() < 1e-12);
        assert_eq!(found.values[&Metric::Instructions], 1001.0);
        let ObservationResult::Measured(found) = source.observe("plan", Side::Base).unwrap() else { panic!("failed") };
        assert_eq!(found.values.len(), 1);
        assert_eq!(fs::read_dir(source.directory.path()).unwrap().count(), 0, "samples leave files behind");
    }

    #[test]
    fn missing_or_invalid_estimates_fail_the_observation() {
        let directory = tempfile::tempdir().unwrap();
        let base = executable(directory.path(), "base", &["pool"], "2500000");
        for bad in ["null", "-1", "0", "\"fast\""] {
            let head = executable(directory.path(), "head", &["pool"], bad);
            let (mut source, _) = CriterionSource::new(base.clone(), head, "pool", DURATION, None).unwrap();
            assert!(matches!(source.observe("pool", Side::Head).unwrap(), ObservationResult::Failed(_)), "{bad}");
        }
        let silent = directory.path().join("silent");
        fs::write(&silent, "#!/bin/sh\n[ \"$2\" = --list ] && echo 'pool: benchmark' || echo 'skipped: no file' >&2\n")
            .unwrap();
        fs::set_permissions(&silent, fs::Permissions::from_mode(0o755)).unwrap();
        let silent = BenchSide { executable: silent, counts: None };
        let (mut source, _) = CriterionSource::new(base.clone(), silent, "", DURATION, None).unwrap();
        assert_eq!(
            source.observe("pool", Side::Head).unwrap(),
            ObservationResult::Failed("skipped: no file".to_owned())
        );
        let other = executable(directory.path(), "other", &["plan"], "1");
        assert!(CriterionSource::new(base.clone(), other, "", DURATION, None).is_err());
        let absent = BenchSide { executable: directory.path().join("absent"), counts: None };
        assert!(CriterionSource::new(base, absent, "", DURATION, None).is_err());
    }
}
