//! The report of a self-test as text.

use std::fmt::Write;

use comfy_table::{CellAlignment, ContentArrangement, Table};

use pairgate::export::table_style;
use pairgate::selftest::live::SelftestReport;
use pairgate::selftest::replay::{CaseRates, IntervalCoverage, ReplayReport, SuiteRates};
use pairgate::selftest::trials::{ChangeTrials, InjectedChange, MetricOutcomes};
use serde_json::Value;

/// `97.50 %`: two decimals are the precision of thousands of resamples.
fn percent(fraction: f64) -> String {
    format!("{:.2} %", 100.0 * fraction)
}

fn text_of(heads: &[&str], rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(table_style()).set_content_arrangement(ContentArrangement::Disabled).set_header(heads);
    table.add_rows(rows);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.trim_fmt()
}

/// The tables of one replayed record.
pub fn replay(name: &str, replay: &ReplayReport) -> String {
    let metrics: Vec<&str> = replay.metrics.iter().map(|metric| metric.name()).collect();
    let mut text =
        format!("{name}: {} runs, {} resamples a line, {}\n", replay.runs, replay.resamples, metrics.join(" and "));
    let cases = replay.cases.iter().map(|rates: &CaseRates| {
        let fractions = [rates.regressed, rates.passed, rates.inconclusive].map(percent);
        [vec![rates.injected.clone()], fractions.to_vec(), vec![format!("{:.1}", rates.mean_pairs)]].concat()
    });
    let heads = ["one case", "regressed", "passed", "inconclusive", "pairs"];
    let _ = writeln!(text, "\n{}", text_of(&heads, cases.collect()));
    let suites = replay.suites.iter().map(|rates: &SuiteRates| {
        let caught = rates.caught.map_or_else(|| "-".to_owned(), percent);
        let fractions = [percent(rates.false_alarm), caught, percent(rates.inconclusive)];
        let name = format!("{} cases, one with {}", rates.cases, rates.injected);
        [vec![name], fractions.to_vec(), vec![format!("{:.1}", rates.mean_pairs)]].concat()
    });
    let heads = ["a suite", "false alarm", "caught", "inconclusive", "pairs a case"];
    let _ = writeln!(text, "\n{}", text_of(&heads, suites.collect()));
    let _ = writeln!(text, "\n{}", coverage(&replay.coverage));
    text
}

fn coverage(rows: &[IntervalCoverage]) -> String {
    let line = |row: &IntervalCoverage| {
        let pairs = row.pairs.map_or_else(|| "until narrow".to_owned(), |pairs| pairs.to_string());
        let interval = format!("{}, {pairs}", row.metric);
        vec![interval, percent(row.covered), percent(row.nominal), format!("{:.1}", row.mean_pairs)]
    };
    text_of(&["intervals, pairs", "coverage", "nominal", "pairs"], rows.iter().map(line).collect())
}

/// The report of a self-test on this machine.
pub fn live(report: &SelftestReport) -> String {
    let mut text = format!(
        "the case takes {} s and allocates {:.1} MiB; {}, {} cores\n\n",
        super::format::seconds(Some(report.case_s)),
        report.case_anonymous_mb,
        report.environment.get("cpu_model").and_then(Value::as_str).unwrap_or("processor unknown"),
        report.environment.get("cores_logical").and_then(Value::as_u64).unwrap_or_default(),
    );
    let line = |trials: &ChangeTrials| {
        let measured = trials.measured.as_ref().map_or_else(
            || "-".to_owned(),
            |ratio| match ratio.low.zip(ratio.high) {
                Some((low, high)) => format!("{:.4} ({low:.4} to {high:.4})", ratio.estimate),
                None => format!("{:.4}", ratio.estimate),
            },
        );
        let counts = [trials.gates, trials.regressed, trials.passed, trials.inconclusive, trials.broken];
        let counts = counts.iter().map(usize::to_string).collect();
        [vec![trials.change.to_string()], counts, vec![format!("{:.1}", trials.mean_pairs), measured]].concat()
    };
    let heads = ["changed", "gates", "regressed", "passed", "inconclusive", "broken", "pairs", "measured"];
    let _ = writeln!(text, "{}\n", text_of(&heads, report.trials.iter().map(line).collect()));
    let unchanged = report.trials.iter().filter(|trials| trials.change.is_none());
    let heads = ["head", "metric", "regressed", "passed", "improved", "inconclusive", "broken"];
    let rows = unchanged.flat_map(|trials| trials.metrics.iter().map(|metric| outcomes(trials, metric)));
    let _ = writeln!(text, "the same program on both sides, by metric\n\n{}\n", text_of(&heads, rows.collect()));
    let _ = writeln!(text, "{}", report.resolution.sentence());
    text
}

fn outcomes(trials: &ChangeTrials, metric: &MetricOutcomes) -> Vec<String> {
    let head =
        if trials.change == InjectedChange::None { "the file itself".to_owned() } else { trials.change.to_string() };
    let counts = [metric.regressed, metric.passed, metric.improved, metric.inconclusive, metric.broken];
    [vec![head, metric.metric.to_string()], counts.iter().map(usize::to_string).collect()].concat()
}
