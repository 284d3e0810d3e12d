//! What a gate comes to: the file `gate.json`, and the exit status.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::design::Design;
use super::metric::Metric;
use crate::measure::machine_record::MachineRecord;
pub use crate::measure::resolution::Resolution;

/// The schema's name and version; raised when a name changes its meaning.
pub const SCHEMA: &str = "actbench-gate/1";

/// The whole outcome of a gate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GateReport {
    /// [`SCHEMA`].
    pub schema: String,
    /// What it comes to.
    pub outcome: Outcome,
    /// How it was judged.
    pub design: Design,
    /// What there was before.
    pub base: Identity,
    /// What was judged.
    pub head: Identity,
    /// The machine and the build of the gate itself.
    pub environment: MachineRecord,
    /// Digest of what makes figures of two machines comparable; see [`crate::measure::fingerprint`].
    pub machine: String,
    /// The smallest slowdown that `actbench selftest` found to be caught on this machine; none if it was never run.
    pub resolution: Option<Resolution>,
    /// What the user should know of the machine.
    pub warnings: Vec<String>,
    /// The cases, in the order of the suite.
    pub cases: Vec<CaseReport>,
}

/// A program that was measured.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Identity {
    /// The program's file, or the bench's.
    pub path: PathBuf,
    /// The commit it was built from, where it is known.
    pub revision: Option<String>,
    /// Digest of the program's own bytes.
    pub build: String,
    /// What the program says of itself: version, profile, compiler.
    pub description: Option<String>,
}

/// A case.
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

/// A metric of a case.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MetricReport {
    /// Which.
    pub metric: Metric,
    /// Its unit.
    pub unit: String,
    /// What it comes to.
    pub verdict: Verdict,
    /// head / base; above 1 means that head takes more. None where there is no ratio (a digest, a zero).
    pub estimate: Option<f64>,
    /// Lower end of the two-sided interval of the ratio.
    pub low: Option<f64>,
    /// Upper end.
    pub high: Option<f64>,
    /// Confidence of the interval.
    pub confidence: Option<f64>,
    /// Pairs that the figures rest on.
    pub n_pairs: usize,
    /// One-sided chance of such pairs if head were at most `delta` slower than base, after the correction for several
    /// cases; none where no test was made.
    pub p: Option<f64>,
    /// Median of base.
    pub base_median: Option<f64>,
    /// Median of head.
    pub head_median: Option<f64>,
    /// What to know about it.
    pub note: Option<String>,
}

/// What a metric or a case comes to, from harmless to grave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Shown to be better.
    Improved,
    /// No regression that matters.
    Pass,
    /// Neither shown to be worse nor to be no worse.
    Inconclusive,
    /// Shown to be worse.
    Regressed,
    /// Not measured.
    Broken,
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

/// What a gate comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// Every case passed.
    Pass,
    /// A case regressed.
    Regressed,
    /// A case could not be measured, or there was none.
    Broken,
    /// A case is open.
    Inconclusive,
}

impl Outcome {
    /// Of all `cases`. A regression that was shown is told even where another case broke; no case at all is broken.
    pub fn of(cases: &[CaseReport]) -> Self {
        let any = |verdict: Verdict| cases.iter().any(|case| case.verdict == verdict);
        let measured = !cases.is_empty() && cases.iter().all(|case| !case.metrics.is_empty() && case.pairs > 0);
        if any(Verdict::Regressed) {
            Outcome::Regressed
        } else if any(Verdict::Broken) || !measured {
            Outcome::Broken
        } else if any(Verdict::Inconclusive) {
            Outcome::Inconclusive
        } else {
            Outcome::Pass
        }
    }

    /// The process's exit status.
    pub fn exit_code(self) -> u8 {
        match self {
            Outcome::Pass => 0,
            Outcome::Regressed => 1,
            Outcome::Broken => 2,
            Outcome::Inconclusive => 3,
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Outcome::Pass => "pass",
            Outcome::Regressed => "regressed",
            Outcome::Broken => "broken",
            Outcome::Inconclusive => "inconclusive",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn case(verdict: Verdict) -> CaseReport {
        let metric = MetricReport {
            metric: Metric::Wall,
            unit: "s".to_owned(),
            verdict,
            estimate: None,
            low: None,
            high: None,
            confidence: None,
            n_pairs: 10,
            p: None,
            base_median: None,
            head_median: None,
            note: None,
        };
        CaseReport { name: "a".to_owned(), verdict, reason: None, pairs: 10, metrics: vec![metric] }
    }

    #[test]
    fn the_outcome_is_that_of_the_gravest_case_and_nothing_measured_is_broken() {
        use Verdict::{Broken, Improved, Inconclusive, Pass, Regressed};
        let of =
            |verdicts: &[Verdict]| Outcome::of(&verdicts.iter().map(|it| case(*it)).collect::<Vec<_>>()).exit_code();
        assert_eq!(of(&[Pass, Improved]), 0);
        assert_eq!(of(&[Pass, Regressed, Inconclusive]), 1);
        assert_eq!(of(&[Broken, Regressed]), 1, "a regression that was shown is not hidden");
        assert_eq!(of(&[Pass, Broken, Inconclusive]), 2);
        assert_eq!(of(&[Pass, Inconclusive]), 3);
        assert_eq!(of(&[]), 2);
        assert_eq!(Outcome::of(&[CaseReport { metrics: Vec::new(), ..case(Pass) }]), Outcome::Broken);
        assert_eq!(Outcome::of(&[CaseReport { pairs: 0, ..case(Pass) }]), Outcome::Broken);
    }
}
