//! `actbench check`: whether a device gives the right values, and the same bits every way.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::stdout;
use crate::case::{DeviceMap, RunConfig};
use crate::error::{Error, Result};
use crate::results::{check_writable, write_whole};
use crate::workload::check::{CheckResult, CheckScope, CheckTarget, run};

/// Check a device: hidden states against reference values, and features by every method, batch size and set of rules.
///
/// What is compared: all layers of small models of every kind with transformers in float64 (the goldens), the features of
/// the embedded model by all ways bit by bit, and both with the CPU. `kernels-check` looks at kernels one by one.
#[derive(Args, Clone, Debug)]
#[command(
    before_help = "Examples:\n  \
    actbench check\n  \
    actbench check --device-map cuda --json check.json",
    after_help = "Exit status: 0 everything holds, 1 something does not, 2 nothing could be checked."
)]
pub struct CheckArgs {
    /// What is checked: auto, cpu, cuda, cuda:N or what else `run` takes
    #[arg(long, default_value = "auto", value_name = "DEVICE")]
    pub device_map: DeviceMap,
    /// Folder of goldens [default: fixtures/data/goldens beside the program or of the sources it was built from]
    #[arg(long, value_name = "DIR")]
    pub goldens: Option<PathBuf>,
    /// Few samples, bf16 alone, and no probes
    #[arg(long)]
    pub quick: bool,
    /// Say which device would be checked, and check nothing
    #[arg(long)]
    pub list: bool,
    /// Write everything found to a file
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// Runs the command.
///
/// # Errors
/// A device that is not there, or goldens that cannot be read.
pub fn check(args: &CheckArgs) -> Result<ExitCode> {
    if let Some(path) = &args.json {
        check_writable(path, "--json", "the file of what was found")?;
    }
    let scope = if args.quick { CheckScope::QUICK } else { CheckScope::FULL };
    let target = CheckTarget::find(&config(args.device_map), scope)?;
    stdout::line(target.describe());
    if args.list {
        return Ok(ExitCode::SUCCESS);
    }
    let folder = args.goldens.clone().unwrap_or_else(goldens_folder);
    let mut print_result = |result: &CheckResult| {
        let verdict = if result.passed { "ok    " } else { "FAILED" };
        stdout::line(format_args!("{verdict} {}: {}", result.name, result.detail));
    };
    let results = run(&target, &folder, scope, &mut print_result)?;
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

/// Where goldens lie beside a program that was carried somewhere, and else in the sources.
fn goldens_folder() -> PathBuf {
    let beside = || Some(std::env::current_exe().ok()?.parent()?.join("fixtures").join("data").join("goldens"));
    beside().filter(|folder| folder.is_dir()).unwrap_or_else(actbench_fixtures::golden::goldens_folder)
}

/// The embedded model and data with one probe per layer.
fn config(device_map: DeviceMap) -> RunConfig {
    RunConfig { device_map, sweep_cs: vec![1.0], ..RunConfig::default() }
}
