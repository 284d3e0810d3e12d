//! The report of a gate for a terminal.

use pairgate::GateReport;
use pairgate::export::render_with;

use super::fit::fitted;

/// The whole text; the table has lines of at most `width` columns, and without a width no line is wrapped.
pub fn render(report: &GateReport, width: Option<u16>) -> String {
    render_with(report, |table| fitted(table, width))
}

#[cfg(test)]
mod tests {
    use pairgate::design::GateDesign;
    use pairgate::report::{MetricReport, ProgramIdentity};
    use pairgate::{CaseReport, Metric, Verdict};
    use serde_json::Value;

    use super::*;

    fn report() -> GateReport {
        let metric = MetricReport {
            verdict: Verdict::Inconclusive,
            estimate: Some(1.0513),
            low: Some(1.0421),
            high: Some(1.0604),
            confidence: Some(0.95),
            n_pairs: 12,
            p: Some(0.0312),
            base_median: Some(1.234),
            head_median: Some(1.297),
            ..MetricReport::unmeasured(Metric::Wall)
        };
        let case = CaseReport {
            name: "sweep-lazy-disk".to_owned(),
            verdict: Verdict::Inconclusive,
            reason: None,
            pairs: 12,
            metrics: vec![metric],
        };
        GateReport {
            schema: String::new(),
            outcome: Verdict::Inconclusive,
            design: GateDesign::looks(1),
            base: ProgramIdentity::default(),
            head: ProgramIdentity::default(),
            environment: Value::Null,
            machine: String::new(),
            resolution: None,
            warnings: Vec::new(),
            cases: vec![case],
        }
    }

    #[test]
    fn table_fits_80_columns_and_keeps_the_ratio() {
        let table = |width| {
            let text = render(&report(), width);
            let (_, table) = text.split_once("\n\n").unwrap();
            table.split("\n\n").next().unwrap().to_owned()
        };
        let (narrow, free) = (table(Some(80)), table(None));
        assert!(narrow.lines().all(|line| line.chars().count() <= 80), "{narrow}");
        assert!(free.lines().any(|line| line.chars().count() > 80), "{free}");
        for figure in ["sweep-lazy-disk", "1.0513", "(1.0421 to 1.0604)", "inconclusive"] {
            assert!(narrow.contains(figure) && free.contains(figure), "{narrow}{free}");
        }
        assert_eq!(render(&report(), None), pairgate::export::render(&report()));
    }
}
