//! The format `customSmallerIsBetter` of github-action-benchmark: a list of names with values, see its README.

use serde::Serialize;

use super::phrases::metric_sentence;
use crate::metric::MetricRule;
use crate::report::GateReport;

/// An entry of the list.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ActionEntry {
    /// Case and metric.
    name: String,
    /// The value's unit.
    unit: String,
    /// Median of head.
    value: f64,
    /// The interval of the ratio to base.
    #[serde(skip_serializing_if = "Option::is_none")]
    range: Option<String>,
    /// Shown as a tooltip.
    extra: String,
}

/// Head's medians. AUROC and digests are omitted: smaller is not better there.
pub fn benchmark_action(report: &GateReport) -> Vec<ActionEntry> {
    let metrics = report.cases.iter().flat_map(|case| case.metrics.iter().map(move |metric| (case, metric)));
    metrics
        .filter(|(_, metric)| !matches!(metric.metric.rule(), MetricRule::Quality | MetricRule::Identity))
        .filter_map(|(case, metric)| {
            Some(ActionEntry {
                name: format!("{} / {}", case.name, metric.metric),
                unit: metric.unit.clone(),
                value: metric.head_median?,
                range: metric.low.zip(metric.high).map(|(low, high)| format!("x{low:.3}..x{high:.3} of base")),
                extra: metric_sentence(metric),
            })
        })
        .collect()
}
