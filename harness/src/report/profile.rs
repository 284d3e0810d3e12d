//! A profile as text and as JSON: a line an operation, the largest share first.

use std::fmt::Write as _;

use comfy_table::{CellAlignment, ContentArrangement, Table};
use indicatif::HumanCount;
use serde::Serialize;

use super::table::style;
use crate::workload::case::{Method, RunConfig, Task};
use crate::workload::profile::{CaseProfile, Ceilings};

/// What a profile comes to.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ProfileReport {
    /// Storage type of weights and activations.
    pub dtype: String,
    /// Threads of the model's operations.
    pub threads: usize,
    /// Floating-point operations a second of a large product, measured in this run.
    pub ceiling_flops_per_s: f64,
    /// Bytes a second, read and written, of a large copy, measured in this run.
    pub ceiling_bytes_per_s: f64,
    /// The cases, in the order in which they ran.
    pub cases: Vec<CaseReport>,
}

/// One case.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CaseReport {
    /// What was done.
    pub task: Task,
    /// How.
    pub method: Method,
    /// Seconds until the features were there.
    pub extract_s: f64,
    /// Of those, seconds outside of the model's operations: planning, copying features, writing the cache.
    pub outside_s: f64,
    /// Seconds of training and scoring.
    pub train_eval_s: f64,
    /// The model's operations, the largest share first.
    pub operations: Vec<OperationReport>,
}

/// All calls of one operation on one shape.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct OperationReport {
    /// The operation.
    pub op: &'static str,
    /// What tells its shapes apart: `inputs -> outputs`, `heads / key-value heads x size`, columns.
    pub shape: String,
    /// How often it was called.
    pub calls: usize,
    /// Seconds of all calls.
    pub total_s: f64,
    /// Seconds of the middle call.
    pub median_s: f64,
    /// Of the case's extraction.
    pub share: f64,
    /// Floating-point operations a second; null for operations that are limited by memory.
    pub flops_per_s: Option<f64>,
    /// Bytes a second that had to move at least: inputs, weights, outputs.
    pub bytes_per_s: f64,
    /// How near the nearer of the two ceilings is.
    pub of_peak: f64,
}

impl ProfileReport {
    /// Sums up `cases`, run as `config` says.
    pub fn new(config: &RunConfig, ceilings: Ceilings, cases: &[CaseProfile]) -> Self {
        ProfileReport {
            dtype: config.dtype.to_string(),
            threads: config.n_threads(),
            ceiling_flops_per_s: ceilings.flops,
            ceiling_bytes_per_s: ceilings.bytes,
            cases: cases.iter().map(|case| CaseReport::new(case, ceilings)).collect(),
        }
    }
}

impl CaseReport {
    fn new(case: &CaseProfile, ceilings: Ceilings) -> Self {
        let mut operations: Vec<OperationReport> = case
            .entries
            .iter()
            .map(|((op, shape), entry)| {
                let total_s = entry.total().as_secs_f64();
                // A clock too coarse for the operation gives no rate.
                let rate = |amount: u64| if total_s > 0.0 { amount as f64 / total_s } else { 0.0 };
                let flops_per_s = (entry.work.flops > 0).then(|| rate(entry.work.flops));
                let bytes_per_s = rate(entry.work.bytes);
                OperationReport {
                    op,
                    shape: shape.clone(),
                    calls: entry.durations.len(),
                    total_s,
                    median_s: entry.median().as_secs_f64(),
                    share: if case.extract_s > 0.0 { total_s / case.extract_s } else { 0.0 },
                    flops_per_s,
                    bytes_per_s,
                    of_peak: (flops_per_s.unwrap_or(0.0) / ceilings.flops).max(bytes_per_s / ceilings.bytes),
                }
            })
            .collect();
        operations.sort_by(|a, b| b.total_s.total_cmp(&a.total_s));
        let inside: f64 = operations.iter().map(|operation| operation.total_s).sum();
        CaseReport {
            task: case.task,
            method: case.method,
            extract_s: case.extract_s,
            outside_s: case.extract_s - inside,
            train_eval_s: case.train_eval_s,
            operations,
        }
    }
}

const HEADER: [&str; 9] =
    ["operation", "shape", "calls", "total ms", "median us", "share", "GFLOP/s", "GB/s", "of peak"];

/// The whole text: the ceilings, then a table and a line on the rest for each case.
pub fn render(report: &ProfileReport) -> String {
    let mut text = format!(
        "{}, {} threads; at best {:.0} GFLOP/s in a product and {:.1} GB/s in a copy, measured in this run\n",
        report.dtype,
        report.threads,
        report.ceiling_flops_per_s / 1e9,
        report.ceiling_bytes_per_s / 1e9
    );
    for case in &report.cases {
        let mut table = Table::new();
        table.load_style(style()).set_content_arrangement(ContentArrangement::Disabled).set_header(HEADER);
        for operation in &case.operations {
            table.add_row(line(operation));
        }
        for column in table.column_iter_mut().skip(2) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        // Writing to a string cannot fail.
        let _ = writeln!(text, "\n{} {}: {:.3} s until the features are there", case.task, case.method, case.extract_s);
        let _ = writeln!(text, "{}", table.trim_fmt());
        let _ = writeln!(
            text,
            "outside of operations {:.3} s ({:.1}%); probes {:.3} s",
            case.outside_s,
            if case.extract_s > 0.0 { 100.0 * case.outside_s / case.extract_s } else { 0.0 },
            case.train_eval_s
        );
    }
    text
}

fn line(operation: &OperationReport) -> Vec<String> {
    vec![
        operation.op.to_owned(),
        operation.shape.clone(),
        HumanCount(operation.calls as u64).to_string(),
        format!("{:.1}", operation.total_s * 1e3),
        format!("{:.1}", operation.median_s * 1e6),
        format!("{:.1}%", 100.0 * operation.share),
        operation.flops_per_s.map_or_else(|| "-".to_owned(), |rate| format!("{:.1}", rate / 1e9)),
        format!("{:.1}", operation.bytes_per_s / 1e9),
        format!("{:.1}%", 100.0 * operation.of_peak),
    ]
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use actbench_kernels::profiled::{Entries, Entry, Work};

    use super::*;
    use crate::runner::schedule::tests::config;

    #[test]
    fn operations_are_told_by_their_share() {
        let millis = |durations: &[u64]| durations.iter().map(|ms| Duration::from_millis(*ms)).collect();
        let linear =
            Entry { durations: millis(&[100, 300, 200]), work: Work { flops: 120_000_000_000, bytes: 600_000_000 } };
        let norm = Entry { durations: millis(&[50, 50]), work: Work { flops: 0, bytes: 2_000_000_000 } };
        let entries = Entries::from_iter([
            (("rms norm", "576".to_owned()), norm),
            (("linear", "576 -> 1536".to_owned()), linear),
        ]);
        let case = CaseProfile { task: Task::Sweep, method: Method::Lazy, extract_s: 1.0, train_eval_s: 0.25, entries };
        let ceilings = Ceilings { flops: 400e9, bytes: 40e9 };
        let config = RunConfig { threads: Some(2), ..config() };
        let report = ProfileReport::new(&config, ceilings, &[case]);
        insta::assert_snapshot!(render(&report), @r#"
bf16, 2 threads; at best 400 GFLOP/s in a product and 40.0 GB/s in a copy, measured in this run

sweep lazy: 1.000 s until the features are there
 operation   shape         calls   total ms   median us   share   GFLOP/s   GB/s   of peak
───────────────────────────────────────────────────────────────────────────────────────────
 linear      576 -> 1536       3      600.0    200000.0   60.0%     200.0    1.0     50.0%
 rms norm    576               2      100.0     50000.0   10.0%         -   20.0     50.0%
outside of operations 0.300 s (30.0%); probes 0.250 s
"#);
    }
}
