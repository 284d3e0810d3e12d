//! `actbench compare`: two stored results, judged where a history of runs lets it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;

use super::stdout;
use crate::compare::{Margins, compare as compare_results};
use crate::error::{Error, Result};
use crate::gate::design::Design;
use crate::history::folder;
use crate::report::compare::render;
use crate::results::ResultFile;

/// Compare two result files, made at two times.
///
/// Two runs differ by more than either scatters. So the difference is judged only where a history holds at least 10 runs
/// of the same work, on such a machine and with such a build, made before HEAD; otherwise ratios are shown and nothing is
/// concluded. To judge two commits without a history, use `actbench gate`.
#[derive(Args, Clone, Debug)]
#[command(
    before_help = "Examples:\n  \
    actbench compare before.json after.json\n  \
    actbench compare before.json after.json --history bench-history\n  \
    actbench compare before.json after.json --json",
    after_help = "Exit status: 0 pass, 1 regressed, 2 broken or bad usage, 3 inconclusive or advisory only."
)]
pub struct CompareArgs {
    /// The result file to compare with
    pub base: PathBuf,
    /// The result file that is judged
    pub head: PathBuf,
    /// Folder of past runs, as `actbench history add` keeps them
    #[arg(long, value_name = "DIR")]
    pub history: Option<PathBuf>,
    /// A slowdown of at most this share is none (0.01 is 1 %)
    #[arg(long, default_value_t = 0.01, value_name = "SHARE")]
    pub delta: f64,
    /// A slowdown of this share must not pass
    #[arg(long, default_value_t = 0.05, value_name = "SHARE")]
    pub effect: f64,
    /// Print the comparison as JSON
    #[arg(long)]
    pub json: bool,
}

/// Runs the command.
///
/// # Errors
/// A file that is no result file, or a history that cannot be read.
pub fn compare(args: &CompareArgs) -> Result<ExitCode> {
    let design = Design { delta: args.delta, effect: args.effect, ..Design::looks(0) };
    design.check()?;
    let margins = Margins {
        delta: design.delta,
        effect: design.effect,
        memory_share: design.memory_margin_share,
        memory_mb: design.memory_margin_mb,
        auroc: design.auroc_tolerance,
    };
    let (base, head) = (read(&args.base)?, read(&args.head)?);
    let history = args.history.as_deref().map(folder::read).transpose()?.unwrap_or_default();
    let comparison = compare_results(&base, &head, &history, margins)?;
    match args.json {
        true => {
            stdout::line(serde_json::to_string_pretty(&comparison).map_err(|error| Error::usage(error.to_string()))?)
        }
        false => stdout::text(render(&comparison)),
    }
    Ok(ExitCode::from(comparison.outcome.exit_code()))
}

fn read(path: &Path) -> Result<ResultFile> {
    folder::parse(path, &fs::read(path).map_err(Error::io("read", path))?)
}
