//! The table at the end of a run, on synthetic observations.

use super::table::render;
use crate::case::{Method, RunConfig, Task};
use crate::results::Row;
use crate::test_support::{drifting, file_of, ok_row, out_of_memory, row, small_config};

fn rendered(methods: &[Method], rows: impl IntoIterator<Item = Row>) -> String {
    let config = RunConfig { tasks: vec![Task::Train, Task::Sweep], methods: methods.to_vec(), ..small_config() };
    render(&file_of(config, rows), None)
}

#[test]
fn both_tasks_with_intervals() {
    let rows = drifting(Task::Train).into_iter().chain((0..5).flat_map(|block| {
        let around = 1.0 + 0.02 * (block as f64 - 2.0);
        [
            ok_row(Task::Sweep, Method::Eager, block, 20.0 * around, 1500.0),
            ok_row(Task::Sweep, Method::Lazy, block, 20.0 / around, 1600.0 + block as f64),
        ]
    }));
    insta::assert_snapshot!(rendered(&[Method::Eager, Method::Lazy], rows), @r#"
 task   method  n  time  extract  train+eval  peak RSS  peak heap  metric
                      s        s           s       MiB        MiB
─────────────────────────────────────────────────────────────────────────
 train  eager   5  5.88     4.41        1.47      1002        501  0.9750
 train  lazy    5  3.00     2.25       0.750       800        400  0.9750
 sweep  eager   5  20.0     15.0        5.00      1500        750  0.9750
 sweep  lazy    5  20.0     15.0        5.00      1602        801  0.9750
n: repetitions; figures are medians; time: extract + train+eval; metric: AUROC.
RSS: resident memory; heap: what was allocated, eager's full tensors included.
train, eager / lazy: time 2.00x (1.96 to 2.04), peak RSS 1.25x (1.25 to 1.25); 93.8 % intervals, 5 blocks
sweep, eager / lazy: time 1.00x (0.92 to 1.08, no difference shown), peak RSS 0.94x (0.94 to 0.94); 93.8 % intervals, 5 blocks
train: lazy was 2.00x faster (1.96 to 2.04) and used 1.25x less memory (1.25 to 1.25), 93.8 % intervals, 5 blocks; same AUROC.
sweep: lazy showed no difference in time and used 1.07x more memory (1.07 to 1.07), 93.8 % intervals, 5 blocks; same AUROC.
train: use lazy: eager needs 2.00x the time and 1.25x the memory; lazy-disk was not tried.
sweep: use eager: lazy showed no difference in time and needs 1.07x the memory; lazy-disk was not tried.
"#);
}

#[test]
fn table_fits_a_terminal_of_80_columns() {
    let config =
        RunConfig { tasks: vec![Task::Train], methods: vec![Method::Eager, Method::LazyDisk], ..small_config() };
    let disk = drifting(Task::Train).into_iter().map(|row| match row.method {
        Method::Lazy => Row { method: Method::LazyDisk, ..row },
        _ => row,
    });
    let failed = row(Task::Train, Method::Eager, 5, out_of_memory());
    let results = file_of(config, disk.chain([failed]));
    let in_table = |text: &str| -> Vec<usize> {
        let lines = text.lines().take_while(|line| line.starts_with([' ', '─']));
        lines.map(|line| line.chars().count()).collect()
    };
    let (narrow, free) = (render(&results, Some(80)), render(&results, None));
    assert!(in_table(&narrow).into_iter().all(|length| length <= 80), "{narrow}");
    let narrower = render(&results, Some(60));
    assert!(in_table(&narrower).into_iter().all(|length| length <= 60), "{narrower}");
    assert!(narrower.contains("0.9750\nnot shown: ") && narrower.contains("5 of 6"), "{narrower}");
    assert!(in_table(&free).into_iter().max() > Some(80), "the text of a pipe is not wrapped: {free}");
    let legend: Vec<&str> =
        narrow.lines().filter(|line| line.starts_with("n: ") || line.starts_with("RSS: ")).collect();
    assert!(legend.len() == 2 && legend.iter().all(|line| line.chars().count() <= 80), "{legend:?}");
}

#[test]
fn run_with_disk_cache_is_called_lazy_disk() {
    let config = RunConfig {
        tasks: vec![Task::Train],
        methods: vec![Method::Eager, Method::Lazy],
        lazy_cache_disk: true,
        ..small_config()
    };
    let text = render(&file_of(config, drifting(Task::Train)), None);
    assert!(text.contains("train, eager / lazy-disk: ") && text.contains("train: lazy-disk was "), "{text}");
    assert!(text.contains("train: use lazy-disk: ") && text.contains("; lazy was not tried."), "{text}");
    assert!(!text.contains(" lazy ") || text.matches(" lazy ").count() == 1, "{text}");
}

#[test]
fn failed_method_and_partly_failed_method() {
    let rows = vec![
        row(Task::Train, Method::Eager, 0, out_of_memory()),
        ok_row(Task::Train, Method::Lazy, 0, 0.012_34, 64.0),
        row(Task::Train, Method::Eager, 1, out_of_memory()),
        row(Task::Train, Method::Lazy, 1, out_of_memory()),
        ok_row(Task::Sweep, Method::Eager, 0, 9.0, 640.0),
        ok_row(Task::Sweep, Method::Lazy, 0, 18.0, 320.0),
    ];
    insta::assert_snapshot!(rendered(&[Method::Eager, Method::Lazy], rows), @r#"
 task   method             n   time  extract  train+eval  peak RSS  peak heap  metric
                                  s        s           s       MiB        MiB
─────────────────────────────────────────────────────────────────────────────────────
 train  eager   0 of 2 (oom)      -        -           -         -          -       -
 train  lazy    1 of 2 (oom)  0.012    0.009       0.003      64.0       32.0  0.9750
 sweep  eager              1   9.00     6.75        2.25       640        320  0.9750
 sweep  lazy               1   18.0     13.5        4.50       320        160  0.9750
n: repetitions; figures are medians; time: extract + train+eval; metric: AUROC.
RSS: resident memory; heap: what was allocated, eager's full tensors included.
sweep, eager / lazy: time 0.50x, peak RSS 2.00x; no interval from a single block
train: eager never completed (oom); lazy completed.
sweep: lazy was 2.00x slower (a single block) and used 2.00x less memory (a single block); same AUROC.
train: use lazy: eager never completed; lazy ran out of memory in 1 of 2 repetitions; lazy-disk was not tried.
sweep: use eager: lazy needs 2.00x the time and 0.50x the memory; lazy-disk was not tried.
"#);
}

#[test]
fn run_without_a_completed_case_recommends_nothing() {
    let methods = [Method::Eager, Method::Lazy];
    let text = rendered(&methods, methods.map(|method| row(Task::Train, method, 0, out_of_memory())));
    let line = "train: no mode is recommended: eager and a lazy method never completed in the same case; lazy-disk was not tried.";
    assert!(text.lines().any(|it| it == line), "{text}");
}

#[test]
fn lazy_disk_has_its_own_lines() {
    let disk = (0..5).map(|block| ok_row(Task::Train, Method::LazyDisk, block, 1.0, 500.0));
    let rows = drifting(Task::Train).into_iter().chain(disk);
    insta::assert_snapshot!(rendered(&[Method::Eager, Method::Lazy, Method::LazyDisk], rows), @r#"
 task   method     n  time  extract  train+eval  peak RSS  peak heap  metric
                         s        s           s       MiB        MiB
────────────────────────────────────────────────────────────────────────────
 train  eager      5  5.88     4.41        1.47      1002        501  0.9750
 train  lazy       5  3.00     2.25       0.750       800        400  0.9750
 train  lazy-disk  5  1.00    0.750       0.250       500        250  0.9750
 sweep  eager      0     -        -           -         -          -       -
 sweep  lazy       0     -        -           -         -          -       -
 sweep  lazy-disk  0     -        -           -         -          -       -
n: repetitions; figures are medians; time: extract + train+eval; metric: AUROC.
RSS: resident memory; heap: what was allocated, eager's full tensors included.
train, eager / lazy: time 2.00x (1.96 to 2.04), peak RSS 1.25x (1.25 to 1.25); 93.8 % intervals, 5 blocks
train, eager / lazy-disk: time 5.69x (1.98 to 12.24), peak RSS 2.00x (2.00 to 2.01); 93.8 % intervals, 5 blocks
train: lazy was 2.00x faster (1.96 to 2.04) and used 1.25x less memory (1.25 to 1.25), 93.8 % intervals, 5 blocks; same AUROC.
train: lazy-disk was 5.69x faster (1.98 to 12.24) and used 2.00x less memory (2.00 to 2.01), 93.8 % intervals, 5 blocks; same AUROC.
train: use lazy-disk: eager needs 5.69x the time and 2.00x the memory; lazy showed no difference in time and needs 1.60x the memory.
"#);
}

#[test]
fn ablation_lists_each_rule() {
    let rows = (0..5).flat_map(|block| {
        let drift = 1.0 + 0.1 * block as f64;
        let lazy = |ablated: Option<&str>, seconds: f64, tokens: u64| {
            let mut row = ok_row(Task::Train, Method::Lazy, block, seconds * drift, 300.0);
            row.metrics.tokens_computed = Some(tokens);
            row.metrics.flops = Some(tokens * 1_250_000);
            if let Some(name) = ablated {
                row.metrics.ablated = Some(name.to_owned());
            }
            row
        };
        [lazy(None, 1.0, 7463), lazy(Some("prefix"), 3.0, 25116), lazy(Some("all"), 4.5, 29408)]
    });
    let failed = row(Task::Train, Method::Lazy, 5, out_of_memory());
    insta::assert_snapshot!(rendered(&[Method::Lazy], rows.chain([failed])), @r#"
 task   method             n  time  extract  train+eval  peak RSS  peak heap  metric
                                 s        s           s       MiB        MiB
────────────────────────────────────────────────────────────────────────────────────
 train  lazy    5 of 6 (oom)  1.20    0.900       0.300       300        150  0.9750
 sweep  lazy               0     -        -           -         -          -       -
n: repetitions; figures are medians; time: extract + train+eval; metric: AUROC.
RSS: resident memory; heap: what was allocated, eager's full tensors included.

 task    method   rules            n   time s                vs full   extract s                vs full   peak RSS MiB   tokens computed   GFLOP
─────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────
 train   lazy     full             5     1.20                      -       0.900                      -            300             7,463     9.3
 train   lazy     without prefix   5     3.60   3.00x (3.00 to 3.00)        2.70   3.00x (3.00 to 3.00)            300            25,116    31.4
 train   lazy     without all      5     5.40   4.50x (4.50 to 4.50)        4.05   4.50x (4.50 to 4.50)            300            29,408    36.8
vs full: time without the rule / time of the full plan in the same block; above 1 the rule saves time; 93.8 % intervals, 5 blocks
"#);
}
