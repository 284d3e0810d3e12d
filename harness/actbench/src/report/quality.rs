//! What to know of the measurements themselves: why there are so many, whether they were steady, and which stand out.

use crate::case::{Method, Task};
use crate::measure::resolution::Resolution;
use crate::results::adaptive::RunEnd;
use crate::results::{ResultFile, Row, Status};
use pairgate::stats::outliers::{Outlier, flag_outliers};
use pairgate::stats::ratio::log_ratios;
use pairgate::stats::{Summary, Trend};

/// The fewest observations among which one can stand out.
const FEWEST_FOR_OUTLIERS: usize = 6;

/// A line each, in the order of the table; empty where there is nothing to know.
pub fn lines(results: &ResultFile) -> Vec<String> {
    let mut lines: Vec<String> = results.end.and_then(end).into_iter().collect();
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

/// Why the run took as many blocks as it did, where nobody asked for the number.
fn end(end: RunEnd) -> Option<String> {
    Some(match end {
        RunEnd::Fixed { .. } => return None,
        RunEnd::Enough { blocks } => format!("{blocks} blocks: every ratio of times is known to 1.5 %"),
        RunEnd::Budget { blocks } => {
            format!(
                "{blocks} blocks: another would not fit into --budget, and a ratio of times is known to less than 1.5 %"
            )
        }
        RunEnd::MaxBlocks { blocks } => {
            format!(
                "{blocks} blocks, the most: a ratio of times is still known to less than 1.5 %; is the machine busy?"
            )
        }
    })
}

fn counted(results: &ResultFile, task: Task, method: Method) -> Vec<&Row> {
    let rows = results.rows.iter().filter(|row| (row.task, row.method) == (task, method) && row.ablated().is_none());
    rows.filter(|row| row.status == Status::Ok).collect()
}

/// Eager over `method` in each block in which both came through, in the order of the blocks.
fn paired_ratios(results: &ResultFile, task: Task, method: Method) -> Vec<f64> {
    let lazy = counted(results, task, method);
    let pairs = counted(results, task, Method::Eager).into_iter().filter_map(|eager| {
        let other = lazy.iter().find(|row| row.repetition == eager.repetition)?;
        eager.elapsed_s.zip(other.elapsed_s)
    });
    let (eager, lazy): (Vec<f64>, Vec<f64>) = pairs.unzip();
    log_ratios(&eager, &lazy).map(|ratios| ratios.into_iter().map(f64::exp).collect()).unwrap_or_default()
}

/// Says that a series is not steady; what it would be without the drift is not guessed.
fn drift(what: &str, values: &[f64]) -> Option<String> {
    let trend = Trend::of(values).ok()??;
    (!trend.is_steady()).then(|| {
        let change = 100.0 * (trend.last_over_first - 1.0);
        format!(
            "not steady: {what} changed by {change:+.0} % from the first third of the run to the last (p {:.3})",
            trend.p
        )
    })
}

/// Names the observations that stand out; all of them count.
fn outliers(task: Task, method: Method, rows: &[&Row]) -> Option<String> {
    let timed: Vec<(usize, f64)> = rows.iter().filter_map(|row| Some((row.repetition? + 1, row.elapsed_s?))).collect();
    if timed.len() < FEWEST_FOR_OUTLIERS {
        return None;
    }
    let times: Vec<f64> = timed.iter().map(|(_, time)| *time).collect();
    let median = Summary::of(&times).ok()?.median;
    let far = timed.iter().zip(flag_outliers(&times).ok()?);
    let severe = far.filter(|(_, flag)| matches!(flag, Outlier::HighSevere | Outlier::LowSevere));
    let named: Vec<String> = severe
        .map(|((repetition, time), _)| format!("repetition {repetition} ({:+.0} %)", 100.0 * (time / median - 1.0)))
        .collect();
    (!named.is_empty())
        .then(|| format!("far from the other times of {task} {method}, and counted: {}", named.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::case::RunConfig;
    use crate::test_support::{file_of, ok_row, small_config};

    fn results(times: &[f64]) -> ResultFile {
        let config =
            RunConfig { tasks: vec![Task::Train], methods: vec![Method::Eager, Method::Lazy], ..small_config() };
        let block = |(block, time): (usize, &f64)| {
            let eager = ok_row(Task::Train, Method::Eager, block, 2.0, 50.0);
            [eager, ok_row(Task::Train, Method::Lazy, block, *time, 30.0)]
        };
        file_of(config, times.iter().enumerate().flat_map(block))
    }

    #[test]
    fn a_quiet_run_needs_no_words() {
        assert_eq!(lines(&results(&[1.0, 1.01, 0.99, 1.0, 1.02, 0.98, 1.0])), [""; 0]);
    }

    #[test]
    fn a_drift_is_told_of_the_time_and_of_the_ratio() {
        let told = lines(&results(&[1.0, 1.05, 1.1, 1.15, 1.2, 1.25, 1.3]));
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(told[0].starts_with("not steady: the time of train lazy changed by +24 %"), "{told:?}");
        assert!(told[1].contains("eager / lazy, changed by -20 %"), "{told:?}");
    }

    #[test]
    fn an_outlier_is_named_and_stays() {
        let results = results(&[1.0, 1.01, 0.99, 1.0, 1.02, 0.98, 3.0]);
        assert_eq!(lines(&results), ["far from the other times of train lazy, and counted: repetition 7 (+200 %)"]);
        assert_eq!(results.rows.len(), 14);
    }

    #[test]
    fn an_end_that_nobody_asked_for_is_explained() {
        let with = |end| lines(&ResultFile { end: Some(end), ..results(&[]) });
        assert_eq!(with(RunEnd::Fixed { blocks: 5 }), [""; 0]);
        assert!(with(RunEnd::Enough { blocks: 9 })[0].starts_with("9 blocks: every ratio"));
        assert!(with(RunEnd::Budget { blocks: 2 })[0].contains("--budget"));
    }
}
