//! `actbench merge`: folders of one matrix joined to one.

use std::path::PathBuf;

use clap::Args;

use super::stdout;
use crate::error::Result;
use crate::matrix::merge::merge as join;

/// Join the folders of a matrix that was run in shards.
///
/// Results of different machines or builds are not joined unless that is asked for: their times do not compare. What is
/// missing is told, and `actbench matrix --resume` runs it in the new folder.
#[derive(Args, Clone, Debug)]
#[command(
    before_help = "Examples:\n  \
    actbench merge shard-1 shard-2 --out matrix\n  \
    actbench merge from-a from-b --out both --allow-mixed",
    after_help = "Exit status: 0 done, 2 bad usage or input."
)]
pub struct MergeArgs {
    /// Folders that `actbench matrix` wrote to
    #[arg(required = true, value_name = "DIR")]
    pub folders: Vec<PathBuf>,
    /// Folder to write to; empty or not there yet
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Join results of different machines or builds
    #[arg(long)]
    pub allow_mixed: bool,
}

/// Runs the command.
///
/// # Errors
/// Folders that are no matrices, of different ones, or of different machines.
pub fn merge(args: &MergeArgs) -> Result<()> {
    let merged = join(&args.folders, &args.out, args.allow_mixed)?;
    for difference in &merged.mixed {
        eprintln!("warning: of two machines or builds: {difference}");
    }
    if !merged.missing.is_empty() {
        eprintln!("warning: {} cells are missing: {}", merged.missing.len(), merged.missing.join(", "));
    }
    stdout::line(format_args!("{} cells in {}", merged.cells, args.out.display()));
    Ok(())
}
