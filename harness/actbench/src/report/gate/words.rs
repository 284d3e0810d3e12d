//! What all forms say in the same words.

use std::fmt::Write;

use super::table::chance;
use crate::gate::{CaseReport, GateReport, MetricReport, Outcome, Verdict};
use crate::report::compare::shown_as;

/// `regressed: 1 of 4 cases, after 52 pairs`.
pub fn headline(report: &GateReport) -> String {
    let of = |verdict: Verdict| report.cases.iter().filter(|case| case.verdict == verdict).count();
    let pairs: usize = report.cases.iter().map(|case| case.pairs).sum();
    let footing = format!("{} after {}", counted(report.cases.len(), "case"), counted(pairs, "pair"));
    match report.outcome {
        Outcome::Pass => match of(Verdict::Improved) {
            0 => format!("pass: {footing}, none slower or hungrier than is allowed"),
            improved => format!("pass: {footing}, {improved} shown to be better"),
        },
        Outcome::Regressed => format!("regressed: {} of {footing}", of(Verdict::Regressed)),
        Outcome::Broken if report.cases.is_empty() => "broken: nothing was measured".to_owned(),
        Outcome::Broken => format!("broken: {} of {footing}", of(Verdict::Broken)),
        Outcome::Inconclusive => format!("inconclusive: {} of {footing}", of(Verdict::Inconclusive)),
    }
}

fn counted(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

/// What the gate can see on this machine.
pub fn resolution(report: &GateReport) -> String {
    match &report.resolution {
        None => "What slowdown this machine resolves is not known: `actbench selftest` was not run on it.".to_owned(),
        Some(found) => {
            let smallest = match found.smallest_effect {
                Some(effect) => format!("a slowdown of {:.0}% is caught in 9 of 10 cases or more", 100.0 * effect),
                None => "no slowdown that was tried is caught in 9 of 10 cases".to_owned(),
            };
            let trials = counted(found.trials_without_difference, "trial");
            format!(
                "On this machine {smallest}; {} in {trials} without a difference (`actbench selftest`, {}).",
                counted(found.false_alarms, "false alarm"),
                found.date.chars().take(10).collect::<String>()
            )
        }
    }
}

/// A metric in words: `wall 1.031 (1.024 to 1.040) of base, 0.412 s to 0.425 s, p 0.001, 20 pairs: regressed`.
pub fn figures(metric: &MetricReport) -> String {
    let show = shown_as(metric.metric);
    let mut text = metric.metric.to_string();
    if let Some(estimate) = metric.estimate {
        let _ = write!(text, " {estimate:.3}{} of base", ends(metric));
    }
    if let (Some(base), Some(head)) = (metric.base_median, metric.head_median) {
        let unit = if metric.unit.is_empty() { String::new() } else { format!(" {}", metric.unit) };
        let _ = write!(text, ", {} to {}{unit}", show(Some(base)), show(Some(head)));
    }
    if let Some(p) = metric.p {
        let _ = write!(text, ", p {}", chance(p));
    }
    let _ = write!(text, ", {}: {}", counted(metric.n_pairs, "pair"), metric.verdict);
    if let Some(note) = &metric.note {
        let _ = write!(text, " ({note})");
    }
    text
}

/// ` (1.024 to 1.040)`, or nothing without an interval.
pub fn ends(metric: &MetricReport) -> String {
    match (metric.low, metric.high) {
        (Some(low), Some(high)) => format!(" ({low:.3} to {high:.3})"),
        _ => String::new(),
    }
}

/// What is wrong with a case, or nothing.
pub fn reason(case: &CaseReport) -> Option<String> {
    let bad = |metric: &&MetricReport| metric.verdict == case.verdict;
    match case.verdict {
        Verdict::Pass | Verdict::Improved => None,
        _ => Some(
            case.reason
                .clone()
                .unwrap_or_else(|| case.metrics.iter().filter(bad).map(figures).collect::<Vec<_>>().join("; ")),
        ),
    }
}
