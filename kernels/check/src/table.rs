//! The report as text.

use std::fmt::Write as _;

use comfy_table::{CellAlignment, ContentArrangement, ContentLineStyle, LineStyle, Table, TableStyle};

use crate::report::Report;
use crate::timing::PLAIN_KERNEL_ROWS;

/// The printed examples of differences from the emulator; the file has all.
const MAX_EXAMPLES: usize = 12;

/// The whole text, the same for every terminal.
pub fn render(report: &Report) -> String {
    let mut text = format!("kernels-check {}\n", report.version);
    // Writing to a string cannot fail.
    let _ = writeln!(text, "device     {}", report.device);
    for (origin, sources) in by_origin(report) {
        let _ = writeln!(text, "code       {sources} of {origin}");
    }
    let _ = writeln!(text, "reference  {}", report.reference);
    let _ = writeln!(text, "cases      {}, seed {}\n", report.found.cases, report.seed);
    let _ = writeln!(text, "{}\n", kernels(report));
    for (kernel, result) in &report.found.kernels {
        for failure in &result.failures {
            let _ = writeln!(text, "FAILED {kernel}: {failure}");
        }
        let more = result.failed - result.failures.len().min(result.failed);
        if more > 0 {
            let _ = writeln!(text, "FAILED {kernel}: {more} more");
        }
    }
    for kernel in &report.found.not_launched {
        let _ = writeln!(text, "FAILED {kernel}: never launched");
    }
    if let Some(lost) = &report.found.lost {
        let _ = writeln!(text, "FAILED remaining cases were not run: {lost}");
    }
    if report.interrupted {
        let _ = writeln!(text, "FAILED remaining cases were not run: interrupted");
    }
    if !text.ends_with("\n\n") {
        text.push('\n');
    }
    timings(report, &mut text);
    differences(report, &mut text);
    let verdict = if report.passed() { "every kernel passed" } else { "FAILED" };
    let _ = writeln!(text, "{verdict}");
    text
}

/// The number of sources by the origin of their machine code.
fn by_origin(report: &Report) -> Vec<(&str, usize)> {
    let mut origins: Vec<(&str, usize)> = Vec::new();
    for origin in report.machine_code.values() {
        match origins.iter_mut().find(|(known, _)| known == origin) {
            Some((_, count)) => *count += 1,
            None => origins.push((origin, 1)),
        }
    }
    origins
}

/// A table with a line under its header, the first column left-aligned and the others right-aligned.
fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    let style = TableStyle::new()
        .header_lines(ContentLineStyle::none().junction(' '))
        .header_separator(LineStyle::none().fill('─').junction('─'))
        .content_lines(ContentLineStyle::none().junction(' '));
    table.load_style(style).set_content_arrangement(ContentArrangement::Disabled).set_header(header.to_vec());
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn kernels(report: &Report) -> String {
    let mut table = table(&["kernel", "cases", "worst error", "allowed", "CPU's bits", "rows alone", "result"]);
    for (kernel, result) in &report.found.kernels {
        table.add_row([
            kernel.clone(),
            result.cases.to_string(),
            format!("{:.1e}", result.worst_error),
            format!("{:.1e}", result.tolerance),
            format!("{}/{}", result.with_the_bits_of_the_cpu, result.cases),
            result.rows_alone.to_string(),
            if result.failed == 0 { "passed".to_owned() } else { format!("FAILED {}", result.failed) },
        ]);
    }
    table.trim_fmt()
}

fn timings(report: &Report, text: &mut String) {
    if report.emulated {
        let _ = writeln!(text, "No timings: the kernels ran in the emulator, not on a GPU.\n");
    }
    if let Some(error) = &report.timing_error {
        let _ = writeln!(text, "FAILED timing: {error}\n");
    }
    let Some(timings) = &report.timings else { return };
    let mut table = table(&["kernel", "ms", "GB/s", "of copy", "TFLOP/s", "of best GEMM", "case"]);
    if let Some(column) = table.column_mut(6) {
        column.set_cell_alignment(CellAlignment::Left);
    }
    let percent = |fraction: f64| format!("{:.0}%", 100.0 * fraction);
    for timing in &timings.kernels {
        table.add_row([
            timing.kernel.clone(),
            format!("{:.3}", timing.milliseconds),
            digits(timing.gigabytes_per_second),
            percent(timing.share_of_copy),
            timing.teraflops.map(digits).unwrap_or_default(),
            timing.share_of_best_product.map(percent).unwrap_or_default(),
            timing.case.clone(),
        ]);
    }
    let _ = writeln!(
        text,
        "{}\n\nDevice-to-device copy: {} GB/s; best GEMM: {} TFLOP/s. Medians, with a cold cache.\n\
         GEMMs and attention without tensor cores are timed on at most {PLAIN_KERNEL_ROWS} rows.\n",
        table.trim_fmt(),
        digits(timings.copy_gigabytes_per_second),
        digits(timings.best_product_teraflops)
    );
}

/// A number with about three significant digits.
fn digits(value: f64) -> String {
    match value {
        value if value >= 100.0 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        value => format!("{value:.2}"),
    }
}

fn differences(report: &Report, text: &mut String) {
    if report.emulated {
        return;
    }
    let Some(differences) = &report.differences_from_emulator else {
        let _ = writeln!(text, "Not compared with the emulator: this binary was built without it.\n");
        return;
    };
    let cases: usize = differences.values().map(|difference| difference.cases).sum();
    let different: Vec<_> = differences.iter().filter(|(_, difference)| difference.with_other_bits > 0).collect();
    if different.is_empty() {
        let _ = writeln!(text, "All {cases} results compared with the emulator are bit-identical.\n");
        return;
    }
    let mut table = table(&["kernel", "cases", "other bits", "elements", "worst"]);
    for (kernel, difference) in &different {
        table.add_row([
            (*kernel).clone(),
            difference.cases.to_string(),
            difference.with_other_bits.to_string(),
            difference.elements.to_string(),
            format!("{:.1e}", difference.worst),
        ]);
    }
    let _ = writeln!(text, "Differences from the emulator ({cases} results compared):\n{}\n", table.trim_fmt());
    for (kernel, difference) in different.iter().take(MAX_EXAMPLES) {
        if let Some(example) = &difference.example {
            let _ = writeln!(text, "{kernel}: {example}");
        }
    }
    text.push('\n');
}
