//! Numbers and Markdown tables as people read them.

use crate::metric::{Metric, MetricRule};

/// Shown for a number that is not there.
const MISSING: &str = "-";

/// Seconds with three significant digits; times of benchmarks may be microseconds.
pub fn fine_seconds(value: Option<f64>) -> String {
    let Some(value) = value else { return MISSING.to_owned() };
    if value > 0.0 && value < 1e-6 {
        format!("{value:.2e}")
    } else if value > 0.0 && value < 0.01 {
        // Of 0.00061: the four decimals up to the first digit, and two more.
        let decimals = (-value.log10()).ceil() as usize + 2;
        format!("{value:.decimals$}")
    } else if value >= 100.0 {
        format!("{value:.0}")
    } else if value >= 10.0 {
        format!("{value:.1}")
    } else if value >= 1.0 {
        format!("{value:.2}")
    } else {
        format!("{value:.3}")
    }
}

/// MiB without decimals, small values with one.
pub fn mebibytes(value: Option<f64>) -> String {
    value.map_or_else(
        || MISSING.to_owned(),
        |value| if value >= 100.0 { format!("{value:.0}") } else { format!("{value:.1}") },
    )
}

/// The format of values of a metric.
pub fn metric_format(metric: Metric) -> fn(Option<f64>) -> String {
    match metric.rule() {
        MetricRule::Time => fine_seconds,
        MetricRule::Memory => mebibytes,
        MetricRule::Quality | MetricRule::Identity => {
            |value| value.map_or_else(|| MISSING.to_owned(), |value| format!("{value:.4}"))
        }
        MetricRule::Count => |value| value.map_or_else(|| MISSING.to_owned(), |value| format!("{value:.0}")),
    }
}

/// The metric with its unit: `wall, s`.
pub fn metric_with_unit(metric: Metric) -> String {
    match metric.unit() {
        "" => metric.to_string(),
        unit => format!("{metric}, {unit}"),
    }
}

/// `1 case`, `2 cases`.
pub fn counted(n: usize, noun: &str) -> String {
    format!("{n} {noun}{}", if n == 1 { "" } else { "s" })
}

/// A p-value with four decimals.
pub fn p_value(p: f64) -> String {
    if p < 0.0001 { "< 0.0001".to_owned() } else { format!("{p:.4}") }
}

/// A table as GitHub's Markdown. Columns for which `is_numeric` is true are aligned to the right.
pub fn markdown_table(columns: &[&str], is_numeric: &[bool], rows: &[Vec<&str>]) -> String {
    if rows.is_empty() {
        return "None.\n".to_owned();
    }
    // A bar would end the cell, and a name from a file could contain markup.
    let escaped = |text: &str| text.replace('|', "\\|").replace('<', "&lt;").replace(['\n', '\r'], " ");
    let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
    let mut text = line(columns.iter().map(|head| escaped(head)).collect());
    let rules = is_numeric.iter().map(|is_numeric| if *is_numeric { "---:" } else { "---" }.to_owned());
    text.push_str(&line(rules.collect()));
    rows.iter().for_each(|row| text.push_str(&line(row.iter().map(|cell| escaped(cell)).collect())));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_have_three_digits() {
        let cases = [
            (123.4, "123"),
            (12.34, "12.3"),
            (1.234, "1.23"),
            (0.012_34, "0.012"),
            (0.001_234, "0.00123"),
            (0.000_612_3, "0.000612"),
            (0.000_000_123_4, "1.23e-7"),
            (0.0, "0.000"),
            (f64::NAN, "NaN"),
        ];
        for (value, expected) in cases {
            assert_eq!(fine_seconds(Some(value)), expected);
        }
        assert_eq!(
            (fine_seconds(None), mebibytes(None), mebibytes(Some(12.34))),
            ("-".into(), "-".into(), "12.3".into())
        );
    }

    #[test]
    fn markdown_cells_are_escaped() {
        let table = markdown_table(&["a", "b"], &[false, true], &[vec!["x|<y>", "1"]]);
        assert_eq!(table, "| a | b |\n| --- | ---: |\n| x\\|&lt;y> | 1 |\n");
        assert_eq!(markdown_table(&["a"], &[false], &[]), "None.\n");
    }
}
