//! Cells, crossovers and recommendations of synthetic result files.

use super::answer::{ComparedQuantity, CrossoverAnswer, answers, count};
use super::recommend::{Recommendation, RunSize, SizeBounds, recommendations};
use super::*;
use crate::case::{Method, ProbeSolver, RunConfig, Task};
use crate::results::NamedResults;
use crate::results::ResultFile;
use crate::results::Row;
use crate::results::identity::RunIdentity;
use crate::runner::exit::ExitReason;
use crate::runner::protocol::Failure;
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

fn failure(message: &str) -> Failure {
    Failure { message: message.to_owned(), bad_input: false, out_of_memory_bytes: None, predicted: false }
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
CPU memory: at every size tried, 100 to 10,000
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
CPU memory: the data do not decide (eager and lazy are within 2 % at 100 samples): measure smaller and larger --samples
time and memory: the data do not decide (eager and lazy are within 2 % at 100 samples): measure smaller and larger --samples
"##);
    insta::assert_snapshot!(texts(&[file(100, 0.9, 0.9), file_without_eager(1000)]).join("\n"), @r##"
time: from about 1,000 samples on
CPU memory: from about 1,000 samples on
time and memory: from about 1,000 samples on
"##);
}

#[test]
fn crossing_of_few_blocks_is_not_claimed() {
    let mut files = [file(100, 0.5, 0.5), file(1000, 2.0, 2.0)];
    assert_eq!(texts(&files)[0], "time: from about 316 samples on (306 to 327)");
    for file in &mut files {
        file.results.rows.retain(|row| row.repetition < Some(2));
    }
    let found = answers(&cells_of(&files));
    assert_eq!(
        found[0].text(),
        "the data do not decide (2 blocks at 100 samples): measure with --repetitions 6 or more"
    );
    assert_eq!(found[0].basis.unwrap().short(), "50 %, 2 blocks");
    assert_eq!(
        texts(&[file(100, 2.0, 1.5), file(1000, 2.0, 1.01)])[1..],
        [
            "CPU memory: the data do not decide (eager and lazy are within 2 % at 1,000 samples): measure smaller and larger \
         --samples",
            "time and memory: the data do not decide (eager and lazy are within 2 % at 1,000 samples): measure smaller and larger \
         --samples"
        ]
    );
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

/// The recommendations of `files`, a line each.
fn recommended(files: &[NamedResults]) -> String {
    let found = recommendations(&cells_of(files), SizeBounds::default());
    let line = |it: &Recommendation| {
        let mode = it.mode.map_or_else(|| "none".to_owned(), |mode| mode.to_string());
        format!(
            "{} {} {}: {mode}, {}, {} rows, {}",
            it.task,
            it.size,
            it.device,
            it.based_on,
            it.evidence.len(),
            it.why
        )
    };
    found.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// `file` with a third method, which takes `time` times as long as lazy and uses `memory` times its memory.
fn with_disk(mut file: NamedResults, time: f64, memory: f64) -> NamedResults {
    file.results.config.methods.push(Method::LazyDisk);
    let lazy = file.results.rows.iter().filter(|row| row.method == Method::Lazy);
    let disk: Vec<Row> = lazy
        .map(|row| Row {
            method: Method::LazyDisk,
            elapsed_s: row.elapsed_s.map(|seconds| seconds * time),
            cpu_peak_rss_mb: row.cpu_peak_rss_mb.map(|memory_mib| memory_mib * memory),
            ..row.clone()
        })
        .collect();
    file.results.rows.extend(disk);
    file
}

#[test]
fn recommendations_follow_evidence() {
    // Small: lazy is slower. Medium: equally fast, with less memory. Large: eager fails.
    let files = [file(100, 0.5, 3.0), file(1000, 0.99, 3.0), file_without_eager(20_000)];
    insta::assert_snapshot!(recommended(&files), @r##"
train small CPU: eager, 1 cell, 96.9 % intervals, 6 blocks, 1 rows, lazy needs 2.00x the time and 0.33x the memory; lazy-disk was not tried
train medium CPU: lazy, 1 cell, 96.9 % intervals, 6 blocks, 1 rows, eager showed no difference in time and needs 3.00x the memory; lazy-disk was not tried
train large CPU: lazy, 1 cell, no intervals, 1 rows, eager never completed; lazy-disk was not tried
"##);
}

#[test]
fn modes_are_compared_over_common_cells_only() {
    // The disk cache was run in a cell of its own, in which eager needs more memory. Lazy was not run there.
    let mut apart = file(600, 4.0, 4.0);
    apart.results.config.lazy_cache_disk = true;
    apart.name = "apart.json".to_owned();
    insta::assert_snapshot!(recommended(&[file(60, 2.0, 2.0), file(150, 2.0, 2.0), apart.clone()]), @r##"
train small CPU: lazy, 2 cells, 96.9 % intervals, 6 blocks, 3 rows, eager needs 2.00x the time and 2.00x the memory; lazy-disk was measured in other cells only (compare it with --methods eager,lazy,lazy-disk)
"##);
    // One cell with all three decides between the lazy modes, however well the disk cache did in another.
    insta::assert_snapshot!(recommended(&[with_disk(file(60, 2.0, 2.0), 1.5, 1.0), apart]), @r##"
train small CPU: lazy, 1 cell, 96.9 % intervals, 6 blocks, 3 rows, eager needs 2.00x the time and 2.00x the memory; lazy-disk needs 1.50x the time and the same memory
"##);
}

#[test]
fn settings_are_recommended_separately() {
    type Change = Box<dyn Fn(&mut ResultFile)>;
    let weights = |of: &str| Some(RunIdentity { data: Some("d".repeat(16)), weights: Some(of.repeat(16)) });
    let changes: [(Change, Change, [&str; 2]); 4] = [
        (
            Box::new(|it| it.config.model = Some("owner/one".to_owned())),
            Box::new(|it| it.config.model = Some("two".to_owned())),
            ["one", "two"],
        ),
        (
            Box::new(|it| it.environment.cpu_model = Some("A processor".to_owned())),
            Box::new(|it| it.environment.cpu_model = Some("B processor".to_owned())),
            ["A processor, 2 processors", "B processor, 2 processors"],
        ),
        (
            Box::new(move |it| it.identity = weights("a")),
            Box::new(move |it| it.identity = weights("b")),
            ["weights aaaaaaaa", "weights bbbbbbbb"],
        ),
        (Box::new(|it| it.config.layer = Some(3)), Box::new(|it| it.config.layer = Some(5)), ["layer 3", "layer 5"]),
    ];
    for (one_is, other_is, labels) in changes {
        // The mean of the two would be eager with 1.27 times the time for lazy.
        let (mut one, mut other) = (file(600, 2.29, 1.0), file(22, 0.27, 1.0));
        one_is(&mut one.results);
        other_is(&mut other.results);
        let found = recommendations(&cells_of(&[other, one]), SizeBounds::default());
        let rows: Vec<(&str, Option<Method>, &str)> =
            found.iter().map(|it| (it.setting.as_str(), it.mode, it.based_on.as_str())).collect();
        let basis = "1 cell, 96.9 % intervals, 6 blocks";
        assert_eq!(rows, [(labels[0], Some(Method::Lazy), basis), (labels[1], Some(Method::Eager), basis)]);
    }
    let alone = recommendations(&cells_of(&[file(60, 2.0, 2.0), file(150, 2.0, 2.0)]), SizeBounds::default());
    assert_eq!(alone.iter().map(|it| it.setting.as_str()).collect::<Vec<_>>(), [""]);
}

/// `file` whose repetition `block` of `method` ended by `reason`.
fn with_failure(mut file: NamedResults, method: Method, block: usize, reason: ExitReason) -> NamedResults {
    let failed = row(Task::Train, method, block, reason);
    let found = file.results.rows.iter_mut().find(|row| (row.method, row.repetition) == (method, Some(block))).unwrap();
    *found = failed;
    file
}

#[test]
fn one_failed_repetition_decides_no_choice() {
    let killed = || ExitReason::Failed(failure("a disk was full"));
    // Lazy is twice as slow: one accident of eager changes nothing about that.
    let slow = || file(100, 0.5, 1.0);
    insta::assert_snapshot!(recommended(&[with_failure(slow(), Method::Eager, 2, killed())]), @"train small CPU: eager, 1 cell, 93.8 % intervals, 5 blocks, 1 rows, eager failed in 1 of 6 repetitions; lazy needs 2.00x the time and the same memory; lazy-disk was not tried");
    insta::assert_snapshot!(recommended(&[with_failure(slow(), Method::Lazy, 2, killed())]), @"train small CPU: eager, 1 cell, 93.8 % intervals, 5 blocks, 1 rows, lazy failed in 1 of 6 repetitions; lazy needs 2.00x the time and the same memory; lazy-disk was not tried");
    // The memory did not suffice once, so that the next run may fail as well.
    insta::assert_snapshot!(recommended(&[with_failure(slow(), Method::Eager, 2, out_of_memory())]), @"train small CPU: lazy, 1 cell, 93.8 % intervals, 5 blocks, 1 rows, eager ran out of memory in 1 of 6 repetitions; lazy-disk was not tried");
    let all = (0..6).fold(slow(), |file, block| with_failure(file, Method::Eager, block, killed()));
    insta::assert_snapshot!(recommended(&[all]), @"train small CPU: lazy, 1 cell, no intervals, 1 rows, eager never completed; lazy-disk was not tried");
}

#[test]
fn lazy_modes_without_eager_share_their_blocks() {
    // The later blocks are slower for both. The disk cache takes 1.1 times as long in each, and completed only the first.
    let whole = with_disk(file_without_eager(100), 1.1, 0.5);
    let part = (2..6).fold(whole, |file, block| {
        with_failure(file, Method::LazyDisk, block, ExitReason::Failed(failure("a disk was full")))
    });
    insta::assert_snapshot!(recommended(&[part]), @"train small CPU: lazy, 1 cell, no intervals, 2 rows, eager never completed; lazy-disk failed in 4 of 6 repetitions; lazy-disk needs 1.10x the time and 0.50x the memory");
}

#[test]
fn undecided_time_is_left_to_simplicity_and_memory() {
    // Lazy takes 0.7 to 1.2 times the time of eager: faster by the estimate, and no difference is shown.
    let scattered = |memory: f64| {
        let mut file = file(100, 1.1, memory);
        let lazy = file.results.rows.iter_mut().filter(|row| row.method == Method::Lazy);
        lazy.zip([0.8, 0.9, 1.3, 0.9, 1.2, 1.0]).for_each(|(row, factor)| {
            row.elapsed_s = row.elapsed_s.map(|seconds| seconds * factor);
        });
        file
    };
    insta::assert_snapshot!(recommended(&[scattered(1.0)]), @"train small CPU: eager, 1 cell, 96.9 % intervals, 6 blocks, 1 rows, lazy showed no difference in time and needs the same memory; lazy-disk was not tried");
    insta::assert_snapshot!(recommended(&[scattered(2.0)]), @"train small CPU: lazy, 1 cell, 96.9 % intervals, 6 blocks, 1 rows, eager showed no difference in time and needs 2.00x the memory; lazy-disk was not tried");
    // Another cell of the setting shows the difference.
    let found = recommendations(&cells_of(&[scattered(1.0), file(200, 1.5, 1.0)]), SizeBounds::default());
    assert_eq!(found[0].mode, Some(Method::Lazy), "{}", found[0].why);
    // The lazy modes are compared within blocks as well.
    let mut disk = with_disk(file(100, 2.0, 2.0), 0.9, 1.0);
    let rows = disk.results.rows.iter_mut().filter(|row| row.method == Method::LazyDisk);
    rows.zip([0.7, 1.2, 1.3, 0.8, 0.9, 1.0]).for_each(|(row, factor)| {
        row.elapsed_s = row.elapsed_s.map(|seconds| seconds * factor);
    });
    let found = recommendations(&cells_of(&[disk]), SizeBounds::default());
    assert_eq!(found[0].mode, Some(Method::Lazy), "{}", found[0].why);
    assert!(found[0].why.contains("lazy-disk showed no difference in time"), "{}", found[0].why);
}

#[test]
fn disk_cache_is_recommended_for_a_large_saving_only() {
    let mode = |memory: f64| {
        recommendations(&cells_of(&[with_disk(file(60, 2.0, 2.0), 1.0, memory)]), SizeBounds::default())[0].mode
    };
    // Lazy uses 500 MiB.
    assert_eq!(mode(0.99), Some(Method::Lazy), "1 %");
    assert_eq!(mode(0.9), Some(Method::Lazy), "50 MiB");
    assert_eq!(mode(0.8), Some(Method::LazyDisk), "100 MiB");
}

#[test]
fn train_and_sweep_are_answered_separately() {
    let mut both = file(100, 2.0, 2.0);
    both.results.config.tasks = vec![Task::Train, Task::Sweep];
    let slower: Vec<Row> = both.results.rows.clone();
    both.results.rows.extend(slower.into_iter().map(|row| Row {
        task: Task::Sweep,
        elapsed_s: row.elapsed_s.map(|seconds| if row.method == Method::Lazy { 10.0 * seconds } else { seconds }),
        ..row
    }));
    let found = recommendations(&cells_of(&[both]), SizeBounds::default());
    let modes: Vec<(Task, Option<Method>)> = found.iter().map(|it| (it.task, it.mode)).collect();
    assert_eq!(modes, [(Task::Train, Some(Method::Lazy)), (Task::Sweep, Some(Method::Eager))]);
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
    let interval = figure.interval.unwrap();
    assert!(interval.low <= 1.0 + 1e-12 && interval.high >= 32.0 - 1e-9, "{interval:?}");
    assert_eq!(interval.n, 6);
    assert!((0.95..1.0).contains(&interval.confidence), "{interval:?}");
    assert_eq!(MedianInterval::of(&[3.0]), Some(MedianInterval { median: 3.0, interval: None }));
    assert_eq!(MedianInterval::of(&[]), None);
    assert_eq!(MedianInterval::of(&[1.0, 0.0]), None);
}

#[test]
fn counts_keep_three_significant_digits() {
    assert_eq!([0.4, 99.6, 1236.0, 123_456.0].map(count), ["0", "100", "1,240", "123,000"]);
}
