//! `actbench profile`: where the time of a run goes, operation by operation.

use std::io::Write as _;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;

use super::run::RunArgs;
use crate::error::{Error, Result};
use crate::report::profile::{ProfileReport, render};
use crate::workload::case::{CaseObserver, Phase};
use crate::workload::prepare::prepare;
use crate::workload::profile::{Ceilings, profile_case};
use crate::workload::{check_depth, request, with_layers};

/// Show where the time of a run goes: calls, time, share, rates and how near they are to the machine's best.
///
/// Takes the flags of `run` and runs each task with each method once, in this process; those that say how often or in
/// how many processes change nothing, and no result file is written. The machine's best is measured first.
#[derive(Args, Clone, Debug)]
#[command(
    allow_negative_numbers = true,
    before_help = "Examples:\n  \
    actbench profile --methods lazy\n  \
    actbench profile --tasks train --methods lazy --no-opt prefix --model ./smollm2 --dataset repe --data-dir ./data",
    after_help = "Exit status: 0 done, 1 a case failed, 2 bad usage or input."
)]
pub struct ProfileArgs {
    /// A run's flags.
    #[command(flatten)]
    pub run: RunArgs,
}

/// Runs the command.
///
/// # Errors
/// Bad settings or input, or a case that fails.
pub fn profile(args: &ProfileArgs) -> Result<ExitCode> {
    let config = args.run.config();
    config.check()?;
    let prepared = prepare(request(&config, args.run.quiet))?;
    for warning in &prepared.warnings {
        eprintln!("warning: {warning}");
    }
    let config = with_layers(&config, &prepared);
    for task in &config.tasks {
        check_depth(&config, *task, prepared.model.config.n_layers)?;
    }
    let say = |what: &str| {
        if !args.run.quiet {
            eprintln!("{what}");
        }
    };
    say("measuring the machine's best");
    let ceilings = Ceilings::measure(&config)?;
    let observer: Arc<dyn CaseObserver> = Arc::new(Silent);
    let mut cases = Vec::new();
    for task in &config.tasks {
        for method in &config.methods {
            say(&format!("running {task} {method}"));
            cases.push(profile_case(*task, *method, &config, &prepared, &observer)?);
        }
    }
    let report = ProfileReport::new(&config, ceilings, &cases);
    let text = match args.run.json {
        true => serde_json::to_string_pretty(&report).map_err(|error| Error::usage(error.to_string()))? + "\n",
        false => render(&report),
    };
    // A closed pipe, as of `| head`, is no failure.
    let _ = std::io::stdout().write_all(text.as_bytes());
    Ok(ExitCode::SUCCESS)
}

/// Nobody listens.
struct Silent;

impl CaseObserver for Silent {
    fn phase(&self, _phase: Phase) {}
    fn progress(&self, _done: u64, _total: u64, _unit: &str) {}
    fn loaded(&self) {}
    fn measured(&self) {}
}
