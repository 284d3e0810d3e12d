//! `actbench recommend`: the mode to take by default, from result files.

use std::path::PathBuf;

use clap::Args;

use super::result_files;
use super::stdout;
use crate::crossover::answer::answers;
use crate::crossover::cells_of;
use crate::crossover::recommend::{SizeBounds, recommendations};
use crate::error::{Error, Result};
use crate::report::document::recommendation_text;

/// Say which mode to take for small, medium and large runs, on the CPU, one GPU and several, with the evidence.
///
/// The mode that failed least comes first, then the fastest; modes within 5 % of its time count as equally fast, and the one
/// of these that takes the least memory is named. Below stand the result rows that this rests on, and from how many samples
/// on lazy wins in time, in memory and in both, interpolated between the sizes that were run.
#[derive(Args, Clone, Debug)]
#[command(
    before_help = "Examples:\n  \
    actbench recommend results.json\n  \
    actbench recommend matrix/\n  \
    actbench recommend matrix/ --medium-from 500 --large-from 5000 --json",
    after_help = "Exit status: 0 done, 2 bad usage or input."
)]
pub struct RecommendArgs {
    /// Result files, or folders of them
    #[arg(required = true, value_name = "RESULTS")]
    pub results: Vec<PathBuf>,
    /// Which runs are small, medium and large.
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
    /// Bounds that leave no place for medium runs.
    pub fn bounds(self) -> Result<SizeBounds> {
        match self.medium_from < self.large_from {
            true => Ok(SizeBounds { medium_from: self.medium_from, large_from: self.large_from }),
            false => Err(Error::usage(format!(
                "--medium-from {} must be below --large-from {}",
                self.medium_from, self.large_from
            ))),
        }
    }
}

/// Runs the command.
///
/// # Errors
/// A file that is no result file.
pub fn recommend(args: &RecommendArgs) -> Result<()> {
    let bounds = args.bounds.bounds()?;
    let cells = cells_of(&result_files::read(&args.results)?);
    let text = match args.json {
        true => {
            let value = serde_json::json!({
                "bounds": bounds,
                "recommendations": recommendations(&cells, bounds),
                "crossover": answers(&cells),
            });
            serde_json::to_string_pretty(&value).map_err(|error| Error::usage(error.to_string()))? + "\n"
        }
        false => recommendation_text(&cells, bounds),
    };
    stdout::text(text);
    Ok(())
}
