//! Every form on made-up reports.

use serde_json::Value;

use super::*;
use crate::gate::design::Design;
use crate::gate::report::{Identity, Resolution, SCHEMA};
use crate::gate::{CaseReport, Metric, MetricReport, Outcome, Verdict};
use crate::test_support::environment;

fn metric(metric: Metric, verdict: Verdict, estimate: f64) -> MetricReport {
    MetricReport {
        metric,
        unit: metric.unit().to_owned(),
        verdict,
        estimate: Some(estimate),
        low: Some(estimate - 0.01),
        high: Some(estimate + 0.01),
        confidence: Some(0.951),
        n_pairs: 20,
        p: Some(0.0012),
        base_median: Some(0.5),
        head_median: Some(0.5 * estimate),
        note: None,
    }
}

fn case(name: &str, verdict: Verdict, metrics: Vec<MetricReport>) -> CaseReport {
    CaseReport { name: name.to_owned(), verdict, reason: None, pairs: 20, metrics }
}

/// A report with a case of each verdict, and names that every form must escape.
pub(crate) fn report() -> GateReport {
    let quality = MetricReport {
        low: None,
        high: None,
        confidence: None,
        p: None,
        estimate: None,
        base_median: Some(0.975),
        head_median: Some(0.975),
        ..metric(Metric::Auroc, Verdict::Pass, 1.0)
    };
    let digest =
        MetricReport { base_median: None, head_median: None, note: Some("the same".to_owned()), ..quality.clone() };
    let digest = MetricReport { metric: Metric::FeatureDigest, ..digest };
    let broken = CaseReport {
        reason: Some("head: ended by signal 9,\n100% <gone>".to_owned()),
        pairs: 3,
        ..case("sweep | lazy", Verdict::Broken, Vec::new())
    };
    let cases = vec![
        case("train/eager", Verdict::Pass, vec![metric(Metric::Wall, Verdict::Pass, 1.001), quality, digest]),
        case(
            "train/lazy",
            Verdict::Regressed,
            vec![metric(Metric::Wall, Verdict::Regressed, 1.062), metric(Metric::PeakRss, Verdict::Pass, 1.0)],
        ),
        case("sweep/eager", Verdict::Improved, vec![metric(Metric::Wall, Verdict::Improved, 0.9)]),
        case("sweep/lazy-disk", Verdict::Inconclusive, vec![metric(Metric::Cpu, Verdict::Inconclusive, 1.03)]),
        broken,
    ];
    let program = |revision: &str| Identity {
        path: "target/release/actbench".into(),
        revision: Some(revision.to_owned()),
        build: "0123456789abcdef".to_owned(),
        description: Some("0.1.0, release".to_owned()),
    };
    GateReport {
        schema: SCHEMA.to_owned(),
        outcome: Outcome::of(&cases),
        design: Design::screen_confirm(7),
        base: program("1111111111111111111111111111111111111111"),
        head: program("2222222222222222222222222222222222222222"),
        environment: environment(),
        machine: "fedcba9876543210".to_owned(),
        resolution: Some(Resolution {
            machine: "fedcba9876543210".to_owned(),
            date: "2024-05-06T07:08:09Z".to_owned(),
            smallest_effect: Some(0.05),
            trials_without_difference: 40,
            false_alarms: 0,
        }),
        warnings: vec!["the load average is 3.00 on 2 processors".to_owned()],
        cases,
    }
}

fn passing() -> GateReport {
    let mut report = report();
    report.cases.truncate(1);
    report.outcome = Outcome::of(&report.cases);
    (report.resolution, report.warnings) = (None, Vec::new());
    report
}

fn nothing() -> GateReport {
    GateReport { cases: Vec::new(), outcome: Outcome::of(&[]), ..report() }
}

#[test]
fn markdown_tells_the_verdict_first() {
    insta::assert_snapshot!("markdown", markdown(&report()));
    insta::assert_snapshot!("markdown_of_a_pass", markdown(&passing()));
    assert!(markdown(&nothing()).contains("broken: nothing was measured"));
}

#[test]
fn annotations_are_a_line_each() {
    let text = annotations(&report());
    insta::assert_snapshot!("annotations", text);
    assert_eq!(text.lines().count(), 5, "{text}");
    assert!(text.lines().all(|line| line.starts_with("::")), "{text}");
    assert!(annotations(&nothing()).starts_with("::notice title=The machine::"));
    assert!(annotations(&passing()).starts_with("::notice title=actbench gate::pass"));
}

#[test]
fn junit_is_xml_with_a_failure_an_error_and_a_skip() {
    let text = junit(&report()).unwrap();
    let document = roxmltree::Document::parse(&text).unwrap();
    let count = |name: &str| document.descendants().filter(|node| node.has_tag_name(name)).count();
    assert_eq!((count("testsuite"), count("testcase")), (5, 8));
    assert_eq!((count("failure"), count("error"), count("skipped")), (1, 1, 1));
    let root = document.root_element();
    assert_eq!(
        (root.attribute("tests"), root.attribute("failures"), root.attribute("errors")),
        (Some("8"), Some("1"), Some("1"))
    );
    let error = document.descendants().find(|node| node.has_tag_name("error")).unwrap();
    assert!(error.attribute("message").unwrap().contains("100% <gone>"), "{text}");
    insta::assert_snapshot!("junit", text);
    let text = junit(&nothing()).unwrap();
    let document = roxmltree::Document::parse(&text).unwrap();
    assert_eq!(document.descendants().filter(|node| node.has_tag_name("error")).count(), 1);
}

#[test]
fn what_xml_cannot_hold_is_not_in_it() {
    let mut report = report();
    report.cases[4].reason = Some("bell \u{7}, null \0, escape \u{1b}[31m".to_owned());
    report.cases[4].name = "a\u{1}b".to_owned();
    let text = junit(&report).unwrap();
    roxmltree::Document::parse(&text).unwrap();
}

#[test]
fn json_comes_back_as_it_was() {
    let text = export(Form::Json, &report()).unwrap();
    assert_eq!(serde_json::from_str::<GateReport>(&text).unwrap(), report());
}

#[test]
fn benchers_format_holds_numbers_by_case_and_measure() {
    let text = export(Form::Bencher, &report()).unwrap();
    insta::assert_snapshot!("bencher", text);
    let value: Value = serde_json::from_str(&text).unwrap();
    for measures in value.as_object().unwrap().values() {
        for measure in measures.as_object().unwrap().values() {
            assert!(measure["value"].is_f64(), "{measure}");
        }
    }
    assert!(value.get("sweep | lazy").is_none(), "what has no number has no place");
}

#[test]
fn the_actions_format_is_a_list_of_what_should_be_small() {
    let text = export(Form::BenchmarkAction, &report()).unwrap();
    insta::assert_snapshot!("benchmark_action", text);
    let value: Value = serde_json::from_str(&text).unwrap();
    let entries = value.as_array().unwrap();
    assert_eq!(entries.len(), 5);
    for entry in entries {
        assert!(entry["name"].is_string() && entry["unit"].is_string() && entry["value"].is_f64(), "{entry}");
    }
    assert!(!text.contains("auroc"), "{text}");
}
