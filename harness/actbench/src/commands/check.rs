//! `actbench check`: whether a device gives the right values, and the same bits every way.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::stdout;
use crate::error::{Error, Result};
use crate::results::{check_writable, write_whole};
use crate::workload::case::{DeviceMap, Method, RunConfig, Task};
use crate::workload::check::{Extent, Finding, Subject, run};

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
    let extent = if args.quick { Extent::QUICK } else { Extent::WHOLE };
    let subject = Subject::find(&config(args.device_map), extent)?;
    stdout::line(subject.describe());
    if args.list {
        return Ok(ExitCode::SUCCESS);
    }
    let folder = args.goldens.clone().unwrap_or_else(goldens_folder);
    let mut tell = |finding: &Finding| {
        let verdict = if finding.passed { "ok    " } else { "FAILED" };
        stdout::line(format_args!("{verdict} {}: {}", finding.what, finding.detail));
    };
    let findings = run(&subject, &folder, extent, &mut tell)?;
    let failed = findings.iter().filter(|finding| !finding.passed).count();
    if let Some(path) = &args.json {
        let file = json!({ "device": subject.describe(), "passed": failed == 0, "findings": findings });
        let mut text = serde_json::to_vec_pretty(&file).map_err(|error| Error::file(path, error.to_string()))?;
        text.push(b'\n');
        write_whole(path, &text)?;
    }
    stdout::line(summary(findings.len(), failed));
    Ok(if failed == 0 && !findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
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

/// The embedded model and data, otherwise the settings of a run.
fn config(device_map: DeviceMap) -> RunConfig {
    #[derive(clap::Parser)]
    struct Defaults {
        #[command(flatten)]
        settings: super::settings::SettingsArgs,
    }
    let settings = <Defaults as clap::Parser>::parse_from(["actbench"]).settings;
    let config = settings.config(vec![Task::Sweep], vec![Method::Lazy], Some(1), 0);
    RunConfig { device_map, sweep_cs: vec![1.0], ..config }
}
