//! A whole run: the device, the cases, the times, the text and the file.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use actbench_kernels::cpu::Isa;
use actbench_kernels::cuda::cubins::{CubinFolders, Origin};
use actbench_kernels::cuda::driver::{DriverDevice, DriverOptions, probe};
#[cfg(feature = "emulator")]
use actbench_kernels::cuda::emulator::{CopyTime, Emulator, EmulatorOptions, ThreadOrder};
use actbench_kernels::cuda::{Architecture, Device};
use actbench_kernels::{Backend, CpuBackend, KernelError};
use thiserror::Error;

use crate::arguments::Arguments;
use crate::case::{Case, Extent, cases};
use crate::check::{Checker, Found};
use crate::differences::Differences;
use crate::progress::Progress;
use crate::report::{FORMAT, Report};
use crate::table;
use crate::timing::{Sizes, time};

/// Why nothing could be checked.
#[derive(Debug, Error)]
pub enum RunError {
    /// No device.
    #[error("{0}; --emulator checks the kernels on the CPU{1}")]
    NoDevice(String, &'static str),
    /// The emulator was asked for and is not in the program.
    #[error("this program was built without the emulator: build it with --features emulator")]
    #[cfg_attr(feature = "emulator", allow(dead_code))]
    NoEmulator,
    /// The device could not be opened, or the CPU's threads not be started.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The file could not be written.
    #[error("{}: {reason}", path.display())]
    File {
        /// Its name.
        path: PathBuf,
        /// The system's words.
        reason: io::Error,
    },
}

/// Checks what `arguments` ask for, prints what was found and writes the file.
///
/// # Errors
/// Why nothing could be checked.
pub fn run(arguments: &Arguments) -> Result<Report, RunError> {
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
    // The arithmetic that plain kernels repeat, whatever the processor has for bf16.
    let cpu = CpuBackend::with_isa(threads, Isa::Avx512)?;
    let progress = Progress::start();
    let mut report = match arguments.emulator {
        true => on_emulator(arguments, &cpu, &progress)?,
        false => on_gpu(arguments, &cpu, &progress)?,
    };
    report.interrupted = progress.is_interrupted();
    let text = table::render(&report);
    // A reader that closed the pipe has seen enough.
    let _ = io::stdout().lock().write_all(text.as_bytes());
    if let Some(path) = &arguments.json {
        report.write(path).map_err(|reason| RunError::File { path: path.clone(), reason })?;
    }
    Ok(report)
}

fn report(arguments: &Arguments, cpu: &CpuBackend, device: String, found: Found) -> Report {
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

/// The cases of a run, with sides of at most `side`.
fn chosen(arguments: &Arguments, side: usize, of_models: bool) -> Vec<Case> {
    let shapes = arguments.shapes.unwrap_or(if arguments.quick { 2 } else { 12 });
    cases(arguments.seed, Extent { shapes, side, of_models: of_models && !arguments.quick })
}

fn on_gpu(arguments: &Arguments, cpu: &CpuBackend, progress: &Progress) -> Result<Report, RunError> {
    probe().map_err(|absence| {
        let built = if cfg!(feature = "emulator") { "" } else { ", in a program built with --features emulator" };
        RunError::NoDevice(absence.to_string(), built)
    })?;
    let mut cubins = CubinFolders::of_program();
    cubins.prebuilt = arguments.cubins.clone().or(cubins.prebuilt);
    let prebuilt = cubins.prebuilt.clone();
    let mut options = DriverOptions { cubins, checked: true };
    let device = Arc::new(DriverDevice::open(arguments.device, &options)?);
    let description = device.describe();
    let origins = device
        .origins()
        .iter()
        .map(|(source, origin)| ((*source).to_owned(), told(origin, prebuilt.as_deref(), device.architecture())))
        .collect();
    let mut differences = Differences::of_a_gpu(device.architecture(), progress.interruption());
    let side = if arguments.quick { 140 } else { 300 };
    let found = Checker::new(device.clone(), cpu, false).run(
        &chosen(arguments, side, true),
        &mut differences,
        progress,
        || device.lost().map(str::to_owned),
    );
    drop(device);
    let mut report = report(arguments, cpu, description, found);
    report.machine_code = origins;
    let sizes = arguments.times.unwrap_or(if arguments.quick { Sizes::None } else { Sizes::Large });
    // The emulator is behind, and would take the processor from who launches what is timed.
    report.differences_from_emulator = differences.found(progress);
    if report.found.lost.is_none() && sizes != Sizes::None && !progress.is_interrupted() {
        options.checked = false;
        match DriverDevice::open(arguments.device, &options).and_then(|device| time(device, sizes, progress)) {
            Ok(timings) => report.timings = timings,
            Err(error) => report.timing_error = Some(error.to_string()),
        }
    }
    Ok(report)
}

/// Where machine code came from, for people.
fn told(origin: &Origin, prebuilt: Option<&Path>, device: Option<Architecture>) -> String {
    let compiled = device.map(|device| device.code().to_string()).unwrap_or_default();
    match origin {
        Origin::Prebuilt(architecture) => {
            format!("{architecture} from {}", prebuilt.unwrap_or(Path::new("a folder")).display())
        }
        Origin::Cache => format!("{compiled} from the cache of an earlier run"),
        Origin::Compiled(None) => format!("{compiled} compiled now"),
        Origin::Compiled(Some(why)) => format!("{compiled} compiled now and not kept: {why}"),
    }
}

/// The emulator as a check uses it: what the programming model leaves open is as unfavourable as it can be.
#[cfg(feature = "emulator")]
pub fn emulator_options(seed: u64) -> EmulatorOptions {
    EmulatorOptions { order: ThreadOrder::Random, copies: CopyTime::Mixed, seed }
}

#[cfg(feature = "emulator")]
fn on_emulator(arguments: &Arguments, cpu: &CpuBackend, progress: &Progress) -> Result<Report, RunError> {
    let device = Arc::new(Emulator::new(emulator_options(arguments.seed)));
    let description = device.describe();
    let side = if arguments.quick { 96 } else { 140 };
    let cases = chosen(arguments, side, false);
    let found = Checker::new(device, cpu, true).run(&cases, &mut Differences::none(), progress, || None);
    Ok(report(arguments, cpu, description, found))
}

#[cfg(not(feature = "emulator"))]
fn on_emulator(_arguments: &Arguments, _cpu: &CpuBackend, _progress: &Progress) -> Result<Report, RunError> {
    Err(RunError::NoEmulator)
}
