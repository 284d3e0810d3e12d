//! Every format on synthetic reports.

use serde_json::Value;

use super::*;
use crate::design::GateDesign;
use crate::metric::Metric;
use crate::report::{CaseReport, MetricReport, ProgramIdentity, Verdict};
use crate::selftest::Resolution;

const GATE: &str = "actbench gate";

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

/// A report with a case of each verdict, and names that every format must escape.
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
    let digest = MetricReport { metric: Metric::ResultDigest, ..digest };
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
    let program = |revision: &str, build: &str| ProgramIdentity {
        path: "target/release/actbench".into(),
        revision: Some(revision.to_owned()),
        build: build.to_owned(),
        description: Some("0.1.0, release".to_owned()),
    };
    GateReport {
        schema: "test-gate/1".to_owned(),
        outcome: Verdict::of_cases(&cases),
        design: GateDesign::screen_confirm(7),
        base: program("1111111111111111111111111111111111111111", "0123456789abcdef"),
        head: program("2222222222222222222222222222222222222222", "fedcba9876543210"),
        environment: serde_json::json!({ "kernel": "Linux 6.1" }),
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
    report.outcome = Verdict::of_cases(&report.cases);
    (report.resolution, report.warnings) = (None, Vec::new());
    report
}

fn nothing() -> GateReport {
    GateReport { cases: Vec::new(), outcome: Verdict::of_cases(&[]), ..report() }
}

#[test]
fn markdown_begins_with_the_verdict() {
    insta::assert_snapshot!("markdown", markdown(&report(), GATE));
    insta::assert_snapshot!("markdown_of_a_pass", markdown(&passing(), GATE));
    assert!(markdown(&nothing(), GATE).contains("broken: nothing was measured"));
}

#[test]
fn same_program_on_both_sides_is_named() {
    let different = passing();
    let mut same = passing();
    same.head.build = same.base.build.clone();
    let sentence = "Base and head are the same program, with one build id: 0123456789abcdef.";
    for (render, name) in [(markdown(&same, GATE), "markdown"), (render(&same), "text")] {
        assert!(render.contains(sentence), "{name}: {render}");
    }
    for render in [markdown(&different, GATE), render(&different)] {
        assert!(!render.contains("same program"), "{render}");
    }
    assert!(render(&same).contains("pass: 1 case, none"), "{}", render(&same));
}

#[test]
fn annotations_have_a_line_each() {
    let text = annotations(&report(), GATE);
    insta::assert_snapshot!("annotations", text);
    assert_eq!(text.lines().count(), 5, "{text}");
    assert!(text.lines().all(|line| line.starts_with("::")), "{text}");
    assert!(annotations(&nothing(), GATE).starts_with("::notice title=The machine::"));
    assert!(annotations(&passing(), GATE).starts_with("::notice title=actbench gate::pass"));
}

#[test]
fn junit_has_failures_errors_and_skips() {
    let text = junit(&report(), GATE).unwrap();
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
    let wall = document.descendants().find(|node| node.attribute("name") == Some("wall")).unwrap();
    let figure = |name: &str| {
        let found =
            wall.descendants().find(|node| node.attribute("name") == Some(name) && node.has_tag_name("property"));
        found.and_then(|node| node.attribute("value")).map(str::to_owned)
    };
    assert_eq!(figure("ratio").as_deref(), Some("1.001"), "a test that passed has its figures");
    assert_eq!((figure("base").as_deref(), figure("unit").as_deref()), (Some("0.5"), Some("s")));
    assert!(text.contains("<system-out>wall 1.001 (0.991 to 1.011) of base"), "{text}");
    insta::assert_snapshot!("junit", text);
    let text = junit(&nothing(), GATE).unwrap();
    let document = roxmltree::Document::parse(&text).unwrap();
    assert_eq!(document.descendants().filter(|node| node.has_tag_name("error")).count(), 1);
}

#[test]
fn junit_omits_characters_invalid_in_xml() {
    let mut report = report();
    report.cases[4].reason = Some("bell \u{7}, null \0, escape \u{1b}[31m".to_owned());
    report.cases[4].name = "a\u{1}b".to_owned();
    let text = junit(&report, GATE).unwrap();
    roxmltree::Document::parse(&text).unwrap();
}

#[test]
fn json_round_trips() {
    let text = export(ExportFormat::Json, &report(), GATE).unwrap();
    assert_eq!(serde_json::from_str::<GateReport>(&text).unwrap(), report());
}

#[test]
fn bencher_has_numbers_by_case_and_measure() {
    let text = export(ExportFormat::Bencher, &report(), GATE).unwrap();
    insta::assert_snapshot!("bencher", text);
    let value: Value = serde_json::from_str(&text).unwrap();
    for measures in value.as_object().unwrap().values() {
        for measure in measures.as_object().unwrap().values() {
            assert!(measure["value"].is_f64(), "{measure}");
        }
    }
    assert!(value.get("sweep | lazy").is_none(), "a case without numbers is omitted");
}

#[test]
fn benchmark_action_lists_smaller_is_better_metrics() {
    let text = export(ExportFormat::BenchmarkAction, &report(), GATE).unwrap();
    insta::assert_snapshot!("benchmark_action", text);
    let value: Value = serde_json::from_str(&text).unwrap();
    let entries = value.as_array().unwrap();
    assert_eq!(entries.len(), 5);
    for entry in entries {
        assert!(entry["name"].is_string() && entry["unit"].is_string() && entry["value"].is_f64(), "{entry}");
    }
    assert!(!text.contains("auroc"), "{text}");
}

#[test]
fn format_names_are_parsed() {
    for format in ExportFormat::ALL {
        assert_eq!(format.name().parse::<ExportFormat>().unwrap(), format);
        #[cfg(feature = "clap")]
        assert_eq!(<ExportFormat as clap::ValueEnum>::from_str(format.name(), false), Ok(format));
    }
    assert!("xml".parse::<ExportFormat>().unwrap_err().to_string().contains("benchmark-action"));
}
