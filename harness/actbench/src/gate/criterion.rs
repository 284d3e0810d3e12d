//! Observations of two criterion bench programs: each process measures one benchmark, and its median is one observation.
//!
//! Criterion's own comparison takes the iterations of one process for independent, which they are not: how a process is
//! laid out in memory stays with it. Here every sample is a process, and the two programs take turns.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use super::instructions::{Counts, files_ending};
use super::metric::Metric;
use super::source::{Observation, Observed, Side, Source};
use crate::error::{Error, Result};
use crate::runner::program;

/// How long a process measures.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Effort {
    /// Seconds before what is measured.
    pub warm_up_s: f64,
    /// Seconds that are measured.
    pub measurement_s: f64,
}

/// A side's programs.
#[derive(Clone, Debug)]
pub struct Benches {
    /// The criterion bench program.
    pub program: PathBuf,
    /// Instructions by benchmark, where they were counted.
    pub counts: Option<Counts>,
}

/// Where the observations of benchmarks come from.
pub struct CriterionSource {
    base: Benches,
    head: Benches,
    cases: Vec<String>,
    effort: Effort,
    timeout: Option<Duration>,
    /// Holds criterion's files, so that those of a developer stay as they are.
    folder: tempfile::TempDir,
}

/// Benchmarks that only one side has, which cannot be compared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OneSided {
    /// Only in base: they are gone.
    pub gone: Vec<String>,
    /// Only in head: they are new.
    pub new: Vec<String>,
}

impl CriterionSource {
    /// The benchmarks that both programs have and whose names hold `filter`.
    ///
    /// # Errors
    /// A program that is not there or does not list its benchmarks as criterion's do, or none in common.
    pub fn new(
        base: Benches,
        head: Benches,
        filter: &str,
        effort: Effort,
        timeout: Option<Duration>,
    ) -> Result<(Self, OneSided)> {
        let folder = tempfile::Builder::new()
            .prefix("actbench-gate-")
            .tempdir()
            .map_err(Error::io("create", std::env::temp_dir()))?;
        let mut sides = [base, head];
        for side in &mut sides {
            // Made absolute, so that a bare name is a file here and not something in PATH.
            side.program = std::fs::canonicalize(&side.program).map_err(Error::io("find", &side.program))?;
        }
        let [base, head] = sides;
        let (of_base, of_head) = (list(&base.program, timeout)?, list(&head.program, timeout)?);
        let wanted = |names: &[String], others: &[String], both: bool| -> Vec<String> {
            let chosen = names.iter().filter(|name| name.contains(filter) && others.contains(name) == both);
            chosen.cloned().collect()
        };
        let cases = wanted(&of_base, &of_head, true);
        if cases.is_empty() {
            return Err(Error::usage(format!(
                "the bench programs have no benchmark in common whose name holds '{filter}': {} against {}",
                of_base.join(", "),
                of_head.join(", ")
            )));
        }
        let one_sided = OneSided { gone: wanted(&of_base, &of_head, false), new: wanted(&of_head, &of_base, false) };
        Ok((CriterionSource { base, head, cases, effort, timeout, folder }, one_sided))
    }

    fn side(&self, side: Side) -> &Benches {
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

    /// Instructions where both sides have counted them: new benchmarks of one side have no witness.
    fn metrics(&self, case: &str) -> Vec<Metric> {
        let counted = |side: &Benches| side.counts.as_ref().is_some_and(|counts| counts.contains_key(case));
        match counted(&self.base) && counted(&self.head) {
            true => vec![Metric::Wall, Metric::Instructions],
            false => vec![Metric::Wall],
        }
    }

    fn observe(&mut self, case: &str, side: Side) -> Result<Observed> {
        let own = tempfile::Builder::new()
            .prefix("sample-")
            .tempdir_in(self.folder.path())
            .map_err(Error::io("create", self.folder.path()))?;
        let seconds = |seconds: f64| OsString::from(format!("{seconds}"));
        let arguments = [
            "--bench".into(),
            "--exact".into(),
            case.into(),
            "--noplot".into(),
            "--warm-up-time".into(),
            seconds(self.effort.warm_up_s),
            "--measurement-time".into(),
            seconds(self.effort.measurement_s),
            // The bootstrap of an interval that nobody reads.
            "--nresamples".into(),
            "1000".into(),
        ];
        let variables: [(&str, &OsStr); 2] =
            [("CRITERION_HOME", own.path().as_os_str()), ("TMPDIR", own.path().as_os_str())];
        let finished = program::run(&self.side(side).program, &arguments, &variables, None, self.timeout)?;
        if let Some(failure) = finished.failure() {
            return Ok(Observed::Failed(failure));
        }
        let seconds = match estimates(own.path()).as_slice() {
            [file] => median_s(file),
            // A program says there why it left a benchmark out.
            [] => Err(finished.stderr.lines().last().map_or_else(|| "measured nothing".to_owned(), str::to_owned)),
            several => Err(format!("measured {} benchmarks instead of {case} alone", several.len())),
        };
        let wall = match seconds {
            Ok(seconds) => seconds,
            Err(reason) => return Ok(Observed::Failed(reason)),
        };
        let mut values = BTreeMap::from([(Metric::Wall, wall)]);
        let counts = self.side(side).counts.as_ref();
        if self.metrics(case).contains(&Metric::Instructions) {
            values.extend(counts.and_then(|counts| counts.get(case)).map(|count| (Metric::Instructions, *count)));
        }
        Ok(Observed::Measured(Observation { values, digest: None }))
    }
}

/// The benchmarks that a program lists, a line each as `name: benchmark`.
fn list(path: &Path, timeout: Option<Duration>) -> Result<Vec<String>> {
    let folder = tempfile::tempdir().map_err(Error::io("create", std::env::temp_dir()))?;
    let variables: [(&str, &OsStr); 1] = [("CRITERION_HOME", folder.path().as_os_str())];
    let finished = program::run(path, &["--bench".into(), "--list".into()], &variables, None, timeout)?;
    if let Some(failure) = finished.failure() {
        return Err(Error::file(
            path,
            format!("does not list its benchmarks: {failure}; name a criterion bench program"),
        ));
    }
    let names: Vec<String> =
        finished.stdout.lines().filter_map(|line| line.strip_suffix(": benchmark")).map(str::to_owned).collect();
    match names.is_empty() {
        true => Err(Error::file(
            path,
            "lists no benchmark; name a criterion bench program, as `cargo bench --no-run` names it",
        )),
        false => Ok(names),
    }
}

/// The files with what was measured now; `base` and `change` beside them are criterion's own comparison.
fn estimates(folder: &Path) -> Vec<PathBuf> {
    files_ending(folder, "new/estimates.json")
}

/// The median time of an iteration, in seconds; criterion writes nanoseconds.
fn median_s(file: &Path) -> Result<f64, String> {
    let text = std::fs::read_to_string(file).map_err(|error| format!("its estimates cannot be read: {error}"))?;
    let value: Value = serde_json::from_str(&text).map_err(|error| format!("its estimates are no JSON: {error}"))?;
    let nanoseconds = value.pointer("/median/point_estimate").and_then(Value::as_f64);
    nanoseconds
        .map(|nanoseconds| nanoseconds * 1e-9)
        .filter(|seconds| seconds.is_finite() && *seconds > 0.0)
        .ok_or_else(|| "its estimates have no median that is above 0".to_owned())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const EFFORT: Effort = Effort { warm_up_s: 0.1, measurement_s: 0.2 };

    /// A bench program that lists `names` and measures every one of them as `nanoseconds`.
    fn program(folder: &Path, name: &str, names: &[&str], nanoseconds: &str) -> Benches {
        let path = folder.join(name);
        let lines: Vec<String> = names.iter().map(|name| format!("echo '{name}: benchmark'")).collect();
        let text = format!(
            "#!/bin/sh\nif [ \"$2\" = --list ]; then\n{}\nexit 0; fi\nmkdir -p \"$CRITERION_HOME/$3/new\"\n\
             echo '{{\"median\":{{\"point_estimate\":{nanoseconds}}}}}' > \"$CRITERION_HOME/$3/new/estimates.json\"\n",
            lines.join("\n")
        );
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        Benches { program: path, counts: None }
    }

    #[test]
    fn benchmarks_of_both_sides_are_measured_a_process_each() {
        let folder = tempfile::tempdir().unwrap();
        let mut base = program(folder.path(), "base", &["pool", "plan", "old"], "2500000");
        let mut head = program(folder.path(), "head", &["pool", "plan", "new"], "5000000");
        base.counts = Some(Counts::from([("pool".to_owned(), 1000.0), ("plan".to_owned(), 10.0)]));
        head.counts = Some(Counts::from([("pool".to_owned(), 1001.0)]));
        let (mut source, one_sided) = CriterionSource::new(base, head, "", EFFORT, None).unwrap();
        assert_eq!(source.cases(), ["pool", "plan"]);
        assert_eq!((one_sided.gone, one_sided.new), (vec!["old".to_owned()], vec!["new".to_owned()]));
        assert_eq!(source.metrics("pool"), [Metric::Wall, Metric::Instructions]);
        assert_eq!(source.metrics("plan"), [Metric::Wall], "one side did not count it");
        let Observed::Measured(found) = source.observe("pool", Side::Head).unwrap() else { panic!("it was measured") };
        assert!((found.values[&Metric::Wall] - 0.005).abs() < 1e-12);
        assert_eq!(found.values[&Metric::Instructions], 1001.0);
        let Observed::Measured(found) = source.observe("plan", Side::Base).unwrap() else { panic!("it was measured") };
        assert_eq!(found.values.len(), 1);
        assert_eq!(fs::read_dir(source.folder.path()).unwrap().count(), 0, "samples leave nothing behind");
    }

    #[test]
    fn what_measures_nothing_or_nonsense_fails_and_does_not_pass() {
        let folder = tempfile::tempdir().unwrap();
        let base = program(folder.path(), "base", &["pool"], "2500000");
        for bad in ["null", "-1", "0", "\"fast\""] {
            let head = program(folder.path(), "head", &["pool"], bad);
            let (mut source, _) = CriterionSource::new(base.clone(), head, "pool", EFFORT, None).unwrap();
            assert!(matches!(source.observe("pool", Side::Head).unwrap(), Observed::Failed(_)), "{bad}");
        }
        let silent = folder.path().join("silent");
        fs::write(&silent, "#!/bin/sh\n[ \"$2\" = --list ] && echo 'pool: benchmark' || echo 'skipped: no file' >&2\n")
            .unwrap();
        fs::set_permissions(&silent, fs::Permissions::from_mode(0o755)).unwrap();
        let silent = Benches { program: silent, counts: None };
        let (mut source, _) = CriterionSource::new(base.clone(), silent, "", EFFORT, None).unwrap();
        assert_eq!(source.observe("pool", Side::Head).unwrap(), Observed::Failed("skipped: no file".to_owned()));
        let other = program(folder.path(), "other", &["plan"], "1");
        assert!(CriterionSource::new(base.clone(), other, "", EFFORT, None).is_err());
        let absent = Benches { program: folder.path().join("absent"), counts: None };
        assert!(CriterionSource::new(base, absent, "", EFFORT, None).is_err());
    }
}
