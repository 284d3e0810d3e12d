//! What a self-test found, as text.

use std::fmt::Write;

use comfy_table::{CellAlignment, ContentArrangement, Table};

use super::table_style::table_style;
use crate::gate::Metric;
use crate::selftest::live::{Live, Trial};
use crate::selftest::replay::{Coverage, Rates, Replay, SuiteRates};

/// `97.5 %`; four decimals of a share would suggest more than thousands of resamples know.
fn percent(share: f64) -> String {
    format!("{:.2} %", 100.0 * share)
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
pub fn replay(name: &str, replay: &Replay) -> String {
    let metrics: Vec<&str> = replay.metrics.iter().map(|metric| metric.name()).collect();
    let mut text =
        format!("{name}: {} runs, {} resamples a line, {}\n", replay.runs, replay.resamples, metrics.join(" and "));
    let cases = replay.cases.iter().map(|rates: &Rates| {
        let shares = [rates.regressed, rates.passed, rates.inconclusive].map(percent);
        [vec![rates.injected.clone()], shares.to_vec(), vec![format!("{:.1}", rates.mean_pairs)]].concat()
    });
    let heads = ["one case", "regressed", "passed", "inconclusive", "pairs"];
    let _ = writeln!(text, "\n{}", text_of(&heads, cases.collect()));
    let suites = replay.suites.iter().map(|rates: &SuiteRates| {
        let caught = rates.caught.map_or_else(|| "-".to_owned(), percent);
        let shares = [percent(rates.false_alarm), caught, percent(rates.inconclusive)];
        let name = format!("{} cases, one with {}", rates.cases, rates.injected);
        [vec![name], shares.to_vec(), vec![format!("{:.1}", rates.mean_pairs)]].concat()
    });
    let heads = ["a suite", "false alarm", "caught", "inconclusive", "pairs a case"];
    let _ = writeln!(text, "\n{}", text_of(&heads, suites.collect()));
    let _ = writeln!(text, "\n{}", coverage(&replay.coverage));
    text
}

fn coverage(rows: &[Coverage]) -> String {
    let line = |row: &Coverage| {
        let pairs = row.pairs.map_or_else(|| "until narrow".to_owned(), |pairs| pairs.to_string());
        let metric: Metric = row.metric;
        vec![format!("{metric}, {pairs}"), percent(row.share), percent(row.nominal), format!("{:.1}", row.mean_pairs)]
    };
    text_of(&["intervals, pairs", "hold the truth", "should", "pairs"], rows.iter().map(line).collect())
}

/// What was found on this machine.
pub fn live(live: &Live) -> String {
    let mut text = format!(
        "the case takes {} s and {:.1} MB; {}, {} cores\n\n",
        super::format::seconds(Some(live.case_s)),
        live.case_rss_mb,
        live.environment.cpu_model.as_deref().unwrap_or("processor unknown"),
        live.environment.cores_logical,
    );
    let line = |trial: &Trial| {
        let realised = trial.realised.as_ref().map_or_else(
            || "-".to_owned(),
            |ratio| match ratio.low.zip(ratio.high) {
                Some((low, high)) => format!("{:.4} ({low:.4} to {high:.4})", ratio.estimate),
                None => format!("{:.4}", ratio.estimate),
            },
        );
        let counts = [trial.gates, trial.regressed, trial.passed, trial.inconclusive, trial.broken];
        let counts = counts.iter().map(usize::to_string).collect();
        [vec![trial.change.to_string()], counts, vec![format!("{:.1}", trial.mean_pairs), realised]].concat()
    };
    let heads = ["changed", "gates", "regressed", "passed", "inconclusive", "broken", "pairs", "came to"];
    let _ = writeln!(text, "{}\n", text_of(&heads, live.trials.iter().map(line).collect()));
    let _ = writeln!(text, "{}", live.resolution.sentence());
    text
}
