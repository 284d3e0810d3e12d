//! `actbench selftest`: how often the gate cries wolf on this machine, and how small a slowdown it sees.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde_json::json;

use super::run::parse_duration;
use super::selftest_progress::SelftestProgress;
use super::stdout;
use crate::error::{Error, Result};
use crate::measure::resolution;
use crate::report::selftest as report;
use crate::results::{check_output, write_whole};
use crate::runner::interrupt;
use crate::selftest::live::{self, Plan};
use crate::selftest::noise::Noise;
use crate::selftest::replay::{Resampling, replay};

/// The signed-rank test of so many pairs has a level below 5 % at all.
const FEWEST_CONFIRMING: usize = 5;

/// Try the gate on known slowdowns: its false alarms, its power, and the smallest slowdown it resolves.
#[derive(Args, Clone, Debug)]
#[command(
    before_help = "Examples:\n  \
    actbench selftest\n  \
    actbench selftest --replay noise.jsonl --resamples 2000",
    after_help = "Exit status: 0 done, 1 the gate fell short, 2 bad usage or input, 130 interrupted."
)]
pub struct SelftestArgs {
    /// Recorded runs to draw from instead of running anything: one JSON object a line, {"wall":0.53,"cpu":0.52}
    #[arg(long, num_args = 1.., value_name = "FILE")]
    pub replay: Vec<PathBuf>,
    /// Resamples of each kind of a replay
    #[arg(long, default_value_t = 2000, value_name = "N")]
    pub resamples: usize,
    /// Fresh pairs that confirm a flag in a replay, to try another design than the gate's
    #[arg(long, requires = "replay", value_name = "N")]
    pub confirm_pairs: Option<usize>,
    /// The growth of memory, as a share, that is none in a replay, likewise
    #[arg(long, requires = "replay", value_name = "SHARE")]
    pub memory_margin: Option<f64>,
    /// Gates with nothing changed
    #[arg(long, default_value_t = 40, value_name = "N")]
    pub unchanged: usize,
    /// Gates of each slowdown; growths of memory, which are easier to see, get half as many
    #[arg(long, default_value_t = 20, value_name = "N")]
    pub changed: usize,
    /// Slowdowns to try, as shares
    #[arg(long, value_delimiter = ',', default_value = "0.02,0.05,0.10", value_name = "SHARE,...")]
    pub slowdowns: Vec<f64>,
    /// Samples of the case, which is the task train by lazy on the embedded model
    #[arg(long, default_value_t = 60, value_name = "N")]
    pub samples: usize,
    /// Threads of the case
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub threads: usize,
    /// The longest a run of the case may take: seconds, or with a unit as in 90s, 10m, 2h
    #[arg(long, default_value = "2m", value_parser = parse_duration, value_name = "TIME")]
    pub timeout: Duration,
    /// Do not keep what was found for later reports
    #[arg(long)]
    pub forget: bool,
    /// Seed
    #[arg(long, default_value_t = 0, value_name = "SEED")]
    pub seed: u64,
    /// Also write what was found as JSON
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
        check_output(path)?;
    }
    match args.replay.is_empty() {
        true => live(args),
        false => replay_all(args),
    }
}

fn live(args: &SelftestArgs) -> Result<ExitCode> {
    for (flag, value) in [("--unchanged", args.unchanged), ("--changed", args.changed), ("--samples", args.samples)] {
        if value == 0 {
            return Err(Error::usage(format!("{flag} must be at least 1")));
        }
    }
    if let Some(bad) = args.slowdowns.iter().find(|share| !(**share > 0.0 && **share < 1.0)) {
        return Err(Error::usage(format!("--slowdowns {bad}: a share between 0 and 1, as in 0.05")));
    }
    interrupt::install()?;
    let (samples, threads) = (args.samples.to_string(), args.threads.to_string());
    let plan = Plan {
        program: std::env::current_exe().map_err(Error::io("find", "this program"))?,
        arguments: ["--samples", &samples, "--threads", &threads].map(str::to_owned).to_vec(),
        unchanged_gates: args.unchanged,
        changed_gates: args.changed,
        slowdowns: args.slowdowns.clone(),
        memory_shares: vec![0.02],
        memory_bytes: vec![1 << 20],
        seed: args.seed,
        timeout: Some(args.timeout),
    };
    let mut progress = SelftestProgress::new(args.quiet);
    let found = live::run(&plan, &mut progress);
    progress.finish();
    let found = found?;
    stdout::text(report::live(&found));
    if let Some(path) = &args.output {
        let value = serde_json::to_value(&found).map_err(|error| Error::file(path, error.to_string()))?;
        write_json(path, &value)?;
    }
    if !args.forget {
        let path = resolution::store(&found.resolution)?;
        stdout::text(format_args!("kept for later reports in {}\n", path.display()));
    }
    let short = found.shortcomings();
    for line in &short {
        eprintln!("error: {line}");
    }
    Ok(if short.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn replay_all(args: &SelftestArgs) -> Result<ExitCode> {
    if args.resamples == 0 {
        return Err(Error::usage("--resamples must be at least 1"));
    }
    if args.confirm_pairs.is_some_and(|pairs| pairs < FEWEST_CONFIRMING) {
        return Err(Error::usage(format!(
            "--confirm-pairs must be at least {FEWEST_CONFIRMING}: fewer confirm nothing"
        )));
    }
    if let Some(bad) = args.memory_margin.filter(|share| !(0.0..1.0).contains(share)) {
        return Err(Error::usage(format!("--memory-margin {bad}: a share from 0 up to 1, as in 0.005")));
    }
    let how = Resampling {
        resamples: args.resamples,
        seed: args.seed,
        confirm_pairs: args.confirm_pairs,
        memory_margin_share: args.memory_margin,
    };
    let mut all = Vec::new();
    for path in &args.replay {
        let noise = Noise::read(path)?;
        let found = replay(&noise, &how)?;
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        stdout::text(format_args!("{}\n", report::replay(&name, &found)));
        all.push(json!({ "name": name, "replay": found }));
    }
    if let Some(path) = &args.output {
        write_json(path, &json!({ "schema": "actbench-replay/1", "seed": args.seed, "records": all }))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn write_json(path: &Path, value: &serde_json::Value) -> Result<()> {
    let text = serde_json::to_string_pretty(value).map_err(|error| Error::file(path, error.to_string()))?;
    write_whole(path, format!("{text}\n").as_bytes())
}
