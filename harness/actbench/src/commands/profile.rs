//! `actbench profile`: where the time of a run goes, operation by operation.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::run::RunArgs;
use super::stdout;
use crate::error::{Error, Result};
use crate::report::profile::{ProfileReport, render};
use crate::report::trace;
use crate::results::{check_writable, write_whole};
use crate::workload::prepare::prepare;
use crate::workload::profile::profile_run;
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
    actbench profile --tasks train --methods lazy --no-opt prefix --model ./smollm2 --dataset repe --data-dir ./data\n  \
    actbench profile --methods lazy --trace trace.json",
    after_help = "Exit status: 0 done, 1 a case failed, 2 bad usage or input."
)]
pub struct ProfileArgs {
    /// A run's flags.
    #[command(flatten)]
    pub run: RunArgs,
    /// Write a trace of phases, batches, operations, kernels and copies for ui.perfetto.dev
    #[arg(long, value_name = "FILE")]
    pub trace: Option<PathBuf>,
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
    if let Some(path) = &args.trace {
        check_writable(path, "--trace", "the trace")?;
    }
    let run = profile_run(&config, &prepared, &say)?;
    if let Some(path) = &args.trace {
        write_whole(path, trace::render(&run.cases).as_bytes())?;
        say(&format!("{}: open it at https://ui.perfetto.dev or in chrome://tracing", path.display()));
    }
    let report = ProfileReport::new(&config, run.device, run.ceilings, &run.cases);
    let text = match args.run.json {
        true => serde_json::to_string_pretty(&report).map_err(|error| Error::usage(error.to_string()))? + "\n",
        false => render(&report),
    };
    stdout::text(text);
    Ok(ExitCode::SUCCESS)
}
