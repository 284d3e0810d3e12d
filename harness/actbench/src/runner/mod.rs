//! Runs cases, each in its own process, and records every observation.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use self::exit::{CaseExit, ExitReason};
use self::pacing::Pacing;
use self::progress::{RunLength, RunProgress};
use self::schedule::{Schedule, Slot};
use crate::atomic_file::{is_stream, temporary_directory};
use crate::case::{CaseSpec, Fault, Injection, Method, RunConfig, Task};
use crate::error::{Error, Result};
use crate::measure::conditions::{SystemCounters, Warning, during, short_line};
use crate::measure::machine_record::MachineRecord;
use crate::measure::page_cache;
use crate::results::adaptive::StoppingRule;
use crate::results::identity::RunIdentity;
use crate::results::{ResultFile, Status};
use pairgate::stderr_line;

pub mod child;
pub mod exit;
pub mod interrupt;
mod pacing;
mod progress;
pub mod protocol;
pub mod record;
pub mod schedule;

/// Options of a run that do not affect its measurements.
#[derive(Clone, Debug)]
pub struct RunOptions {
    /// The binary whose `worker` command is started for each case.
    pub binary: PathBuf,
    /// The start of the command, from which the time of an adaptive run counts.
    pub started: Instant,
    /// The result file, written after every case.
    pub output: PathBuf,
    /// The parent of the run's directory of cache files; none is the system's temporary directory.
    pub cache_directory: Option<PathBuf>,
    /// Time limit of a case.
    pub timeout: Option<Duration>,
    /// Print nothing on standard error.
    pub quiet: bool,
    /// Prefix of each case if the run is part of a matrix, such as `cell 3 of 12`.
    pub title: Option<String>,
    /// Digests of the data and the model, for the result file.
    pub identity: RunIdentity,
    /// Warnings about the data and the model, for the result file.
    pub input_warnings: Vec<String>,
    /// The model for the workers, already resolved: a directory or a preset.
    pub located_model: String,
    /// Failures to inject, for tests.
    pub faults: Vec<(Task, Method, Fault)>,
    /// Injected work and memory, for trials of the regression gate.
    pub injection: Injection,
}

/// The results of a run.
pub struct RunReport {
    /// All measurements.
    pub results: ResultFile,
    /// Why the run stopped early, if it did.
    pub stopped: Option<Error>,
}

/// Runs all cases of `config` (its layers filled in), warm-up first, and writes the result file after each.
///
/// A failed case is a row, and the run continues. It stops early if a case reports bad input before any case has completed,
/// because then all would fail in the same way, and when the user interrupts. The rows so far are kept.
///
/// # Errors
/// The result file or the directory of cache files cannot be written.
pub fn run(config: RunConfig, options: &RunOptions) -> Result<RunReport> {
    let parent = options.cache_directory.clone().unwrap_or_else(std::env::temp_dir);
    let directory = temporary_directory("actbench-run-", Some(&parent))?;
    let mut schedule = Schedule::new(&config)?;
    let length = length(&config, options.started, schedule.n_cases());
    let environment = environment(&config, options);
    let before = SystemCounters::read(Path::new("/"));
    let progress = RunProgress::new(length, options.title.as_deref(), options.quiet);
    let mut pacing = Pacing::new(&config, options.started);
    let mut results = ResultFile {
        identity: Some(options.identity.clone()),
        input_warnings: options.input_warnings.clone(),
        ..ResultFile::new(config, environment)
    };
    let mut stopped = None;
    let mut state = RunState { n_started: 0, any_completed: false, predicted_failures: Vec::new() };
    while stopped.is_none() {
        match pacing.next(&results) {
            Ok(block) => {
                let slots = schedule.block(block.number());
                stopped = run_block(&slots, &mut results, options, directory.path(), &progress, &mut state)?;
            }
            Err(end) => {
                results.end = Some(end);
                write_unless_stream(&results, options)?;
                break;
            }
        }
    }
    progress.finish();
    let disturbances = during(&SystemCounters::read(Path::new("/")).since(&before));
    warn(&disturbances, options);
    if !disturbances.is_empty() && !results.rows.is_empty() {
        results.environment.warnings.extend(disturbances);
        write_unless_stream(&results, options)?;
    }
    if is_stream(&options.output) && !results.rows.is_empty() {
        results.write(&options.output)?;
    }
    Ok(RunReport { results, stopped })
}

/// The environment of the run. Its warnings are also printed, in one line.
/// The length of a run of blocks of `n_cases` cases that began at `started`.
fn length(config: &RunConfig, started: Instant, n_cases: usize) -> RunLength {
    let rule = StoppingRule::default();
    match (config.repetitions, config.budget()) {
        (Some(repetitions), _) => RunLength::Cases((config.warmup + repetitions) * n_cases),
        (None, Some(time)) => RunLength::Precision { least: n_cases, started, time },
        (None, None) => {
            RunLength::Precision { least: (config.warmup + rule.min_blocks) * n_cases, started, time: rule.time }
        }
    }
}

fn environment(config: &RunConfig, options: &RunOptions) -> MachineRecord {
    let mut environment = MachineRecord::read();
    let model = Path::new(&options.located_model);
    // The weights of a preset are generated, not read.
    if model.exists() {
        environment.warnings.extend(page_cache::warning(model, config.warmup));
    }
    warn(&environment.warnings, options);
    environment
}

fn warn(warnings: &[Warning], options: &RunOptions) {
    if let Some(line) = short_line(warnings).filter(|_| !options.quiet) {
        stderr_line!("warning: {line}");
    }
}

/// Writes the rows so far. A device or a pipe gets all rows at the end: there, a second file would follow the first.
fn write_unless_stream(results: &ResultFile, options: &RunOptions) -> Result<()> {
    if is_stream(&options.output) { Ok(()) } else { results.write(&options.output) }
}

/// The state of a run between blocks.
struct RunState {
    /// Cases that were started.
    n_started: usize,
    /// Whether any case completed.
    any_completed: bool,
    /// Cases that were predicted to exceed the memory limit, with their exits.
    predicted_failures: Vec<(Slot, CaseExit)>,
}

/// Runs the cases of a block and returns the reason to stop the run, if there is one.
fn run_block(
    slots: &[Slot],
    results: &mut ResultFile,
    options: &RunOptions,
    directory: &Path,
    progress: &RunProgress,
    state: &mut RunState,
) -> Result<Option<Error>> {
    for &slot in slots {
        let index = state.n_started;
        state.n_started += 1;
        progress.begin(index, slot);
        // A case that was predicted to exceed the memory limit is not loaded again: the prediction would be the same.
        let known = state
            .predicted_failures
            .iter()
            .find(|(known, _)| known.case() == slot.case())
            .map(|(_, exit)| exit.clone());
        let exit = match known.map_or_else(|| run_slot(&results.config, slot, options, directory, progress), Ok) {
            Ok(exit) => exit,
            Err(error) => return Ok(Some(error)),
        };
        if matches!(&exit.reason, ExitReason::Failed(failure) if failure.predicted) {
            state.predicted_failures.push((slot, exit.clone()));
        }
        let bad_input = match &exit.reason {
            ExitReason::Failed(failure) if failure.bad_input && !state.any_completed => Some(failure.message.clone()),
            _ => None,
        };
        let row = record::row(slot, exit);
        state.any_completed |= row.status == Status::Ok;
        // Bad input ends the run with its error message; progress would print the same text a second time.
        if bad_input.is_none() {
            progress.end(index, slot, &row);
        }
        if slot.block.is_some() {
            results.push(row);
            write_unless_stream(results, options)?;
        }
        if let Some(message) = bad_input {
            return Ok(Some(Error::Usage(message)));
        }
    }
    Ok(None)
}

/// Runs one case with its own temporary directory.
fn run_slot(
    config: &RunConfig,
    slot: Slot,
    options: &RunOptions,
    directory: &Path,
    progress: &RunProgress,
) -> Result<CaseExit> {
    let case_directory = tempfile::Builder::new()
        .prefix("case-")
        .tempdir_in(directory)
        .map_err(Error::io("create a directory in", directory))?;
    let fault = options.faults.iter().find(|fault| (fault.0, fault.1) == (slot.task, slot.method)).map(|fault| fault.2);
    let no_opt =
        config.no_opt.iter().cloned().chain(slot.ablation.map(|ablation| ablation.name().to_owned())).collect();
    let spec = CaseSpec {
        task: slot.task,
        method: slot.method,
        config: RunConfig { model: Some(options.located_model.clone()), no_opt, ..config.clone() },
        cache_directory: case_directory.path().to_path_buf(),
        fault,
        injection: options.injection,
    };
    child::run(&options.binary, &spec, options.timeout, &mut |message| progress.message(message))
}
