//! `actbench report`: result files as a report in Markdown, HTML and CSV.

use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;

use super::recommend::BoundsArgs;
use super::result_files;
use super::stdout;
use crate::atomic_file::write_whole;
use crate::crossover::cells_of;
use crate::error::{Error, Result};
use crate::own_output::{OutputFormat, check_replaceable, refuse_dash};
use crate::report::chart::{Chart, charts};
use crate::report::document::{Attachment, Document, html, markdown, rows_csv, summary_csv};
use crate::results::NamedResults;

/// Write a report of result files: REPORT.md, report.html, CSV and charts.
///
/// Takes result files of `run`, and directories of them, such as those of `matrix`. report.html is self-contained and makes
/// no network requests.
#[derive(Args, Clone, Debug)]
#[command(
    before_help = "Examples:\n  \
    actbench report results.json --out report\n  \
    actbench report matrix/ --out report\n  \
    actbench report first.json second.json --out report",
    after_help = "Exit status: 0 success, 2 bad usage or input."
)]
pub struct ReportArgs {
    /// Result files, or directories of them
    #[arg(required = true, value_name = "RESULTS")]
    pub results: Vec<PathBuf>,
    /// Directory to write to; created if missing, files of an earlier report are replaced
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// The bounds of small, medium and large runs.
    #[command(flatten)]
    pub bounds: BoundsArgs,
}

/// Writes the report.
///
/// # Errors
/// A file that is not a result file, or a directory that cannot be written to.
pub fn report(args: &ReportArgs) -> Result<()> {
    refuse_dash(&args.out, "--out")?;
    let files = result_files::read(&args.results)?;
    let charts = charts(&cells_of(&files))?;
    let document = Document::new(&files, args.bounds.bounds()?, attachments(&files, &charts));
    let chart_directory = args.out.join("charts");
    check_files(&args.out, &charts)?;
    fs::create_dir_all(&chart_directory).map_err(Error::io("create", &chart_directory))?;
    for chart in &charts {
        write_whole(&chart_directory.join(format!("{}.svg", chart.name)), chart.svg.as_bytes())?;
    }
    let write = |name: &str, bytes: &[u8]| write_whole(&args.out.join(name), bytes);
    write("observations.csv", &rows_csv(&files)?)?;
    write("summary.csv", &summary_csv(&document.summary)?)?;
    write("crossover.csv", &summary_csv(&document.crossover)?)?;
    write("report.html", html(&document, &charts)?.as_bytes())?;
    // Last, so that its existence means a complete report.
    write("REPORT.md", markdown(&document, &charts)?.as_bytes())?;
    stdout::line(Path::new(&args.out).join("REPORT.md").display());
    stdout::line(Path::new(&args.out).join("report.html").display());
    Ok(())
}

/// Refuses to replace files of other content in `directory`, before any file is written.
fn check_files(directory: &Path, charts: &[Chart]) -> Result<()> {
    let files = [
        ("observations.csv", OutputFormat::OBSERVATIONS),
        ("summary.csv", OutputFormat::SUMMARY),
        ("crossover.csv", OutputFormat::CROSSOVER),
        ("report.html", OutputFormat::REPORT_HTML),
        ("REPORT.md", OutputFormat::REPORT_MARKDOWN),
    ];
    for (name, format) in &files {
        check_replaceable(&directory.join(name), "--out", format)?;
    }
    charts.iter().try_for_each(|chart| {
        check_replaceable(&directory.join(format!("charts/{}.svg", chart.name)), "--out", &OutputFormat::CHART)
    })
}

fn attachments(files: &[NamedResults], charts: &[Chart]) -> Vec<Attachment> {
    let mut attachments = vec![
        Attachment::new(
            "report.html",
            "this report as one page with sortable tables and charts; makes no network requests",
        ),
        Attachment::new("summary.csv", "the summary table"),
        Attachment::new("crossover.csv", "the sizes from which lazy is better"),
        Attachment::new("observations.csv", "every observation of every result file"),
    ];
    let charts = charts.iter().map(|chart| Attachment::new(format!("charts/{}.svg", chart.name), chart.title.clone()));
    attachments.extend(charts);
    attachments.extend(files.iter().map(|file| Attachment::new(file.path.clone(), "result file")));
    attachments
}
