//! `actbench profile`: the time of a run by operation.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use clap::Args;

use super::defaults;
use super::run::distinct;
use super::settings::{CaseArgs, TrainProbeArgs};
use super::stdout;
use crate::atomic_file::write_whole;
use crate::case::{CasePhases, Method, RunConfig, Task};
use crate::error::Result;
use crate::measure::conditions::{SystemCounters, Warning, conditions, during, short_line, warnings};
use crate::measure::process_start::seconds_since_start;
use crate::own_output::{OutputFormat, check_own_output};
use crate::report::profile::{ProfileReport, render};
use crate::report::trace;
use crate::runner::interrupt;
use crate::workload::prepare::prepare;
use crate::workload::profile::{RunProfile, profile_run};
use crate::workload::{check_depth, request, with_layers};
use pairgate::stderr_line;

/// Measure the time of each operation of a run: calls, time, rates, fraction of the machine's peak.
///
/// Each task runs with each method once, in this process; no result file is written. Takes those flags of `run` that decide the
/// work of a case. The machine's peak rates are measured first: on the CPU the fastest call, on a GPU the mean over 1.5 s, with its
/// clock and power. `cache` in the column `of peak` stands for more than 150 % of the copy's rate.
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
    /// Tasks to profile
    #[arg(long, alias = "task", value_delimiter = ',', default_value = defaults::TASKS.as_str(), value_name = "TASK,...")]
    pub tasks: Vec<Task>,
    /// Methods to profile; lazy-disk is lazy with the on-disk feature cache, in addition to lazy
    #[arg(long, value_delimiter = ',', default_value = defaults::METHODS.as_str(), value_name = "METHOD,...")]
    pub methods: Vec<Method>,
    /// The work of each case.
    #[command(flatten)]
    pub case: CaseArgs,
    /// The probes of the task train.
    #[command(flatten)]
    pub train_probe: TrainProbeArgs,
    /// Write a trace of phases, batches, operations, kernels and copies for ui.perfetto.dev
    #[arg(long, value_name = "FILE")]
    pub trace: Option<PathBuf>,
    /// Print JSON instead of tables
    #[arg(long)]
    pub json: bool,
    /// Show no progress
    #[arg(long, short)]
    pub quiet: bool,
}

impl ProfileArgs {
    fn config(&self) -> RunConfig {
        RunConfig {
            train_c: self.train_probe.train_c,
            train_max_iter: self.train_probe.train_max_iter,
            ..self.case.config(distinct(&self.tasks), distinct(&self.methods))
        }
    }
}

/// Profiles the run.
///
/// # Errors
/// Bad settings or input, or a case that fails.
pub fn profile(args: &ProfileArgs) -> Result<ExitCode> {
    let start_s = seconds_since_start();
    // Temporary files of the disk cache have to be removed.
    interrupt::install()?;
    let config = args.config();
    config.check()?;
    // Before the profile itself loads the machine.
    let (state, before) = (conditions(), SystemCounters::read(Path::new("/")));
    let start = Instant::now();
    let prepared = prepare(request(&config, args.quiet))?;
    let prepare_s = Some(start.elapsed().as_secs_f64());
    for warning in &prepared.warnings {
        stderr_line!("warning: {warning}");
    }
    let warn = |disturbances: &[Warning]| {
        if let Some(line) = short_line(disturbances).filter(|_| !args.quiet) {
            stderr_line!("warning: {line}");
        }
    };
    let config = with_layers(&config, &prepared);
    for task in &config.tasks {
        check_depth(&config, *task, prepared.model.spec.n_layers)?;
    }
    let notify = |message: &str| {
        if !args.quiet {
            stderr_line!("{message}");
        }
    };
    if let Some(path) = &args.trace {
        check_own_output(path, "--trace", &OutputFormat::TRACE)?;
    }
    let mut disturbances = warnings(&state);
    warn(&disturbances);
    let run = profile_run(&config, &prepared, &notify)?;
    let run = RunProfile { phases: CasePhases { start_s, prepare_s, ..run.phases }, ..run };
    let found = during(&SystemCounters::read(Path::new("/")).since(&before));
    warn(&found);
    disturbances.extend(found);
    if let Some(path) = &args.trace {
        write_whole(path, trace::render(&run.cases).as_bytes())?;
        notify(&format!("{}: open it at https://ui.perfetto.dev or in chrome://tracing", path.display()));
    }
    let report = ProfileReport::new(&config, &run, disturbances);
    let text = if args.json { stdout::json(&report)? } else { render(&report, stdout::terminal_width()) };
    stdout::text(text);
    Ok(ExitCode::SUCCESS)
}
