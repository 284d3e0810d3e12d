//! `actbench run`: both workloads, lazy compared with eager, repeated; a result file and a table.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};

use super::defaults;
use super::halved;
use super::settings::{SettingsArgs, TrainProbeArgs};
use super::stdout;
use crate::atomic_file::lock_output;
use crate::case::{Fault, Injection, Method, RunConfig, Task};
use crate::error::{Error, Result};
use crate::measure::mounts::is_in_memory;
use crate::report::table;
use crate::results::{ResultFile, Row, Status, check_output};
use crate::runner::{RunOptions, interrupt, run as run_cases};
use crate::workload::{Preflight, preflight};
use pairgate::command_line::parse_duration;
use pairgate::stderr_line;

/// Run both workloads with eager and lazy extraction, each case in its own process, repeated in random order.
///
/// Prints the table on standard output and progress and warnings on standard error; the result file has every observation. An
/// existing result file is replaced, and a file of other content is not.
#[derive(Args, Clone, Debug)]
#[command(
    // `-5` is then an invalid value, reported with the name of its flag, and not an unknown flag.
    allow_negative_numbers = true,
    before_help = "Examples:\n  \
    actbench run\n  \
    actbench run --model ./smollm2 --dataset repe --data-dir ./data --lazy-cache-disk\n  \
    actbench run --tasks sweep --methods eager,lazy,lazy-disk --samples 2000 --budget 1h\n  \
    actbench run --tasks sweep --methods lazy --ablate\n  \
    actbench run --no-opt prefix --timeout 10m --output without-prefix.json",
    after_help = "Exit status: 0 all cases completed, 1 a case failed, 2 bad usage or input, 130 interrupted."
)]
pub struct RunArgs {
    /// Tasks to run
    #[arg(long, alias = "task", value_delimiter = ',', default_value = defaults::TASKS.as_str(), value_name = "TASK,...")]
    pub tasks: Vec<Task>,
    /// Methods to run; lazy-disk is lazy with the on-disk feature cache, in addition to lazy
    #[arg(long, value_delimiter = ',', default_value = defaults::METHODS.as_str(), value_name = "METHOD,...")]
    pub methods: Vec<Method>,
    /// The work of the run.
    #[command(flatten)]
    pub settings: SettingsArgs,
    /// The probes of the task train.
    #[command(flatten)]
    pub train_probe: TrainProbeArgs,
    /// Also run the lazy plans without each optimizer rule, and without all, to measure the effect of each
    #[arg(long)]
    pub ablate: bool,
    /// Number of measured repetitions [default: at least 6, until every time ratio is precise to 1.5 % or 60 s have passed]
    #[arg(long, value_name = "N")]
    pub repetitions: Option<usize>,
    /// Time limit of a run without --repetitions, in place of the default 60 s: it ends earlier if every time ratio is precise to
    /// 1.5 %, or after 50 repetitions; at least one is measured
    #[arg(long, value_parser = parse_duration, conflicts_with = "repetitions", value_name = "TIME")]
    pub budget: Option<Duration>,
    /// Number of warm-up repetitions (discarded)
    #[arg(long, default_value_t = RunConfig::default().warmup, value_name = "N")]
    pub warmup: usize,
    /// Time limit of a case: seconds, or with a unit as in 90s, 10m, 2h [default: no limit]
    #[arg(long, value_parser = parse_duration, value_name = "TIME")]
    pub timeout: Option<Duration>,
    /// Directory for cache files during the run [default: the system's temporary directory]
    #[arg(long, value_name = "DIR")]
    pub cache_dir: Option<PathBuf>,
    /// Result file
    #[arg(long, default_value = "results.json", value_name = "FILE")]
    pub output: PathBuf,
    /// Print the result file instead of the table
    #[arg(long)]
    pub json: bool,
    /// Show no progress
    #[arg(long, short)]
    pub quiet: bool,
    /// Inject a failure into a case: TASK/METHOD=FAULT; for tests of the runner
    #[arg(long, hide = true, value_parser = parse_fault)]
    pub inject_fault: Vec<(Task, Method, Fault)>,
    /// Inject this many units of work into the case; for trials of the regression gate
    #[arg(long, hide = true, default_value_t = 0, value_name = "UNITS")]
    pub inject_work: u64,
    /// Inject an allocation of this many bytes into the case; for trials of the regression gate
    #[arg(long, hide = true, default_value_t = 0, value_name = "BYTES")]
    pub inject_memory: u64,
}

impl RunArgs {
    /// The settings, without duplicates among tasks and methods.
    pub fn config(&self) -> RunConfig {
        let (tasks, methods) = (distinct(&self.tasks), distinct(&self.methods));
        RunConfig {
            ablate: self.ablate,
            train_c: self.train_probe.train_c,
            train_max_iter: self.train_probe.train_max_iter,
            budget_s: self.budget.map(|budget| budget.as_secs_f64()),
            ..self.settings.config(tasks, methods, self.repetitions, self.warmup)
        }
    }

    /// The options of a run whose command began at `started` and that was checked by `preflight`.
    ///
    /// # Errors
    /// The path of this binary cannot be determined.
    pub fn options(&self, preflight: &Preflight, started: Instant) -> Result<RunOptions> {
        Ok(RunOptions {
            binary: std::env::current_exe().map_err(Error::io("find", "the path of this binary"))?,
            started,
            output: self.output.clone(),
            cache_directory: self.cache_dir.clone(),
            timeout: self.timeout,
            quiet: self.quiet,
            title: None,
            identity: preflight.identity.clone(),
            input_warnings: preflight.warnings.clone(),
            located_model: preflight.located_model.clone(),
            faults: self.inject_fault.clone(),
            injection: Injection { work_units: self.inject_work, memory_bytes: self.inject_memory },
        })
    }
}

/// Runs the command.
///
/// # Errors
/// Bad settings or input, or a result file that cannot be written.
pub fn run(args: &RunArgs) -> Result<ExitCode> {
    let started = Instant::now();
    interrupt::install()?;
    check_output(&args.output)?;
    check_cache_directory(args.cache_dir.as_deref())?;
    let _lock = lock_output(&args.output, "run")?;
    let config = args.config();
    let preflight = preflight(&config, args.quiet)?;
    for warning in &preflight.warnings {
        stderr_line!("warning: {warning}");
    }
    if let Some(note) = preflight.device_note.as_ref().filter(|_| !args.quiet) {
        stderr_line!("note: {note}");
    }
    warn_of_cache_in_memory(&preflight.config, args.cache_dir.as_deref());
    if interrupt::requested() {
        return Err(Error::Interrupted);
    }
    let options = args.options(&preflight, started)?;
    let report = run_cases(preflight.config, &options)?;
    if !report.results.rows.is_empty() {
        print(args.json, &report.results)?;
    }
    if report.stopped.is_none() && !args.quiet {
        stderr_line!("wrote {}", args.output.display());
    }
    match report.stopped {
        Some(Error::Interrupted) => {
            let kept = match report.results.rows.len() {
                0 => "no case was completed".to_owned(),
                rows => format!("{rows} completed cases are in {}", args.output.display()),
            };
            stderr_line!("error: interrupted; {kept}");
            Ok(ExitCode::from(Error::Interrupted.exit_code()))
        }
        Some(error) => Err(error),
        None if verdict(&report.results) => Ok(ExitCode::SUCCESS),
        None => Ok(ExitCode::FAILURE),
    }
}

/// Checks the directory of `--cache-dir` before any work.
///
/// # Errors
/// It is not a directory.
pub(super) fn check_cache_directory(directory: Option<&Path>) -> Result<()> {
    match directory {
        Some(directory) if !directory.is_dir() => {
            let directory = directory.display();
            Err(Error::usage(format!("--cache-dir {directory} is not a directory; create it or use another one")))
        }
        _ => Ok(()),
    }
}

/// Warns if the cache directory is in memory: cache files then count as memory, and the disk cache saves none.
pub(super) fn warn_of_cache_in_memory(config: &RunConfig, cache_directory: Option<&Path>) {
    let directory = cache_directory.map_or_else(std::env::temp_dir, Path::to_path_buf);
    if config.methods.iter().any(|method| config.caches_on_disk(*method)) && is_in_memory(&directory) {
        stderr_line!(
            "warning: {} keeps its files in memory, so the disk cache saves no memory; use a directory on a disk (--cache-dir)",
            directory.display()
        );
    }
}

fn print(json: bool, results: &ResultFile) -> Result<()> {
    let text = if json {
        serde_json::to_string_pretty(results)
            .map_err(|error| Error::internal(format!("the results cannot be written as JSON: {error}")))?
            + "\n"
    } else {
        table::render(results, stdout::terminal_width())
    };
    stdout::text(text);
    Ok(())
}

/// Whether all cases completed with the same features; prints the failures on standard error.
pub(super) fn verdict(results: &ResultFile) -> bool {
    let results = &results.with_shown_methods();
    let mut success = true;
    for task in &results.config.tasks {
        for method in &results.config.methods {
            let rows = results.rows.iter().filter(|row| (row.task, row.method) == (*task, *method));
            let (ok, failed): (Vec<&Row>, Vec<&Row>) = rows.partition(|row| row.status == Status::Ok);
            if let Some(first) = failed.first() {
                success = false;
                let reason = first.reason.as_deref().unwrap_or("no reason given");
                let total = ok.len() + failed.len();
                stderr_line!("error: {task} {method}: {} of {total} failed, {}: {reason}", failed.len(), first.status);
            }
        }
        let task_rows = results.rows.iter().filter(|row| row.task == *task);
        let halvings = task_rows.filter_map(|row| row.metrics.batches_halved).max();
        halved::warn(&task.to_string(), halvings.unwrap_or(0));
        if results.task_summary(*task).digests_agree == Some(false) {
            success = false;
            stderr_line!("error: {task}: the methods trained their probes on different features; the digests are");
            for row in results.rows.iter().filter(|row| row.task == *task && row.status == Status::Ok) {
                let repetition = row.repetition.map_or(0, |repetition| repetition + 1);
                let digest = row.feature_digest().unwrap_or("none");
                stderr_line!("error:   {}, repetition {repetition}: {digest}", row.method);
            }
        }
    }
    success
}

/// The values in order, each once.
pub(super) fn distinct<T: Copy + PartialEq>(values: &[T]) -> Vec<T> {
    let mut distinct = Vec::new();
    for value in values {
        if !distinct.contains(value) {
            distinct.push(*value);
        }
    }
    distinct
}

pub(super) fn parse_fault(text: &str) -> Result<(Task, Method, Fault), String> {
    let parts = text.split_once('=').and_then(|(case, fault)| Some((case.split_once('/')?, fault)));
    let ((task, method), fault) = parts.ok_or("write TASK/METHOD=FAULT")?;
    Ok((Task::from_str(task, false)?, Method::from_str(method, false)?, Fault::from_str(fault, false)?))
}
