//! The effect of each optimizer rule: the plan without it compared with the full plan, within blocks.

use actbench_activations::plan::Rules;
use serde::{Deserialize, Serialize};

use super::interval::{CONFIDENCE, Interval};
use super::row::{Row, Status};
use crate::case::{Ablation, Method};
use crate::stats::ratio::RatioEstimate;
use crate::stats::summary::median;

/// Measurements of a lazy plan, full or without one rule. Ratios are plan / full plan: above 1, the rule pays.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AblationResult {
    /// The lazy method.
    pub method: Method,
    /// The disabled rule, or `all`; null for the full plan.
    pub without: Option<String>,
    /// Measured rows that completed.
    pub n: usize,
    /// Median of `elapsed_s` over these rows.
    pub elapsed_s: Option<f64>,
    /// Median of `extract_s`.
    pub extract_s: Option<f64>,
    /// Median of `cpu_peak_rss_mb`.
    pub cpu_peak_rss_mb: Option<f64>,
    /// Tokens that the model computed; the same in every repetition.
    pub tokens_computed: Option<u64>,
    /// Floating-point operations; the same in every repetition.
    pub flops: Option<u64>,
    /// Ratio of `elapsed_s`.
    pub time: Option<Ratio>,
    /// Ratio of `extract_s`.
    pub extract: Option<Ratio>,
    /// Ratio of `cpu_peak_rss_mb`.
    pub memory: Option<Ratio>,
}

/// A ratio with its interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ratio {
    /// Hodges-Lehmann estimate.
    pub estimate: f64,
    /// Its interval; null if there are too few blocks.
    pub interval: Option<Interval>,
}

impl AblationResult {
    /// For each lazy method of `rows` (of one task): the full plan, then each ablation in the order of the rules; empty
    /// if no ablation ran.
    pub(super) fn of(rows: &[&Row]) -> Vec<AblationResult> {
        let mut results = Vec::new();
        for method in [Method::Lazy, Method::LazyDisk] {
            let ablations = Ablation::for_rules(Rules::all()).into_iter().map(Ablation::name);
            let measured: Vec<Option<&str>> = ablations
                .filter(|name| rows.iter().any(|row| is_measured(row, method, Some(name))))
                .map(Some)
                .collect();
            if !measured.is_empty() {
                let plans = [None].into_iter().chain(measured);
                results.extend(plans.map(|without| AblationResult::of_plan(rows, method, without)));
            }
        }
        results
    }

    fn of_plan(rows: &[&Row], method: Method, without: Option<&str>) -> AblationResult {
        let ok = |without| {
            rows.iter().copied().filter(move |row| is_measured(row, method, without) && row.status == Status::Ok)
        };
        let median_of =
            |value: fn(&Row) -> Option<f64>| median(&ok(without).filter_map(value).collect::<Vec<f64>>()).ok();
        let first = |value: fn(&Row) -> Option<u64>| ok(without).find_map(value);
        let ratio = |value: fn(&Row) -> Option<f64>| -> Option<Ratio> {
            without?;
            let pairs = ok(without).filter_map(|row| {
                let full = ok(None).find(|full| full.repetition == row.repetition)?;
                value(row).zip(value(full)).filter(|(without, full)| *without > 0.0 && *full > 0.0)
            });
            let (without, full): (Vec<f64>, Vec<f64>) = pairs.unzip();
            let ratio = RatioEstimate::of_pairs(&without, &full, CONFIDENCE).ok()?;
            Some(Ratio { estimate: ratio.estimate, interval: Interval::of(&ratio) })
        };
        AblationResult {
            method,
            without: without.map(str::to_owned),
            n: ok(without).count(),
            elapsed_s: median_of(|row| row.elapsed_s),
            extract_s: median_of(|row| row.extract_s),
            cpu_peak_rss_mb: median_of(|row| row.cpu_peak_rss_mb),
            tokens_computed: first(|row| row.metrics.tokens_computed),
            flops: first(|row| row.metrics.flops),
            time: ratio(|row| row.elapsed_s),
            extract: ratio(|row| row.extract_s),
            memory: ratio(|row| row.cpu_peak_rss_mb),
        }
    }
}

/// Whether `row` is a measured row (no warm-up) of this method and ablation.
fn is_measured(row: &Row, method: Method, without: Option<&str>) -> bool {
    row.method == method && row.ablated() == without && row.repetition.is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::case::Task;
    use crate::results::summary::TaskSummary;
    use crate::test_support::ok_row;

    fn ablated(name: &str, block: usize, seconds: f64) -> Row {
        let mut row = ok_row(Task::Train, Method::Lazy, block, seconds, 200.0);
        row.metrics.ablated = Some(name.to_owned());
        row.metrics.tokens_computed = Some(70);
        row
    }

    #[test]
    fn rule_effects_are_ratios_within_blocks() {
        let mut rows = Vec::new();
        for block in 0..6 {
            // The machine slows down from block to block; ratios within blocks do not see that.
            let drift = 1.0 + block as f64;
            rows.push(ok_row(Task::Train, Method::Eager, block, 4.0 * drift, 400.0));
            rows.push(ablated("prefix", block, 3.0 * drift));
            rows.push(ok_row(Task::Train, Method::Lazy, block, drift, 100.0));
            rows.push(ablated("all", block, 8.0 * drift));
        }
        let summary = TaskSummary::of(Task::Train, &rows);
        assert!((summary.comparison.speedup_lazy_vs_eager.unwrap() - 4.0).abs() < 1e-9);
        let names: Vec<Option<&str>> = summary.ablation.iter().map(|result| result.without.as_deref()).collect();
        assert_eq!(names, [None, Some("prefix"), Some("all")]);
        let estimates: Vec<Option<f64>> = summary
            .ablation
            .iter()
            .map(|result| result.time.map(|ratio| (ratio.estimate * 1e9).round() / 1e9))
            .collect();
        assert_eq!(estimates, [None, Some(3.0), Some(8.0)]);
        assert_eq!((summary.ablation[1].tokens_computed, summary.ablation[1].n), (Some(70), 6));
        assert!((summary.ablation[2].memory.unwrap().estimate - 2.0).abs() < 1e-9);
        assert!(TaskSummary::of(Task::Sweep, &rows).ablation.is_empty());
    }
}
