//! Notes on the quality of the measurements: why a run stopped, drift, outliers, and the resolution of the machine.

use super::precision;
use crate::case::{Method, Task};
use crate::measure::resolution::Resolution;
use crate::results::{ResultFile, Row, Status};
use pairgate::stats::outliers::{Outlier, flag_outliers};
use pairgate::stats::ratio::log_ratios;
use pairgate::stats::{Summary, Trend};

/// Below this number of observations none is called an outlier: the quartiles of fewer are too uncertain.
const MIN_FOR_OUTLIERS: usize = 6;

/// The notes, in the order of the table; empty for a steady run without outliers.
pub fn lines(results: &ResultFile) -> Vec<String> {
    let mut lines: Vec<String> = results.end.map(|end| precision::lines(results, end)).unwrap_or_default();
    for &task in &results.config.tasks {
        for &method in &results.config.methods {
            let rows = counted(results, task, method);
            let times: Vec<f64> = rows.iter().filter_map(|row| row.elapsed_s).collect();
            lines.extend(drift(&format!("the time of {task} {method}"), &times));
            lines.extend(outliers(task, method, &rows));
        }
        for &method in results.config.methods.iter().filter(|method| **method != Method::Eager) {
            let ratios = paired_ratios(results, task, method);
            lines.extend(drift(&format!("the ratio of times of {task}, eager / {method},"), &ratios));
        }
    }
    lines.extend(results.environment.resolution.as_ref().map(Resolution::sentence));
    lines
}

fn counted(results: &ResultFile, task: Task, method: Method) -> Vec<&Row> {
    let rows = results.rows.iter().filter(|row| (row.task, row.method) == (task, method) && row.ablated().is_none());
    rows.filter(|row| row.status == Status::Ok).collect()
}

/// The ratio eager / `method` of each block in which both completed, in the order of the blocks.
fn paired_ratios(results: &ResultFile, task: Task, method: Method) -> Vec<f64> {
    let lazy = counted(results, task, method);
    let pairs = counted(results, task, Method::Eager).into_iter().filter_map(|eager| {
        let other = lazy.iter().find(|row| row.repetition == eager.repetition)?;
        eager.elapsed_s.zip(other.elapsed_s)
    });
    let (eager, lazy): (Vec<f64>, Vec<f64>) = pairs.unzip();
    log_ratios(&eager, &lazy).map(|ratios| ratios.into_iter().map(f64::exp).collect()).unwrap_or_default()
}

/// Reports a drifting series; its value without the drift is not estimated.
fn drift(series: &str, values: &[f64]) -> Option<String> {
    let trend = Trend::of(values).ok()??;
    (!trend.is_steady()).then(|| {
        let change = 100.0 * (trend.last_over_first - 1.0);
        format!(
            "not steady: {series} changed by {change:+.0} % from the first third of the run to the last (p {:.3})",
            trend.p
        )
    })
}

/// Names the severe outliers; they stay in the statistics.
fn outliers(task: Task, method: Method, rows: &[&Row]) -> Option<String> {
    let timed: Vec<(usize, f64)> = rows.iter().filter_map(|row| Some((row.repetition? + 1, row.elapsed_s?))).collect();
    if timed.len() < MIN_FOR_OUTLIERS {
        return None;
    }
    let times: Vec<f64> = timed.iter().map(|(_, time)| *time).collect();
    let median = Summary::of(&times).ok()?.median;
    let flagged = timed.iter().zip(flag_outliers(&times).ok()?);
    let severe = flagged.filter(|(_, flag)| matches!(flag, Outlier::HighSevere | Outlier::LowSevere));
    let named: Vec<String> = severe
        .map(|((repetition, time), _)| format!("repetition {repetition} ({:+.0} %)", 100.0 * (time / median - 1.0)))
        .collect();
    (!named.is_empty())
        .then(|| format!("outliers among the times of {task} {method}, kept in the statistics: {}", named.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::file_of_times;

    /// Blocks in which lazy takes `times` seconds and eager two.
    fn results(times: &[f64]) -> ResultFile {
        file_of_times(times.iter().map(|time| (2.0, *time)))
    }

    #[test]
    fn steady_run_has_no_notes() {
        assert_eq!(lines(&results(&[1.0, 1.01, 0.99, 1.0, 1.02, 0.98, 1.0])), [""; 0]);
    }

    #[test]
    fn drift_of_time_and_ratio_is_reported() {
        let notes = lines(&results(&[1.0, 1.05, 1.1, 1.15, 1.2, 1.25, 1.3]));
        assert_eq!(notes.len(), 2, "{notes:?}");
        assert!(notes[0].starts_with("not steady: the time of train lazy changed by +24 %"), "{notes:?}");
        assert!(notes[1].contains("eager / lazy, changed by -20 %"), "{notes:?}");
    }

    #[test]
    fn outlier_is_named_and_kept() {
        let results = results(&[1.0, 1.01, 0.99, 1.0, 1.02, 0.98, 3.0]);
        assert_eq!(
            lines(&results),
            ["outliers among the times of train lazy, kept in the statistics: repetition 7 (+200 %)"]
        );
        assert_eq!(results.rows.len(), 14);
    }
}
