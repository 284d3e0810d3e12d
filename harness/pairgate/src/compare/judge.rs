//! The verdict on one figure.

use super::{CONFIDENCE, ComparisonMargins, FigureComparison, HistoryFigure, MIN_RUNS, RatioInterval};
use crate::error::Result;
use crate::history::{CaseName, FigureSeries, RunFigure};
use crate::metric::{Metric, MetricRule};
use crate::report::Verdict;
use crate::stats::MAX_OBSERVATIONS;
use crate::stats::prediction::Prediction;
use crate::stats::rank_sum::Shift;

/// Confidence of the intervals within the two runs.
const CONFIDENCE_WITHIN_RUNS: f64 = 0.95;

/// The largest number of observations of a side whose differences are computed.
const MAX_COMPARED: usize = 100;

/// Judges a figure of head, with base's figure and the past runs if they exist. If base and head are `comparable`, of the
/// same work, machine and build, their results must agree.
pub fn judge_figure<C: CaseName>(
    base: Option<&RunFigure<C>>,
    head: &RunFigure<C>,
    series: Option<&FigureSeries<C>>,
    comparable: bool,
    margins: &ComparisonMargins,
) -> Result<FigureComparison<C>> {
    let mut compared = FigureComparison {
        case: head.case.clone(),
        metric: head.metric,
        unit: head.metric.unit(),
        base: base.and_then(RunFigure::median),
        head: head.median(),
        ratio: None,
        interval: None,
        history: None,
        verdict: Verdict::Inconclusive,
        judged: false,
        note: None,
    };
    if let Some(base) = base {
        (compared.ratio, compared.interval) = ratio(base, head)?;
    }
    if head.failed > 0 {
        (compared.verdict, compared.judged) = (Verdict::Broken, true);
        compared.note = Some(format!(
            "{} of {} repetitions failed",
            head.failed,
            head.failed + head.values.len().max(head.digests.len())
        ));
        return Ok(compared);
    }
    if head.values.is_empty() && head.digests.is_empty() {
        (compared.verdict, compared.judged) = (Verdict::Broken, true);
        compared.note = Some("not measured in head".to_owned());
        return Ok(compared);
    }
    let sides = base.into_iter().chain([head]);
    let impossible = sides.flat_map(|side| &side.values).find(|value| !head.metric.is_possible(**value));
    if let Some(value) = impossible {
        (compared.ratio, compared.interval, compared.judged) = (None, None, true);
        compared.note = Some(format!("{value} {} cannot be measured", head.metric.unit()));
        return Ok(compared);
    }
    match head.metric.rule() {
        MetricRule::Identity => judge_digest(&mut compared, base, head, comparable),
        MetricRule::Quality => judge_quality(&mut compared, comparable, margins),
        MetricRule::Time | MetricRule::Memory | MetricRule::Count => {
            if let Some(series) = series {
                judge_by_history(&mut compared, series, margins)?;
            }
        }
    }
    Ok(compared)
}

/// The comparison of a figure that base has and head lacks.
pub fn lost_figure<C: CaseName>(base: &RunFigure<C>) -> FigureComparison<C> {
    FigureComparison {
        case: base.case.clone(),
        metric: base.metric,
        unit: base.metric.unit(),
        base: base.median(),
        head: None,
        ratio: None,
        interval: None,
        history: None,
        verdict: Verdict::Broken,
        judged: true,
        note: Some("head lacks this figure".to_owned()),
    }
}

fn ratio<C>(base: &RunFigure<C>, head: &RunFigure<C>) -> Result<(Option<f64>, Option<RatioInterval>)> {
    let logarithms = |figure: &RunFigure<C>| -> Vec<f64> {
        figure.values.iter().filter(|value| **value > 0.0).take(MAX_COMPARED).map(|value| value.ln()).collect()
    };
    let (logs_base, logs_head) = (logarithms(base), logarithms(head));
    if logs_base.is_empty() || logs_head.is_empty() || head.metric == Metric::Auroc {
        return Ok((None, None));
    }
    let shift = Shift::between(&logs_base, &logs_head, CONFIDENCE_WITHIN_RUNS)?;
    let interval = shift.interval.map(|interval| RatioInterval {
        low: interval.low.exp(),
        high: interval.high.exp(),
        confidence: interval.confidence,
    });
    Ok((Some(shift.estimate.exp()), interval))
}

/// The same work on the same machine and build has the same result.
fn judge_digest<C>(
    compared: &mut FigureComparison<C>,
    base: Option<&RunFigure<C>>,
    head: &RunFigure<C>,
    comparable: bool,
) {
    if head.digests.len() > 1 {
        (compared.verdict, compared.judged) = (Verdict::Broken, true);
        compared.note = Some("its own repetitions differ".to_owned());
    } else if let Some(base) = base.filter(|_| comparable) {
        compared.judged = true;
        (compared.verdict, compared.note) = if base.digests == head.digests {
            (Verdict::Pass, Some("equal".to_owned()))
        } else {
            (Verdict::Regressed, Some("differs from base".to_owned()))
        };
    } else {
        compared.note = Some("compared only for the same work, machine and build".to_owned());
    }
}

fn judge_quality<C>(compared: &mut FigureComparison<C>, comparable: bool, margins: &ComparisonMargins) {
    let (Some(base), Some(head)) = (compared.base, compared.head) else { return };
    let change = head - base;
    compared.note = Some(format!("{change:+.4}"));
    if comparable {
        compared.judged = true;
        // A larger value is a regression too: the same work has the same result.
        compared.verdict = if change.abs() <= margins.auroc { Verdict::Pass } else { Verdict::Regressed };
    }
}

/// The rule for stored baselines: an alarm if the value exceeds both the prediction bound of the past runs and the allowed
/// margin.
fn judge_by_history<C>(
    compared: &mut FigureComparison<C>,
    series: &FigureSeries<C>,
    margins: &ComparisonMargins,
) -> Result<()> {
    let current = series.current();
    let from = current.len().saturating_sub(MAX_OBSERVATIONS);
    let history: Vec<f64> = current[from..].iter().map(|point| point.median).collect();
    let since = series.changes.last().and_then(|change| series.points.get(change.index)).map(|point| point.run.clone());
    let (Some(head), false) = (compared.head, history.is_empty()) else { return Ok(()) };
    let mean = history.iter().sum::<f64>() / history.len() as f64;
    let mut found = HistoryFigure { n: history.len(), mean, bound: None, since };
    if history.len() >= MIN_RUNS {
        let prediction = Prediction::of(&history, CONFIDENCE)?;
        let allowed = allowed_growth(compared.metric, mean, margins);
        found.bound = Some(prediction.bound());
        compared.judged = true;
        compared.verdict = if head > prediction.bound() && head - mean > allowed {
            Verdict::Regressed
        } else if head < mean - prediction.margin && mean - head > allowed {
            Verdict::Improved
        } else if prediction.margin <= (margins.effect * mean).max(allowed) {
            Verdict::Pass
        } else {
            // Without an alarm, a history that scatters more than the effect proves nothing.
            compared.note = Some(format!(
                "past runs scatter: only {:+.0}% or more would be seen",
                100.0 * prediction.margin / mean
            ));
            Verdict::Inconclusive
        };
    }
    compared.history = Some(found);
    Ok(())
}

/// The growth above `mean` that is not a regression.
fn allowed_growth(metric: Metric, mean: f64, margins: &ComparisonMargins) -> f64 {
    match metric.rule() {
        MetricRule::Memory => (margins.memory_fraction * mean).max(margins.memory_mb),
        _ => margins.delta * mean,
    }
}
