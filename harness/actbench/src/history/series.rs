//! The figures of comparable runs in the order of their dates, and where they change.

use std::collections::BTreeMap;

use serde::Serialize;

use super::figures::{Case, figures, work_of};
use super::folder::Entry;
use crate::error::Result;
use crate::gate::Metric;
use crate::measure::fingerprint::Fingerprint;
use crate::stats::MOST_OBSERVATIONS;
use crate::stats::change_points::{ChangePoint, change_points};

/// Permutations follow from this seed and nothing else, so that everybody sees the same change points.
const SEED: u64 = 0;

/// What runs must have in common for their figures to be one series.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct SeriesKey {
    /// Digest of the settings that define the work.
    pub work: String,
    /// Fingerprint of the machine.
    pub machine: String,
    /// Fingerprint of the build's settings.
    pub build: String,
}

impl SeriesKey {
    /// That of a run.
    pub fn of(results: &crate::results::ResultFile) -> Self {
        let work: Vec<String> = work_of(results).into_iter().map(|(name, value)| format!("{name}={value:?}")).collect();
        let digest = blake3::hash(work.join("\n").as_bytes()).to_hex();
        let fingerprint = Fingerprint::of(&results.environment);
        SeriesKey { work: digest.chars().take(16).collect(), machine: fingerprint.machine, build: fingerprint.build }
    }
}

/// A run's figure.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Point {
    /// The run's file.
    pub run: String,
    /// Its commit in short.
    pub label: String,
    /// When it began.
    pub date: String,
    /// Median of its observations.
    pub median: f64,
    /// The smallest and the largest of them.
    pub ends: (f64, f64),
}

/// A figure over runs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Series {
    /// What its runs have in common.
    pub key: SeriesKey,
    /// The case.
    pub case: Case,
    /// The metric.
    pub metric: Metric,
    /// By date.
    pub points: Vec<Point>,
    /// Where it changes: the first run after each change.
    pub changes: Vec<ChangePoint>,
}

impl Series {
    /// The runs since the last change: what another run may be compared with.
    pub fn current(&self) -> &[Point] {
        let from = self.changes.last().map_or(0, |change| change.index);
        self.points.get(from..).unwrap_or_default()
    }

    /// The figure before and after the change at `index`: means of the runs between it and its neighbours.
    pub fn levels(&self, index: usize) -> (f64, f64) {
        let before = self.changes.iter().map(|change| change.index).filter(|other| *other < index).max().unwrap_or(0);
        let after = self.changes.iter().map(|change| change.index).find(|other| *other > index);
        let mean = |points: &[Point]| points.iter().map(|point| point.median).sum::<f64>() / points.len() as f64;
        (mean(&self.points[before..index]), mean(&self.points[index..after.unwrap_or(self.points.len())]))
    }

    /// Whether a larger value is the better one.
    pub fn larger_is_better(&self) -> bool {
        self.metric == Metric::Auroc
    }
}

/// All series of `entries`, which are by date, with their change points. Of very long ones, the latest runs.
///
/// # Errors
/// None that a caller could cause.
pub fn all_series(entries: &[Entry]) -> Result<Vec<Series>> {
    let mut found: BTreeMap<(SeriesKey, Case, Metric), Vec<Point>> = BTreeMap::new();
    for entry in entries {
        let key = SeriesKey::of(&entry.results);
        for figure in figures(&entry.results) {
            let Some(median) = figure.median() else { continue };
            let ends = figure.values.iter().fold((median, median), |(low, high), it| (low.min(*it), high.max(*it)));
            let points = found.entry((key.clone(), figure.case, figure.metric)).or_default();
            points.push(Point {
                run: entry.name.clone(),
                label: entry.label(),
                date: entry.results.environment.date.clone(),
                median,
                ends,
            });
        }
    }
    found.into_iter().map(|((key, case, metric), points)| one(key, case, metric, points)).collect()
}

fn one(key: SeriesKey, case: Case, metric: Metric, mut points: Vec<Point>) -> Result<Series> {
    points.drain(..points.len().saturating_sub(MOST_OBSERVATIONS));
    // On a logarithmic scale a step is as large on a slow machine as on a fast one.
    let all_positive = points.iter().all(|point| point.median > 0.0);
    let values: Vec<f64> =
        points.iter().map(|point| if all_positive { point.median.ln() } else { point.median }).collect();
    let changes = change_points(&values, SEED)?;
    Ok(Series { key, case, metric, points, changes })
}
