//! `actbench gate`: is head worse than base on this machine? Paired, journaled, with an exit status that says so.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{ArgGroup, Args};
use serde_json::{Value, json};

use super::exports::{Export, step_summary, write_exports};
use super::gate_criterion::{self, CriterionArgs};
use super::gate_progress::GateProgress;
use super::run::parse_duration;
use super::stdout;
use crate::error::{Error, Result};
use crate::gate::design::Design;
use crate::gate::engine;
use crate::gate::journal::{Journal, Subject};
use crate::gate::programs::{Program, Programs};
use crate::gate::report::{Identity, SCHEMA};
use crate::gate::revisions::{self, Built};
use crate::gate::source::Side;
use crate::gate::suite::Suite;
use crate::gate::{GateReport, Metric, Outcome};
use crate::measure::conditions::{Level, Warning, short_line};
use crate::measure::fingerprint;
use crate::measure::machine_record::MachineRecord;
use crate::report;
use crate::results::{check_output, write_whole};
use crate::runner::interrupt;

/// Gate a change: run both programs in pairs on this machine, and say whether head is slower, hungrier or different.
///
/// Pairs are run in random order. A suite is screened first, and what is flagged is confirmed by fresh pairs, corrected
/// for their number; a suite of one case is looked at up to four times instead. METHODOLOGY.md has the error rates.
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
    after_help = "Exit status: 0 pass, 1 regressed, 2 broken (or bad usage), 3 inconclusive, 130 interrupted."
)]
pub struct GateArgs {
    /// The program before the change
    #[arg(long, value_name = "FILE")]
    pub base_bin: Option<PathBuf>,
    /// The program after it
    #[arg(long, value_name = "FILE")]
    pub head_bin: Option<PathBuf>,
    /// The commit before the change, built in a work tree of its own
    #[arg(long, value_name = "REV")]
    pub base_rev: Option<String>,
    /// The commit after it
    #[arg(long, value_name = "REV")]
    pub head_rev: Option<String>,
    /// Cargo profile that commits are built with
    #[arg(long, default_value = "release", value_name = "PROFILE")]
    pub build_profile: String,
    /// Cases, as a TOML file [default: train and sweep, eager and lazy, on the embedded model]
    #[arg(long, value_name = "FILE")]
    pub suite: Option<PathBuf>,
    /// Metrics that every run must have, and that are judged
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "wall,cpu,peak-rss,peak-heap,auroc,feature-digest",
        value_name = "METRIC,..."
    )]
    pub metrics: Vec<Metric>,
    /// A slowdown of at most this share is no regression
    #[arg(long, default_value_t = 0.01, value_name = "SHARE")]
    pub delta: f64,
    /// A slowdown of this share must not pass
    #[arg(long, default_value_t = 0.05, value_name = "SHARE")]
    pub effect: f64,
    /// The largest difference of AUROC that is none
    #[arg(long, default_value_t = 1e-6, value_name = "DIFFERENCE")]
    pub auroc_tolerance: f64,
    /// Let head's features differ from base's, for a change of the arithmetic; AUROC is still compared
    #[arg(long)]
    pub allow_other_features: bool,
    /// Seed of the order of runs
    #[arg(long, default_value_t = 0, value_name = "SEED")]
    pub seed: u64,
    /// The longest a run may take: seconds, or with a unit as in 90s, 10m, 2h [default: no limit]
    #[arg(long, value_parser = parse_duration, value_name = "TIME")]
    pub timeout: Option<Duration>,
    /// Where the outcome goes as JSON; the journal of pairs goes beside it
    #[arg(long, default_value = "gate.json", value_name = "FILE")]
    pub output: PathBuf,
    /// Also write the outcome in a form that others read: json, markdown, github, junit, bencher, benchmark-action; `-` is
    /// standard output
    #[arg(long, value_name = "FORM=PATH")]
    pub export: Vec<Export>,
    /// Go on with an interrupted gate: pairs in its journal are not taken again
    #[arg(long)]
    pub resume: bool,
    /// Show no progress
    #[arg(long, short)]
    pub quiet: bool,
    /// Benchmarks instead of runs.
    #[command(flatten)]
    pub criterion: CriterionArgs,
    /// More arguments for base's runs; for tests
    #[arg(long, hide = true, allow_hyphen_values = true, value_name = "ARG")]
    pub base_arg: Vec<String>,
    /// More arguments for head's runs; for tests
    #[arg(long, hide = true, allow_hyphen_values = true, value_name = "ARG")]
    pub head_arg: Vec<String>,
}

/// A side that is ready to be measured.
struct Ready {
    identity: Identity,
    program: PathBuf,
    /// Keeps what was built for as long as it is run.
    _built: Option<Built>,
}

/// Runs the command.
///
/// # Errors
/// Bad usage or input, a commit that does not build, an interrupt.
pub fn gate(args: &GateArgs) -> Result<ExitCode> {
    check_output(&args.output)?;
    if args.criterion.criterion {
        return gate_criterion::gate(args);
    }
    let suite = match &args.suite {
        Some(path) => Suite::read(path)?,
        None => Suite::built_in()?,
    };
    let design = design(args, suite.cases.len());
    design.check()?;
    interrupt::install()?;
    let base = ready(args, Side::Base)?;
    let head = ready(args, Side::Head)?;
    let environment = MachineRecord::read();
    if let Some(line) = short_line(&environment.warnings).filter(|_| !args.quiet) {
        eprintln!("warning: {line}");
    }
    let machine = fingerprint::machine(&environment);
    let cases = json!({
        "suite": suite,
        "metrics": args.metrics,
        "base_arguments": args.base_arg,
        "head_arguments": args.head_arg,
    });
    let journal = journal(args, &design, (&base.identity, &head.identity), &machine, cases)?;
    let program =
        |ready: &Ready, arguments: &[String]| Program { path: ready.program.clone(), arguments: arguments.to_vec() };
    let (base_program, head_program) = (program(&base, &args.base_arg), program(&head, &args.head_arg));
    let mut source = Programs::new(suite, base_program, head_program, args.metrics.clone(), args.timeout)?;
    let mut progress = GateProgress::new(Some(journal), args.quiet);
    let cases = engine::run(&mut source, &design, &mut progress);
    progress.finish();
    let cases = cases.inspect_err(|error| tell_how_to_go_on(error, &args.output))?;
    let report = GateReport {
        schema: SCHEMA.to_owned(),
        outcome: Outcome::of(&cases),
        design,
        base: base.identity,
        head: head.identity,
        machine,
        resolution: environment.resolution.clone(),
        warnings: told(&environment.warnings),
        environment,
        cases,
    };
    finish(args, &report)
}

/// Writes and prints the outcome, and turns it into the exit status.
pub(super) fn finish(args: &GateArgs, report: &GateReport) -> Result<ExitCode> {
    let text = serde_json::to_string_pretty(report).map_err(|error| Error::file(&args.output, error.to_string()))?;
    write_whole(&args.output, format!("{text}\n").as_bytes())?;
    stdout::text(report::gate::render(report));
    write_exports(report, &args.export, step_summary().as_deref())?;
    Ok(ExitCode::from(report.outcome.exit_code()))
}

/// What disturbs measurements here, in a sentence each.
pub(super) fn told(warnings: &[Warning]) -> Vec<String> {
    let matters = warnings.iter().filter(|warning| warning.level == Level::Warning);
    matters.map(|warning| format!("{}; {}", warning.what, warning.advice)).collect()
}

pub(super) fn design(args: &GateArgs, n_cases: usize) -> Design {
    let design = match n_cases {
        1 => Design { look_delta: args.delta, ..Design::looks(args.seed) },
        _ => Design::screen_confirm(args.seed),
    };
    Design {
        delta: args.delta,
        effect: args.effect,
        auroc_tolerance: args.auroc_tolerance,
        allow_other_features: args.allow_other_features,
        ..design
    }
}

fn ready(args: &GateArgs, side: Side) -> Result<Ready> {
    let (file, revision) = match side {
        Side::Base => (&args.base_bin, &args.base_rev),
        Side::Head => (&args.head_bin, &args.head_rev),
    };
    let (path, program, revision, built) = match (file, revision) {
        (Some(file), _) => (file.clone(), file.clone(), None, None),
        (None, Some(revision)) => {
            let built = revisions::build(Path::new("."), revision, side, &args.build_profile, args.quiet)?;
            (PathBuf::from(revision), built.program.clone(), Some(built.commit.clone()), Some(built))
        }
        (None, None) => return Err(Error::usage(format!("name {side} with --{side}-bin or --{side}-rev"))),
    };
    let build = fingerprint::executable(&program)?;
    Ok(Ready { identity: Identity { path, revision, build, description: None }, program, _built: built })
}

pub(super) fn journal(
    args: &GateArgs,
    design: &Design,
    (base, head): (&Identity, &Identity),
    machine: &str,
    cases: Value,
) -> Result<Journal> {
    let path = journal_path(&args.output);
    let subject = Subject::new(design, base, head, machine, cases);
    if !args.resume {
        return Journal::begin(&path, &subject);
    }
    let journal = Journal::resume(&path, &subject)?;
    if !args.quiet {
        eprintln!("going on with {} pairs of {}", journal.n_recorded(), path.display());
    }
    Ok(journal)
}

/// `gate.json` has its journal in `gate.journal.jsonl`.
pub(super) fn journal_path(output: &Path) -> PathBuf {
    output.with_extension("journal.jsonl")
}

pub(super) fn tell_how_to_go_on(error: &Error, output: &Path) {
    if matches!(error, Error::Interrupted) {
        eprintln!("the pairs so far are in {}; --resume goes on with them", journal_path(output).display());
    }
}
