//! `actbench matrix`: runs every cell of a file, and saves each when it has finished.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;

use super::calibration::CalibrationArgs;
use super::matrix_file::{MatrixFileArgs, cell_error, run_args};
use super::plan::list_cells;
use super::run::{self, RunArgs};
use super::shard_flag::resolved;
use super::stdout;
use crate::case::{Fault, Method, Task};
use crate::error::{Error, Result};
use crate::matrix::directory::{MatrixDirectory, MatrixManifest};
use crate::matrix::order::order;
use crate::matrix::{CellFlags, RunMatrix};
use crate::own_output::refuse_dash;
use crate::planner::job::Job;
use crate::quantities::rounded_duration;
use crate::report::sentence::sentence;
use crate::results::{ResultFile, Status};
use crate::runner::{RunOptions, interrupt, run as run_cases};
use crate::shard::ShardFlag;
use crate::workload::{Preflight, preflight_with_data};
use pairgate::stderr_line;

/// Run every cell of a matrix: models x samples x layers x pooling x data types x batch sizes, by all methods.
///
/// A TOML file lists the values to vary; all other settings have the defaults of `run`. The seed shuffles the cells. Each cell is
/// saved as a separate result file when it has finished. A method that does not fit becomes an `oom` row, and the other methods
/// still run. `actbench report DIR` and `actbench recommend DIR` read the directory.
#[derive(Args, Clone, Debug)]
#[command(
    before_help = "Examples:\n  \
    actbench matrix --preset small --dry-run\n  \
    actbench matrix --preset small --out small\n  \
    actbench matrix mine.toml --out mine --resume\n  \
    actbench matrix --preset paper --shard 1/3 --out shard-1",
    after_help = "A file:\n  \
    [settings]                        # flags of `actbench run`, without dashes\n  \
    dataset = \"embedded:mixed\"\n  \
    repetitions = 5\n\n  \
    [[grid]]                          # every combination of its lists is a cell; there may be several grids\n  \
    models = [\"synthetic:llama-3.2-1b\", \"./smollm2\"]\n  \
    samples = [200, 2000]\n  \
    layers = [8, \"all\"]               # pools, dtypes and batch-sizes are lists too\n\n\
    Exit status: 0 all cells are saved (an oom row is not a failure), 1 a case failed otherwise, 2 bad usage or input,\n\
    130 interrupted; finished cells are kept, and --resume runs the rest."
)]
pub struct MatrixArgs {
    /// The matrix.
    #[command(flatten)]
    pub file: MatrixFileArgs,
    /// Directory for the results, one file per cell
    #[arg(long, default_value = "matrix", value_name = "DIR")]
    pub out: PathBuf,
    /// Resume the matrix of the directory: finished cells are kept
    #[arg(long)]
    pub resume: bool,
    /// List the cells with their predicted time, memory and disk space, and run none
    #[arg(long)]
    pub dry_run: bool,
    /// Run only every N-th cell, from the I-th on; `actbench merge` merges the directories. auto or auto/N: I from the launcher,
    /// as for `actbench cache`
    #[arg(long, default_value = "1/1", value_name = "I/N")]
    pub shard: ShardFlag,
    /// The source of rates.
    #[command(flatten)]
    pub calibration: CalibrationArgs,
    /// Print the predictions of --dry-run as JSON
    #[arg(long, requires = "dry_run")]
    pub json: bool,
    /// Directory for cache files while cells run [default: the directory of the results]
    #[arg(long, value_name = "DIR")]
    pub cache_dir: Option<PathBuf>,
    /// Show no progress
    #[arg(long, short)]
    pub quiet: bool,
    /// Inject a failure into a case, for tests: TASK/METHOD=FAULT
    #[arg(long, hide = true, value_parser = run::parse_fault)]
    pub inject_fault: Vec<(Task, Method, Fault)>,
}

/// A cell that was checked and is about to run.
struct CheckedCell {
    cell: CellFlags,
    args: RunArgs,
    preflight: Preflight,
    /// Floating-point operations of its cases, from which the remaining time is estimated.
    work: f64,
}

/// Runs the command.
///
/// # Errors
/// An invalid file or settings, or a directory that cannot be used.
pub fn matrix(args: &MatrixArgs) -> Result<ExitCode> {
    // Before the input is read: planning many cells takes long.
    interrupt::install()?;
    refuse_dash(&args.out, "--out")?;
    run::check_cache_directory(args.cache_dir.as_deref())?;
    let (source, matrix) = args.file.read()?;
    let shard = resolved(args.shard, args.quiet)?;
    let mine = order(matrix.cells.len(), matrix.seed, shard);
    if args.dry_run {
        let mut listed = mine;
        listed.sort_unstable();
        let cells: Vec<&CellFlags> = listed.iter().map(|index| &matrix.cells[*index]).collect();
        list_cells(&cells, &args.file.origin(), &args.calibration, args.json, args.quiet)?;
        return Ok(ExitCode::SUCCESS);
    }
    let manifest = MatrixManifest::new(&matrix, shard);
    let directory = MatrixDirectory::open(&args.out, &manifest, &source, args.resume)?;
    let checked = match check_cells(args, &matrix, &mine, &directory) {
        Err(Error::Interrupted) => return Ok(interrupted(args, &directory, &matrix, &mine)),
        checked => checked?,
    };
    let finished = mine.len() - checked.len();
    if finished > 0 && !args.quiet {
        stderr_line!("{finished} of {} cells have already finished", mine.len());
    }
    let mut estimate = TimeEstimate::new(&checked);
    let mut succeeded = true;
    for (number, checked) in checked.iter().enumerate() {
        let title =
            format!("cell {} of {}, {}{}", finished + number + 1, mine.len(), checked.cell.name, estimate.remaining());
        let options = RunOptions {
            output: directory.running_path(&checked.cell),
            cache_directory: Some(args.cache_dir.clone().unwrap_or_else(|| directory.path().to_path_buf())),
            quiet: args.quiet,
            title: Some(title),
            faults: args.inject_fault.clone(),
            ..checked.args.options(&checked.preflight, Instant::now())?
        };
        let report = match run_cases(checked.preflight.config.clone(), &options) {
            Ok(report) => report,
            Err(error) => {
                directory.discard(&checked.cell);
                return Err(error);
            }
        };
        match report.stopped {
            None => {
                directory.finish(&checked.cell, &report.results)?;
                print_summary(&checked.cell, &report.results);
                succeeded &= all_succeeded(&report.results);
            }
            Some(Error::Interrupted) => {
                directory.discard(&checked.cell);
                return Ok(interrupted(args, &directory, &matrix, &mine));
            }
            // The error concerns this cell alone: what all cells need was checked before the first one ran.
            Some(error) => {
                directory.discard(&checked.cell);
                stderr_line!("error: cell {}: {error}", checked.cell.name);
                succeeded = false;
            }
        }
        estimate.add_finished(checked.work);
    }
    if !args.quiet {
        stderr_line!("the results are in {0}; `actbench report {0} --out report` writes a report", args.out.display());
    }
    Ok(if succeeded { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Reads and checks the input of every unfinished cell, before any cell runs.
fn check_cells(
    args: &MatrixArgs,
    matrix: &RunMatrix,
    mine: &[usize],
    directory: &MatrixDirectory,
) -> Result<Vec<CheckedCell>> {
    let origin = args.file.origin();
    let mut checked = Vec::new();
    let mut warned = Vec::new();
    for cell in mine.iter().map(|index| &matrix.cells[*index]).filter(|cell| !directory.is_finished(cell)) {
        if interrupt::requested() {
            return Err(Error::Interrupted);
        }
        let run_args = run_args(&cell.flags).map_err(Error::usage)?;
        let (preflight, data) =
            preflight_with_data(&run_args.config(), args.quiet).map_err(|error| cell_error(&origin, cell, error))?;
        for warning in preflight.warnings.iter().filter(|warning| !warned.contains(*warning)) {
            stderr_line!("warning: {}: {warning}", cell.name);
        }
        warned.extend(preflight.warnings.iter().cloned());
        if checked.is_empty() {
            let cache = args.cache_dir.as_deref().unwrap_or(directory.path());
            run::warn_of_cache_in_memory(&preflight.config, Some(cache));
        }
        let work = Job::from_data(&preflight.config, &data).flops()?;
        checked.push(CheckedCell { cell: cell.clone(), args: run_args, preflight, work });
    }
    Ok(checked)
}

/// Prints one sentence per task and lazy method; if there is nothing to compare, the exit reason of each method.
fn print_summary(cell: &CellFlags, results: &ResultFile) {
    stdout::line(&cell.name);
    let results = &results.with_shown_methods();
    for task in &results.config.tasks {
        let summary = results.task_summary(*task);
        let to_sentence = |(method, comparison)| sentence(*task, method, comparison, &results.rows);
        let sentences: Vec<String> = summary.by_method().filter_map(to_sentence).collect();
        sentences.iter().for_each(|sentence| stdout::line(format_args!("  {sentence}")));
        for method in results.config.methods.iter().filter(|_| sentences.is_empty()) {
            let mut own = results.rows.iter().filter(|row| (row.task, row.method) == (*task, *method));
            if let Some(row) = own.next() {
                stdout::line(format_args!("  {task}: {method} {}", row.reason.as_deref().unwrap_or("succeeded")));
            }
        }
    }
}

/// Whether every case succeeded or ran out of memory, and all features agree; prints failures on standard error.
fn all_succeeded(results: &ResultFile) -> bool {
    let accepted = [Status::Ok, Status::Oom];
    let disagree = results.config.tasks.iter().any(|task| results.task_summary(*task).digests_agree == Some(false));
    let succeeded = !disagree && results.rows.iter().all(|row| accepted.contains(&row.status));
    if !succeeded {
        run::verdict(results);
    }
    succeeded
}

fn interrupted(args: &MatrixArgs, directory: &MatrixDirectory, matrix: &RunMatrix, mine: &[usize]) -> ExitCode {
    let finished = mine.iter().filter(|index| directory.is_finished(&matrix.cells[**index])).count();
    stderr_line!(
        "error: interrupted; {finished} of {} cells are in {}; --resume runs the rest",
        mine.len(),
        args.out.display()
    );
    ExitCode::from(Error::Interrupted.exit_code())
}

/// Estimates the remaining time from the finished work.
struct TimeEstimate {
    start: Instant,
    finished: f64,
    total: f64,
}

impl TimeEstimate {
    fn new(cells: &[CheckedCell]) -> Self {
        let total = cells.iter().map(|cell| cell.work).sum();
        TimeEstimate { start: Instant::now(), finished: 0.0, total }
    }

    fn add_finished(&mut self, work: f64) {
        self.finished += work;
    }

    /// `, about 4 min 5 s left`; empty before the first cell has finished.
    fn remaining(&self) -> String {
        let seconds = self.start.elapsed().as_secs_f64() * (self.total - self.finished) / self.finished;
        match Duration::try_from_secs_f64(seconds) {
            Ok(left) if self.finished > 0.0 => format!(", about {} left", rounded_duration(left)),
            _ => String::new(),
        }
    }
}
