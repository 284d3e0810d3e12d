//! `actbench compare`: two stored results, judged by a history of runs if there is one.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;

use super::stdout;
use crate::error::{Error, Result, from_pairgate};
use crate::gate_adapter::figures::run_record;
use crate::gate_adapter::{COMPARE_SCHEMA, TaskMethod, history};
use crate::report::compare::render;
use pairgate::compare::{ComparisonMargins, compare as compare_runs};
use pairgate::design::GateDesign;
use pairgate::export::format::counted;
use pairgate::history::RunRecord;
use pairgate::stderr_line;

/// Compare two result files that were made at different times.
///
/// Two runs differ by more than the scatter within each. The difference is judged only by a history of at least 10 earlier
/// runs of the same work, machine and build. Figures without such runs are shown and not judged, which is not a failure unless
/// --strict. To judge two commits without a history, use `actbench gate`.
#[derive(Args, Clone, Debug)]
#[command(
    before_help = "Examples:\n  \
    actbench compare before.json after.json\n  \
    actbench compare before.json after.json --history bench-history\n  \
    actbench compare before.json after.json --json",
    after_help = "Exit status: 0 pass, 1 regressed, 2 broken or bad usage, 3 inconclusive (past\nruns scatter too much), or with --strict a figure is not judged."
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
/// A file that is not a result file, or a history that cannot be read.
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
    let comparison = compare_runs(COMPARE_SCHEMA, &base, &head, &past, margins).map_err(from_pairgate)?;
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

fn read(path: &Path) -> Result<RunRecord<TaskMethod>> {
    let results = history::parse(path, &fs::read(path).map_err(Error::io("read", path))?)?;
    Ok(run_record(&path.display().to_string(), &results))
}
