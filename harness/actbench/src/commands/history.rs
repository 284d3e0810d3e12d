//! `actbench history`: results over commits.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::stdout;
use crate::atomic_file::write_whole;
use crate::error::{Error, Result};
use crate::gate_adapter::{TaskMethod, history};
use crate::own_output::{OutputFormat, check_replaceable, refuse_dash};
use crate::report::chart::history::charts;
use crate::report::document::{Table, text_table};
use crate::report::history::{changes_table, runs_table, series_page, series_table, short_series, undecided_runs};
use pairgate::export::format::counted;
use pairgate::history::{AddedFile, FigureSeries};
use pairgate::stats::change_points::MIN_SERIES;
use pairgate::stderr_line;

/// Keep results over commits in a directory, one file a run, that can be committed or kept on a branch of its own.
///
/// Runs of the same work, machine and build are a series. After a change point a series starts over for
/// `actbench compare --history`.
#[derive(Args, Clone, Debug)]
#[command(
    before_help = "Examples:\n  \
    actbench run --output results.json && actbench history add bench-history results.json\n  \
    actbench history list bench-history\n  \
    actbench history plot bench-history --out plots\n  \
    actbench history check bench-history",
    after_help = "Exit status: 0 done; of check: 1 a figure changed for the worse, 2 bad usage or input, 3 with\n--strict too few runs."
)]
pub struct HistoryArgs {
    #[command(subcommand)]
    command: HistoryCommand,
}

#[derive(Subcommand, Clone, Debug)]
enum HistoryCommand {
    /// Copy result files into the directory; existing files are never changed
    #[command(before_help = "Examples:\n  actbench history add bench-history results.json")]
    Add {
        /// The directory; created if it does not exist
        dir: PathBuf,
        /// Result files
        #[arg(required = true)]
        results: Vec<PathBuf>,
    },
    /// List the runs and their series
    #[command(before_help = "Examples:\n  actbench history list bench-history")]
    List {
        /// The directory
        dir: PathBuf,
        /// Print the series as JSON
        #[arg(long)]
        json: bool,
    },
    /// Draw each metric over commits: HISTORY.md and SVG files
    #[command(before_help = "Examples:\n  actbench history plot bench-history --out plots")]
    Plot {
        /// The directory
        dir: PathBuf,
        /// Directory to write to; created if it does not exist
        #[arg(long)]
        out: PathBuf,
    },
    /// Find change points; fails if a recent one is for the worse
    #[command(before_help = "Examples:\n  actbench history check bench-history --recent 5")]
    Check {
        /// The directory
        dir: PathBuf,
        /// A change for the worse within this number of latest runs fails the check
        #[arg(long, default_value_t = 10, value_name = "N")]
        recent: usize,
        /// Exit with 3 if no series has enough runs to be checked
        #[arg(long)]
        strict: bool,
        /// Print the series with their changes as JSON
        #[arg(long)]
        json: bool,
    },
}

/// Runs the command.
///
/// # Errors
/// A directory or file that cannot be read, a file that is not a result file, or a directory that cannot be written to.
pub fn history(args: &HistoryArgs) -> Result<ExitCode> {
    match &args.command {
        HistoryCommand::Add { dir, results } => add(dir, results).map(|()| ExitCode::SUCCESS),
        HistoryCommand::List { dir, json } => list(dir, *json).map(|()| ExitCode::SUCCESS),
        HistoryCommand::Plot { dir, out } => plot(dir, out).map(|()| ExitCode::SUCCESS),
        HistoryCommand::Check { dir, recent, strict, json } => check(dir, *recent, *strict, *json).map(ExitCode::from),
    }
}

fn add(dir: &Path, results: &[PathBuf]) -> Result<()> {
    if dir.is_file() {
        return Err(Error::file(
            dir,
            "is a file; the first argument is the directory of the history: `actbench history add DIR RESULTS...`",
        ));
    }
    for path in results {
        match history::add(dir, path)? {
            AddedFile::New(target) => stdout::line(target.display()),
            AddedFile::Existing(target) => stderr_line!("{} is there already, as {}", path.display(), target.display()),
        }
    }
    Ok(())
}

fn list(dir: &Path, json: bool) -> Result<()> {
    let entries = history::read(dir)?;
    let series = history::series(&entries)?;
    if json {
        return print_json(&series);
    }
    if entries.is_empty() {
        stdout::line(format_args!(
            "no runs in {}; add some: `actbench history add {} results.json`",
            dir.display(),
            dir.display()
        ));
        return Ok(());
    }
    let [runs, series] =
        [runs_table(&entries), series_table(&series)].map(|table| text_table(&table, stdout::terminal_width()));
    stdout::text(format_args!("{runs}\n{series}"));
    Ok(())
}

fn plot(dir: &Path, out: &Path) -> Result<()> {
    refuse_dash(out, "--out")?;
    let entries = history::read(dir)?;
    let series = history::series(&entries)?;
    let charts = charts(&series)?;
    if charts.is_empty() {
        return Err(Error::file(
            dir,
            "has no series of two runs or more to draw; add runs with `actbench history add`",
        ));
    }
    fs::create_dir_all(out).map_err(Error::io("create", out))?;
    for chart in &charts {
        check_replaceable(&out.join(format!("{}.svg", chart.name)), "--out", &OutputFormat::CHART)?;
    }
    check_replaceable(&out.join("HISTORY.md"), "--out", &OutputFormat::HISTORY)?;
    for chart in &charts {
        write_whole(&out.join(format!("{}.svg", chart.name)), chart.svg.as_bytes())?;
    }
    let page = out.join("HISTORY.md");
    // Last, so that the charts of an existing page exist.
    write_whole(&page, series_page(&entries, &series, &charts).as_bytes())?;
    stdout::line(page.display());
    Ok(())
}

/// The exit status.
fn check(dir: &Path, recent: usize, strict: bool, json: bool) -> Result<u8> {
    let series = history::series(&history::read(dir)?)?;
    let none_is_long = series.iter().all(|series| series.points.len() < MIN_SERIES);
    if json {
        print_json(&series)?;
    } else {
        let changes: Table = changes_table(&series);
        if !changes.rows.is_empty() {
            stdout::text(text_table(&changes, stdout::terminal_width()));
        } else if !none_is_long {
            stdout::line("no change found");
        }
        short_series(&series).into_iter().chain(undecided_runs(&series)).for_each(stdout::line);
    }
    let worse = series.iter().filter(|series| changed_for_the_worse(series, recent)).count();
    if worse > 0 {
        let figures = counted(worse, "figure");
        stderr_line!("error: {figures} changed for the worse within the latest {}", counted(recent, "run"));
        return Ok(1);
    }
    if !none_is_long {
        return Ok(0);
    }
    let effect = if strict { "--strict makes that exit status 3" } else { "pass --strict to exit with 3" };
    stderr_line!("note: nothing was checked: a series needs {MIN_SERIES} runs; {effect}");
    Ok(if strict { 3 } else { 0 })
}

fn changed_for_the_worse(series: &FigureSeries<TaskMethod>, recent: usize) -> bool {
    let from = series.points.len().saturating_sub(recent);
    series.changes.iter().filter(|change| change.index >= from).any(|change| {
        let (before, after) = series.levels(change.index);
        if series.larger_is_better() { after < before } else { after > before }
    })
}

fn print_json(series: &[FigureSeries<TaskMethod>]) -> Result<()> {
    stdout::line(serde_json::to_string_pretty(series).map_err(|error| Error::internal(error.to_string()))?);
    Ok(())
}
