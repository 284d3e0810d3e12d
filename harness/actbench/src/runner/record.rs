//! Turns the exit of a case into a row of the result file.

use super::exit::{CaseExit, ExitReason};
use super::schedule::Slot;
use crate::case::{CaseMetrics, CaseOutcome};
use crate::measure::memory::Peaks;
use crate::results::{Row, Status};

/// The row of the case at `slot`, which ended by `exit`.
pub fn row(slot: Slot, exit: CaseExit) -> Row {
    let mut row = Row {
        task: slot.task,
        method: slot.method,
        repetition: slot.block,
        status: Status::Error,
        reason: None,
        elapsed_s: None,
        extract_s: None,
        train_eval_s: None,
        cpu_peak_rss_mb: None,
        cpu_peak_heap_mb: None,
        gpu_peak_alloc_mb: None,
        gpu_peak_reserved_mb: None,
        metric_name: slot.task.metric_name().to_owned(),
        metric_value: None,
        metrics: CaseMetrics::default(),
    };
    match &exit.reason {
        ExitReason::Completed(outcome, peaks) => {
            add_outcome(&mut row, outcome);
            add_peaks(&mut row, *peaks);
        }
        ExitReason::Failed(failure) if failure.out_of_memory_bytes.is_some() => {
            row.status = Status::Oom;
            row.metrics.oom_bytes = failure.out_of_memory_bytes;
        }
        ExitReason::TimedOut(_) => row.status = Status::Timeout,
        ExitReason::Killed(_) => row.status = Status::Killed,
        ExitReason::Failed(_) | ExitReason::NoResult(_) | ExitReason::InvalidOutput(_) | ExitReason::DidNotExit(_) => {}
    }
    row.metrics.ablated = slot.ablation.map(|ablation| ablation.name().to_owned());
    if !matches!(exit.reason, ExitReason::Completed(..)) {
        row.reason = Some(exit.message());
        row.metrics.stderr = Some(exit.stderr).filter(|stderr| !stderr.is_empty());
    }
    row
}

fn add_outcome(row: &mut Row, outcome: &CaseOutcome) {
    row.elapsed_s = finite(outcome.elapsed_s);
    row.extract_s = finite(outcome.extract_s);
    row.train_eval_s = finite(outcome.train_eval_s);
    row.metric_name = outcome.metric_name.clone();
    row.metric_value = finite(outcome.metric_value);
    row.gpu_peak_alloc_mb = outcome.gpu.and_then(|gpu| finite(gpu.alloc_mb));
    row.gpu_peak_reserved_mb = outcome.gpu.and_then(|gpu| finite(gpu.reserved_mb));
    row.metrics = outcome.metrics.clone();
    match (row.elapsed_s, row.metric_value) {
        (Some(_), Some(_)) => row.status = Status::Ok,
        _ => row.reason = Some("its time or its metric is not a finite number".to_owned()),
    }
}

fn add_peaks(row: &mut Row, peaks: Peaks) {
    row.cpu_peak_rss_mb = peaks.rss_mb.and_then(finite);
    row.cpu_peak_heap_mb = finite(peaks.heap_mb);
    row.metrics.peak_anonymous_mb = Some(peaks.anonymous_mb.and_then(finite));
    row.metrics.rss_anonymous_mb = Some(peaks.rss_anonymous_mb);
    row.metrics.rss_file_mb = Some(peaks.rss_file_mb);
    row.metrics.load_peak_rss_mb = Some(peaks.load_rss_mb);
    row.metrics.peak_includes_loading = Some(peaks.includes_loading);
}

/// JSON has no NaN: a value that is not finite is null in the file.
fn finite(value: f64) -> Option<f64> {
    value.is_finite().then_some(value)
}
