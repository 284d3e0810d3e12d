//! `actbench profile`: the time of a run by operation.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;

use super::run::RunArgs;
use super::stdout;
use crate::atomic_file::write_whole;
use crate::error::Result;
use crate::measure::conditions::{SystemCounters, Warning, conditions, during, short_line, warnings};
use crate::own_output::{OutputFormat, check_own_output};
use crate::report::profile::{ProfileReport, render};
use crate::report::trace;
use crate::runner::interrupt;
use crate::workload::prepare::prepare;
use crate::workload::profile::profile_run;
use crate::workload::{check_depth, request, with_layers};
use pairgate::stderr_line;

/// Measure the time of each operation of a run: calls, time, rates, fraction of the machine's peak.
///
/// Takes the flags of `run`; no result file is written. Each task runs with each method once, in this process. Flags that
/// affect only repetitions and processes are accepted, have no effect and are not listed here. The machine's peak rates are
/// measured first. `cache` in the column `of peak` stands for more than 150 % of the copy's rate.
#[derive(Args, Clone, Debug)]
#[command(
    allow_negative_numbers = true,
    before_help = "Examples:\n  \
    actbench profile --methods lazy\n  \
    actbench profile --tasks train --methods lazy --no-opt prefix --model ./smollm2 --dataset repe --data-dir ./data\n  \
    actbench profile --methods lazy --trace trace.json",
    after_help = "Exit status: 0 success, 1 a case failed, 2 bad usage or input."
)]
pub struct ProfileArgs {
    /// The flags of `run`.
    #[command(flatten)]
    pub run: RunArgs,
    /// Write a trace of phases, batches, operations, kernels and copies for ui.perfetto.dev
    #[arg(long, value_name = "FILE")]
    pub trace: Option<PathBuf>,
}

/// Profiles the run.
///
/// # Errors
/// Bad settings or input, or a case that fails.
pub fn profile(args: &ProfileArgs) -> Result<ExitCode> {
    // Temporary files of the disk cache have to be removed.
    interrupt::install()?;
    let config = args.run.config();
    config.check()?;
    // Before the profile itself loads the machine.
    let (state, before) = (conditions(), SystemCounters::read(Path::new("/")));
    let prepared = prepare(request(&config, args.run.quiet))?;
    for warning in &prepared.warnings {
        stderr_line!("warning: {warning}");
    }
    let warn = |disturbances: &[Warning]| {
        if let Some(line) = short_line(disturbances).filter(|_| !args.run.quiet) {
            stderr_line!("warning: {line}");
        }
    };
    let config = with_layers(&config, &prepared);
    for task in &config.tasks {
        check_depth(&config, *task, prepared.model.config.n_layers)?;
    }
    let notify = |message: &str| {
        if !args.run.quiet {
            stderr_line!("{message}");
        }
    };
    if let Some(path) = &args.trace {
        check_own_output(path, "--trace", &OutputFormat::TRACE)?;
    }
    warn(&warnings(&state));
    let run = profile_run(&config, &prepared, &notify)?;
    warn(&during(&SystemCounters::read(Path::new("/")).since(&before)));
    if let Some(path) = &args.trace {
        write_whole(path, trace::render(&run.cases).as_bytes())?;
        notify(&format!("{}: open it at https://ui.perfetto.dev or in chrome://tracing", path.display()));
    }
    let report = ProfileReport::new(&config, run.device, run.ceilings, &run.cases);
    let text = if args.run.json { stdout::json(&report)? } else { render(&report) };
    stdout::text(text);
    Ok(ExitCode::SUCCESS)
}
