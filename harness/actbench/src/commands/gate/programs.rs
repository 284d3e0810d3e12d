//! Gates of runs: both executables run the cases of a suite.

use std::path::Path;
use std::process::ExitCode;

use clap::Args;
use pairgate::source::Side;
use pairgate::source::revisions::build_binary;
use serde_json::json;

use super::GateArgs;
use super::shared::{GateSide, PreparedGate, SideArgument, build_revision, design, side_argument};
use crate::commands::run::RunArgs;
use crate::error::{Error, Result, from_pairgate};
use crate::gate_adapter::runs::{ActbenchExecutable, ActbenchRuns};
use crate::gate_adapter::staging::StagedExecutables;
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
        Some(path) => {
            let suite = Suite::read(path)?;
            check_arguments(&suite, path)?;
            suite
        }
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
    // Removed after the gate.
    let staged = StagedExecutables::create().map_err(from_pairgate)?;
    let executable = |prepared: &GateSide, side: Side, arguments: &[String]| -> Result<ActbenchExecutable> {
        let path = staged.stage(&prepared.executable, side).map_err(from_pairgate)?;
        Ok(ActbenchExecutable { path, arguments: arguments.to_vec() })
    };
    let base_runs = executable(&base, Side::Base, &args.base_arg)?;
    let head_runs = executable(&head, Side::Head, &args.head_arg)?;
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

/// Parses the arguments of each case as `actbench run` does, so that a typo is found before anything is built or run.
fn check_arguments(suite: &Suite, path: &Path) -> Result<()> {
    for case in &suite.cases {
        // The first argument is the name of the subcommand.
        let command = RunArgs::augment_args(clap::Command::new("run"));
        if let Err(error) = command.try_get_matches_from(suite.arguments(case)) {
            return Err(Error::file(path, format!("case '{}': args: {}", case.name, one_line(&error))));
        }
    }
    Ok(())
}

/// The message of a parser's error and its tips, without the usage.
fn one_line(error: &clap::Error) -> String {
    if error.kind() == clap::error::ErrorKind::DisplayHelp {
        return "--help runs nothing; remove it".to_owned();
    }
    let text = error.to_string();
    let lines =
        text.lines().map(str::trim).take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more"));
    let lines: Vec<&str> = lines.filter(|line| !line.is_empty()).collect();
    lines.join("; ").trim_start_matches("error: ").replace("tip: ", "")
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

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(args: &str) -> String {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("suite.toml");
        let case = format!("[[case]]\nname = \"a\"\ntask = \"train\"\nmethod = \"lazy\"\nargs = [{args}]\n");
        std::fs::write(&path, case).unwrap();
        check_arguments(&Suite::read(&path).unwrap(), &path).map_or_else(|error| error.to_string(), |()| String::new())
    }

    #[test]
    fn arguments_of_cases_are_parsed_before_the_gate() {
        assert_eq!(refused("\"--samples\", \"20\""), "");
        let typo = refused("\"--sampels\", \"20\"");
        assert!(
            typo.ends_with(
                "case 'a': args: unexpected argument '--sampels' found; a similar argument exists: '--samples'"
            ),
            "{typo}"
        );
        for (args, part) in [
            ("\"--samples\", \"many\"", "invalid value 'many' for '--samples <"),
            ("\"--samples\"", "a value is required for '--samples <"),
            ("\"--help\"", "remove it"),
        ] {
            let error = refused(args);
            assert!(error.contains(part) && error.lines().count() == 1, "{error}");
        }
    }

    #[test]
    fn built_in_suite_is_accepted() {
        check_arguments(&Suite::built_in().unwrap(), Path::new("built-in")).unwrap();
    }
}
