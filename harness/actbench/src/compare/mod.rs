//! Two result files, made at two times: what may be said of their difference, and why no more.
//!
//! Two runs differ by more than either scatters: on one quiet machine, half an hour apart, tests on the scatter within
//! runs found differences between identical programs in 6 to 53 cases of 100. So the difference is judged only against a
//! history of runs on a machine and with a build like this one, by the prediction interval of one more run; without such
//! a history the ratios are shown and nothing is concluded. To judge two commits without a history, `actbench gate` runs
//! them in turn.

mod judge;
mod reasons;

#[cfg(test)]
mod tests;

use serde::Serialize;

use crate::error::Result;
use crate::gate::{Metric, Outcome, Verdict};
use crate::history::{Case, Entry, Series, SeriesKey, all_series, figures};
use crate::results::ResultFile;

/// Past runs without which nothing is judged.
pub const FEWEST_RUNS: usize = 10;

/// The chance, for each figure, that a run like all those before it is not alarmed at.
pub const CONFIDENCE: f64 = 0.99;

/// Schema of the comparison as JSON.
pub const SCHEMA: &str = "actbench-compare/1";

/// How strictly is judged.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Margins {
    /// A slowdown of at most this share is none.
    pub delta: f64,
    /// A slowdown of this share must not pass.
    pub effect: f64,
    /// Memory: a growth of at most this share is none.
    pub memory_share: f64,
    /// Memory: a growth of at most this many MB is none.
    pub memory_mb: f64,
    /// A difference of AUROC of at most this much is none.
    pub auroc: f64,
}

/// A comparison.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// [`SCHEMA`].
    pub schema: &'static str,
    /// What it comes to.
    pub outcome: Outcome,
    /// Why nothing, or not everything, is judged; empty where all is.
    pub not_judged: Vec<String>,
    /// Past runs that can be compared with head.
    pub n_history: usize,
    /// How strictly it was judged.
    pub margins: Margins,
    /// Figure by figure.
    pub figures: Vec<FigureComparison>,
}

/// A figure in both files.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FigureComparison {
    /// The case.
    pub case: Case,
    /// The metric.
    pub metric: Metric,
    /// Its unit.
    pub unit: &'static str,
    /// Median of base.
    pub base: Option<f64>,
    /// Median of head.
    pub head: Option<f64>,
    /// head / base.
    pub ratio: Option<f64>,
    /// Its interval from the scatter within the two runs, which is not that between runs.
    pub interval: Option<RatioInterval>,
    /// What past runs say.
    pub history: Option<HistoryFigure>,
    /// What it comes to.
    pub verdict: Verdict,
    /// What to know about it.
    pub note: Option<String>,
}

/// An interval of a ratio.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct RatioInterval {
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// Its confidence.
    pub confidence: f64,
}

/// Past runs of a figure.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct HistoryFigure {
    /// Runs since the last change.
    pub n: usize,
    /// Mean of their medians.
    pub mean: f64,
    /// What one more such run exceeds in one case of a hundred; none with too few.
    pub bound: Option<f64>,
    /// The first run after the last change, where there was one.
    pub since: Option<String>,
}

/// Compares `head` with `base`, and judges it by those runs of `history` that are of the same work, machine and build
/// and were made before it.
///
/// # Errors
/// Figures that cannot be compared at all, such as more repetitions than statistics here go up to.
pub fn compare(base: &ResultFile, head: &ResultFile, history: &[Entry], margins: Margins) -> Result<Comparison> {
    let key = SeriesKey::of(head);
    let date = &head.environment.date;
    let past: Vec<Entry> = history
        .iter()
        .filter(|entry| entry.results.environment.date < *date && SeriesKey::of(&entry.results) == key)
        .cloned()
        .collect();
    let series = all_series(&past)?;
    let differences = reasons::differences(base, head);
    let (of_base, of_head) = (figures(base), figures(head));
    let mut compared = Vec::new();
    for figure in &of_head {
        let same = |other: &&crate::history::Figure| (other.case, other.metric) == (figure.case, figure.metric);
        let series: Option<&Series> = series.iter().find(|it| (it.case, it.metric) == (figure.case, figure.metric));
        compared.push(judge::figure(of_base.iter().find(same), figure, series, differences.is_empty(), &margins)?);
    }
    // A figure that base had and head has not is a loss, not a pass.
    for figure in &of_base {
        let case_is_in_head =
            head.config.tasks.contains(&figure.case.task) && head.config.methods.contains(&figure.case.method);
        if case_is_in_head && !of_head.iter().any(|other| (other.case, other.metric) == (figure.case, figure.metric)) {
            compared.push(judge::lost(figure));
        }
    }
    compared.sort_by_key(|figure| (figure.case, figure.metric));
    let mut not_judged = differences;
    let mut left_out: Vec<Case> = of_base.iter().map(|figure| figure.case).collect();
    left_out.retain(|case| !of_head.iter().any(|figure| figure.case == *case));
    left_out.dedup();
    not_judged.extend(left_out.iter().map(|case| format!("head was not run with {case}, which base was")));
    not_judged.extend(reasons::history(history, &past, &series, head));
    Ok(Comparison {
        schema: SCHEMA,
        outcome: outcome(&compared),
        not_judged,
        n_history: past.len(),
        margins,
        figures: compared,
    })
}

/// As the gate's: a regression that was shown is told even where something broke; nothing compared is broken.
fn outcome(figures: &[FigureComparison]) -> Outcome {
    let any = |verdict: Verdict| figures.iter().any(|figure| figure.verdict == verdict);
    if any(Verdict::Regressed) {
        Outcome::Regressed
    } else if any(Verdict::Broken) || figures.is_empty() {
        Outcome::Broken
    } else if any(Verdict::Inconclusive) {
        Outcome::Inconclusive
    } else {
        Outcome::Pass
    }
}
