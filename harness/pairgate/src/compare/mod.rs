//! Comparison of two stored runs that were made at different times.
//!
//! Two runs differ by more than the scatter within each: on one quiet machine, half an hour apart, tests on the scatter
//! within runs found differences between identical programs in 6 to 53 of 100 cases. Therefore the difference is judged
//! only against a history of comparable runs, by the prediction interval of one more run. Without a history the ratios are
//! shown and nothing is concluded; a gate judges two programs without one.

mod judge;
mod reasons;

#[cfg(test)]
mod tests;

use serde::Serialize;

use crate::error::Result;
use crate::history::{CaseName, FigureSeries, RunFigure, RunRecord, all_series};
use crate::metric::Metric;
use crate::report::Verdict;

/// The smallest number of past runs by which a run is judged.
pub const MIN_RUNS: usize = 10;

/// The probability, for each figure, that an unchanged run raises no alarm.
pub const CONFIDENCE: f64 = 0.99;

/// The differences that a comparison accepts.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct ComparisonMargins {
    /// A slowdown of at most this fraction is not a regression.
    pub delta: f64,
    /// A slowdown of this fraction must not pass.
    pub effect: f64,
    /// Memory: a growth of at most this fraction is not a regression...
    #[serde(rename = "memory_share")]
    pub memory_fraction: f64,
    /// ...nor is a growth of at most so many MiB.
    pub memory_mb: f64,
    /// A difference of AUROC of at most this much is not a regression.
    pub auroc: f64,
}

/// A comparison of two stored runs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RunComparison<C> {
    /// Name and version of the caller's comparisons.
    pub schema: &'static str,
    /// The verdict on all figures.
    pub outcome: Verdict,
    /// Reasons why figures are not judged; empty if all are.
    pub not_judged: Vec<String>,
    /// Past runs that are comparable with head.
    pub n_history: usize,
    /// The differences that were accepted.
    pub margins: ComparisonMargins,
    /// The comparison of each figure.
    pub figures: Vec<FigureComparison<C>>,
}

/// The comparison of a figure.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FigureComparison<C> {
    /// The case.
    pub case: C,
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
    /// Its interval from the scatter within the two runs; different runs scatter more.
    pub interval: Option<RatioInterval>,
    /// The past runs.
    pub history: Option<HistoryFigure>,
    /// The verdict on it.
    pub verdict: Verdict,
    /// Whether it was judged: a figure without enough past runs, or a result of other work, is inconclusive and not judged.
    pub judged: bool,
    /// A remark on the verdict.
    pub note: Option<String>,
}

impl<C> RunComparison<C> {
    /// Figures that were judged.
    pub fn n_judged(&self) -> usize {
        self.figures.iter().filter(|figure| figure.judged).count()
    }

    /// Figures that were judged and are inconclusive: the past runs scatter too much, or a value is impossible.
    pub fn n_undecided(&self) -> usize {
        self.figures.iter().filter(|figure| figure.judged && figure.verdict == Verdict::Inconclusive).count()
    }

    /// Whether it is inconclusive only because figures are not judged: each figure that is judged passed.
    pub fn lacks_runs(&self) -> bool {
        self.outcome == Verdict::Inconclusive && self.n_undecided() == 0
    }

    /// The exit status of a process whose result this is. A history that is still too short fails only if `strict`.
    pub fn exit_code(&self, strict: bool) -> u8 {
        if self.lacks_runs() && !strict { Verdict::Pass.exit_code() } else { self.outcome.exit_code() }
    }
}

/// An interval of a ratio.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct RatioInterval {
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// Confidence.
    pub confidence: f64,
}

/// Past runs of a figure.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct HistoryFigure {
    /// Runs since the last change.
    pub n: usize,
    /// Mean of their medians.
    pub mean: f64,
    /// The one-sided 99 % prediction bound of one more run; none with too few runs.
    pub bound: Option<f64>,
    /// The first run after the last change, if there was one.
    pub since: Option<String>,
}

/// Compares `head` with `base`, and judges it by the runs of `history` that are comparable with it and were made before it.
/// `history` is sorted by date; `schema` names the caller's comparisons.
///
/// # Errors
/// A figure that is not finite.
pub fn compare<C: CaseName>(
    schema: &'static str,
    base: &RunRecord<C>,
    head: &RunRecord<C>,
    history: &[RunRecord<C>],
    margins: ComparisonMargins,
) -> Result<RunComparison<C>> {
    let past: Vec<RunRecord<C>> =
        history.iter().filter(|run| run.date < head.date && run.key == head.key).cloned().collect();
    let series = all_series(&past)?;
    let differences = reasons::differences(base, head);
    let mut compared = Vec::new();
    for figure in &head.figures {
        let base_figure = find_figure(base, figure);
        let is_same = |series: &&FigureSeries<C>| series.case == figure.case && series.metric == figure.metric;
        let past_figure = series.iter().find(is_same);
        compared.push(judge::judge_figure(base_figure, figure, past_figure, differences.is_empty(), &margins)?);
    }
    // A figure that head lacks is a loss and not a pass, unless head ran without the whole case.
    let has_case = |run: &RunRecord<C>, case: &C| run.figures.iter().any(|figure| figure.case == *case);
    let lost = base.figures.iter().filter(|figure| find_figure(head, figure).is_none());
    compared.extend(lost.clone().filter(|figure| has_case(head, &figure.case)).map(judge::lost_figure));
    compared.sort_by_key(|figure| (figure.case.clone(), figure.metric));
    let mut missing_cases: Vec<&C> = lost.map(|figure| &figure.case).filter(|case| !has_case(head, case)).collect();
    missing_cases.dedup();
    let mut not_judged = differences;
    not_judged.extend(missing_cases.iter().map(|case| format!("head was run without {case}, which base has")));
    not_judged.extend(reasons::history(history, &past, &compared, head));
    Ok(RunComparison {
        schema,
        outcome: Verdict::of_parts(compared.iter().map(|figure| figure.verdict)),
        not_judged,
        n_history: past.len(),
        margins,
        figures: compared,
    })
}

/// The figure of `run` with the case and the metric of `figure`.
fn find_figure<'a, C: CaseName>(run: &'a RunRecord<C>, figure: &RunFigure<C>) -> Option<&'a RunFigure<C>> {
    run.figures.iter().find(|other| other.case == figure.case && other.metric == figure.metric)
}
