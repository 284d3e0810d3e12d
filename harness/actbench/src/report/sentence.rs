//! One sentence a task that says what the figures say, and no more than they do.

use crate::case::{Method, Task};
use crate::results::summary::{Comparison, Interval};
use crate::results::{Row, Status};

/// AUROCs that print alike are called the same.
const SAME_METRIC: f64 = 5e-5;

/// `sweep: lazy was 2.90x faster (2.70 to 3.10) and used 1.40x less memory (1.38 to 1.42); same AUROC.`
///
/// Where one of the two methods never came through, which one and why; none where neither did or one was not run.
pub fn sentence(task: Task, method: Method, comparison: &Comparison, rows: &[Row]) -> Option<String> {
    match (comparison.speedup_lazy_vs_eager, comparison.cpu_mem_reduction_x, comparison.metric_delta) {
        (Some(time), memory, Some(delta)) => {
            let intervals = &comparison.intervals;
            let time = clause(time, intervals.speedup_lazy_vs_eager, "was", "faster", "slower")
                .unwrap_or_else(|| "showed no difference in time".to_owned());
            let memory = memory.map_or_else(String::new, |memory| {
                let clause = clause(memory, intervals.cpu_mem_reduction_x, "used", "less memory", "more memory");
                format!(" and {}", clause.unwrap_or_else(|| "showed no difference in memory".to_owned()))
            });
            let metric = match delta {
                delta if delta.abs() <= SAME_METRIC => "same AUROC".to_owned(),
                delta => format!("AUROC differs by {delta:+.4}"),
            };
            Some(format!("{task}: {method} {time}{memory}; {metric}."))
        }
        _ => one_side(task, method, rows),
    }
}

/// `train: eager never came through (oom), lazy did.`
fn one_side(task: Task, method: Method, rows: &[Row]) -> Option<String> {
    let of = |wanted: Method| rows.iter().filter(move |row| row.task == task && row.method == wanted);
    let came_through = |wanted: Method| of(wanted).any(|row| row.status == Status::Ok);
    let (failed, other) = match (came_through(Method::Eager), came_through(method)) {
        (false, true) => (Method::Eager, method),
        (true, false) => (method, Method::Eager),
        _ => return None,
    };
    let status = of(failed).next()?.status;
    Some(format!("{task}: {failed} never came through ({status}), {other} did."))
}

/// `was 2.90x faster (2.70 to 3.10)`; none where the interval holds 1, for then no difference is shown.
fn clause(ratio: f64, interval: Option<Interval>, verb: &str, better: &str, worse: &str) -> Option<String> {
    if interval.is_some_and(|interval| interval.contains_one()) {
        return None;
    }
    let (word, ratio, ends) = match ratio >= 1.0 {
        true => (better, ratio, interval.map(|interval| (interval.low, interval.high))),
        false => (worse, 1.0 / ratio, interval.map(|interval| (1.0 / interval.high, 1.0 / interval.low))),
    };
    let ends = ends.map_or_else(|| " (a single block)".to_owned(), |(low, high)| format!(" ({low:.2} to {high:.2})"));
    Some(format!("{verb} {ratio:.2}x {word}{ends}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_below_one_is_told_the_other_way_round() {
        let interval = Some(Interval { low: 0.4, high: 0.625, confidence: 0.95, n: 6 });
        assert_eq!(clause(0.5, interval, "was", "faster", "slower").unwrap(), "was 2.00x slower (1.60 to 2.50)");
        assert_eq!(clause(2.0, None, "was", "faster", "slower").unwrap(), "was 2.00x faster (a single block)");
        let around_one = Some(Interval { low: 0.9, high: 1.2, confidence: 0.95, n: 6 });
        assert_eq!(clause(1.1, around_one, "was", "faster", "slower"), None);
    }
}
