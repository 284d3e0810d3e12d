//! `actbench recommend`: recommends a default method, from result files.

use std::path::PathBuf;

use clap::Args;

use super::result_files;
use super::stdout;
use crate::crossover::answer::answers;
use crate::crossover::cells_of;
use crate::crossover::recommend::{SizeBounds, recommendations};
use crate::error::{Error, Result};
use crate::report::document::recommendation_text;

/// Recommend a method for small, medium and large runs of each workload, on each measured class of device, with the evidence.
///
/// Of the methods that completed and never ran out of memory, the fastest is recommended. Methods within 5 % of its time, or
/// without a shown difference (the interval contains 1), count as equally fast; of these the simplest is recommended (eager,
/// then lazy, then lazy-disk), unless another saves more than 5 % and more than 64 MiB of memory. Methods are compared only over
/// runs that have all of them, and for each model and setting separately. `plan` and `run` use the same rule. The evidence
/// follows: the result rows, and from how many samples on lazy is better in time, in memory and in both, interpolated between
/// the measured sizes.
#[derive(Args, Clone, Debug)]
#[command(
    before_help = "Examples:\n  \
    actbench recommend results.json\n  \
    actbench recommend matrix/\n  \
    actbench recommend matrix/ --medium-from 500 --large-from 5000 --json",
    after_help = "Exit status: 0 success, 2 bad usage or input."
)]
pub struct RecommendArgs {
    /// Result files, or directories of them
    #[arg(required = true, value_name = "RESULTS")]
    pub results: Vec<PathBuf>,
    /// The bounds of small, medium and large runs.
    #[command(flatten)]
    pub bounds: BoundsArgs,
    /// Print JSON instead of tables
    #[arg(long)]
    pub json: bool,
}

/// The bounds between sizes.
#[derive(Args, Clone, Copy, Debug)]
pub struct BoundsArgs {
    /// Samples from which a run counts as medium
    #[arg(long, default_value_t = SizeBounds::default().medium_from, value_name = "N")]
    pub medium_from: usize,
    /// Samples from which a run counts as large
    #[arg(long, default_value_t = SizeBounds::default().large_from, value_name = "N")]
    pub large_from: usize,
}

impl BoundsArgs {
    /// The bounds.
    ///
    /// # Errors
    /// No number of samples is medium.
    pub fn bounds(self) -> Result<SizeBounds> {
        let BoundsArgs { medium_from, large_from } = self;
        if medium_from >= large_from {
            return Err(Error::usage(format!("--medium-from {medium_from} must be below --large-from {large_from}")));
        }
        Ok(SizeBounds { medium_from, large_from })
    }
}

/// Runs the command.
///
/// # Errors
/// A file that is not a result file.
pub fn recommend(args: &RecommendArgs) -> Result<()> {
    let bounds = args.bounds.bounds()?;
    let files = result_files::read(&args.results)?;
    let text = if args.json {
        let cells = cells_of(&files);
        let value = serde_json::json!({
            "bounds": bounds,
            "recommendations": recommendations(&cells, bounds),
            "crossover": answers(&cells),
        });
        format!("{value:#}\n")
    } else {
        recommendation_text(&files, bounds, stdout::terminal_width())
    };
    stdout::text(text);
    Ok(())
}
