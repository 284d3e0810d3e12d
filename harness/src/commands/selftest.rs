//! `actbench selftest`: how often the gate cries wolf on this machine, and how small a slowdown it sees.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use crate::error::{Error, Result};
use crate::report::selftest as report;
use crate::results::{check_output, write_whole};
use crate::selftest::noise::Noise;
use crate::selftest::replay::replay;

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
    replay_all(args)
}

fn replay_all(args: &SelftestArgs) -> Result<ExitCode> {
    if args.resamples == 0 {
        return Err(Error::usage("--resamples must be at least 1"));
    }
    let mut all = Vec::new();
    for path in &args.replay {
        let noise = Noise::read(path)?;
        let found = replay(&noise, args.resamples, args.seed)?;
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        print(&format!("{}\n", report::replay(&name, &found)));
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

/// A closed pipe, as of `| head`, is no failure.
fn print(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}
