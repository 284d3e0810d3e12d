//! `actbench check`: checks that a device computes correct values, and the same bits by every method.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::stdout;
use crate::atomic_file::write_whole;
use crate::case::{DeviceMap, RunConfig};
use crate::error::{Error, Result};
use crate::own_output::{OutputFormat, check_own_output};
use crate::runner::interrupt;
use crate::workload::check::{CheckResult, CheckScope, CheckTarget, run};

/// Check a device: hidden states against reference values, and features by every method, batch size and set of rules.
///
/// All layers of small models of every kind are compared with transformers in float64 (the goldens). Features of the embedded
/// model must be bit-identical by all methods. Both are compared with the CPU. `kernels-check` checks single kernels.
#[derive(Args, Clone, Debug)]
#[command(
    before_help = "Examples:\n  \
    actbench check\n  \
    actbench check --device-map cuda --json check.json",
    after_help = "Exit status: 0 all checks passed, 1 a check failed, 2 nothing could be checked."
)]
pub struct CheckArgs {
    /// Device to check: any device accepted by `run --device-map`
    #[arg(long, default_value = "auto", value_name = "DEVICE")]
    pub device_map: DeviceMap,
    /// Directory of goldens [default: fixtures/data/goldens next to the executable, or in the sources of the build]
    #[arg(long, value_name = "DIR")]
    pub goldens: Option<PathBuf>,
    /// Use few samples, only bf16, and no probes
    #[arg(long)]
    pub quick: bool,
    /// Print which device would be checked, and check nothing
    #[arg(long)]
    pub list: bool,
    /// Write all results to a JSON file
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// Runs the command.
///
/// # Errors
/// A device that does not exist, or goldens that cannot be read.
pub fn check(args: &CheckArgs) -> Result<ExitCode> {
    // Temporary files of the disk cache have to be removed.
    interrupt::install()?;
    if let Some(path) = &args.json {
        check_own_output(path, "--json", &OutputFormat::CHECK)?;
    }
    let scope = if args.quick { CheckScope::QUICK } else { CheckScope::FULL };
    let target = CheckTarget::find(&config(args.device_map), scope)?;
    stdout::line(target.describe());
    if args.list {
        return Ok(ExitCode::SUCCESS);
    }
    let goldens = args.goldens.clone().unwrap_or_else(goldens_directory);
    let mut print = |result: &CheckResult| {
        let verdict = if result.passed { "ok    " } else { "FAILED" };
        stdout::line(format_args!("{verdict} {}: {}", result.name, result.detail));
    };
    let results = run(&target, &goldens, scope, &mut print)?;
    let failed = results.iter().filter(|result| !result.passed).count();
    if let Some(path) = &args.json {
        let file = json!({ "device": target.describe(), "passed": failed == 0, "findings": results });
        let mut text = serde_json::to_vec_pretty(&file)
            .map_err(|error| Error::internal(format!("the results of the check cannot be written as JSON: {error}")))?;
        text.push(b'\n');
        write_whole(path, &text)?;
    }
    stdout::line(summary(results.len(), failed));
    Ok(if failed == 0 && !results.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn summary(count: usize, failed: usize) -> String {
    match (count, failed) {
        (0, _) => "FAILED: nothing was checked".to_owned(),
        (_, 0) => format!("all {count} checks passed"),
        _ => format!("FAILED: {failed} of {count} checks"),
    }
}

/// The goldens next to the executable, which may have been copied to another machine; otherwise those of the sources.
fn goldens_directory() -> PathBuf {
    let copied = || Some(std::env::current_exe().ok()?.parent()?.join("fixtures").join("data").join("goldens"));
    copied().filter(|directory| directory.is_dir()).unwrap_or_else(actbench_fixtures::golden::goldens_directory)
}

/// The default settings of a run, with one probe per layer.
fn config(device_map: DeviceMap) -> RunConfig {
    RunConfig { device_map, sweep_cs: vec![1.0], ..RunConfig::default() }
}
