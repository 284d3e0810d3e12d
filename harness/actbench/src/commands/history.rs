//! `actbench history`: results over commits.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::stdout;
use crate::error::{Error, Result};
use crate::history::{Added, Series, all_series, folder};
use crate::report::chart::history::charts;
use crate::report::document::{Table, text_table};
use crate::report::history::{changes_table, runs_table, series_page, series_table, too_short};
use crate::results::write_whole;
use crate::stats::change_points::FEWEST;

/// Keep results over commits in a folder, one file a run, that can be committed or kept on a branch of its own.
///
/// Runs of the same work, on machines and with builds of one fingerprint, are a series. Where a series changes, it begins
/// anew for `actbench compare --history`.
#[derive(Args, Clone, Debug)]
#[command(
    before_help = "Examples:\n  \
    actbench run --output results.json && actbench history add bench-history results.json\n  \
    actbench history list bench-history\n  \
    actbench history plot bench-history --out plots\n  \
    actbench history check bench-history",
    after_help = "Exit status: 0 done; of check: 1 a figure changed for the worse, 3 too few runs to tell; 2 bad usage or input."
)]
pub struct HistoryArgs {
    #[command(subcommand)]
    command: HistoryCommand,
}

#[derive(Subcommand, Clone, Debug)]
enum HistoryCommand {
    /// Copy result files into the folder; what is there is never changed
    #[command(before_help = "Examples:\n  actbench history add bench-history results.json")]
    Add {
        /// The folder; made if it is not there
        dir: PathBuf,
        /// Result files
        #[arg(required = true)]
        results: Vec<PathBuf>,
    },
    /// List the runs and the series they make
    #[command(before_help = "Examples:\n  actbench history list bench-history")]
    List {
        /// The folder
        dir: PathBuf,
        /// Print the series as JSON
        #[arg(long)]
        json: bool,
    },
    /// Draw each metric over commits: HISTORY.md and SVG files
    #[command(before_help = "Examples:\n  actbench history plot bench-history --out plots")]
    Plot {
        /// The folder
        dir: PathBuf,
        /// Folder to write to; made if it is not there
        #[arg(long)]
        out: PathBuf,
    },
    /// Find where figures changed; fails when one changed for the worse lately
    #[command(before_help = "Examples:\n  actbench history check bench-history --recent 5")]
    Check {
        /// The folder
        dir: PathBuf,
        /// A change for the worse fails the check if it is among so many latest runs of its series
        #[arg(long, default_value_t = 10, value_name = "N")]
        recent: usize,
        /// Print the series with their changes as JSON
        #[arg(long)]
        json: bool,
    },
}

/// Runs the command.
///
/// # Errors
/// A folder or file that cannot be read or is none, or a folder that cannot be written to.
pub fn history(args: &HistoryArgs) -> Result<ExitCode> {
    match &args.command {
        HistoryCommand::Add { dir, results } => add(dir, results).map(|()| ExitCode::SUCCESS),
        HistoryCommand::List { dir, json } => list(dir, *json).map(|()| ExitCode::SUCCESS),
        HistoryCommand::Plot { dir, out } => plot(dir, out).map(|()| ExitCode::SUCCESS),
        HistoryCommand::Check { dir, recent, json } => check(dir, *recent, *json).map(ExitCode::from),
    }
}

fn add(dir: &Path, results: &[PathBuf]) -> Result<()> {
    for path in results {
        match folder::add(dir, path)? {
            Added::As(target) => stdout::line(target.display()),
            Added::Already(target) => eprintln!("{} is there already, as {}", path.display(), target.display()),
        }
    }
    Ok(())
}

fn list(dir: &Path, json: bool) -> Result<()> {
    let entries = folder::read(dir)?;
    let series = all_series(&entries)?;
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
    stdout::text(format_args!("{}\n{}", text_table(&runs_table(&entries)), text_table(&series_table(&series))));
    Ok(())
}

fn plot(dir: &Path, out: &Path) -> Result<()> {
    let entries = folder::read(dir)?;
    let series = all_series(&entries)?;
    let charts = charts(&series)?;
    if charts.is_empty() {
        return Err(Error::file(
            dir,
            "has no series of two runs or more to draw; add runs with `actbench history add`",
        ));
    }
    fs::create_dir_all(out).map_err(Error::io("create", out))?;
    for chart in &charts {
        write_whole(&out.join(format!("{}.svg", chart.name)), chart.svg.as_bytes())?;
    }
    let page = out.join("HISTORY.md");
    // Last, so that a page that is there is whole.
    write_whole(&page, series_page(&entries, &series, &charts).as_bytes())?;
    stdout::line(page.display());
    Ok(())
}

/// The exit status.
fn check(dir: &Path, recent: usize, json: bool) -> Result<u8> {
    let series = all_series(&folder::read(dir)?)?;
    if json {
        print_json(&series)?;
    } else {
        let changes: Table = changes_table(&series);
        match changes.rows.is_empty() {
            true => stdout::line("no figure changed"),
            false => stdout::text(text_table(&changes)),
        }
        if let Some(sentence) = too_short(&series) {
            stdout::line(sentence);
        }
    }
    let worse = series.iter().filter(|it| changed_for_the_worse(it, recent)).count();
    if worse > 0 {
        eprintln!("error: {worse} figures changed for the worse within the latest {recent} runs");
        return Ok(1);
    }
    // Nothing was looked at: that is no pass.
    Ok(if series.iter().all(|it| it.points.len() < FEWEST) { 3 } else { 0 })
}

fn changed_for_the_worse(series: &Series, recent: usize) -> bool {
    let from = series.points.len().saturating_sub(recent);
    series.changes.iter().filter(|change| change.index >= from).any(|change| {
        let (before, after) = series.levels(change.index);
        if series.larger_is_better() { after < before } else { after > before }
    })
}

fn print_json(series: &[Series]) -> Result<()> {
    stdout::line(serde_json::to_string_pretty(series).map_err(|error| Error::usage(error.to_string()))?);
    Ok(())
}
