//! One sentence a task that says what the figures say, and no more than they do.

use crate::results::ResultFile;
use crate::results::summary::Interval;
use crate::workload::case::{Method, Task};

/// AUROCs that print alike are called the same.
const SAME_METRIC: f64 = 5e-5;

/// `sweep: lazy was 2.9x faster (2.7 to 3.1) and used 1.4x less memory (1.4 to 1.4); same AUROC.`
///
/// None where a method did not come through.
pub fn sentence(task: Task, results: &ResultFile) -> Option<String> {
    let comparison = results.task_summary(task).comparison;
    let method = if results.config.methods.contains(&Method::Lazy) { Method::Lazy } else { Method::LazyDisk };
    let intervals = &comparison.intervals;
    let time = clause(comparison.speedup_lazy_vs_eager?, intervals.speedup_lazy_vs_eager, "was", "faster", "slower");
    let memory =
        clause(comparison.cpu_mem_reduction_x?, intervals.cpu_mem_reduction_x, "used", "less memory", "more memory");
    let metric = match comparison.metric_delta? {
        delta if delta.abs() <= SAME_METRIC => "same AUROC".to_owned(),
        delta => format!("AUROC differs by {delta:+.4}"),
    };
    let time = time.unwrap_or_else(|| "showed no difference in time".to_owned());
    let memory = memory.unwrap_or_else(|| "showed none in memory".to_owned());
    Some(format!("{task}: {method} {time} and {memory}; {metric}."))
}

/// `was 2.9x faster (2.7 to 3.1)`; none where the interval holds 1, for then no difference is shown.
fn clause(ratio: f64, interval: Option<Interval>, verb: &str, better: &str, worse: &str) -> Option<String> {
    if interval.is_some_and(|interval| interval.low <= 1.0 && interval.high >= 1.0) {
        return None;
    }
    let (word, ratio, ends) = match ratio >= 1.0 {
        true => (better, ratio, interval.map(|interval| (interval.low, interval.high))),
        false => (worse, 1.0 / ratio, interval.map(|interval| (1.0 / interval.high, 1.0 / interval.low))),
    };
    let ends = ends.map_or_else(String::new, |(low, high)| format!(" ({low:.2} to {high:.2})"));
    Some(format!("{verb} {ratio:.2}x {word}{ends}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_below_one_is_told_the_other_way_round() {
        let interval = Some(Interval { low: 0.4, high: 0.625, confidence: 0.95, n: 6 });
        assert_eq!(clause(0.5, interval, "was", "faster", "slower").unwrap(), "was 2.00x slower (1.60 to 2.50)");
        assert_eq!(clause(2.0, None, "was", "faster", "slower").unwrap(), "was 2.00x faster");
        let around_one = Some(Interval { low: 0.9, high: 1.2, confidence: 0.95, n: 6 });
        assert_eq!(clause(1.1, around_one, "was", "faster", "slower"), None);
    }
}
