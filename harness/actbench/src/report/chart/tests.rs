//! Charts of synthetic cells: positions in the drawing, and which charts exist.

use super::waterfall::{WaterfallStep, steps};
use super::*;
use crate::case::{Method, RunConfig, Task};
use crate::crossover::cells_of;
use crate::crossover::tests::{file, file_without_eager};
use crate::results::NamedResults;
use crate::test_support::{file_of, ok_row, small_config};

fn drawn(files: &[NamedResults]) -> Vec<Chart> {
    charts(&cells_of(files)).unwrap()
}

#[track_caller]
fn named<'a>(charts: &'a [Chart], name: &str) -> &'a Chart {
    let names: Vec<&str> = charts.iter().map(|chart| chart.name.as_str()).collect();
    charts.iter().find(|chart| chart.name == name).unwrap_or_else(|| panic!("no {name} among {names:?}"))
}

/// The attribute of each element of a kind and color, in the order in which they were drawn.
fn attributes(svg: &str, element: &str, color: &str, attribute: &str) -> Vec<f64> {
    let of_kind = svg.lines().filter(|line| line.starts_with(&format!("<{element} ")) && line.contains(color));
    let value = |line: &str| line.split(&format!(" {attribute}=\"")).nth(1)?.split('"').next()?.parse().ok();
    of_kind.filter_map(value).collect()
}

const EAGER: &str = "#B34A0A";

#[test]
fn points_are_placed_by_logarithm() {
    let files = [file(100, 2.0, 2.0), file(1000, 2.0, 2.0), file(10_000, 2.0, 2.0)];
    let charts = drawn(&files);
    let chart = named(&charts, "time-against-samples-1");
    // The first circle is the legend's. Time and samples grow tenfold from point to point.
    let (x, y) = (attributes(&chart.svg, "circle", EAGER, "cx"), attributes(&chart.svg, "circle", EAGER, "cy"));
    assert_eq!(x.len(), 4);
    assert!(((x[3] - x[2]) - (x[2] - x[1])).abs() <= 1.0 && x[2] - x[1] > 100.0, "{x:?}");
    assert!(((y[3] - y[2]) - (y[2] - y[1])).abs() <= 1.0 && y[1] - y[2] > 50.0, "{y:?}");
    assert_eq!(chart.table.rows.len(), 6);
    assert!(chart.svg.contains(">\n10,000\n<"), "a tick at each size");
}

#[test]
fn failed_mode_is_marked_at_its_size() {
    let charts = drawn(&[file(100, 2.0, 2.0), file_without_eager(1000)]);
    for name in ["time-against-samples-1", "memory-against-samples-1"] {
        let chart = named(&charts, name);
        assert!(chart.svg.contains("eager: oom") && chart.svg.contains("never completed"), "{}", chart.svg);
        assert_eq!(chart.table.rows[2][2].text, "oom");
    }
    let intact = drawn(&[file(100, 2.0, 2.0), file(1000, 2.0, 2.0)]);
    assert!(!named(&intact, "time-against-samples-1").svg.contains("oom"));
}

#[test]
fn only_varying_groups_are_drawn() {
    let mut deeper = file(100, 2.0, 2.0);
    deeper.results.config.layer = Some(7);
    let charts = drawn(&[file(100, 2.0, 2.0), file(200, 2.0, 2.0), deeper]);
    let count = |prefix: &str| charts.iter().filter(|chart| chart.name.starts_with(prefix)).count();
    // Layer 4 has two sizes and layer 7 one; at 100 samples there are two layers and at 200 one.
    assert_eq!((count("time-against"), count("ratios-against"), count("time-breakdown")), (1, 1, 2));
    assert_eq!(count("rules") + count("auroc"), 0);
}

#[test]
fn single_point_is_not_drawn() {
    let names = |files: &[NamedResults]| drawn(files).into_iter().map(|chart| chart.name).collect::<Vec<_>>();
    assert_eq!(names(&[file(100, 2.0, 2.0)]), ["time-breakdown-1"]);
    let mut single = sweep();
    for row in &mut single.results.rows {
        row.metrics.cs = Some(vec![1.0]);
        row.metrics.aurocs = Some(vec![vec![Some(0.5)]]);
    }
    assert!(!names(&[single]).iter().any(|name| name.starts_with("auroc")));
}

#[test]
fn ratios_have_a_color_for_each_measure() {
    for on_disk in [false, true] {
        let mut files = [file(100, 2.0, 3.0), file(100, 2.0, 3.0)];
        files[1].results.config.layer = Some(7);
        files.iter_mut().for_each(|file| file.results.config.lazy_cache_disk = on_disk);
        let charts = drawn(&files);
        let chart = named(&charts, "ratios-against-layers-1");
        let shape = if on_disk { "polygon" } else { "rect" };
        let colors = |color: &str| {
            chart.svg.lines().filter(|line| line.starts_with(&format!("<{shape} ")) && line.contains(color)).count()
        };
        // The legend's marker and two points of time, and of CPU memory.
        assert_eq!((colors("#7A3EB8"), colors("#0E6F8A")), (3, 3), "{}", chart.svg);
        assert_eq!(colors("#B34A0A") + colors("#0B5CAD") + colors("#1A7F5A"), 0, "colors of modes");
    }
}

#[test]
fn text_is_legible_on_a_phone() {
    let charts = drawn(&[file(100, 2.0, 2.0), file_without_eager(1000), sweep()]);
    for chart in charts {
        let sizes = attributes(&chart.svg, "text", "", "font-size");
        assert!(!sizes.is_empty(), "{}", chart.svg);
        // A phone of 390 pixels shows a chart 366 pixels wide.
        let smallest = sizes.into_iter().fold(f64::INFINITY, f64::min) * 366.0 / f64::from(super::canvas::WIDTH);
        assert!(smallest >= 9.0, "{} pixels in {}", smallest, chart.name);
    }
}

#[test]
fn titles_are_short_and_descriptions_state_confidence() {
    let charts = drawn(&[file(100, 2.0, 2.0), file(1000, 2.0, 2.0)]);
    let chart = named(&charts, "time-against-samples-1");
    assert_eq!(chart.title, "Wall time: train, layer 4");
    assert!(chart.description.contains("bars are 96.9 % intervals, 6 blocks"), "{}", chart.description);
}

#[test]
fn charts_have_labels_and_dark_theme() {
    for chart in drawn(&[file(100, 2.0, 2.0), file_without_eager(1000)]) {
        assert!(chart.svg.contains("role=\"img\" aria-label=") && chart.svg.contains("prefers-color-scheme: dark"));
        assert!(chart.svg.trim_end().ends_with("</svg>") && !chart.table.rows.is_empty());
        // A color that the theme does not replace would be wrong on a dark page.
        for color in chart.svg.split(['"']).filter(|part| part.len() == 7 && part.starts_with('#')) {
            assert!(THEME.contains(color), "{color} in {}", chart.name);
        }
    }
}

#[test]
fn names_are_escaped() {
    let mut odd = file(100, 2.0, 2.0);
    odd.results.config.model = Some("<script>\"&".to_owned());
    // The model is in the titles because another run has another one.
    let charts = drawn(&[odd, file(100, 2.0, 2.0)]);
    assert!(charts.iter().any(|chart| chart.title.contains("<script>")));
    for chart in charts {
        assert!(!chart.svg.contains("<script"), "{}", chart.svg);
    }
}

/// A sweep of two layers and two values of C, with its rules measured.
fn sweep() -> NamedResults {
    let rows = (0..6).flat_map(|block| {
        let drift = 1.0 + block as f64;
        let row = |ablated: Option<&str>, seconds: f64| {
            let mut row = ok_row(Task::Sweep, Method::Lazy, block, seconds * drift, 200.0);
            row.metrics.cs = Some(vec![0.1, 1.0]);
            row.metrics.aurocs = Some(vec![vec![Some(0.5), Some(0.75)], vec![Some(0.875), Some(1.0)]]);
            if let Some(rule) = ablated {
                row.metrics.ablated = Some(rule.to_owned());
            }
            row
        };
        [row(None, 1.0), row(Some("packing"), 2.0), row(Some("prefix"), 2.5), row(Some("all"), 3.0)]
    });
    let config =
        RunConfig { tasks: vec![Task::Sweep], methods: vec![Method::Lazy], sweep_layers: Some(2), ..small_config() };
    NamedResults {
        name: "sweep.json".to_owned(),
        path: "sweep.json".to_owned(),
        results: file_of(config, rows.collect::<Vec<_>>()),
    }
}

#[test]
fn waterfall_leads_from_full_plan_to_no_rules() {
    let cells = cells_of(&[sweep()]);
    let steps = steps(&cells[0].ablation).unwrap();
    let heights: Vec<(&str, f64, f64)> = steps
        .iter()
        .map(|step| (step.name.as_str(), (step.from * 1e6).round() / 1e6, (step.to * 1e6).round() / 1e6))
        .collect();
    // The median block has a drift of 3.5; the two rules overlap.
    assert_eq!(
        heights,
        [
            ("full plan", 0.0, 3.5),
            ("packing", 3.5, 7.0),
            ("prefix", 7.0, 12.25),
            ("together", 12.25, 10.5),
            ("no rules", 0.0, 10.5)
        ]
    );
    assert!(steps.windows(2).all(|pair| pair[1].is_total || (pair[0].to - pair[1].from).abs() <= 1e-12));
    let _: &WaterfallStep = &steps[0];
    named(&drawn(&[sweep()]), "rules-1");
}

#[test]
fn heat_map_has_shade_and_number_per_probe() {
    let charts = drawn(&[sweep()]);
    let chart = named(&charts, "auroc-1");
    let shades: Vec<f64> = ["#F7FBFF", "#084580"]
        .iter()
        .flat_map(|color| attributes(&chart.svg, "rect", &format!("fill=\"{color}\""), "y"))
        .collect();
    assert_eq!(shades.len(), 2, "the lowest and the highest have the ends of the scale");
    assert!(shades[0] < shades[1], "layer 0 stands above layer 1");
    for auroc in ["0.5000", "0.7500", "0.8750", "1.0000"] {
        assert!(chart.svg.contains(auroc));
    }
    assert_eq!(chart.table.columns, ["layer", "C = 0.1", "C = 1"]);
}

#[test]
fn incomplete_grid_is_not_drawn() {
    for aurocs in [vec![vec![Some(0.5)], vec![Some(0.5), Some(0.6)]], vec![], vec![vec![None, Some(1.0)]]] {
        let mut file = sweep();
        for row in &mut file.results.rows {
            row.metrics.aurocs = Some(aurocs.clone());
        }
        assert!(!drawn(&[file]).iter().any(|chart| chart.name.starts_with("auroc")), "{aurocs:?}");
    }
}
