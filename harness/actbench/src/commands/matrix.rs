//! `actbench matrix`: every cell of a file run one after another, each saved as it ends.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;

use super::matrix_file::{MatrixFileArgs, run_args};
use super::plan::{CalibrationArgs, dry_run};
use super::run::{self, RunArgs};
use super::stdout;
use crate::case::{Fault, Method, Task};
use crate::error::{Error, Result};
use crate::matrix::folder::{Manifest, MatrixFolder};
use crate::matrix::order::{Shard, order};
use crate::matrix::{CellFlags, Matrix};
use crate::planner::job::Job;
use crate::report::sentence::sentence;
use crate::results::{ResultFile, Status};
use crate::runner::{RunOptions, interrupt, run as run_cases};
use crate::workload::{Preflight, preflight_with_data};

/// Run every cell of a matrix: models x samples x layers x pooling x types x batch sizes, by all methods.
///
/// A file in TOML says what is varied; whatever it does not name is fixed at the default of `run`. Cells run in an order that
/// is shuffled by the seed, and each is saved as it ends as a result file of its own. A method that does not fit is an `oom`
/// row, and the others go on. `actbench report DIR` and `actbench recommend DIR` read the folder.
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
    Exit status: 0 all cells are saved (an oom row is an answer), 1 a case failed otherwise, 2 bad usage or input,\n\
    130 interrupted; finished cells are kept and --resume goes on."
)]
pub struct MatrixArgs {
    /// Which matrix.
    #[command(flatten)]
    pub file: MatrixFileArgs,
    /// Folder of the results, one file a cell
    #[arg(long, default_value = "matrix", value_name = "DIR")]
    pub out: PathBuf,
    /// Go on with the folder: cells that are done stay
    #[arg(long)]
    pub resume: bool,
    /// List the cells with the time, memory and disk that they are predicted to take, and run none
    #[arg(long)]
    pub dry_run: bool,
    /// Run every N-th cell alone, from the I-th on; `actbench merge` joins the folders
    #[arg(long, default_value = "1/1", value_name = "I/N")]
    pub shard: Shard,
    /// What predictions rest on.
    #[command(flatten)]
    pub calibration: CalibrationArgs,
    /// Print what --dry-run predicts as JSON
    #[arg(long, requires = "dry_run")]
    pub json: bool,
    /// Folder for cache files while cells run [default: the folder of the results]
    #[arg(long, value_name = "DIR")]
    pub cache_dir: Option<PathBuf>,
    /// Show no progress
    #[arg(long, short)]
    pub quiet: bool,
    /// Let a case act out a failure: TASK/METHOD=FAULT; for tests
    #[arg(long, hide = true, value_parser = run::parse_fault)]
    pub inject_fault: Vec<(Task, Method, Fault)>,
}

/// A cell that is to run.
struct Ready {
    cell: CellFlags,
    args: RunArgs,
    preflight: Preflight,
    /// Floating-point operations of its cases, by which the time that is left is estimated.
    work: f64,
}

/// Runs the command.
///
/// # Errors
/// A file or settings that are wrong, or a folder that cannot be used.
pub fn matrix(args: &MatrixArgs) -> Result<ExitCode> {
    let (source, matrix) = args.file.read()?;
    let mine = order(matrix.cells.len(), matrix.seed, args.shard);
    if args.dry_run {
        let mut listed = mine;
        listed.sort_unstable();
        let cells: Vec<&CellFlags> = listed.iter().map(|index| &matrix.cells[*index]).collect();
        dry_run(&cells, &args.calibration, args.json, args.quiet)?;
        return Ok(ExitCode::SUCCESS);
    }
    let folder = MatrixFolder::open(&args.out, &Manifest::new(&matrix, args.shard), &source, args.resume)?;
    interrupt::install()?;
    let ready = match check_cells(args, &matrix, &mine, &folder) {
        Err(Error::Interrupted) => return Ok(interrupted(args, &folder, &matrix, &mine)),
        ready => ready?,
    };
    let before = mine.len() - ready.len();
    if before > 0 && !args.quiet {
        eprintln!("{before} of {} cells are done already", mine.len());
    }
    let mut clock = Clock::new(&ready);
    let mut well = true;
    for (number, ready) in ready.iter().enumerate() {
        let title = format!("cell {} of {}, {}{}", before + number + 1, mine.len(), ready.cell.name, clock.left());
        let options = RunOptions {
            output: folder.running(&ready.cell),
            cache_directory: Some(args.cache_dir.clone().unwrap_or_else(|| folder.path().to_path_buf())),
            quiet: args.quiet,
            title: Some(title),
            faults: args.inject_fault.clone(),
            ..ready.args.options(ready.preflight.located_model.clone())?
        };
        let report = match run_cases(ready.preflight.config.clone(), &options) {
            Ok(report) => report,
            Err(error) => {
                folder.discard(&ready.cell);
                return Err(error);
            }
        };
        match report.stopped {
            None => {
                folder.finish(&ready.cell, &report.results)?;
                tell(&ready.cell, &report.results);
                well &= came_through(&report.results);
            }
            Some(Error::Interrupted) => {
                folder.discard(&ready.cell);
                return Ok(interrupted(args, &folder, &matrix, &mine));
            }
            // Of this cell alone: what all have in common was checked before the first.
            Some(error) => {
                folder.discard(&ready.cell);
                eprintln!("error: cell {}: {error}", ready.cell.name);
                well = false;
            }
        }
        clock.done(ready.work);
    }
    if !args.quiet {
        eprintln!(
            "the results are in {0}; `actbench report {0} --out report` makes a page of them",
            args.out.display()
        );
    }
    Ok(if well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Reads and checks what each cell that is not done needs, before any runs.
fn check_cells(args: &MatrixArgs, matrix: &Matrix, mine: &[usize], folder: &MatrixFolder) -> Result<Vec<Ready>> {
    let mut ready = Vec::new();
    let mut warned = Vec::new();
    for cell in mine.iter().map(|index| &matrix.cells[*index]).filter(|cell| !folder.is_done(cell)) {
        if interrupt::requested() {
            return Err(Error::Interrupted);
        }
        let run_args = run_args(&cell.flags).map_err(Error::usage)?;
        let of_cell = |error: Error| match error {
            Error::Usage(what) => Error::input(format!("cell {}", cell.name), what),
            other => other,
        };
        let (preflight, data) = preflight_with_data(&run_args.config(), args.quiet).map_err(of_cell)?;
        for warning in preflight.warnings.iter().filter(|warning| !warned.contains(*warning)) {
            eprintln!("warning: {}: {warning}", cell.name);
        }
        warned.extend(preflight.warnings.iter().cloned());
        if ready.is_empty() {
            run::warn_of_cache_in_memory(&preflight.config, Some(args.cache_dir.as_deref().unwrap_or(folder.path())));
        }
        let work = Job::of(&preflight.config, &data).flops()?;
        ready.push(Ready { cell: cell.clone(), args: run_args, preflight, work });
    }
    Ok(ready)
}

/// One sentence a task and lazy method, on standard output; where there is nothing to compare, how each method ended.
fn tell(cell: &CellFlags, results: &ResultFile) {
    stdout::line(&cell.name);
    for task in &results.config.tasks {
        let summary = results.task_summary(*task);
        let of = |(method, comparison)| sentence(*task, method, comparison, &results.rows);
        let sentences: Vec<String> = summary.by_method().filter_map(of).collect();
        sentences.iter().for_each(|sentence| stdout::line(format_args!("  {sentence}")));
        for method in results.config.methods.iter().filter(|_| sentences.is_empty()) {
            let mut own = results.rows.iter().filter(|row| (row.task, row.method) == (*task, *method));
            if let Some(row) = own.next() {
                stdout::line(format_args!("  {task}: {method} {}", row.reason.as_deref().unwrap_or("came through")));
            }
        }
    }
}

/// Whether every case came through or ran out of memory, and all agree; says on standard error what did not.
fn came_through(results: &ResultFile) -> bool {
    let answers = [Status::Ok, Status::Oom];
    let disagree = results.config.tasks.iter().any(|task| results.task_summary(*task).digests_agree == Some(false));
    let well = !disagree && results.rows.iter().all(|row| answers.contains(&row.status));
    if !well {
        run::verdict(results);
    }
    well
}

fn interrupted(args: &MatrixArgs, folder: &MatrixFolder, matrix: &Matrix, mine: &[usize]) -> ExitCode {
    let done = mine.iter().filter(|index| folder.is_done(&matrix.cells[**index])).count();
    eprintln!(
        "error: interrupted; {done} of {} cells are in {}, and --resume goes on from there",
        mine.len(),
        args.out.display()
    );
    ExitCode::from(Error::Interrupted.exit_code())
}

/// Estimates the time that is left from the work that is done.
struct Clock {
    start: Instant,
    done: f64,
    all: f64,
}

impl Clock {
    fn new(cells: &[Ready]) -> Self {
        Clock { start: Instant::now(), done: 0.0, all: cells.iter().map(|ready| ready.work).sum() }
    }

    fn done(&mut self, work: f64) {
        self.done += work;
    }

    /// `, about 4m left`; nothing before the first cell is done.
    fn left(&self) -> String {
        let seconds = self.start.elapsed().as_secs_f64() * (self.all - self.done) / self.done;
        match Duration::try_from_secs_f64(seconds) {
            Ok(left) if self.done > 0.0 => format!(", about {} left", indicatif::HumanDuration(left)),
            _ => String::new(),
        }
    }
}
