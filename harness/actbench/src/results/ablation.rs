//! What each optimiser rule is worth: the plan without it against the full plan, within blocks.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::summary::{CONFIDENCE, Interval, interval};
use super::{Row, Status};
use crate::stats::ratio::RatioEstimate;
use crate::stats::summary::median;
use crate::workload::case::Method;

/// A lazy plan, full or without one rule. Ratios are of this plan to the full one: above 1 means that the rule pays.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RuleWorth {
    /// The lazy method.
    pub method: Method,
    /// The rule that is off, or `all`; null for the full plan, which the ratios of the others are to.
    pub without: Option<String>,
    /// Counted rows that came through.
    pub n: usize,
    /// Medians over them.
    pub elapsed_s: Option<f64>,
    /// Of extraction alone.
    pub extract_s: Option<f64>,
    /// In MB of 2^20 bytes.
    pub cpu_peak_rss_mb: Option<f64>,
    /// Rows that went through the model; the same in every repetition.
    pub tokens_computed: Option<u64>,
    /// Floating-point operations; the same in every repetition.
    pub flops: Option<u64>,
    /// Of `elapsed_s`.
    pub time: Option<Ratio>,
    /// Of `extract_s`.
    pub extract: Option<Ratio>,
    /// Of `cpu_peak_rss_mb`.
    pub memory: Option<Ratio>,
}

/// A ratio with its interval, null where there are too few blocks for one.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ratio {
    /// Hodges-Lehmann estimate.
    pub estimate: f64,
    /// Its interval.
    pub interval: Option<Interval>,
}

impl RuleWorth {
    /// For each lazy method of `rows` (of one task): the full plan, then each ablation in the order of the rules; empty
    /// where none was run.
    pub(super) fn of(rows: &[&Row]) -> Vec<RuleWorth> {
        let mut worths = Vec::new();
        for method in [Method::Lazy, Method::LazyDisk] {
            let named = ORDER.into_iter().filter(|name| rows.iter().any(|row| is(row, method, Some(name))));
            let named: Vec<Option<&str>> = named.map(Some).collect();
            if !named.is_empty() {
                worths.extend([None].into_iter().chain(named).map(|without| RuleWorth::one(rows, method, without)));
            }
        }
        worths
    }

    fn one(rows: &[&Row], method: Method, without: Option<&str>) -> RuleWorth {
        let ok = |without| rows.iter().copied().filter(move |row| is(row, method, without) && row.status == Status::Ok);
        let middle = |value: fn(&Row) -> Option<f64>| median(&ok(without).filter_map(value).collect::<Vec<f64>>()).ok();
        let count = |name: &str| ok(without).find_map(|row| row.extra.get(name).and_then(Value::as_u64));
        let ratio = |value: fn(&Row) -> Option<f64>| -> Option<Ratio> {
            without?;
            let pairs = ok(without).filter_map(|row| {
                let full = ok(None).find(|full| full.repetition == row.repetition)?;
                value(row).zip(value(full)).filter(|(without, full)| *without > 0.0 && *full > 0.0)
            });
            let (without, full): (Vec<f64>, Vec<f64>) = pairs.unzip();
            let ratio = RatioEstimate::of_pairs(&without, &full, CONFIDENCE).ok()?;
            Some(Ratio { estimate: ratio.estimate, interval: interval(&ratio) })
        };
        RuleWorth {
            method,
            without: without.map(str::to_owned),
            n: ok(without).count(),
            elapsed_s: middle(|row| row.elapsed_s),
            extract_s: middle(|row| row.extract_s),
            cpu_peak_rss_mb: middle(|row| row.cpu_peak_rss_mb),
            tokens_computed: count("tokens_computed"),
            flops: count("flops"),
            time: ratio(|row| row.elapsed_s),
            extract: ratio(|row| row.extract_s),
            memory: ratio(|row| row.cpu_peak_rss_mb),
        }
    }
}

/// The rules in the order users see them, then all at once.
const ORDER: [&str; 8] = ["depth", "packing", "mask", "pooling", "prefix", "layers", "batch", "all"];

/// Whether `row` is a counted one of that method and ablation.
fn is(row: &Row, method: Method, without: Option<&str>) -> bool {
    row.method == method && row.ablated() == without && row.repetition.is_some()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::results::summary::TaskSummary;
    use crate::results::tests::ok_row;
    use crate::workload::ablation::Ablation;
    use crate::workload::case::Task;
    use actbench_activations::plan::{Rule, Rules};

    fn ablated(name: &str, block: usize, seconds: f64) -> Row {
        let mut row = ok_row(Task::Train, Method::Lazy, block, seconds, 200.0);
        row.extra.insert("ablated".to_owned(), json!(name));
        row.extra.insert("tokens_computed".to_owned(), json!(70));
        row
    }

    #[test]
    fn a_rule_is_worth_the_ratio_within_blocks_and_leaves_the_comparison_with_eager_alone() {
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
        let names: Vec<Option<&str>> = summary.ablation.iter().map(|worth| worth.without.as_deref()).collect();
        assert_eq!(names, [None, Some("prefix"), Some("all")]);
        let estimates: Vec<Option<f64>> =
            summary.ablation.iter().map(|worth| worth.time.map(|ratio| (ratio.estimate * 1e9).round() / 1e9)).collect();
        assert_eq!(estimates, [None, Some(3.0), Some(8.0)]);
        assert_eq!((summary.ablation[1].tokens_computed, summary.ablation[1].n), (Some(70), 6));
        assert!((summary.ablation[2].memory.unwrap().estimate - 2.0).abs() < 1e-9);
        assert!(TaskSummary::of(Task::Sweep, &rows).ablation.is_empty());
    }

    #[test]
    fn every_ablation_has_a_place() {
        assert_eq!(Ablation::of(Rules::all()).iter().map(|it| it.name()).collect::<Vec<_>>(), ORDER);
        assert_eq!(Rule::ALL.len() + 1, ORDER.len());
    }
}
