//! Gates of benchmarks (`actbench gate --criterion`): criterion's times, with instruction counts as a cross-check.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use pairgate::CaseReport;
use pairgate::command_line::parse_duration;
use pairgate::source::criterion::{BenchDuration, BenchSide, CriterionSource, UnpairedBenchmarks};
use pairgate::source::instructions::{InstructionCounts, add_instruction_notes, count_instructions, missing_tools};
use pairgate::source::revisions::{BenchTarget, BuiltExecutable, build_bench};
use pairgate::source::{Side, Source};
use serde_json::json;

use super::GateArgs;
use super::shared::{GateSide, PreparedGate, SideArgument, build_revision, design, side_argument};
use crate::error::{Error, Result, from_pairgate};
use crate::measure::machine_record::MachineRecord;
use crate::runner::interrupt;
use pairgate::stderr_line;

/// The benchmark that counts instructions, and the feature that it is built with.
const INSTRUCTIONS: &str = "instructions";

/// Flags of gates of benchmarks.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Benchmarks")]
pub struct CriterionArgs {
    /// Gate criterion benchmarks: --base-bin and --head-bin must be benchmark executables; for revisions the benchmarks are
    /// built
    #[arg(long)]
    pub criterion: bool,
    /// The benchmark target to build for revisions
    #[arg(long, default_value = "primitives", requires = "criterion", value_name = "NAME")]
    pub bench: String,
    /// Accept that head lacks benchmarks that base has, for a change that removes or renames them
    #[arg(long, requires = "criterion")]
    pub allow_removed: bool,
    /// Run only benchmarks whose name contains this string
    #[arg(long, default_value = "", requires = "criterion", value_name = "TEXT")]
    pub filter: String,
    /// Measurement time of each process
    #[arg(long, default_value = "0.5s", requires = "criterion", value_parser = parse_duration, value_name = "TIME")]
    pub measurement_time: Duration,
    /// Warm-up time of each process
    #[arg(long, default_value = "0.2s", requires = "criterion", value_parser = parse_duration, value_name = "TIME")]
    pub warm_up_time: Duration,
    /// The gungraun executable before the change, for the cross-check by instruction counts
    #[arg(long, requires_all = ["criterion", "head_instructions"], value_name = "FILE")]
    pub base_instructions: Option<PathBuf>,
    /// The gungraun executable after the change
    #[arg(long, requires_all = ["criterion", "base_instructions"], value_name = "FILE")]
    pub head_instructions: Option<PathBuf>,
}

/// Runs the gate.
///
/// # Errors
/// Bad usage or input, a commit that does not build, an interrupt.
pub fn gate(args: &GateArgs) -> Result<ExitCode> {
    interrupt::install()?;
    let missing = missing_tools(&std::env::var_os("PATH").unwrap_or_default());
    let can_count = missing.is_none();
    let (base, head) = (prepare(args, Side::Base, can_count)?, prepare(args, Side::Head, can_count)?);
    let mut notes: Vec<String> = missing.into_iter().collect();
    let (base_counts, head_counts) = count_both(args, &base, &head, &mut notes)?.unzip();
    let options = &args.criterion;
    let duration = BenchDuration {
        warm_up_s: options.warm_up_time.as_secs_f64(),
        measurement_s: options.measurement_time.as_secs_f64(),
    };
    let (mut source, unpaired) = CriterionSource::new(
        BenchSide { executable: base.executable.clone(), counts: base_counts },
        BenchSide { executable: head.executable.clone(), counts: head_counts },
        &options.filter,
        duration,
        args.timeout,
    )
    .map_err(from_pairgate)?;
    let missing = if options.allow_removed { Vec::new() } else { missing_cases(&unpaired) };
    notes.extend(unpaired_notes(&unpaired, options.allow_removed));
    let design = design(args, source.cases().len())?;
    if !args.quiet {
        notes.iter().for_each(|note| stderr_line!("warning: {note}"));
    }
    let cases = json!({
        "benchmarks": source.cases(),
        "metrics": source.cases().iter().map(|case| source.metrics(case)).collect::<Vec<_>>(),
        "warm_up_s": duration.warm_up_s,
        "measurement_s": duration.measurement_s,
    });
    let gate = PreparedGate {
        design,
        base: base.identity.clone(),
        head: head.identity.clone(),
        environment: MachineRecord::read(),
        cases,
        notes,
    };
    gate.run(args, &mut source, |cases| {
        add_instruction_notes(cases);
        cases.extend(missing);
    })
}

fn prepare(args: &GateArgs, side: Side, can_count: bool) -> Result<GateSide> {
    let named_counter = match side {
        Side::Base => args.criterion.base_instructions.clone(),
        Side::Head => args.criterion.head_instructions.clone(),
    };
    let revision = match side_argument(args, side)? {
        SideArgument::File(file) => {
            return Ok(GateSide { instructions: named_counter, ..GateSide::of_file(file)? });
        }
        SideArgument::Revision(revision) => revision,
    };
    let build = |bench: &str, features: &[&str]| -> Result<BuiltExecutable> {
        let target = BenchTarget { bench, features };
        build_revision(args, |options| build_bench(options, revision, side, &target))
    };
    let mut prepared = GateSide::of_revision(revision, build(&args.criterion.bench, &[])?)?;
    prepared.instructions = named_counter;
    if prepared.instructions.is_none() && can_count {
        // Early commits have no such benchmark; other build failures were reported above.
        match build(INSTRUCTIONS, &[INSTRUCTIONS]) {
            Ok(built) => {
                prepared.instructions = Some(built.path.clone());
                prepared.built.push(built);
            }
            Err(Error::Interrupted) => return Err(Error::Interrupted),
            Err(_) => {}
        }
    }
    Ok(prepared)
}

/// Counts on both sides, or adds a note why there are none.
fn count_both(
    args: &GateArgs,
    base: &GateSide,
    head: &GateSide,
    notes: &mut Vec<String>,
) -> Result<Option<(InstructionCounts, InstructionCounts)>> {
    if !notes.is_empty() {
        return Ok(None);
    }
    let (Some(base), Some(head)) = (&base.instructions, &head.instructions) else {
        notes.push(
            "instructions are not counted: name the gungraun executables with --base-instructions and \
             --head-instructions, or commits that both have the benchmark `instructions`"
                .to_owned(),
        );
        return Ok(None);
    };
    if !args.quiet {
        stderr_line!("counting instructions");
    }
    let count = |executable: &PathBuf| count_instructions(executable, args.timeout).map_err(from_pairgate);
    Ok(Some((count(base)?, count(head)?)))
}

/// Benchmarks that head has lost: an unmeasured case never passes.
fn missing_cases(unpaired: &UnpairedBenchmarks) -> Vec<CaseReport> {
    let reason = "head lacks this benchmark; restore it, or pass --allow-removed if the change removes or renames it";
    unpaired.only_base.iter().map(|name| CaseReport::unmeasured(name, reason)).collect()
}

/// Benchmarks that are not gated, so that they are not mistaken for passed.
fn unpaired_notes(unpaired: &UnpairedBenchmarks, allow_removed: bool) -> Vec<String> {
    [("base", &unpaired.only_base, allow_removed), ("head", &unpaired.only_head, true)]
        .into_iter()
        .filter(|(_, names, noted)| *noted && !names.is_empty())
        .map(|(side, names, _)| (side, names))
        .map(|(side, names)| format!("not gated, only {side} has them: {}", names.join(", ")))
        .collect()
}
