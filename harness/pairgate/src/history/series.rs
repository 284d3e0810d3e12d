//! The figures of comparable runs in the order of their dates, and where they change.

use std::collections::BTreeMap;

use serde::Serialize;

use super::record::{CaseName, RunRecord, SeriesKey};
use crate::error::Result;
use crate::metric::Metric;
use crate::stats::MAX_OBSERVATIONS;
use crate::stats::change_points::{ChangePoint, change_points};

/// The seed of the permutations: fixed, so that a history has the same change points everywhere.
const SEED: u64 = 0;

/// A figure of one run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SeriesPoint {
    /// The run's file.
    pub run: String,
    /// Its short label.
    pub label: String,
    /// When it began.
    pub date: String,
    /// Median of its observations.
    pub median: f64,
    /// The smallest and the largest observation.
    pub ends: (f64, f64),
}

/// A figure over comparable runs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FigureSeries<C> {
    /// Digests of the facts that its runs share.
    pub key: SeriesKey,
    /// The case.
    pub case: C,
    /// The metric.
    pub metric: Metric,
    /// By date.
    pub points: Vec<SeriesPoint>,
    /// Its change points: the first run after each change.
    pub changes: Vec<ChangePoint>,
}

impl<C> FigureSeries<C> {
    /// The runs since the last change, which another run may be compared with.
    pub fn current(&self) -> &[SeriesPoint] {
        let from = self.changes.last().map_or(0, |change| change.index);
        self.points.get(from..).unwrap_or_default()
    }

    /// The levels before and after the change at `index`: means of the runs between it and the neighboring changes.
    pub fn levels(&self, index: usize) -> (f64, f64) {
        let before = self.changes.iter().map(|change| change.index).filter(|other| *other < index).max().unwrap_or(0);
        let after = self.changes.iter().map(|change| change.index).find(|other| *other > index);
        let mean = |points: &[SeriesPoint]| points.iter().map(|point| point.median).sum::<f64>() / points.len() as f64;
        (mean(&self.points[before..index]), mean(&self.points[index..after.unwrap_or(self.points.len())]))
    }

    /// Whether a larger value is better.
    pub fn larger_is_better(&self) -> bool {
        self.metric == Metric::Auroc
    }
}

/// All series of `runs`, which are sorted by date, with their change points. Only the latest runs of very long series are
/// used.
///
/// # Errors
/// A figure that is not finite.
pub fn all_series<C: CaseName>(runs: &[RunRecord<C>]) -> Result<Vec<FigureSeries<C>>> {
    let mut points_by_figure: BTreeMap<(SeriesKey, C, Metric), Vec<SeriesPoint>> = BTreeMap::new();
    for run in runs {
        for figure in &run.figures {
            let Some(median) = figure.median() else { continue };
            let ends =
                figure.values.iter().fold((median, median), |(low, high), value| (low.min(*value), high.max(*value)));
            let points = points_by_figure.entry((run.key.clone(), figure.case.clone(), figure.metric)).or_default();
            points.push(SeriesPoint {
                run: run.name.clone(),
                label: run.label.clone(),
                date: run.date.clone(),
                median,
                ends,
            });
        }
    }
    points_by_figure.into_iter().map(|((key, case, metric), points)| series(key, case, metric, points)).collect()
}

fn series<C>(key: SeriesKey, case: C, metric: Metric, mut points: Vec<SeriesPoint>) -> Result<FigureSeries<C>> {
    points.drain(..points.len().saturating_sub(MAX_OBSERVATIONS));
    // Logarithms, because changes of programs are relative.
    let all_positive = points.iter().all(|point| point.median > 0.0);
    let values: Vec<f64> =
        points.iter().map(|point| if all_positive { point.median.ln() } else { point.median }).collect();
    let changes = change_points(&values, SEED)?;
    Ok(FigureSeries { key, case, metric, points, changes })
}
