//! `actbench merge`: merges the directories of one matrix.

use std::path::PathBuf;

use clap::Args;

use super::stdout;
use crate::error::Result;
use crate::matrix::merge::merge as merge_directories;
use crate::own_output::refuse_dash;
use pairgate::stderr_line;

/// Merge the directories of a matrix that ran in shards.
///
/// Results of different machines or builds are refused without --allow-mixed, because their times are not comparable. Missing
/// cells are listed; `actbench matrix --resume` runs them in the merged directory.
#[derive(Args, Clone, Debug)]
#[command(
    before_help = "Examples:\n  \
    actbench merge shard-1 shard-2 --out matrix\n  \
    actbench merge from-a from-b --out both --allow-mixed",
    after_help = "Exit status: 0 success, 2 bad usage or input."
)]
pub struct MergeArgs {
    /// Directories written by `actbench matrix`
    #[arg(required = true, value_name = "DIR")]
    pub directories: Vec<PathBuf>,
    /// Merged directory; must be empty or new
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Merge results of different machines or builds
    #[arg(long)]
    pub allow_mixed: bool,
}

/// Runs the command.
///
/// # Errors
/// Directories without a matrix, of different matrices, or of different machines.
pub fn merge(args: &MergeArgs) -> Result<()> {
    refuse_dash(&args.out, "--out")?;
    let merged = merge_directories(&args.directories, &args.out, args.allow_mixed)?;
    for difference in &merged.mixed {
        stderr_line!("warning: results of different machines or builds: {difference}");
    }
    if !merged.missing.is_empty() {
        stderr_line!("warning: {} cells are missing: {}", merged.missing.len(), merged.missing.join(", "));
    }
    stdout::line(format_args!("{} cells in {}", merged.cells, args.out.display()));
    Ok(())
}
