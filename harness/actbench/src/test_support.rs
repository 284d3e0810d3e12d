//! Synthetic configurations, rows and result files, shared by the tests of several modules.

use crate::case::{CaseMetrics, CaseOutcome, Method, RunConfig, Task};
use crate::measure::environment::Environment;
use crate::measure::machine_record::MachineRecord;
use crate::measure::memory::Peaks;
use crate::results::{ResultFile, Row};
use crate::runner::exit::{CaseExit, ExitReason};
use crate::runner::protocol::Failure;
use crate::runner::record;
use crate::runner::schedule::Slot;

/// Settings under which a case of the embedded model takes a moment, with eight repetitions.
pub fn small_config() -> RunConfig {
    RunConfig {
        methods: vec![Method::Eager, Method::Lazy, Method::LazyDisk],
        samples: 20,
        batch_size: 4,
        sweep_cs: vec![1.0],
        train_max_iter: 10,
        sweep_max_iter: 10,
        repetitions: Some(8),
        budget_s: None,
        ..RunConfig::default()
    }
}

/// A fixed environment.
pub fn environment() -> MachineRecord {
    let environment = Environment {
        date: "2024-05-06T07:08:09Z".to_owned(),
        cpu_model: Some("A processor".to_owned()),
        cores_logical: 2,
        cores_physical: Some(2),
        ram_mb: Some(1024.0),
        governor: None,
        kernel: Some("Linux 6.1".to_owned()),
        instruction_set: None,
        huge_pages: None,
        gpus: Vec::new(),
        driver: None,
        cuda: None,
        version: "0.1.0".to_owned(),
        rustc: None,
        profile: "release".to_owned(),
        target: None,
        features: Vec::new(),
        rustflags: None,
        commit: None,
        dirty: None,
        command_line: vec!["actbench".to_owned(), "run".to_owned()],
    };
    MachineRecord { environment, fingerprint: None, warnings: Vec::new(), resolution: None }
}

/// Peak memory with a resident peak of `rss_mb`.
pub fn peaks(rss_mb: f64) -> Peaks {
    Peaks {
        rss_mb: Some(rss_mb),
        anonymous_mb: Some(rss_mb - 2.0),
        heap_mb: rss_mb / 2.0,
        rss_anonymous_mb: Some(1.0),
        rss_file_mb: Some(2.0),
        load_rss_mb: Some(3.0),
        includes_loading: false,
    }
}

/// A row that completed in `seconds` with a peak of `rss_mb`.
pub fn ok_row(task: Task, method: Method, block: usize, seconds: f64, rss_mb: f64) -> Row {
    let outcome = CaseOutcome {
        elapsed_s: seconds,
        extract_s: 0.75 * seconds,
        train_eval_s: 0.25 * seconds,
        metric_name: "auroc".to_owned(),
        metric_value: 0.975,
        gpu: None,
        metrics: CaseMetrics { feature_digest: Some("d1".to_owned()), ..CaseMetrics::default() },
    };
    row(task, method, block, ExitReason::Completed(Box::new(outcome), peaks(rss_mb)))
}

/// The row of a case that exited for `reason`.
pub fn row(task: Task, method: Method, block: usize, reason: ExitReason) -> Row {
    let slot = Slot { task, method, ablation: None, block: Some(block) };
    record::row(slot, CaseExit { reason, stderr: String::new() })
}

/// An exit because of a predicted out-of-memory.
pub fn out_of_memory() -> ExitReason {
    ExitReason::Failed(Failure {
        message: "out of memory: activations would take 99 bytes".to_owned(),
        bad_input: false,
        out_of_memory_bytes: Some(99),
        predicted: true,
    })
}

/// The result file of a run with the observations `rows`.
pub fn file_of(config: RunConfig, rows: impl IntoIterator<Item = Row>) -> ResultFile {
    let mut results = ResultFile::new(config, environment());
    for row in rows {
        results.push(row);
    }
    results
}

/// Five blocks under a drift that affects both methods equally. Lazy is about twice as fast and uses 4/5 of the memory.
pub fn drifting(task: Task) -> Vec<Row> {
    let drift = [1.0, 3.0, 0.5, 2.0, 1.5];
    let noise = [1.0, 1.02, 0.99, 1.01, 0.98];
    let blocks = drift.iter().zip(noise).enumerate();
    blocks
        .flat_map(|(block, (drift, noise))| {
            [
                ok_row(task, Method::Eager, block, 4.0 * drift * noise, 1000.0 + block as f64),
                ok_row(task, Method::Lazy, block, 2.0 * drift, 800.0),
            ]
        })
        .collect()
}

/// Blocks of `train` with the seconds of eager and lazy.
pub fn file_of_times(times: impl IntoIterator<Item = (f64, f64)>) -> ResultFile {
    let config = RunConfig { tasks: vec![Task::Train], methods: vec![Method::Eager, Method::Lazy], ..small_config() };
    let block = |(block, (eager, lazy)): (usize, (f64, f64))| {
        [ok_row(Task::Train, Method::Eager, block, eager, 50.0), ok_row(Task::Train, Method::Lazy, block, lazy, 30.0)]
    };
    file_of(config, times.into_iter().enumerate().flat_map(block))
}
