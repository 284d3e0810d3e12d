//! A run: opens the device, checks the cases, times kernels, prints and writes the report.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use actbench_kernels::cpu::Isa;
use actbench_kernels::cuda::cubins::{CubinDirectories, CubinOrigin};
use actbench_kernels::cuda::driver::{DriverDevice, DriverOptions, probe};
#[cfg(feature = "emulator")]
use actbench_kernels::cuda::emulator::Emulator;
use actbench_kernels::cuda::{Architecture, Device};
use actbench_kernels::{Backend, CpuBackend, KernelError};
use thiserror::Error;

use crate::arguments::Arguments;
use crate::case::{Case, CaseSelection, cases};
use crate::check::{CheckResults, Checker};
use crate::differences::EmulatorComparison;
#[cfg(feature = "emulator")]
use crate::differences::emulator_options;
use crate::progress::Progress;
use crate::report::{FORMAT, Report};
use crate::table;
use crate::timing::{Sizes, time};

/// Why no check could run.
#[derive(Debug, Error)]
pub enum RunError {
    /// No device.
    #[error("{0}; --emulator checks the kernels on the CPU{1}")]
    NoDevice(String, &'static str),
    /// `--emulator` in a build without the emulator.
    #[error("this binary was built without the emulator; build it with --features emulator")]
    #[cfg_attr(feature = "emulator", allow(dead_code))]
    NoEmulator,
    /// The device could not be opened, or the CPU's threads could not be started.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The file could not be written.
    #[error("{}: {reason}", path.display())]
    File {
        /// The path of the file.
        path: PathBuf,
        /// The system's error.
        reason: io::Error,
    },
}

/// Runs the checks of `arguments`, prints the report and writes the file.
///
/// # Errors
/// No check could run, or the file could not be written.
pub fn run(arguments: &Arguments) -> Result<Report, RunError> {
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
    // Plain kernels have the bits of this instruction set, not those of AVX-512 BF16 or AMX.
    let cpu = CpuBackend::with_isa(threads, Isa::Avx512)?;
    let progress = Progress::start();
    let mut report = if arguments.emulator {
        check_emulator(arguments, &cpu, &progress)?
    } else {
        check_gpu(arguments, &cpu, &progress)?
    };
    report.interrupted = progress.is_interrupted();
    let text = table::render(&report);
    // A closed pipe is not an error.
    let _ = io::stdout().lock().write_all(text.as_bytes());
    if let Some(path) = &arguments.json {
        report.write(path).map_err(|reason| RunError::File { path: path.clone(), reason })?;
    }
    Ok(report)
}

fn report(arguments: &Arguments, cpu: &CpuBackend, device: String, found: CheckResults) -> Report {
    Report {
        format: FORMAT,
        version: env!("CARGO_PKG_VERSION"),
        device,
        emulated: arguments.emulator,
        machine_code: BTreeMap::new(),
        reference: cpu.describe(),
        seed: arguments.seed,
        found,
        differences_from_emulator: None,
        timings: None,
        timing_error: None,
        interrupted: false,
    }
}

/// The cases of a run, with random dimensions of at most `max_dim`.
fn selected_cases(arguments: &Arguments, max_dim: usize, model_shapes: bool) -> Vec<Case> {
    let shapes = arguments.shapes.unwrap_or(if arguments.quick { 2 } else { 12 });
    cases(arguments.seed, CaseSelection { shapes, max_dim, model_shapes: model_shapes && !arguments.quick })
}

fn check_gpu(arguments: &Arguments, cpu: &CpuBackend, progress: &Progress) -> Result<Report, RunError> {
    probe().map_err(|absence| {
        let built = if cfg!(feature = "emulator") { "" } else { ", in a binary built with --features emulator" };
        RunError::NoDevice(absence.to_string(), built)
    })?;
    let mut cubins = CubinDirectories::of_executable();
    cubins.prebuilt = arguments.cubins.clone().or(cubins.prebuilt);
    let prebuilt = cubins.prebuilt.clone();
    let mut options = DriverOptions { cubins, checked: true };
    let device = Arc::new(DriverDevice::open(arguments.device, &options)?);
    let description = device.describe();
    let origins = device
        .origins()
        .iter()
        .map(|(source, origin)| {
            ((*source).to_owned(), describe_origin(origin, prebuilt.as_deref(), device.architecture()))
        })
        .collect();
    let mut differences = EmulatorComparison::start(device.architecture(), progress.interruption());
    let max_dim = if arguments.quick { 140 } else { 300 };
    let found = Checker::new(device.clone(), cpu, false).run(
        &selected_cases(arguments, max_dim, true),
        &mut differences,
        progress,
        || device.lost().map(str::to_owned),
    );
    drop(device);
    let mut report = report(arguments, cpu, description, found);
    report.machine_code = origins;
    let sizes = arguments.times.unwrap_or(if arguments.quick { Sizes::None } else { Sizes::Large });
    // Waits for the emulator, which would compete for the CPU with the launches that are timed.
    report.differences_from_emulator = differences.finish(progress);
    if report.found.lost.is_none() && sizes != Sizes::None && !progress.is_interrupted() {
        options.checked = false;
        match DriverDevice::open(arguments.device, &options).and_then(|device| time(device, sizes, progress)) {
            Ok(timings) => report.timings = timings,
            Err(error) => report.timing_error = Some(error.to_string()),
        }
    }
    Ok(report)
}

/// The origin of machine code, for the report.
fn describe_origin(origin: &CubinOrigin, prebuilt: Option<&Path>, device: Option<Architecture>) -> String {
    let compiled = device.map(|device| device.code().to_string()).unwrap_or_default();
    match origin {
        CubinOrigin::Prebuilt(architecture) => {
            format!("{architecture} from {}", prebuilt.unwrap_or(Path::new("a directory")).display())
        }
        CubinOrigin::Cache => format!("{compiled} from the cache of an earlier run"),
        CubinOrigin::Compiled(None) => format!("{compiled} compiled now"),
        CubinOrigin::Compiled(Some(why)) => format!("{compiled} compiled now and not cached: {why}"),
    }
}

#[cfg(feature = "emulator")]
fn check_emulator(arguments: &Arguments, cpu: &CpuBackend, progress: &Progress) -> Result<Report, RunError> {
    let device = Arc::new(Emulator::new(emulator_options(arguments.seed)));
    let description = device.describe();
    let max_dim = if arguments.quick { 96 } else { 140 };
    let cases = selected_cases(arguments, max_dim, false);
    let found = Checker::new(device, cpu, true).run(&cases, &mut EmulatorComparison::none(), progress, || None);
    Ok(report(arguments, cpu, description, found))
}

#[cfg(not(feature = "emulator"))]
fn check_emulator(_arguments: &Arguments, _cpu: &CpuBackend, _progress: &Progress) -> Result<Report, RunError> {
    Err(RunError::NoEmulator)
}
