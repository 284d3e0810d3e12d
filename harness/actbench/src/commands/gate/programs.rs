//! Gates of runs: both executables run the cases of a suite.

use std::process::ExitCode;

use pairgate::source::Side;
use pairgate::source::revisions::build_binary;
use serde_json::json;

use super::GateArgs;
use super::shared::{GateSide, PreparedGate, SideArgument, build_revision, design, side_argument};
use crate::error::{Result, from_pairgate};
use crate::gate_adapter::runs::{ActbenchExecutable, ActbenchRuns};
use crate::gate_adapter::suite::Suite;
use crate::measure::conditions::short_line;
use crate::measure::machine_record::MachineRecord;
use crate::runner::interrupt;
use pairgate::stderr_line;

/// The package and the binary that are built from commits.
const BINARY: &str = "actbench";

/// Runs the gate.
///
/// # Errors
/// Bad usage or input, a commit that does not build, an interrupt.
pub fn gate(args: &GateArgs) -> Result<ExitCode> {
    let suite = match &args.suite {
        Some(path) => Suite::read(path)?,
        None => Suite::built_in()?,
    };
    let design = design(args, suite.cases.len())?;
    interrupt::install()?;
    let (base, head) = (prepare(args, Side::Base)?, prepare(args, Side::Head)?);
    let environment = MachineRecord::read();
    if let Some(line) = short_line(&environment.warnings).filter(|_| !args.quiet) {
        stderr_line!("warning: {line}");
    }
    let cases = json!({
        "suite": suite,
        "metrics": args.metrics,
        "base_arguments": args.base_arg,
        "head_arguments": args.head_arg,
    });
    let executable = |side: &GateSide, arguments: &[String]| ActbenchExecutable {
        path: side.executable.clone(),
        arguments: arguments.to_vec(),
    };
    let (base_runs, head_runs) = (executable(&base, &args.base_arg), executable(&head, &args.head_arg));
    let mut source =
        ActbenchRuns::new(suite, base_runs, head_runs, args.metrics.clone(), args.timeout).map_err(from_pairgate)?;
    let gate = PreparedGate {
        design,
        base: base.identity.clone(),
        head: head.identity.clone(),
        environment,
        cases,
        notes: Vec::new(),
    };
    gate.run(args, &mut source, |_| {})
}

fn prepare(args: &GateArgs, side: Side) -> Result<GateSide> {
    match side_argument(args, side)? {
        SideArgument::File(file) => GateSide::of_file(file),
        SideArgument::Revision(revision) => {
            let profile = &args.build_profile;
            let built = build_revision(args, |options| build_binary(options, revision, side, BINARY, profile))?;
            GateSide::of_revision(revision, built)
        }
    }
}
