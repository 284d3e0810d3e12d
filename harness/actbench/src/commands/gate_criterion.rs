//! `actbench gate --criterion`: the verdicts of the gate on criterion's benchmarks, instructions as a second witness.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde_json::json;

use super::gate::{GateArgs, design, finish, journal, tell_how_to_go_on, told};
use super::gate_progress::GateProgress;
use super::run::parse_duration;
use crate::error::{Error, Result};
use crate::gate::criterion::{Benches, CriterionSource, Effort, OneSided};
use crate::gate::report::{Identity, SCHEMA};
use crate::gate::revisions::{self, Built};
use crate::gate::source::{Side, Source};
use crate::gate::{GateReport, Outcome, engine, instructions};
use crate::measure::fingerprint;
use crate::measure::machine_record::MachineRecord;
use crate::runner::interrupt;

/// The bench of the workspace that counts instructions, and the feature that it is built with.
const INSTRUCTIONS: &str = "instructions";

/// Benchmarks instead of runs.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Benchmarks")]
pub struct CriterionArgs {
    /// Gate criterion benchmarks: --base-bin and --head-bin are bench programs, of commits theirs are built
    #[arg(long)]
    pub criterion: bool,
    /// The bench program that is built of commits
    #[arg(long, default_value = "primitives", requires = "criterion", value_name = "NAME")]
    pub bench: String,
    /// Only benchmarks whose name holds this
    #[arg(long, default_value = "", requires = "criterion", value_name = "TEXT")]
    pub filter: String,
    /// How long a process measures
    #[arg(long, default_value = "0.5s", requires = "criterion", value_parser = parse_duration, value_name = "TIME")]
    pub measurement_time: Duration,
    /// How long a process warms up before
    #[arg(long, default_value = "0.2s", requires = "criterion", value_parser = parse_duration, value_name = "TIME")]
    pub warm_up_time: Duration,
    /// The bench program of gungraun before the change, whose counts are the second witness
    #[arg(long, requires_all = ["criterion", "head_instructions"], value_name = "FILE")]
    pub base_instructions: Option<PathBuf>,
    /// The same after it
    #[arg(long, requires_all = ["criterion", "base_instructions"], value_name = "FILE")]
    pub head_instructions: Option<PathBuf>,
}

/// A side's programs, and what keeps them.
struct Ready {
    identity: Identity,
    program: PathBuf,
    instructions: Option<PathBuf>,
    _built: Vec<Built>,
}

/// Runs the command.
///
/// # Errors
/// Bad usage or input, a commit that does not build, an interrupt.
pub fn gate(args: &GateArgs) -> Result<ExitCode> {
    interrupt::install()?;
    let missing = instructions::missing(&std::env::var_os("PATH").unwrap_or_default());
    let (base, head) = (ready(args, Side::Base, missing.is_none())?, ready(args, Side::Head, missing.is_none())?);
    let mut notes: Vec<String> = missing.into_iter().collect();
    let counts = counts(args, &base, &head, &mut notes)?;
    let (of_base, of_head) = counts.unzip();
    let options = &args.criterion;
    let effort =
        Effort { warm_up_s: options.warm_up_time.as_secs_f64(), measurement_s: options.measurement_time.as_secs_f64() };
    let (mut source, one_sided) = CriterionSource::new(
        Benches { program: base.program.clone(), counts: of_base },
        Benches { program: head.program.clone(), counts: of_head },
        &options.filter,
        effort,
        args.timeout,
    )?;
    notes.extend(left_out(&one_sided));
    let design = design(args, source.cases().len());
    design.check()?;
    let environment = MachineRecord::read();
    let machine = fingerprint::machine(&environment);
    if !args.quiet {
        notes.iter().for_each(|note| eprintln!("warning: {note}"));
    }
    let subject = json!({
        "benchmarks": source.cases(),
        "metrics": source.cases().iter().map(|case| source.metrics(case)).collect::<Vec<_>>(),
        "warm_up_s": effort.warm_up_s,
        "measurement_s": effort.measurement_s,
    });
    let journal = journal(args, &design, (&base.identity, &head.identity), &machine, subject)?;
    let mut progress = GateProgress::new(Some(journal), args.quiet);
    let cases = engine::run(&mut source, &design, &mut progress);
    progress.finish();
    let mut cases = cases.inspect_err(|error| tell_how_to_go_on(error, &args.output))?;
    instructions::bear_witness(&mut cases);
    let report = GateReport {
        schema: SCHEMA.to_owned(),
        outcome: Outcome::of(&cases),
        design,
        base: base.identity,
        head: head.identity,
        machine,
        resolution: environment.resolution.clone(),
        warnings: [told(&environment.warnings), notes].concat(),
        environment,
        cases,
    };
    finish(args, &report)
}

fn ready(args: &GateArgs, side: Side, can_count: bool) -> Result<Ready> {
    let (file, revision, counter) = match side {
        Side::Base => (&args.base_bin, &args.base_rev, &args.criterion.base_instructions),
        Side::Head => (&args.head_bin, &args.head_rev, &args.criterion.head_instructions),
    };
    if let Some(file) = file {
        let build = fingerprint::executable(file)?;
        let identity = Identity { path: file.clone(), revision: None, build, description: None };
        return Ok(Ready { identity, program: file.clone(), instructions: counter.clone(), _built: Vec::new() });
    }
    let revision =
        revision.as_ref().ok_or_else(|| Error::usage(format!("name {side} with --{side}-bin or --{side}-rev")))?;
    let build = |bench: &str, features: &[&str]| {
        revisions::build_bench(Path::new("."), revision, side, bench, features, args.quiet)
    };
    let built = build(&args.criterion.bench, &[])?;
    let identity = Identity {
        path: PathBuf::from(revision),
        revision: Some(built.commit.clone()),
        build: fingerprint::executable(&built.program)?,
        description: None,
    };
    let program = built.program.clone();
    let mut kept = vec![built];
    let mut counter = counter.clone();
    if counter.is_none() && can_count {
        // A commit from before there were counts has none; that it builds at all was seen above.
        match build(INSTRUCTIONS, &[INSTRUCTIONS]) {
            Ok(built) => {
                counter = Some(built.program.clone());
                kept.push(built);
            }
            Err(Error::Interrupted) => return Err(Error::Interrupted),
            Err(_) => {}
        }
    }
    Ok(Ready { identity, program, instructions: counter, _built: kept })
}

/// Counts on both sides, or a note why there are none.
fn counts(
    args: &GateArgs,
    base: &Ready,
    head: &Ready,
    notes: &mut Vec<String>,
) -> Result<Option<(instructions::Counts, instructions::Counts)>> {
    match (&base.instructions, &head.instructions) {
        _ if !notes.is_empty() => Ok(None),
        (Some(base), Some(head)) => {
            if !args.quiet {
                eprintln!("counting instructions");
            }
            Ok(Some((instructions::count(base, args.timeout)?, instructions::count(head, args.timeout)?)))
        }
        _ => {
            notes.push(
                "instructions are not counted: name the bench programs of gungraun with --base-instructions and \
                 --head-instructions, or commits that both have the bench `instructions`"
                    .to_owned(),
            );
            Ok(None)
        }
    }
}

/// Benchmarks that were not gated, so that nobody takes them for passed.
fn left_out(one_sided: &OneSided) -> Vec<String> {
    let told =
        |names: &[String], what: &str| (!names.is_empty()).then(|| format!("not gated, {what}: {}", names.join(", ")));
    [told(&one_sided.gone, "only base has them"), told(&one_sided.new, "only head has them")]
        .into_iter()
        .flatten()
        .collect()
}
