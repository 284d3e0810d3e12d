//! `actbench selftest`: the gate's false alarms on this machine, and the smallest slowdown that it catches.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde_json::json;

use super::selftest_progress::SelftestProgress;
use super::stdout;
use crate::atomic_file::write_whole;
use crate::case::check_threads;
use crate::error::{Error, Result, from_pairgate};
use crate::gate_adapter::SELFTEST_SCHEMA;
use crate::gate_adapter::testbed::InjectionTestbed;
use crate::measure::machine_record::MachineRecord;
use crate::measure::{fingerprint, resolution};
use crate::own_output::{OutputFormat, check_own_output};
use crate::report::selftest as report;
use crate::results::adaptive::StoppingRule;
use crate::runner::interrupt;
use pairgate::command_line::parse_duration;
use pairgate::selftest::live::{self, SelftestContext, SelftestPlan};
use pairgate::selftest::noise::NoiseRecord;
use pairgate::selftest::replay::{IntervalStopping, ReplayOptions, replay};
use pairgate::stderr_line;

/// The smallest number of pairs with which the signed-rank test can reach 5 %.
const MIN_CONFIRMING: usize = 5;

/// Test the gate itself: its false alarms, its power, and the smallest slowdown that it catches on this machine.
#[derive(Args, Clone, Debug)]
#[command(
    before_help = "Examples:\n  \
    actbench selftest\n  \
    actbench selftest --replay noise.jsonl --resamples 2000",
    after_help = "Exit status: 0 done, 1 the gate fell short, 2 bad usage or input, 130 interrupted."
)]
pub struct SelftestArgs {
    /// Replay recorded runs instead of running anything: one JSON object a line, {"wall":0.53,"cpu":0.52}
    #[arg(long, num_args = 1.., value_name = "FILE")]
    pub replay: Vec<PathBuf>,
    /// Resamples for each kind of gate in a replay
    #[arg(long, default_value_t = 2000, value_name = "N")]
    pub resamples: usize,
    /// Fresh pairs that confirm a flag in a replay, to test another design than the gate's
    #[arg(long, requires = "replay", value_name = "N")]
    pub confirm_pairs: Option<usize>,
    /// In a replay, a growth of memory of at most this fraction is not a regression
    #[arg(long, requires = "replay", value_name = "FRACTION")]
    pub memory_margin: Option<f64>,
    /// Gates without a difference
    #[arg(long, default_value_t = 40, value_name = "N")]
    pub unchanged: usize,
    /// Gates of each slowdown; growths of memory and fresh copies of the program get half as many
    #[arg(long, default_value_t = 20, value_name = "N")]
    pub changed: usize,
    /// Slowdowns to test, as fractions
    #[arg(long, value_delimiter = ',', default_value = "0.02,0.05,0.10", value_name = "FRACTION,...")]
    pub slowdowns: Vec<f64>,
    /// Samples of the case, which is the task train by lazy on the embedded model [default: as many as take 0.25 s here]
    #[arg(long, value_name = "N")]
    pub samples: Option<usize>,
    /// Threads of the case
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub threads: usize,
    /// Time limit of a run of the case: seconds, or with a unit as in 90s, 10m, 2h
    #[arg(long, default_value = "2m", value_parser = parse_duration, value_name = "TIME")]
    pub timeout: Duration,
    /// Do not store the result for later reports
    #[arg(long)]
    pub forget: bool,
    /// Seed
    #[arg(long, default_value_t = 0, value_name = "SEED")]
    pub seed: u64,
    /// Also write the report as JSON
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Show no progress
    #[arg(long, short)]
    pub quiet: bool,
}

/// Runs the command.
///
/// # Errors
/// Bad input, or a file that cannot be written.
pub fn selftest(args: &SelftestArgs) -> Result<ExitCode> {
    if let Some(path) = &args.output {
        check_own_output(path, "--output", &OutputFormat::SELFTEST)?;
    }
    if args.replay.is_empty() { live(args) } else { replay_all(args) }
}

fn live(args: &SelftestArgs) -> Result<ExitCode> {
    for (flag, value) in
        [("--unchanged", Some(args.unchanged)), ("--changed", Some(args.changed)), ("--samples", args.samples)]
    {
        if value == Some(0) {
            return Err(Error::usage(format!("{flag} must be at least 1")));
        }
    }
    check_threads(args.threads)?;
    if let Some(bad) = args.slowdowns.iter().find(|fraction| !(**fraction > 0.0 && **fraction < 1.0)) {
        return Err(Error::usage(format!("--slowdowns {bad}: must be between 0 and 1, as in 0.05")));
    }
    interrupt::install()?;
    let timeout = Some(args.timeout);
    let samples = match args.samples {
        Some(samples) => samples,
        None => InjectionTestbed::choose_samples(args.threads, timeout).map_err(from_pairgate)?,
    };
    let testbed = InjectionTestbed::of_this_executable(samples, args.threads, timeout).map_err(from_pairgate)?;
    let plan = SelftestPlan {
        program: testbed.executable.clone(),
        arguments: testbed.arguments.clone(),
        unchanged_gates: args.unchanged,
        changed_gates: args.changed,
        slowdowns: args.slowdowns.clone(),
        // Of the ten or so MiB that the case allocates, above the margin of 256 KiB.
        memory_fractions: vec![0.05],
        memory_bytes: vec![1 << 20],
        seed: args.seed,
        timeout,
    };
    let mut progress = SelftestProgress::new(args.quiet);
    let tested = live::run(&plan, &testbed, context, &mut progress);
    progress.finish();
    let tested = tested.map_err(from_pairgate)?;
    stdout::text(report::live(&tested));
    if let Some(path) = &args.output {
        let value = serde_json::to_value(&tested).map_err(|error| Error::internal(error.to_string()))?;
        write_json(path, &value)?;
    }
    if !args.forget {
        let path = resolution::store(&tested.resolution)?;
        stdout::text(format_args!("stored for later reports in {}\n", path.display()));
    }
    let shortcomings = tested.shortcomings();
    for line in &shortcomings {
        stderr_line!("error: {line}");
    }
    Ok(if shortcomings.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The facts about this machine and this build for the report.
fn context() -> SelftestContext {
    let environment = MachineRecord::read();
    SelftestContext {
        schema: SELFTEST_SCHEMA.to_owned(),
        machine: fingerprint::machine(&environment),
        date: environment.date.clone(),
        environment: serde_json::to_value(&environment).unwrap_or_default(),
    }
}

fn replay_all(args: &SelftestArgs) -> Result<ExitCode> {
    if args.resamples == 0 {
        return Err(Error::usage("--resamples must be at least 1"));
    }
    if args.confirm_pairs.is_some_and(|pairs| pairs < MIN_CONFIRMING) {
        return Err(Error::usage(format!(
            "--confirm-pairs must be at least {MIN_CONFIRMING}: fewer cannot confirm a regression"
        )));
    }
    if let Some(bad) = args.memory_margin.filter(|fraction| !(0.0..1.0).contains(fraction)) {
        return Err(Error::usage(format!("--memory-margin {bad}: must be from 0 to below 1, as in 0.005")));
    }
    let stopping = StoppingRule::default();
    let options = ReplayOptions {
        resamples: args.resamples,
        seed: args.seed,
        confirm_pairs: args.confirm_pairs,
        memory_margin: args.memory_margin,
        stopping: IntervalStopping {
            half_width: stopping.half_width,
            min_pairs: stopping.min_blocks,
            max_pairs: stopping.max_blocks,
        },
    };
    let mut records = Vec::new();
    for path in &args.replay {
        let noise = NoiseRecord::read(path).map_err(from_pairgate)?;
        let replayed = replay(&noise, &options).map_err(from_pairgate)?;
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        stdout::text(format_args!("{}\n", report::replay(&name, &replayed)));
        records.push(json!({ "name": name, "replay": replayed }));
    }
    if let Some(path) = &args.output {
        write_json(path, &json!({ "schema": "actbench-replay/1", "seed": args.seed, "records": records }))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn write_json(path: &Path, value: &serde_json::Value) -> Result<()> {
    let text = serde_json::to_string_pretty(value).map_err(|error| Error::internal(error.to_string()))?;
    write_whole(path, format!("{text}\n").as_bytes())
}
