//! `actbench gate`: is head worse than base on this machine? Paired, journaled, with the verdict as the exit status.

mod criterion;
mod programs;
mod progress;
mod shared;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{ArgGroup, Args};
use pairgate::Metric;
use pairgate::command_line::parse_duration;

use self::criterion::CriterionArgs;
use super::exports::Export;
use crate::atomic_file::is_stream;
use crate::error::{Error, Result};
use crate::own_output::{OutputFormat, check_own_output, check_replaceable};
use crate::runner::interrupt;

/// Gate a change: run both executables in pairs and report whether head is slower, uses more memory or gives other results.
///
/// Pairs are run in random order. A suite is screened first, and flagged cases are confirmed by fresh pairs, with a
/// correction for their number. A suite of one case is judged at up to four looks instead. METHODOLOGY.md has the error
/// rates.
#[derive(Args, Clone, Debug)]
#[command(
    group = ArgGroup::new("base").required(true).args(["base_bin", "base_rev"]),
    group = ArgGroup::new("head").required(true).args(["head_bin", "head_rev"]),
    before_help = "Examples:\n  \
    actbench gate --base-rev main --head-rev HEAD\n  \
    actbench gate --base-bin old/actbench --head-bin target/release/actbench --suite suite.toml --output gate.json\n  \
    actbench gate --base-rev main --head-rev HEAD --resume\n  \
    actbench gate --base-rev main --head-rev HEAD --export junit=gate.xml --export markdown=gate.md\n  \
    actbench gate --criterion --base-rev main --head-rev HEAD",
    after_help = "A suite (docs/ci.md has every key):\n  \
    args = [\"--samples\", \"300\"]      # flags of `actbench run` for all cases\n\n  \
    [[case]]                         # a case; there may be several\n  \
    name = \"sweep-lazy\"\n  \
    task = \"sweep\"                   # train or sweep\n  \
    method = \"lazy\"                  # eager, lazy or lazy-disk\n  \
    args = [\"--sweep-layers\", \"4\"]  # more flags for this case, optional\n\n\
    Exit status: 0 pass, 1 regressed, 2 broken (a run failed, a benchmark is missing in head, a file cannot be\n\
    written, or bad usage), 3 inconclusive, 70 internal error, 130 interrupted."
)]
pub struct GateArgs {
    /// The executable before the change
    #[arg(long, value_name = "FILE")]
    pub base_bin: Option<PathBuf>,
    /// The executable to test
    #[arg(long, value_name = "FILE")]
    pub head_bin: Option<PathBuf>,
    /// The commit before the change, built in a temporary git worktree
    #[arg(long, value_name = "REV")]
    pub base_rev: Option<String>,
    /// Commit to test
    #[arg(long, value_name = "REV")]
    pub head_rev: Option<String>,
    /// Cargo profile for building commits
    #[arg(long, default_value = "release", value_name = "PROFILE")]
    pub build_profile: String,
    /// Cases, as a TOML file in the format below [default: train and sweep, eager and lazy, on the embedded model]
    #[arg(long, value_name = "FILE")]
    pub suite: Option<PathBuf>,
    /// Metrics that every run must have and that are judged
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "wall,cpu,peak-anonymous,peak-heap,auroc,feature-digest",
        value_name = "METRIC,..."
    )]
    pub metrics: Vec<Metric>,
    /// A slowdown of at most this fraction is not a regression (0.01 is 1 %)
    #[arg(long, default_value_t = 0.01, value_name = "FRACTION")]
    pub delta: f64,
    /// A slowdown of this fraction must not pass
    #[arg(long, default_value_t = 0.05, value_name = "FRACTION")]
    pub effect: f64,
    /// A difference of AUROC of at most this much is not a regression; with --allow-other-features the larger of this and six
    /// swapped pairs of test rows
    #[arg(long, default_value_t = 1e-6, value_name = "DIFFERENCE")]
    pub auroc_tolerance: f64,
    /// Accept features that differ from base's, for a change of the arithmetic. AUROC may then differ by six swapped pairs of a
    /// positive and a negative test row
    #[arg(long)]
    pub allow_other_features: bool,
    /// Seed of the order of runs
    #[arg(long, default_value_t = 0, value_name = "SEED")]
    pub seed: u64,
    /// Time limit of a run: seconds, or with a unit as in 90s, 10m, 2h [default: no limit]
    #[arg(long, value_parser = parse_duration, value_name = "TIME")]
    pub timeout: Option<Duration>,
    /// The report as JSON; the journal of pairs is written next to it
    #[arg(long, default_value = "gate.json", value_name = "FILE")]
    pub output: PathBuf,
    /// Additional output format: json, markdown, github, junit, bencher or benchmark-action; `-` is standard output
    #[arg(long, value_name = "FORM=PATH")]
    pub export: Vec<Export>,
    /// Resume an interrupted gate from its journal; pairs of which a run failed are taken again
    #[arg(long)]
    pub resume: bool,
    /// Show no progress
    #[arg(long, short)]
    pub quiet: bool,
    /// Flags of gates of benchmarks.
    #[command(flatten)]
    pub criterion: CriterionArgs,
    /// Additional arguments for base's runs; for tests
    #[arg(long, hide = true, allow_hyphen_values = true, value_name = "ARG")]
    pub base_arg: Vec<String>,
    /// Additional arguments for head's runs; for tests
    #[arg(long, hide = true, allow_hyphen_values = true, value_name = "ARG")]
    pub head_arg: Vec<String>,
}

/// Runs the command.
///
/// # Errors
/// Bad usage or input, a commit that does not build, an interrupt.
pub fn gate(args: &GateArgs) -> Result<ExitCode> {
    interrupt::install()?;
    check_own_output(&args.output, "--output", &OutputFormat::GATE)?;
    // A journal that is resumed is checked when it is read.
    if !args.resume && !is_stream(&args.output) {
        check_replaceable(&shared::journal_path(&args.output), "--output", &OutputFormat::GATE_JOURNAL)?;
    }
    for export in args.export.iter().filter(|export| export.path != Path::new("-")) {
        check_own_output(&export.path, "--export", export.output_format())?;
    }
    let outcome = shared::check_sides(args)
        .and_then(|()| if args.criterion.criterion { criterion::gate(args) } else { programs::gate(args) });
    outcome.map_err(broken)
}

/// The same error with an exit status that a gate may have: 1 is the verdict "regressed", which no failure shows. A file that
/// cannot be written, such as the journal on a full disk, breaks the gate.
fn broken(error: Error) -> Error {
    if error.exit_code() == 1 { Error::Usage(error.to_string()) } else { error }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failure_is_broken_and_not_regressed() {
        let full = || Error::io("write", "gate.journal.jsonl")(std::io::Error::other("no space left"));
        assert_eq!((full().exit_code(), broken(full()).exit_code()), (1, 2));
        assert_eq!(broken(full()).to_string(), full().to_string());
        assert_eq!(broken(Error::Interrupted).exit_code(), 130);
    }
}
