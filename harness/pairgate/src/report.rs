//! The report of a gate: the JSON file, and the verdict with its exit status.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::design::GateDesign;
use crate::metric::Metric;
use crate::selftest::Resolution;

/// The report of a gate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GateReport {
    /// Name and version of the caller's reports; raised when a name changes its meaning.
    pub schema: String,
    /// The verdict on all cases.
    pub outcome: Verdict,
    /// Pairs, margins, levels and seed.
    pub design: GateDesign,
    /// The program before the change.
    pub base: ProgramIdentity,
    /// The program that was judged.
    pub head: ProgramIdentity,
    /// The caller's record of the machine and of its own build.
    pub environment: Value,
    /// Digest of the facts that make timings of two machines comparable.
    pub machine: String,
    /// The result of the last self-test on this machine; none if it was never run.
    pub resolution: Option<Resolution>,
    /// Disturbances of the machine, a sentence each.
    pub warnings: Vec<String>,
    /// The cases, in the order of the suite.
    pub cases: Vec<CaseReport>,
}

/// A program that was measured.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ProgramIdentity {
    /// Its executable, or the revision that it was built from.
    pub path: PathBuf,
    /// The commit it was built from, where it is known.
    pub revision: Option<String>,
    /// Digest of the executable's bytes.
    pub build: String,
    /// Version, profile and compiler, where they are known.
    pub description: Option<String>,
}

/// The result of a case.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CaseReport {
    /// Its name.
    pub name: String,
    /// The worst of its metrics.
    pub verdict: Verdict,
    /// Why it is broken, if it is.
    pub reason: Option<String>,
    /// Pairs of processes that were run.
    pub pairs: usize,
    /// Its metrics, in the order of [`Metric::ALL`].
    pub metrics: Vec<MetricReport>,
}

/// The result of a metric of a case.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MetricReport {
    /// The metric.
    pub metric: Metric,
    /// Its unit.
    pub unit: String,
    /// The verdict on it.
    pub verdict: Verdict,
    /// head / base: above 1 means that head takes more. None where there is no ratio (a digest, a zero).
    pub estimate: Option<f64>,
    /// Lower end of the two-sided interval of the ratio.
    pub low: Option<f64>,
    /// Upper end.
    pub high: Option<f64>,
    /// Confidence of the interval.
    pub confidence: Option<f64>,
    /// Pairs that these numbers are computed from.
    pub n_pairs: usize,
    /// One-sided p-value: the probability of pairs at least as extreme if head were at most `delta` slower than base. It is
    /// adjusted for the number of tests. None where no test was made.
    pub p: Option<f64>,
    /// Median of base.
    pub base_median: Option<f64>,
    /// Median of head.
    pub head_median: Option<f64>,
    /// A remark on the verdict.
    pub note: Option<String>,
}

/// The verdict on a metric, a case or a gate, ordered from good to bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Shown to be better.
    Improved,
    /// Shown to be less worse than the effect that must not pass.
    Pass,
    /// Neither shown to be worse nor to be no worse.
    Inconclusive,
    /// Shown to be worse.
    Regressed,
    /// Not measured: a run failed, a metric is missing, or there was nothing to measure.
    Broken,
}

impl CaseReport {
    /// The report of a case that was not measured: it is broken.
    pub fn unmeasured(name: impl Into<String>, reason: impl Into<String>) -> Self {
        CaseReport {
            name: name.into(),
            verdict: Verdict::Broken,
            reason: Some(reason.into()),
            pairs: 0,
            metrics: Vec::new(),
        }
    }
}

impl MetricReport {
    /// The report of a metric that was not measured.
    pub fn unmeasured(metric: Metric) -> Self {
        MetricReport {
            metric,
            unit: metric.unit().to_owned(),
            verdict: Verdict::Broken,
            estimate: None,
            low: None,
            high: None,
            confidence: None,
            n_pairs: 0,
            p: None,
            base_median: None,
            head_median: None,
            note: None,
        }
    }
}

impl Verdict {
    /// The verdict on a gate with these `cases`. A regression is reported even where another case broke; a gate without
    /// cases is broken. A gate passes whether or not a case improved.
    pub fn of_cases(cases: &[CaseReport]) -> Self {
        let is_measured = !cases.is_empty() && cases.iter().all(|case| !case.metrics.is_empty() && case.pairs > 0);
        if is_measured {
            Verdict::of_parts(cases.iter().map(|case| case.verdict))
        } else {
            Verdict::of_parts(cases.iter().map(|case| case.verdict).chain([Verdict::Broken]))
        }
    }

    /// The verdict on a whole whose parts have these verdicts: regressed before broken before inconclusive before pass;
    /// broken where there is no part.
    pub fn of_parts(parts: impl IntoIterator<Item = Verdict>) -> Self {
        let severity = |verdict: &Verdict| match verdict {
            Verdict::Pass | Verdict::Improved => 0,
            Verdict::Inconclusive => 1,
            Verdict::Broken => 2,
            Verdict::Regressed => 3,
        };
        match parts.into_iter().max_by_key(severity) {
            None => Verdict::Broken,
            Some(Verdict::Improved) => Verdict::Pass,
            Some(verdict) => verdict,
        }
    }

    /// The exit status of a process whose result this is.
    pub fn exit_code(self) -> u8 {
        match self {
            Verdict::Pass | Verdict::Improved => 0,
            Verdict::Regressed => 1,
            Verdict::Broken => 2,
            Verdict::Inconclusive => 3,
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Verdict::Improved => "improved",
            Verdict::Pass => "pass",
            Verdict::Inconclusive => "inconclusive",
            Verdict::Regressed => "regressed",
            Verdict::Broken => "broken",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn case(verdict: Verdict) -> CaseReport {
        let metric = MetricReport { verdict, n_pairs: 10, ..MetricReport::unmeasured(Metric::Wall) };
        CaseReport { name: "a".to_owned(), verdict, reason: None, pairs: 10, metrics: vec![metric] }
    }

    #[test]
    fn exit_code_is_that_of_the_worst_case() {
        use Verdict::{Broken, Improved, Inconclusive, Pass, Regressed};
        let exit_code = |verdicts: &[Verdict]| {
            Verdict::of_cases(&verdicts.iter().map(|verdict| case(*verdict)).collect::<Vec<_>>()).exit_code()
        };
        assert_eq!(exit_code(&[Pass, Improved]), 0);
        assert_eq!(exit_code(&[Pass, Regressed, Inconclusive]), 1);
        assert_eq!(exit_code(&[Broken, Regressed]), 1, "a broken case hides no regression");
        assert_eq!(exit_code(&[Pass, Broken, Inconclusive]), 2);
        assert_eq!(exit_code(&[Pass, Inconclusive]), 3);
        assert_eq!(exit_code(&[]), 2);
        assert_eq!(Verdict::of_cases(&[CaseReport { metrics: Vec::new(), ..case(Pass) }]), Broken);
        assert_eq!(Verdict::of_cases(&[CaseReport { pairs: 0, ..case(Pass) }]), Broken);
        assert_eq!(Verdict::of_cases(&[case(Improved)]), Pass, "a gate passes or not");
    }
}
