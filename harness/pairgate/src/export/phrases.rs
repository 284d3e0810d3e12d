//! Sentences that several formats share.

use std::fmt::Write;

use super::format::{counted, metric_format, p_value};
use crate::report::{CaseReport, GateReport, MetricReport, Verdict};

/// `regressed: 1 of 4 cases, after 52 pairs`.
pub fn headline(report: &GateReport) -> String {
    let count = |verdict: Verdict| report.cases.iter().filter(|case| case.verdict == verdict).count();
    let pairs: usize = report.cases.iter().map(|case| case.pairs).sum();
    let extent = format!("{} after {}", counted(report.cases.len(), "case"), counted(pairs, "pair"));
    match report.outcome {
        Verdict::Pass | Verdict::Improved => match count(Verdict::Improved) {
            0 => format!("pass: {extent}, none slower or larger than allowed"),
            improved => format!("pass: {extent}, {improved} improved"),
        },
        Verdict::Regressed => format!("regressed: {} of {extent}", count(Verdict::Regressed)),
        Verdict::Broken if report.cases.is_empty() => "broken: nothing was measured".to_owned(),
        Verdict::Broken => format!("broken: {} of {extent}", count(Verdict::Broken)),
        Verdict::Inconclusive => format!("inconclusive: {} of {extent}", count(Verdict::Inconclusive)),
    }
}

/// That both sides are one program, if they are: then every difference is of the machine or of the arguments.
pub fn same_program(report: &GateReport) -> Option<String> {
    (report.base.build == report.head.build)
        .then(|| format!("Base and head are the same program, with one build id: {}.", report.head.build))
}

/// The smallest slowdown that the gate catches on this machine.
pub fn resolution_sentence(report: &GateReport) -> String {
    match &report.resolution {
        None => "No self-test result for this machine.".to_owned(),
        Some(resolution) => {
            let smallest = match resolution.smallest_effect {
                Some(effect) => format!("a slowdown of {:.0}% is caught in at least 9 of 10 gates", 100.0 * effect),
                None => "none of the slowdowns that were tried is caught in 9 of 10 gates".to_owned(),
            };
            let gates = counted(resolution.trials_without_difference, "gate");
            format!(
                "On this machine {smallest}; {} in {gates} without a difference (self-test of {}).",
                counted(resolution.false_alarms, "false alarm"),
                resolution.day()
            )
        }
    }
}

/// A metric as a sentence: `wall 1.031 (1.024 to 1.040) of base, 0.412 s to 0.425 s, p 0.001, 20 pairs: regressed`.
pub fn metric_sentence(metric: &MetricReport) -> String {
    let show = metric_format(metric.metric);
    let mut text = metric.metric.to_string();
    if let Some(estimate) = metric.estimate {
        let _ = write!(text, " {estimate:.3}{} of base", interval_ends(metric));
    }
    if let (Some(base), Some(head)) = (metric.base_median, metric.head_median) {
        let unit = if metric.unit.is_empty() { String::new() } else { format!(" {}", metric.unit) };
        let _ = write!(text, ", {} to {}{unit}", show(Some(base)), show(Some(head)));
    }
    if let Some(p) = metric.p {
        let _ = write!(text, ", p {}", p_value(p));
    }
    let _ = write!(text, ", {}: {}", counted(metric.n_pairs, "pair"), metric.verdict);
    if let Some(note) = &metric.note {
        let _ = write!(text, " ({note})");
    }
    text
}

/// ` (1.024 to 1.040)`, or nothing without an interval.
pub fn interval_ends(metric: &MetricReport) -> String {
    match (metric.low, metric.high) {
        (Some(low), Some(high)) => format!(" ({low:.3} to {high:.3})"),
        _ => String::new(),
    }
}

/// Why a case did not pass; none if it passed.
pub fn case_reason(case: &CaseReport) -> Option<String> {
    let has_verdict = |metric: &&MetricReport| metric.verdict == case.verdict;
    match case.verdict {
        Verdict::Pass | Verdict::Improved => None,
        _ => Some(case.reason.clone().unwrap_or_else(|| {
            case.metrics.iter().filter(has_verdict).map(metric_sentence).collect::<Vec<_>>().join("; ")
        })),
    }
}
