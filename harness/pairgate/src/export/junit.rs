//! JUnit XML for CI servers: a test suite for each case, a test for each metric.

use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};

use super::phrases::metric_sentence;
use crate::error::{Error, Result};
use crate::report::{GateReport, Verdict};

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
            suite.add_test_case(test(&case.name, metric.metric.name(), metric.verdict, &metric_sentence(metric)));
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
