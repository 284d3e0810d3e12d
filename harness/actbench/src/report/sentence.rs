//! One sentence per task and lazy method, which claims no more than its figures show.

use crate::case::{Method, Task};
use crate::results::interval::{IntervalBasis, is_same};
use crate::results::summary::{Comparison, Interval};
use crate::results::{Row, Status};

/// AUROCs that print alike count as the same.
const SAME_METRIC: f64 = 5e-5;

/// The words for a ratio eager / lazy.
struct RatioWords {
    verb: &'static str,
    better: &'static str,
    worse: &'static str,
    /// The whole clause for a ratio within 2 % of 1.
    same: &'static str,
    /// The whole clause where the interval contains 1.
    not_shown: &'static str,
}

const TIME: RatioWords = RatioWords {
    verb: "was",
    better: "faster",
    worse: "slower",
    same: "took the same time (within 2 %)",
    not_shown: "showed no difference in time",
};

const MEMORY: RatioWords = RatioWords {
    verb: "used",
    better: "less memory",
    worse: "more memory",
    same: "used the same memory (within 2 %)",
    not_shown: "showed no difference in memory",
};

/// `sweep: lazy was 2.90x faster (2.70 to 3.10) and used 1.40x less memory (1.38 to 1.42), 93.8 % intervals, 5 blocks; same
/// AUROC.`
///
/// If only one of the two methods completed, which one failed and how. None if neither completed or one was not run.
pub fn sentence(task: Task, method: Method, comparison: &Comparison, rows: &[Row]) -> Option<String> {
    match (comparison.speedup_lazy_vs_eager, comparison.cpu_mem_reduction_x, comparison.metric_delta) {
        (Some(time), memory, Some(delta)) => {
            let intervals = &comparison.intervals;
            let both = [intervals.speedup_lazy_vs_eager, intervals.cpu_mem_reduction_x];
            let basis = IntervalBasis::of(both.into_iter().flatten()).map_or_else(String::new, |it| format!(", {it}"));
            let time = clause(time, intervals.speedup_lazy_vs_eager, &TIME);
            let memory = memory.map_or_else(String::new, |memory| {
                format!(" and {}", clause(memory, intervals.cpu_mem_reduction_x, &MEMORY))
            });
            let metric = if delta.abs() <= SAME_METRIC {
                "same AUROC".to_owned()
            } else {
                format!("AUROC differs by {delta:+.4}")
            };
            Some(format!("{task}: {method} {time}{memory}{basis}; {metric}."))
        }
        _ => one_failed(task, method, rows),
    }
}

/// `train: eager never completed (oom); lazy completed.`
fn one_failed(task: Task, method: Method, rows: &[Row]) -> Option<String> {
    let rows_of = |wanted: Method| rows.iter().filter(move |row| row.task == task && row.method == wanted);
    let completed = |wanted: Method| rows_of(wanted).any(|row| row.status == Status::Ok);
    let (failed, other) = match (completed(Method::Eager), completed(method)) {
        (false, true) => (Method::Eager, method),
        (true, false) => (method, Method::Eager),
        _ => return None,
    };
    let status = rows_of(failed).next()?.status;
    Some(format!("{task}: {failed} never completed ({status}); {other} completed."))
}

/// `was 2.90x faster (2.70 to 3.10)`.
fn clause(ratio: f64, interval: Option<Interval>, words: &RatioWords) -> String {
    match interval {
        Some(interval) if interval.shows_the_same() => return words.same.to_owned(),
        Some(interval) if interval.contains_one() => return words.not_shown.to_owned(),
        _ if is_same(ratio) => return words.same.to_owned(),
        _ => {}
    }
    let (word, ratio, ends) = if ratio >= 1.0 {
        (words.better, ratio, interval.map(|interval| (interval.low, interval.high)))
    } else {
        (words.worse, 1.0 / ratio, interval.map(|interval| (1.0 / interval.high, 1.0 / interval.low)))
    };
    let ends = ends.map_or_else(|| " (a single block)".to_owned(), |(low, high)| format!(" ({low:.2} to {high:.2})"));
    format!("{} {ratio:.2}x {word}{ends}", words.verb)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratio_below_one_is_inverted() {
        let interval = Some(Interval { low: 0.4, high: 0.625, confidence: 0.95, n: 6 });
        assert_eq!(clause(0.5, interval, &TIME), "was 2.00x slower (1.60 to 2.50)");
        assert_eq!(clause(2.0, None, &TIME), "was 2.00x faster (a single block)");
        let around_one = Some(Interval { low: 0.9, high: 1.2, confidence: 0.95, n: 6 });
        assert_eq!(clause(1.1, around_one, &TIME), "showed no difference in time");
    }

    #[test]
    fn ratio_within_two_percent_is_same() {
        let interval = |low: f64, high: f64| Some(Interval { low, high, confidence: 0.95, n: 6 });
        let same = "used the same memory (within 2 %)";
        assert_eq!(clause(1.006, interval(1.001, 1.012), &MEMORY), same);
        assert_eq!(clause(0.985, interval(0.983, 0.986), &MEMORY), same);
        assert_eq!(clause(1.001, interval(0.99, 1.01), &MEMORY), same, "a narrow interval around 1 shows it");
        assert_eq!(clause(1.001, interval(0.9, 1.1), &MEMORY), "showed no difference in memory");
        assert_eq!(clause(1.03, interval(1.02, 1.03), &MEMORY), "used 1.03x less memory (1.02 to 1.03)");
        assert_eq!(clause(1.01, None, &TIME), "took the same time (within 2 %)");
    }

    #[test]
    fn sentence_states_confidence_of_its_intervals() {
        let interval = |low: f64, high: f64| Some(Interval { low, high, confidence: 0.5, n: 2 });
        let mut comparison = Comparison {
            speedup_lazy_vs_eager: Some(1.84),
            cpu_mem_reduction_x: Some(1.5),
            metric_delta: Some(0.0),
            ..Comparison::default()
        };
        comparison.intervals.speedup_lazy_vs_eager = interval(1.73, 1.96);
        comparison.intervals.cpu_mem_reduction_x = interval(1.4, 1.6);
        assert_eq!(
            sentence(Task::Train, Method::Lazy, &comparison, &[]).unwrap(),
            "train: lazy was 1.84x faster (1.73 to 1.96) and used 1.50x less memory (1.40 to 1.60), 50 % intervals, 2 blocks; \
             same AUROC."
        );
    }
}
