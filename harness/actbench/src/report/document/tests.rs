//! Reports of synthetic result files.

use proptest::prelude::*;

use super::*;
use crate::case::{CasePhases, Method, Task};
use crate::crossover::tests::{file, file_without_eager};
use crate::report::chart::charts;

fn document(files: &[NamedResults]) -> Document {
    Document::new(files, SizeBounds::default(), vec![Attachment::new("report.html", "this report as a page")])
}

#[test]
fn markdown_has_every_section() {
    let files = [file(100, 0.5, 2.0), file(1000, 2.0, 4.0), file_without_eager(20_000)];
    let charts = charts(&cells_of(&files)).unwrap();
    insta::assert_snapshot!(markdown(&document(&files), &charts).unwrap());
}

#[test]
fn phases_of_cases_are_a_table() {
    let mut with_phases = file(100, 2.0, 2.0);
    for row in &mut with_phases.results.rows {
        let phases = CasePhases { weights_s: Some(0.25), release_s: Some(0.0), ..CasePhases::default() };
        row.metrics.phases = Some(phases);
    }
    let document = document(&[with_phases]);
    let text = markdown(&document, &[]).unwrap();
    assert!(text.contains("**Phases**") && text.contains("| weights s | release s |"), "{text}");
    assert!(text.contains("| eager | 0.250 | 0.000 |"), "{text}");
    assert!(html(&document, &[]).unwrap().contains("<h4>Phases</h4>"));
    assert!(!text.contains("start-up %"), "no extraction was timed: {text}");
    let mut whole = file(100, 2.0, 2.0);
    for row in &mut whole.results.rows {
        let phases = CasePhases { weights_s: Some(0.25), extract_s: Some(0.75), ..CasePhases::default() };
        row.metrics.phases = Some(phases);
    }
    let text = markdown(&super::Document::new(&[whole], SizeBounds::default(), Vec::new()), &[]).unwrap();
    assert!(text.contains("| extract s | start-up % |") && text.contains("| eager | 0.250 | 0.750 | 25 |"), "{text}");
    let earlier = super::Document::new(&[file(100, 2.0, 2.0)], SizeBounds::default(), Vec::new());
    assert!(!markdown(&earlier, &[]).unwrap().contains("Phases"));
    assert!(!html(&earlier, &[]).unwrap().contains("Phases"));
}

#[test]
fn empty_run_has_a_report() {
    let mut empty = file(100, 2.0, 2.0);
    empty.results.rows.clear();
    let files = [empty];
    let charts = charts(&cells_of(&files)).unwrap();
    let text = markdown(&document(&files), &charts).unwrap();
    assert!(text.contains("Nothing was measured with both"), "{text}");
    assert!(html(&document(&files), &charts).unwrap().contains("Nothing was measured with both"));
}

#[test]
fn page_is_self_contained_and_escapes_names() {
    let mut odd = file(100, 2.0, 2.0);
    odd.name = "a|b<img src=x onerror=alert(1)>.json".to_owned();
    odd.path.clone_from(&odd.name);
    odd.results.config.model = Some("</script><script>alert(1)</script>".to_owned());
    let files = [odd];
    let document = document(&files);
    let page = html(&document, &charts(&cells_of(&files)).unwrap()).unwrap();
    assert!(!page.contains("<script>alert") && !page.contains("<img"), "{page}");
    let addresses = page.match_indices("http").map(|(at, _)| &page[at..(at + 30).min(page.len())]);
    for address in addresses {
        assert!(address.starts_with("http-equiv") || address.starts_with("http://www.w3.org/2000/svg"), "{address}");
    }
    let text = markdown(&document, &[]).unwrap();
    assert!(text.contains("a\\|b&lt;img"), "{text}");
}

#[test]
fn markdown_has_no_markup_of_names() {
    let mut odd = file(100, 2.0, 2.0);
    odd.name = "a\n\n# <b>`x`</b> [y](z)\n```".to_owned();
    odd.path.clone_from(&odd.name);
    odd.results.config.model = Some("m\n```\n<script>alert(1)</script>&amp;*".to_owned());
    odd.results.environment.command_line = vec!["actbench".to_owned(), "a\n```\n# b".to_owned()];
    let files = [odd.clone()];
    let attachments = vec![Attachment::new(odd.path.clone(), "result file")];
    let document = Document::new(&files, SizeBounds::default(), attachments);
    let text = markdown(&document, &charts(&cells_of(&files)).unwrap()).unwrap();
    assert!(!text.contains("<script") && !text.contains("<b>") && !text.contains("[y](z)"), "{text}");
    // The fences of the commands, and no other line that begins with one.
    assert_eq!(text.lines().filter(|line| line.trim_start().starts_with("```")).count(), 2, "{text}");
    assert!(text.contains("actbench $'a\\n```\\n# b'"), "{text}");
    assert_eq!(text.lines().filter(|line| line.starts_with("# ")).count(), 1, "{text}");
    assert!(text.contains("](a%0A%0A%23%20%3Cb%3E%60x%60"), "{text}");
}

/// A file whose machine was busy.
fn busy(samples: usize) -> NamedResults {
    let mut file = file(samples, 2.0, 2.0);
    let kind = crate::measure::conditions::Kind::Load;
    let warning = crate::measure::conditions::Warning::new(kind, "load average 3.65", "end other programs");
    file.results.environment.warnings = vec![warning];
    file
}

#[test]
fn warnings_of_inputs_stand_at_the_top() {
    let joined = |samples: usize, rows: usize| {
        let mut file = file(samples, 2.0, 2.0);
        let line = format!("their texts were joined by a space in {rows} of {samples} rows");
        file.results.input_warnings = vec![line];
        file
    };
    let line = "their texts were joined by a space in 7 of 100 rows";
    let text = markdown(&document(&[joined(100, 7)]), &[]).unwrap();
    assert!(text.find(&format!("warning: {line}")).unwrap() < text.find("compared with eager").unwrap(), "{text}");
    assert_eq!(
        document(&[joined(100, 7), file(150, 2.0, 2.0), joined(200, 15), busy(300)]).warnings,
        [
            "warning: cell-300.json: the machine disturbs measurements: load average 3.65 (`actbench env` lists remedies)"
                .to_owned(),
            format!("warning: cell-100.json, cell-200.json: {line}; the numbers in this line are those of cell-100.json"),
        ]
    );
}

#[test]
fn warnings_of_runs_stand_at_the_top() {
    let line = "the machine disturbs measurements: load average 3.65";
    for (files, expected) in [
        (vec![busy(100)], format!("warning: {line}")),
        (vec![busy(100), file(200, 2.0, 2.0), busy(300)], format!("warning: cell-100.json, cell-300.json: {line}")),
    ] {
        let text = markdown(&document(&files), &[]).unwrap();
        let at = text.find(&expected).unwrap_or_else(|| panic!("no {expected} in {text}"));
        assert!(at < text.find("compared with eager").unwrap(), "{text}");
        let page = html(&document(&files), &[]).unwrap();
        assert!(page.find(&expected).unwrap() < page.find("id=\"summary\"").unwrap());
        assert!(recommendation_text(&files, SizeBounds::default(), None).contains(&expected));
    }
    assert!(!markdown(&document(&[file(100, 2.0, 2.0)]), &[]).unwrap().contains("warning"));
    // Other figures of the same disturbance share the line.
    let mut other = busy(200);
    other.results.environment.warnings[0].what = "load average 2.00".to_owned();
    assert_eq!(
        document(&[busy(100), other]).warnings,
        [format!(
            "warning: cell-100.json, cell-200.json: {line} (`actbench env` lists remedies); the numbers in this line are those of \
                  cell-100.json"
        )]
    );
}

#[test]
fn every_interval_stands_next_to_its_confidence() {
    let mut few = file(100, 2.0, 2.0);
    few.results.rows.retain(|row| row.repetition < Some(2));
    let text = markdown(&document(&[few.clone()]), &charts(&cells_of(&[few.clone()])).unwrap()).unwrap();
    let with_interval = |line: &&str| line.contains(" to ") && line.contains("(") && !line.starts_with("Not measured");
    let intervals: Vec<&str> = text.lines().filter(with_interval).collect();
    assert!(intervals.len() > 6, "{text}");
    for line in intervals {
        assert!(line.contains("50 %") && line.contains("2 blocks"), "{line}");
    }
    let text = recommendation_text(&[few], SizeBounds::default(), None);
    assert!(text.lines().filter(|line| line.contains("x (")).all(|line| line.contains("50 %, 2 blocks")), "{text}");
    assert!(text.contains("1 cell, 50 % intervals, 2 blocks"), "{text}");
}

#[test]
fn single_block_is_counted_next_to_intervals_of_others() {
    let single = |samples: usize| {
        let mut file = file(samples, 2.0, 2.0);
        file.results.rows.retain(|row| row.repetition == Some(0));
        file
    };
    let with_both = [file(100, 2.0, 2.0), single(150)];
    let document_of_both = document(&with_both);
    let conclusion = &document_of_both.conclusions[0];
    assert!(
        conclusion.starts_with(
            "train, lazy compared with eager in 2 runs (96.9 % intervals, 6 blocks; 1 without an interval): faster in 2 ("
        ),
        "{conclusion}"
    );
    let text = markdown(&document_of_both, &charts(&cells_of(&with_both)).unwrap()).unwrap();
    assert!(text.contains("| 2 cells, 96.9 % intervals, 6 blocks; 1 without an interval |"), "{text}");
    assert!(text.contains("| 96.9 %, 6 blocks; 1 without an interval |"), "the crossover: {text}");
    assert!(text.contains("bars are 96.9 % intervals, 6 blocks; 2 without an interval"), "{text}");
    let conclusions = document(&[single(100), single(150)]).conclusions;
    assert!(
        conclusions[0].starts_with("train, lazy compared with eager in 2 runs (no intervals): "),
        "{conclusions:?}"
    );
}

#[test]
fn disk_cache_runs_are_lazy_disk_in_every_format() {
    let mut disk = file(100, 2.0, 2.0);
    disk.results.config.lazy_cache_disk = true;
    disk.results.rows[1] = crate::test_support::row(Task::Train, Method::Lazy, 0, crate::test_support::out_of_memory());
    let files = [disk];
    let text = markdown(&document(&files), &charts(&cells_of(&files)).unwrap()).unwrap();
    assert!(text.contains("train: lazy-disk was 1.99x faster"), "{text}");
    assert!(text.contains("| lazy-disk |") && !text.contains("| lazy |"), "{text}");
    let rows = String::from_utf8(rows_csv(&files).unwrap()).unwrap();
    assert!(rows.contains(",lazy-disk,") && !rows.contains(",lazy,"), "{rows}");
}

#[test]
fn recommendation_names_measured_devices_only() {
    let text = markdown(&document(&[file(100, 2.0, 2.0)]), &[]).unwrap();
    assert!(!text.contains("one GPU") && !text.contains("several GPUs"), "{text}");
    assert!(
        text.contains("Not measured: train on CPU, medium (1,000 to 10,000 samples) and large (from 10,000 samples)."),
        "{text}"
    );
}

#[test]
fn recommendation_has_a_row_for_each_model() {
    let of_model = |model: &str, speedup: f64| {
        let mut file = file(100, speedup, 1.0);
        file.results.config.model = Some(model.to_owned());
        file
    };
    let files = [of_model("owner/one", 2.0), of_model("two", 0.5)];
    let text = markdown(&document(&files), &[]).unwrap();
    for row in ["| train | one | lazy | small |", "| train | two | eager | small |"] {
        assert!(text.contains(row), "{text}");
    }
}

#[test]
fn tables_wrap_to_the_width_of_a_terminal() {
    let files = [file(100, 0.5, 2.0), file(1000, 2.0, 4.0)];
    let tables = |width: u16| recommendation_text(&files, SizeBounds::default(), Some(width));
    for width in [80, 120] {
        // Table lines begin with a space or are the rule below the header; captions are sentences.
        let text = tables(width);
        let lines = text.lines().filter(|line| line.starts_with([' ', '─']));
        let longest = lines.map(|line| line.chars().count()).max().unwrap();
        assert!(longest <= usize::from(width), "{longest}: {text}");
    }
}

#[test]
fn page_tables_have_sort_values() {
    let page = html(&document(&[file(100, 2.0, 2.0)]), &[]).unwrap();
    assert!(page.contains("data-number=\"100.0\">100</td>"), "{page}");
    assert!(page.contains("<button type=\"button\">speed-up</button>"));
}

#[test]
fn csv_has_full_numbers_and_failures() {
    let files = [file(100, 2.0, 2.0), file_without_eager(1000)];
    let read = |bytes: Vec<u8>| -> Vec<std::collections::BTreeMap<String, String>> {
        let mut reader = ::csv::Reader::from_reader(bytes.as_slice());
        reader.deserialize().collect::<Result<_, _>>().unwrap()
    };
    let summary = read(summary_csv(&document(&files).summary).unwrap());
    assert_eq!(summary.len(), 2);
    let speedup: f64 = summary[0]["speed-up"].parse().unwrap();
    let (low, high): (f64, f64) =
        (summary[0]["speed-up low"].parse().unwrap(), summary[0]["speed-up high"].parse().unwrap());
    assert!(low < speedup && speedup < high && (speedup - 2.0).abs() < 0.05);
    assert_eq!(summary[1]["speed-up"], "eager: oom");
    let rows = read(rows_csv(&files).unwrap());
    assert_eq!(rows.len(), 24);
    assert_eq!((rows[0]["run"].as_str(), rows[0]["task"].as_str()), ("cell-100.json", "train"));
    assert!(rows.iter().any(|row| row["status"] == "oom" && row["oom_bytes"] == "99" && row["elapsed_s"].is_empty()));
    assert!(rows.iter().any(|row| row["feature_digest"] == "d1"));
}

#[test]
fn recommendation_as_text() {
    let files = [file(100, 0.5, 2.0), file(1000, 2.0, 4.0), file_without_eager(20_000)];
    insta::assert_snapshot!(recommendation_text(&files, SizeBounds::default(), None));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Result files can be edited or truncated; odd values must not make a report panic.
    #[test]
    fn odd_numbers_do_not_break_reports(
        odd in prop::collection::vec((0_usize..24, 0_usize..6, prop::sample::select(ODD.to_vec())), 1..12),
        layers in prop::sample::select(vec![0, 1, usize::MAX]),
        samples in prop::sample::select(vec![0, 1, 7, usize::MAX]),
    ) {
        let mut files = [file(100, 0.5, 2.0), file(1000, 2.0, 4.0)];
        files[0].results.config.layer = Some(layers);
        files[1].results.config.samples = samples;
        for (row, column, value) in odd {
            let row = &mut files[row % 2].results.rows[row / 2];
            let value = Some(value);
            match column {
                0 => row.elapsed_s = value,
                1 => row.extract_s = value,
                2 => row.cpu_peak_rss_mb = value,
                3 => row.gpu_peak_alloc_mb = value,
                4 => row.metric_value = value,
                _ => {
                    row.metrics.cs = Some(value.into_iter().collect());
                    row.metrics.aurocs = Some(vec![vec![value]]);
                }
            }
        }
        let document = document(&files);
        let charts = charts(&cells_of(&files)).unwrap();
        prop_assert!(html(&document, &charts).is_ok() && markdown(&document, &charts).is_ok());
        prop_assert!(summary_csv(&document.summary).is_ok() && rows_csv(&files).is_ok());
        for chart in &charts {
            prop_assert!(!chart.svg.contains("NaN") && !chart.svg.contains("\"inf"), "{}", chart.svg);
        }
    }
}

/// Values at which arithmetic overflows, underflows or divides by zero.
const ODD: [f64; 8] = [0.0, -1.0, 1e-320, 1e-12, 1e12, 1e300, f64::MAX, 1.0];
