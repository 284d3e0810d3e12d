//! Bencher Metric Format: `{benchmark: {measure: {value, lower_value, upper_value}}}`, see bencher.dev's reference.

use serde_json::{Map, Value, json};

use crate::report::GateReport;

/// Head's medians, and the ratios to base with their intervals as separate measures. The format has numbers alone: digests
/// and cases without a measurement are omitted.
pub fn bencher(report: &GateReport) -> Value {
    let mut benchmarks = Map::new();
    for case in &report.cases {
        let mut measures = Map::new();
        for metric in &case.metrics {
            if let Some(head) = metric.head_median {
                measures.insert(metric.metric.to_string(), json!({ "value": head }));
            }
            if let Some(estimate) = metric.estimate {
                let mut ratio = Map::from_iter([("value".to_owned(), json!(estimate))]);
                for (name, end) in [("lower_value", metric.low), ("upper_value", metric.high)] {
                    ratio.extend(end.map(|end| (name.to_owned(), json!(end))));
                }
                measures.insert(format!("{}-ratio", metric.metric), Value::Object(ratio));
            }
        }
        if !measures.is_empty() {
            benchmarks.insert(case.name.clone(), Value::Object(measures));
        }
    }
    Value::Object(benchmarks)
}
