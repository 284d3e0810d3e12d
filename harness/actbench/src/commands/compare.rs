//! `actbench compare`: two stored results, judged by a history of runs if there is one.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;

use super::stdout;
use crate::error::{Error, Result, from_pairgate};
use crate::gate_adapter::figures::{different_inputs, run_record};
use crate::gate_adapter::{COMPARE_SCHEMA, history};
use crate::report::compare::render;
use crate::results::ResultFile;
use pairgate::compare::{ComparisonMargins, compare as compare_runs};
use pairgate::design::GateDesign;
use pairgate::export::format::counted;
use pairgate::stderr_line;

/// Compare two result files that were made at different times.
///
/// Two runs differ by more than the scatter within each. The difference is judged only by a history of at least 10 earlier
/// runs of the same work, machine and build. Figures without such runs are shown and not judged, which is not a failure unless
/// --strict. Two runs of different models or data sets are refused if no figure can be judged. To judge two commits without a
/// history, use `actbench gate`.
#[derive(Args, Clone, Debug)]
#[command(
    before_help = "Examples:\n  \
    actbench compare before.json after.json\n  \
    actbench compare before.json after.json --history bench-history\n  \
    actbench compare before.json after.json --json",
    after_help = "Exit status: 0 pass, 1 regressed, 2 broken, bad usage, or runs of different\nmodels or data, 3 inconclusive (past runs scatter too much), or with --strict a\nfigure is not judged."
)]
pub struct CompareArgs {
    /// The result file to compare with
    pub base: PathBuf,
    /// The result file to judge
    pub head: PathBuf,
    /// Directory of past runs, written by `actbench history add`
    #[arg(long, value_name = "DIR")]
    pub history: Option<PathBuf>,
    /// A slowdown of at most this fraction is not a regression (0.01 is 1 %)
    #[arg(long, default_value_t = 0.01, value_name = "FRACTION")]
    pub delta: f64,
    /// A slowdown of this fraction must not pass
    #[arg(long, default_value_t = 0.05, value_name = "FRACTION")]
    pub effect: f64,
    /// Exit with 3 if a figure is not judged, for example because there are too few past runs
    #[arg(long)]
    pub strict: bool,
    /// Print the comparison as JSON
    #[arg(long)]
    pub json: bool,
}

/// Runs the command.
///
/// # Errors
/// A file that is not a result file, a history that cannot be read, or two runs of different models or data sets without a figure
/// that can be judged.
pub fn compare(args: &CompareArgs) -> Result<ExitCode> {
    let design = GateDesign { delta: args.delta, effect: args.effect, ..GateDesign::looks(0) };
    design.check().map_err(from_pairgate)?;
    let margins = ComparisonMargins {
        delta: design.delta,
        effect: design.effect,
        memory_fraction: design.memory_margin_fraction,
        memory_mb: design.memory_margin_mb,
        auroc: design.auroc_tolerance,
    };
    let (base, head) = (read(&args.base)?, read(&args.head)?);
    let entries = args.history.as_deref().map(history::read).transpose()?.unwrap_or_default();
    let past = history::run_records(&entries);
    let record = |path: &Path, results: &ResultFile| run_record(&path.display().to_string(), results);
    let (base_record, head_record) = (record(&args.base, &base), record(&args.head, &head));
    let comparison = compare_runs(COMPARE_SCHEMA, &base_record, &head_record, &past, margins).map_err(from_pairgate)?;
    let inputs = different_inputs(&base, &head);
    if comparison.n_judged() == 0 && !inputs.is_empty() {
        // Ratios of two models do not compare two programs, so that status 0 would be misread as a pass.
        return Err(Error::usage(format!(
            "{} and {} are runs of different work, and no figure can be judged: {}; compare runs of one model and data set",
            args.base.display(),
            args.head.display(),
            inputs.join(", ")
        )));
    }
    if args.json {
        let text = serde_json::to_string_pretty(&comparison).map_err(|error| Error::internal(error.to_string()))?;
        stdout::line(text);
    } else {
        stdout::text(render(&comparison, stdout::terminal_width()));
    }
    if comparison.lacks_runs() {
        let unjudged = counted(comparison.figures.len() - comparison.n_judged(), "figure");
        let effect = if args.strict { "--strict makes that exit status 3" } else { "pass --strict to exit with 3" };
        stderr_line!("note: {unjudged} not judged; {effect}");
    }
    Ok(ExitCode::from(comparison.exit_code(args.strict)))
}

fn read(path: &Path) -> Result<ResultFile> {
    history::parse(path, &fs::read(path).map_err(Error::io("read", path))?)
}
