//! The verdict on one figure.

use super::{CONFIDENCE, FEWEST_RUNS, FigureComparison, HistoryFigure, Margins, RatioInterval};
use crate::error::Result;
use crate::gate::{Metric, Rule, Verdict};
use crate::history::{Figure, Series};
use crate::stats::MOST_OBSERVATIONS;
use crate::stats::prediction::Prediction;
use crate::stats::rank_sum::Shift;

/// Confidence of the intervals within the two runs.
const WITHIN: f64 = 0.95;

/// The most observations of a side that are compared pair by pair.
const MOST_COMPARED: usize = 100;

/// A figure of head, with base's where it has one and past runs where there are any. `comparable` says whether base and
/// head are of the same work, machine and build, so that results must agree.
pub fn figure(
    base: Option<&Figure>,
    head: &Figure,
    series: Option<&Series>,
    comparable: bool,
    margins: &Margins,
) -> Result<FigureComparison> {
    let mut compared = FigureComparison {
        case: head.case,
        metric: head.metric,
        unit: head.metric.unit(),
        base: base.and_then(Figure::median),
        head: head.median(),
        ratio: None,
        interval: None,
        history: None,
        verdict: Verdict::Inconclusive,
        note: None,
    };
    if let Some(base) = base {
        (compared.ratio, compared.interval) = ratio(base, head)?;
    }
    if head.failed > 0 {
        compared.verdict = Verdict::Broken;
        compared.note = Some(format!(
            "{} of {} repetitions failed",
            head.failed,
            head.failed + head.values.len().max(head.digests.len())
        ));
        return Ok(compared);
    }
    if head.values.is_empty() && head.digests.is_empty() {
        compared.verdict = Verdict::Broken;
        compared.note = Some("head did not measure it".to_owned());
        return Ok(compared);
    }
    match head.metric.rule() {
        Rule::Identity => identity(&mut compared, base, head, comparable),
        Rule::Quality => quality(&mut compared, comparable, margins),
        Rule::Time | Rule::Memory | Rule::Count => {
            if let Some(series) = series {
                by_history(&mut compared, series, margins)?;
            }
        }
    }
    Ok(compared)
}

/// A figure that base has and head has not.
pub fn lost(base: &Figure) -> FigureComparison {
    FigureComparison {
        case: base.case,
        metric: base.metric,
        unit: base.metric.unit(),
        base: base.median(),
        head: None,
        ratio: None,
        interval: None,
        history: None,
        verdict: Verdict::Broken,
        note: Some("head has no such figure".to_owned()),
    }
}

fn ratio(base: &Figure, head: &Figure) -> Result<(Option<f64>, Option<RatioInterval>)> {
    let positive = |figure: &Figure| -> Vec<f64> {
        figure.values.iter().filter(|value| **value > 0.0).take(MOST_COMPARED).map(|value| value.ln()).collect()
    };
    let (logs_base, logs_head) = (positive(base), positive(head));
    if logs_base.is_empty() || logs_head.is_empty() || head.metric == Metric::Auroc {
        return Ok((None, None));
    }
    let shift = Shift::between(&logs_base, &logs_head, WITHIN)?;
    let interval = shift.interval.map(|interval| RatioInterval {
        low: interval.low.exp(),
        high: interval.high.exp(),
        confidence: interval.confidence,
    });
    Ok((Some(shift.estimate.exp()), interval))
}

/// Features of the same work by the same arithmetic have the same bits.
fn identity(compared: &mut FigureComparison, base: Option<&Figure>, head: &Figure, comparable: bool) {
    if head.digests.len() > 1 {
        compared.verdict = Verdict::Broken;
        compared.note = Some("its own repetitions disagree".to_owned());
    } else if let Some(base) = base.filter(|_| comparable) {
        (compared.verdict, compared.note) = match base.digests == head.digests {
            true => (Verdict::Pass, Some("the same".to_owned())),
            false => (Verdict::Regressed, Some("other features than base".to_owned())),
        };
    } else {
        compared.note = Some("compared only on the same work, machine and build".to_owned());
    }
}

fn quality(compared: &mut FigureComparison, comparable: bool, margins: &Margins) {
    let (Some(base), Some(head)) = (compared.base, compared.head) else { return };
    let change = head - base;
    compared.note = Some(format!("{change:+.4}"));
    if comparable {
        // A larger one too: the same work has the same result, so that the work is another.
        compared.verdict = if change.abs() <= margins.auroc { Verdict::Pass } else { Verdict::Regressed };
    }
}

/// The rule for stored baselines: an alarm where one more run like those of the history would lie as high in one case of
/// a hundred only, and higher than any growth that is none.
fn by_history(compared: &mut FigureComparison, series: &Series, margins: &Margins) -> Result<()> {
    let current = series.current();
    let from = current.len().saturating_sub(MOST_OBSERVATIONS);
    let history: Vec<f64> = current[from..].iter().map(|point| point.median).collect();
    let since = series.changes.last().and_then(|change| series.points.get(change.index)).map(|point| point.run.clone());
    let (Some(head), false) = (compared.head, history.is_empty()) else { return Ok(()) };
    let mean = history.iter().sum::<f64>() / history.len() as f64;
    let mut found = HistoryFigure { n: history.len(), mean, bound: None, since };
    if history.len() >= FEWEST_RUNS {
        let prediction = Prediction::of(&history, CONFIDENCE)?;
        let allowed = allowed(compared.metric, mean, margins);
        found.bound = Some(prediction.bound());
        compared.verdict = if head > prediction.bound() && head - mean > allowed {
            Verdict::Regressed
        } else if head < mean - prediction.margin && mean - head > allowed {
            Verdict::Improved
        } else if prediction.margin <= (margins.effect * mean).max(allowed) {
            Verdict::Pass
        } else {
            // No alarm is no proof where the history scatters more than what must not pass.
            compared.note =
                Some(format!("past runs scatter: only {:+.0}% would show", 100.0 * prediction.margin / mean));
            Verdict::Inconclusive
        };
    }
    compared.history = Some(found);
    Ok(())
}

/// A growth above `mean` that is none.
fn allowed(metric: Metric, mean: f64, margins: &Margins) -> f64 {
    match metric.rule() {
        Rule::Memory => (margins.memory_share * mean).max(margins.memory_mb),
        _ => margins.delta * mean,
    }
}
