//! `actbench report`: result files as a report in Markdown, HTML and CSV.

use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;

use super::recommend::BoundsArgs;
use super::result_files;
use super::stdout;
use crate::crossover::{NamedResults, cells_of};
use crate::error::{Error, Result};
use crate::report::chart::{Chart, charts};
use crate::report::document::{Attachment, Document, html, markdown, rows_csv, summary_csv};
use crate::atomic_file::write_whole;

/// Make a report of result files: REPORT.md, report.html, CSV and charts.
///
/// A result file is what `run` writes; a folder stands for all result files in it, as `matrix` writes them. The report's
/// page needs no network and no other file.
#[derive(Args, Clone, Debug)]
#[command(
    before_help = "Examples:\n  \
    actbench report results.json --out report\n  \
    actbench report matrix/ --out report\n  \
    actbench report first.json second.json --out report",
    after_help = "Exit status: 0 done, 2 bad usage or input."
)]
pub struct ReportArgs {
    /// Result files, or folders of them
    #[arg(required = true, value_name = "RESULTS")]
    pub results: Vec<PathBuf>,
    /// Folder to write to; made if it is not there, files of an earlier report are replaced
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Which runs are small, medium and large.
    #[command(flatten)]
    pub bounds: BoundsArgs,
}

/// Runs the command.
///
/// # Errors
/// A file that is no result file, or a folder that cannot be written to.
pub fn report(args: &ReportArgs) -> Result<()> {
    let files = result_files::read(&args.results)?;
    let charts = charts(&cells_of(&files))?;
    let document = Document::new(&files, args.bounds.bounds()?, attachments(&files, &charts));
    let folder = args.out.join("charts");
    fs::create_dir_all(&folder).map_err(Error::io("create", &folder))?;
    for chart in &charts {
        write_whole(&folder.join(format!("{}.svg", chart.name)), chart.svg.as_bytes())?;
    }
    let write = |name: &str, bytes: &[u8]| write_whole(&args.out.join(name), bytes);
    write("observations.csv", &rows_csv(&files)?)?;
    write("summary.csv", &summary_csv(&document.summary)?)?;
    write("crossover.csv", &summary_csv(&document.crossover)?)?;
    write("report.html", html(&document, &charts)?.as_bytes())?;
    // Last, so that a report that is there is whole.
    write("REPORT.md", markdown(&document, &charts)?.as_bytes())?;
    stdout::line(Path::new(&args.out).join("REPORT.md").display());
    stdout::line(Path::new(&args.out).join("report.html").display());
    Ok(())
}

fn attachments(files: &[NamedResults], charts: &[Chart]) -> Vec<Attachment> {
    let mut attachments = vec![
        Attachment::new("report.html", "this report as a page, tables to sort and charts in it; needs no network"),
        Attachment::new("summary.csv", "the summary table"),
        Attachment::new("crossover.csv", "where lazy begins to win"),
        Attachment::new("observations.csv", "every observation of every result file"),
    ];
    let charts = charts.iter().map(|chart| Attachment::new(format!("charts/{}.svg", chart.name), chart.title.clone()));
    attachments.extend(charts);
    attachments.extend(files.iter().map(|file| Attachment::new(file.path.clone(), "result file")));
    attachments
}
