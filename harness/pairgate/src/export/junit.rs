//! JUnit XML for CI servers: a test suite for each case, a test for each metric, with its figures as properties and as text.

use quick_junit::{NonSuccessKind, Property, Report, TestCase, TestCaseStatus, TestSuite};

use super::phrases::metric_sentence;
use crate::error::{Error, Result};
use crate::report::{GateReport, MetricReport, Verdict};

/// Regressions are failures, broken cases are errors, and inconclusive cases are skipped: a skipped test is shown and does
/// not fail a build.
///
/// # Errors
/// None that a caller could cause: the XML is written to memory.
pub fn junit(report: &GateReport, gate_name: &str) -> Result<String> {
    let mut all = Report::new(gate_name);
    for case in &report.cases {
        let mut suite = TestSuite::new(case.name.as_str());
        for metric in &case.metrics {
            let sentence = metric_sentence(metric);
            let mut test = test(&case.name, metric.metric.name(), metric.verdict, &sentence);
            test.add_properties(figures(metric));
            // A test that passed has no message.
            test.set_system_out(sentence);
            suite.add_test_case(test);
        }
        // A case that broke before any metric was measured, or for another reason than its metrics.
        if case.metrics.is_empty()
            || (case.verdict == Verdict::Broken && case.metrics.iter().all(|metric| metric.verdict != Verdict::Broken))
        {
            let reason = case.reason.as_deref().unwrap_or("nothing was measured");
            suite.add_test_case(test(&case.name, "measured", Verdict::Broken, reason));
        }
        all.add_test_suite(suite);
    }
    if report.cases.is_empty() && report.outcome == Verdict::Broken {
        let mut suite = TestSuite::new("gate");
        suite.add_test_case(test("gate", "measured", Verdict::Broken, "nothing was measured"));
        all.add_test_suite(suite);
    }
    all.to_string().map_err(|error| Error::internal(format!("the report as JUnit XML: {error}")))
}

/// The figures of a metric, in full precision. Figures that do not exist are omitted.
fn figures(metric: &MetricReport) -> Vec<Property> {
    let numbers = [
        ("base", metric.base_median),
        ("head", metric.head_median),
        ("ratio", metric.estimate),
        ("ratio-low", metric.low),
        ("ratio-high", metric.high),
        ("confidence", metric.confidence),
        ("p", metric.p),
    ];
    let numbers = numbers.into_iter().filter_map(|(name, value)| Some(Property::new(name, value?.to_string())));
    let unit = Some(&metric.unit).filter(|unit| !unit.is_empty()).map(|unit| Property::new("unit", unit));
    let texts =
        [Property::new("verdict", metric.verdict.to_string()), Property::new("pairs", metric.n_pairs.to_string())];
    texts.into_iter().chain(unit).chain(numbers).collect()
}

fn test(class: &str, name: &str, verdict: Verdict, message: &str) -> TestCase {
    // XML parsers turn a line break in an attribute into a space.
    let message = message.replace(['\n', '\r'], " ");
    let status = |kind| {
        let mut status = TestCaseStatus::non_success(kind);
        status.set_message(message.as_str());
        status
    };
    let status = match verdict {
        Verdict::Pass | Verdict::Improved => TestCaseStatus::success(),
        Verdict::Regressed => status(NonSuccessKind::Failure),
        Verdict::Broken => status(NonSuccessKind::Error),
        Verdict::Inconclusive => {
            let mut status = TestCaseStatus::skipped();
            status.set_message(message.as_str());
            status
        }
    };
    let mut test = TestCase::new(name, status);
    test.set_classname(class);
    test
}
