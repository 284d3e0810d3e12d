//! Observations of any two shell commands: wall time and CPU time of one process each, and its peak RSS on request.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use super::{Observation, ObservationResult, Side, Source};
use crate::error::{Error, Result};
use crate::metric::Metric;
use crate::process::{ProcessOutput, run_program};

/// A case: the command before the change and the command after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandCase {
    /// A name that is unique among the cases.
    pub name: String,
    /// The command line before the change, for `/bin/sh -c`.
    pub base: String,
    /// The command line to judge.
    pub head: String,
}

impl CommandCase {
    /// The case `name` of `base` against `head`.
    pub fn new(name: &str, base: &str, head: &str) -> Self {
        CommandCase { name: name.to_owned(), base: base.to_owned(), head: head.to_owned() }
    }
}

/// How commands are run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CommandOptions {
    /// The longest that a command may take; none is no limit.
    pub timeout: Option<Duration>,
    /// Whether both sides must write the same bytes to standard output ([`Metric::ResultDigest`]).
    pub compare_output: bool,
    /// Whether the peak RSS is judged ([`Metric::PeakRss`]). It includes the mapped pages of the programs' files, which depend
    /// on the page cache: two copies of one program may differ by some percent.
    pub judge_peak_rss: bool,
}

/// Runs shell commands. Time includes the start of the process. The system counts the peak RSS of any program, but not the
/// peak of the memory that it allocates; it is at least that of this process, which a child inherits until it executes its
/// program.
pub struct CommandSource {
    cases: Vec<CommandCase>,
    options: CommandOptions,
}

impl CommandSource {
    /// A source of `cases`.
    ///
    /// # Errors
    /// No case, or two of one name.
    pub fn new(cases: Vec<CommandCase>, options: CommandOptions) -> Result<Self> {
        if cases.is_empty() {
            return Err(Error::usage("no case: a gate that measures nothing cannot pass"));
        }
        for (index, case) in cases.iter().enumerate() {
            if cases[..index].iter().any(|other| other.name == case.name) {
                return Err(Error::usage(format!("case '{}': every case needs a unique name", case.name)));
            }
        }
        Ok(CommandSource { cases, options })
    }
}

impl Source for CommandSource {
    fn cases(&self) -> Vec<String> {
        self.cases.iter().map(|case| case.name.clone()).collect()
    }

    fn metrics(&self, _case: &str) -> Vec<Metric> {
        let mut metrics = vec![Metric::Wall, Metric::Cpu];
        if self.options.judge_peak_rss {
            metrics.push(Metric::PeakRss);
        }
        if self.options.compare_output {
            metrics.push(Metric::ResultDigest);
        }
        metrics
    }

    fn observe(&mut self, case: &str, side: Side) -> Result<ObservationResult> {
        let case = self.cases.iter().find(|known| known.name == case);
        let case = case.ok_or_else(|| Error::internal("a case that is not among the commands"))?;
        let command = match side {
            Side::Base => &case.base,
            Side::Head => &case.head,
        };
        let arguments: [OsString; 2] = ["-c".into(), command.into()];
        let output = run_program(Path::new("/bin/sh"), &arguments, &[], None, self.options.timeout)?;
        Ok(match output.failure() {
            Some(failure) => ObservationResult::Failed(failure),
            None => ObservationResult::Measured(observation(&output, self.options)),
        })
    }
}

fn observation(output: &ProcessOutput, options: CommandOptions) -> Observation {
    let mut values = BTreeMap::from([(Metric::Wall, output.elapsed.as_secs_f64())]);
    if let Some(usage) = output.usage {
        // The kernel counts CPU time in ticks or microseconds: a command may use less than it can count, and a ratio
        // needs values above 0.
        values.insert(Metric::Cpu, usage.cpu_s.max(1e-6));
        if options.judge_peak_rss {
            values.insert(Metric::PeakRss, usage.peak_rss_mib);
        }
    }
    let digest = options.compare_output.then(|| blake3::hash(output.stdout.as_bytes()).to_hex().to_string());
    Observation { values, digest, auroc_step: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_is_measured_or_its_failure_reported() {
        let options = CommandOptions { compare_output: true, judge_peak_rss: true, ..CommandOptions::default() };
        let mut source = CommandSource::new(vec![CommandCase::new("a", "echo one", "exit 3")], options).unwrap();
        let ObservationResult::Measured(observed) = source.observe("a", Side::Base).unwrap() else {
            panic!("the command succeeds")
        };
        assert!(source.metrics("a").iter().all(|metric| observed.has(*metric)), "{observed:?}");
        let failed = source.observe("a", Side::Head).unwrap();
        assert_eq!(failed, ObservationResult::Failed("exit status 3".to_owned()));
    }

    #[test]
    fn peak_rss_is_measured_on_request_only() {
        let mut source =
            CommandSource::new(vec![CommandCase::new("a", "true", "true")], CommandOptions::default()).unwrap();
        assert_eq!(source.metrics("a"), [Metric::Wall, Metric::Cpu]);
        let ObservationResult::Measured(observed) = source.observe("a", Side::Base).unwrap() else {
            panic!("the command succeeds")
        };
        assert!(!observed.has(Metric::PeakRss), "{observed:?}");
    }

    #[test]
    fn empty_and_duplicate_cases_are_refused() {
        let case = || CommandCase::new("a", "true", "true");
        assert!(CommandSource::new(Vec::new(), CommandOptions::default()).is_err());
        assert!(CommandSource::new(vec![case(), case()], CommandOptions::default()).is_err());
    }
}
