//! Cells, crossovers and recommendations of synthetic result files.

use super::answer::{ComparedQuantity, CrossoverAnswer, answers, count};
use super::recommend::{RunSize, SizeBounds, recommendations};
use super::*;
use crate::case::{Method, ProbeSolver, RunConfig, Task};
use crate::results::NamedResults;
use crate::results::ResultFile;
use crate::results::Row;
use crate::results::identity::RunIdentity;
use crate::test_support::small_config;
use crate::test_support::{file_of, ok_row, out_of_memory, row};

/// A file of `samples` samples with six blocks. Lazy is `speedup` times as fast as eager and uses `1 / memory` of its memory,
/// each varied by at most 2 %; eager needs a second for 100 samples.
pub(crate) fn file(samples: usize, speedup: f64, memory: f64) -> NamedResults {
    let rows = (0..6).flat_map(|block| {
        let around = 1.0 + 0.008 * (block as f64 - 2.5);
        let eager = samples as f64 / 100.0 * (1.0 + 0.1 * block as f64);
        [
            ok_row(Task::Train, Method::Eager, block, eager, 1000.0 * around),
            ok_row(Task::Train, Method::Lazy, block, eager / speedup * around, 1000.0 / memory),
        ]
    });
    named(samples, rows.collect())
}

/// A file of `samples` samples in which eager runs out of memory.
pub(crate) fn file_without_eager(samples: usize) -> NamedResults {
    let rows = (0..6).flat_map(|block| {
        [
            row(Task::Train, Method::Eager, block, out_of_memory()),
            ok_row(Task::Train, Method::Lazy, block, 4.0 + block as f64, 300.0),
        ]
    });
    named(samples, rows.collect())
}

fn named(samples: usize, rows: Vec<Row>) -> NamedResults {
    let config = RunConfig {
        tasks: vec![Task::Train],
        methods: vec![Method::Eager, Method::Lazy],
        samples,
        layer: Some(4),
        ..small_config()
    };
    let name = format!("cell-{samples}.json");
    NamedResults { path: name.clone(), name, results: file_of(config, rows) }
}

fn texts(files: &[NamedResults]) -> Vec<String> {
    let line = |answer: &CrossoverAnswer| format!("{}: {}", answer.measure, answer.text());
    answers(&cells_of(files)).iter().map(line).collect()
}

#[test]
fn crossover_lies_between_neighboring_sizes() {
    let files = [file(1000, 2.0, 3.0), file(100, 0.5, 1.5), file(10_000, 8.0, 6.0)];
    let answers = answers(&cells_of(&files));
    let sizes: Vec<&[usize]> = answers.iter().map(|answer| &answer.sizes[..]).collect();
    assert_eq!(sizes, [[100, 1000, 10_000]; 3]);
    assert_eq!(
        answers.iter().map(|it| it.measure).collect::<Vec<_>>(),
        [ComparedQuantity::Time, ComparedQuantity::CpuMemory, ComparedQuantity::All]
    );
    insta::assert_snapshot!(texts(&files).join("\n"), @r##"
time: from about 316 samples on (306 to 327)
CPU memory: at every size tried, from 100 on
time and memory: from about 316 samples on (306 to 327)
"##);
}

#[test]
fn never_and_everywhere_are_reported() {
    insta::assert_snapshot!(texts(&[file(100, 0.5, 0.4), file(1000, 0.8, 2.0)]).join("\n"), @r##"
time: never in the range tried
CPU memory: from about 371 samples on (361 to 382)
time and memory: never in the range tried
"##);
    insta::assert_snapshot!(texts(&[file(100, 2.0, 1.002)]).join("\n"), @r##"
time: at the one size tried
CPU memory: at the one size tried; the intervals leave it open
time and memory: at the one size tried; the intervals leave it open
"##);
    insta::assert_snapshot!(texts(&[file(100, 0.9, 0.9), file_without_eager(1000)]).join("\n"), @r##"
time: from about 1,000 samples on
CPU memory: from about 1,000 samples on
time and memory: from about 1,000 samples on
"##);
}

#[test]
fn latest_run_of_a_size_counts() {
    let (mut old, new) = (file(100, 9.0, 9.0), file(100, 0.5, 0.5));
    old.results.environment.date = "2023-01-01T00:00:00Z".to_owned();
    for files in [[old.clone(), new.clone()], [new, old]] {
        assert_eq!(texts(&files)[0], "time: not at the one size tried");
    }
}

#[test]
fn machines_are_never_on_one_curve() {
    let mut other = file(1000, 2.0, 2.0);
    other.results.environment.cpu_model = Some("Another processor".to_owned());
    assert_eq!(answers(&cells_of(&[file(100, 0.5, 0.5), other])).len(), 6);
}

#[test]
fn other_probes_data_or_weights_are_another_curve_with_another_label() {
    let identity = |data: &str, weights: &str| {
        Some(RunIdentity { data: Some(data.repeat(16)), weights: Some(weights.repeat(16)) })
    };
    type Change = Box<dyn Fn(&mut ResultFile)>;
    let changes: [Change; 7] = [
        Box::new(|it| it.config.train_c = 2.0),
        Box::new(|it| it.config.solver = ProbeSolver::Linfa),
        Box::new(|it| it.config.train_max_iter = 7),
        Box::new(|it| it.config.seed = 1),
        Box::new(|it| it.config.train_frac = 0.5),
        Box::new(move |it| it.identity = identity("b", "c")),
        Box::new(move |it| it.identity = identity("a", "d")),
    ];
    for change in changes {
        let (mut one, mut other) = (file(100, 0.5, 0.5), file(1000, 2.0, 2.0));
        one.results.identity = identity("a", "c");
        other.results.identity = identity("a", "c");
        assert_eq!(answers(&cells_of(&[one.clone(), other.clone()])).len(), 3);
        change(&mut other.results);
        let cells = cells_of(&[one, other]);
        assert_eq!(answers(&cells).len(), 6);
        assert_ne!(cells[0].setting.label(), cells[1].setting.label());
    }
    assert!(!cells_of(&[file(100, 0.5, 0.5)])[0].setting.label().contains("probes"), "an unambiguous label is short");
}

#[test]
fn cells_without_times_recommend_nothing() {
    for seconds in [None, Some(0.0), Some(-1.0), Some(1e300), Some(1e-12)] {
        let mut file = file(100, 2.0, 2.0);
        file.results.rows.iter_mut().for_each(|row| row.elapsed_s = seconds);
        let found = recommendations(&cells_of(&[file]), SizeBounds::default());
        assert_eq!((found[0].mode, found[0].why.as_str()), (None, "no time was measured"), "{seconds:?}");
    }
}

#[test]
fn disk_cache_flag_counts_as_lazy_disk() {
    let mut file = file(100, 2.0, 2.0);
    file.results.config.lazy_cache_disk = true;
    let cells = cells_of(&[file]);
    assert_eq!(cells[0].comparisons[0].0, Method::LazyDisk);
    assert!(cells[0].method(Method::Lazy).is_none() && cells[0].method(Method::LazyDisk).is_some());
}

#[test]
fn recommendations_follow_evidence() {
    // Small: lazy is slower. Medium: equally fast, with less memory. Large: eager fails.
    let files = [file(100, 0.5, 3.0), file(1000, 0.99, 3.0), file_without_eager(20_000)];
    let found = recommendations(&cells_of(&files), SizeBounds::default());
    assert_eq!(found.len(), 9);
    let cpu: Vec<String> = found
        .iter()
        .filter(|it| it.device == DeviceClass::Cpu)
        .map(|it| format!("{}: {:?}, {} ({} rows)", it.size, it.mode, it.why, it.evidence.len()))
        .collect();
    insta::assert_snapshot!(cpu.join("\n"), @r##"
small: Some(Eager), 1 cell: lazy is 2.00x slower than eager with 3.00x less memory (1 rows)
medium: Some(Lazy), 1 cell: 1.01x slower than eager with 3.00x less memory (1 rows)
large: Some(Lazy), 1 cell: eager never completed (1 rows)
"##);
    assert!(
        found.iter().filter(|it| it.device != DeviceClass::Cpu).all(|it| it.mode.is_none() && it.why == "not measured")
    );
}

#[test]
fn gpu_memory_figures_reveal_a_gpu() {
    let mut file = file(100, 2.0, 2.0);
    for row in &mut file.results.rows {
        row.gpu_peak_alloc_mb = Some(if row.method == Method::Eager { 400.0 } else { 100.0 });
    }
    file.results.environment.gpus = vec!["A GPU".to_owned(), "A GPU".to_owned()];
    let cells = cells_of(std::slice::from_ref(&file));
    assert_eq!(cells[0].setting.device, DeviceClass::OneGpu);
    assert!(answers(&cells).iter().any(|answer| answer.measure == ComparedQuantity::GpuMemory));
    let found = recommendations(&cells, SizeBounds::default());
    let small = found.iter().find(|it| it.device == DeviceClass::OneGpu && it.size == RunSize::Small).unwrap();
    assert!((small.evidence[0].memory.unwrap().0 - 4.0).abs() <= 1e-9);
    file.results.config.device_map = crate::case::DeviceMap::Balanced;
    assert_eq!(cells_of(&[file])[0].setting.device, DeviceClass::SeveralGpus);
}

#[test]
fn intervals_contain_their_medians() {
    let figure = MedianInterval::of(&[1.0, 2.0, 4.0, 8.0, 16.0, 32.0]).unwrap();
    assert_eq!(figure.median, 6.0);
    let (low, high) = figure.interval.unwrap();
    assert!(low <= 1.0 + 1e-12 && high >= 32.0 - 1e-9, "{low} {high}");
    assert_eq!(MedianInterval::of(&[3.0]), Some(MedianInterval { median: 3.0, interval: None }));
    assert_eq!(MedianInterval::of(&[]), None);
    assert_eq!(MedianInterval::of(&[1.0, 0.0]), None);
}

#[test]
fn counts_keep_three_significant_digits() {
    assert_eq!([0.4, 99.6, 1236.0, 123_456.0].map(count), ["0", "100", "1,240", "123,000"]);
}
