//! Runs cases, each in a process of its own, and keeps every observation.

use std::path::{Path, PathBuf};
use std::time::Duration;

use self::ending::{Ended, Ending};
use self::pacing::Pacing;
use self::progress::RunProgress;
use self::schedule::{Schedule, Slot};
use crate::error::{Error, Result};
use crate::measure::conditions::{SystemCounters, Warning, during, short_line};
use crate::measure::machine_record::MachineRecord;
use crate::measure::page_cache;
use crate::results::{ResultFile, Row, Status};
use crate::workload::case::{CaseSpec, Fault, Method, RunConfig, Task};
use crate::workload::injection::Injection;

pub mod child;
pub mod ending;
pub mod interrupt;
mod pacing;
pub mod program;
mod progress;
pub mod protocol;
pub mod schedule;
mod streams;

/// How a run is carried out, beside what is run.
#[derive(Clone, Debug)]
pub struct RunOptions {
    /// The program whose `worker` command is started for each case.
    pub program: PathBuf,
    /// The result file, written after every case.
    pub output: PathBuf,
    /// Where the run's folder of cache files is made; none is the system's folder for temporary files.
    pub cache_folder: Option<PathBuf>,
    /// The longest a case may take.
    pub timeout: Option<Duration>,
    /// Show nothing on standard error.
    pub quiet: bool,
    /// What stands before each case where the run is a part of something larger, such as `cell 3 of 12`.
    pub title: Option<String>,
    /// What the children are told the model is, once it was found: a folder or a preset.
    pub located_model: String,
    /// Failures to act out, for tests.
    pub faults: Vec<(Task, Method, Fault)>,
    /// Work and memory beyond the cases' own, to try the regression gate on.
    pub injection: Injection,
}

/// How a run ended.
pub struct RunReport {
    /// Everything measured.
    pub results: ResultFile,
    /// Why the run stopped before its end, if it did.
    pub stopped: Option<Error>,
}

/// Runs all cases of `config` (its layers filled in), warm-up first, and writes the result file after each.
///
/// A case that fails is a row; the run goes on. It stops early when a case says that its input is bad before any case
/// came through, for then all would fail alike, and when the user interrupts; the rows so far are kept.
///
/// # Errors
/// The result file or the folder for cache files cannot be written.
pub fn run(config: RunConfig, options: &RunOptions) -> Result<RunReport> {
    let parent = options.cache_folder.clone().unwrap_or_else(std::env::temp_dir);
    let folder = tempfile::Builder::new()
        .prefix("actbench-run-")
        .tempdir_in(&parent)
        .map_err(Error::io("create a folder in", &parent))?;
    let mut schedule = Schedule::of(&config)?;
    let n_cases = config.repetitions.map(|repetitions| (config.warmup + repetitions) * schedule.n_cases());
    let environment = environment(&config, options);
    let before = SystemCounters::read(Path::new("/"));
    let progress = RunProgress::new(n_cases, options.title.as_deref(), options.quiet);
    let mut pacing = Pacing::new(&config);
    let mut results = ResultFile::new(config, environment);
    let mut stopped = None;
    let mut told = Told { index: 0, any_well: false, hopeless: Vec::new() };
    while stopped.is_none() {
        match pacing.next(&results) {
            Ok(block) => {
                let slots = schedule.block(block.counted());
                stopped = run_block(&slots, &mut results, options, folder.path(), &progress, &mut told)?;
            }
            Err(end) => {
                results.end = Some(end);
                results.write(&options.output)?;
                break;
            }
        }
    }
    progress.finish();
    let disturbed = during(&SystemCounters::read(Path::new("/")).since(&before));
    tell(&disturbed, options);
    if !disturbed.is_empty() && !results.rows.is_empty() {
        results.environment.warnings.extend(disturbed);
        results.write(&options.output)?;
    }
    Ok(RunReport { results, stopped })
}

/// Where the run takes place, with what disturbs it, which is also told in a line.
fn environment(config: &RunConfig, options: &RunOptions) -> MachineRecord {
    let mut environment = MachineRecord::read();
    let model = Path::new(&options.located_model);
    // A preset's weights are made and not read.
    if model.exists() {
        environment.warnings.extend(page_cache::warning(model, config.warmup));
    }
    tell(&environment.warnings, options);
    environment
}

fn tell(warnings: &[Warning], options: &RunOptions) {
    if let Some(line) = short_line(warnings).filter(|_| !options.quiet) {
        eprintln!("warning: {line}");
    }
}

/// How far a run has come.
struct Told {
    /// Cases that were begun.
    index: usize,
    /// Whether any came through.
    any_well: bool,
    /// Cases that were predicted not to fit, and how they ended.
    hopeless: Vec<(Slot, Ended)>,
}

/// The cases of a block; gives why the run stops here, if it does.
fn run_block(
    slots: &[Slot],
    results: &mut ResultFile,
    options: &RunOptions,
    folder: &Path,
    progress: &RunProgress,
    told: &mut Told,
) -> Result<Option<Error>> {
    for &slot in slots {
        let index = told.index;
        told.index += 1;
        progress.begin(index, slot);
        let known = told.hopeless.iter().find(|(known, _)| known.case() == slot.case()).map(|(_, ended)| ended.clone());
        let ended = match known.map_or_else(|| run_slot(&results.config, slot, options, folder, progress), Ok) {
            Ok(ended) => ended,
            Err(error) => return Ok(Some(error)),
        };
        // What was predicted not to fit is not loaded again to hear the same.
        if matches!(&ended.ending, Ending::Failed(failure) if failure.predicted) {
            told.hopeless.push((slot, ended.clone()));
        }
        let bad_input = match &ended.ending {
            Ending::Failed(failure) if failure.bad_input && !told.any_well => Some(failure.message.clone()),
            _ => None,
        };
        let row = Row::new(slot, ended);
        told.any_well |= row.status == Status::Ok;
        // Bad input ends the run with its one line; the same line as progress would be a second.
        if bad_input.is_none() {
            progress.end(index, slot, &row);
        }
        if slot.block.is_some() {
            results.push(row);
            results.write(&options.output)?;
        }
        if let Some(message) = bad_input {
            return Ok(Some(Error::Usage(message)));
        }
    }
    Ok(None)
}

/// One case, with a folder of its own that is gone afterwards.
fn run_slot(
    config: &RunConfig,
    slot: Slot,
    options: &RunOptions,
    folder: &Path,
    progress: &RunProgress,
) -> Result<Ended> {
    let own =
        tempfile::Builder::new().prefix("case-").tempdir_in(folder).map_err(Error::io("create a folder in", folder))?;
    let fault = options.faults.iter().find(|fault| (fault.0, fault.1) == (slot.task, slot.method)).map(|fault| fault.2);
    let no_opt = config.no_opt.iter().cloned().chain(slot.ablation.map(|it| it.name().to_owned())).collect();
    let spec = CaseSpec {
        task: slot.task,
        method: slot.method,
        config: RunConfig { model: Some(options.located_model.clone()), no_opt, ..config.clone() },
        cache_folder: own.path().to_path_buf(),
        fault,
        injection: options.injection,
    };
    child::run(&options.program, &spec, options.timeout, &mut |message| progress.hear(message))
}
