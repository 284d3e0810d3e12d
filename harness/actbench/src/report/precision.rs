//! The closing lines of an adaptive run: how precise each time ratio is, why the run stopped, and how to get more precision.

use crate::case::{Method, Task};
use crate::results::ResultFile;
use crate::results::adaptive::{RunEnd, StoppingRule};
use crate::results::interval::Interval;
use pairgate::export::format::counted;

/// A time ratio with its interval, if it has one.
type TimeRatio = (Task, Method, Option<Interval>);

/// The lines for a run that ended as `end`; none if the user set the number of repetitions.
pub fn lines(results: &ResultFile, end: RunEnd) -> Vec<String> {
    let ratios = time_ratios(results);
    let stopping = StoppingRule::default();
    let (blocks, reason) = match end {
        RunEnd::Fixed { .. } => return Vec::new(),
        RunEnd::Enough { blocks } if ratios.is_empty() => {
            let blocks = counted(blocks, "block");
            return vec![format!("{blocks}, the minimum: there is no time ratio to measure more precisely")];
        }
        RunEnd::Enough { blocks } => {
            (blocks, format!("every time ratio is known to within {}", percent(stopping.half_width)))
        }
        RunEnd::Time { blocks } => {
            (blocks, format!("the default time of {} s allows no further block", stopping.time.as_secs()))
        }
        RunEnd::Budget { blocks } => (blocks, "--budget allows no further block".to_owned()),
        RunEnd::MaxBlocks { blocks } => (blocks, "the maximum; is the machine busy?".to_owned()),
    };
    let mut lines = vec![format!("{}: {reason}", counted(blocks, "block"))];
    lines.extend((!ratios.is_empty()).then(|| format!("precision of the time ratios: {}", precisions(&ratios))));
    lines.push(advice(end, blocks));
    lines
}

/// Eager compared with each lazy method of each task, where both completed in a common block.
fn time_ratios(results: &ResultFile) -> Vec<TimeRatio> {
    let of_task = |task: &Task| {
        let summary = results.task_summary(*task);
        let ratios = summary.by_method().filter(|(_, comparison)| comparison.speedup_lazy_vs_eager.is_some());
        ratios
            .map(|(method, comparison)| (*task, method, comparison.intervals.speedup_lazy_vs_eager))
            .collect::<Vec<TimeRatio>>()
    };
    results.config.tasks.iter().flat_map(of_task).collect()
}

/// `train eager / lazy is known to within 4.2 %, sweep eager / lazy to within 1.3 % (with 95 % confidence)`.
fn precisions(ratios: &[TimeRatio]) -> String {
    let one = |(task, method, interval): &TimeRatio| match interval {
        Some(interval) => format!(
            "{task} eager / {method} is known to within {} ({:.1} % confidence)",
            percent(interval.half_width()),
            100.0 * interval.confidence
        ),
        None => format!("{task} eager / {method} is not known, because a single block has no interval"),
    };
    ratios.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// How to get more precision. The width of an interval falls with the square root of the number of blocks.
fn advice(end: RunEnd, blocks: usize) -> String {
    let stopping = StoppingRule::default();
    let more = match end {
        RunEnd::Fixed { .. } | RunEnd::MaxBlocks { .. } | RunEnd::Enough { .. } => String::new(),
        RunEnd::Time { .. } => format!(", or --budget 10m to go on until {}", percent(stopping.half_width)),
        RunEnd::Budget { .. } => format!(", or a longer --budget to go on until {}", percent(stopping.half_width)),
    };
    format!(
        "for more precision: twice the precision takes about four times the blocks (--repetitions {}){more}, or an idle machine",
        4 * blocks
    )
}

/// `4.2 %`, with one decimal.
fn percent(fraction: f64) -> String {
    format!("{:.1} %", 100.0 * fraction)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::file_of_times;

    /// Blocks in which eager takes `times` seconds and lazy one.
    fn results(times: &[f64]) -> ResultFile {
        file_of_times(times.iter().map(|time| (*time, 1.0)))
    }

    #[test]
    fn end_by_time_states_precision_and_a_way_to_more() {
        let noisy = results(&[1.9, 2.0, 2.1, 2.0, 1.9, 2.1, 2.0]);
        let lines = lines(&noisy, RunEnd::Time { blocks: 7 });
        assert_eq!(lines.len(), 3, "{lines:?}");
        assert_eq!(lines[0], "7 blocks: the default time of 60 s allows no further block");
        assert!(
            lines[1].starts_with("precision of the time ratios: train eager / lazy is known to within "),
            "{lines:?}"
        );
        assert!(lines[2].contains("(--repetitions 28), or --budget 10m to go on until 1.5 %"), "{lines:?}");
    }

    #[test]
    fn every_adaptive_end_is_explained() {
        let noisy = results(&[1.9, 2.0, 2.1, 2.0, 1.9, 2.1]);
        let first = |end| lines(&noisy, end).first().cloned().unwrap_or_default();
        assert_eq!(lines(&noisy, RunEnd::Fixed { blocks: 6 }), [""; 0]);
        assert_eq!(first(RunEnd::Enough { blocks: 9 }), "9 blocks: every time ratio is known to within 1.5 %");
        assert_eq!(first(RunEnd::Budget { blocks: 2 }), "2 blocks: --budget allows no further block");
        assert_eq!(first(RunEnd::MaxBlocks { blocks: 50 }), "50 blocks: the maximum; is the machine busy?");
        let single = lines(&results(&[2.0]), RunEnd::Budget { blocks: 1 });
        assert_eq!(single[0], "1 block: --budget allows no further block");
        assert!(single[1].contains("a single block has no interval"), "{single:?}");
        let alone = lines(&results(&[]), RunEnd::Enough { blocks: 6 });
        assert_eq!(alone, ["6 blocks, the minimum: there is no time ratio to measure more precisely"]);
    }
}
