//! Which GPUs there are to run on, as the variable `ACTBENCH_CUDA` lets them be seen, and how they are opened.
//!
//! Looking for them makes no context: that is for the process that runs a model on one.

use std::ffi::OsStr;
use std::str::FromStr;

use actbench_kernels::cuda::cubins::{CubinDirectories, Nvrtc, check_available};
use actbench_kernels::cuda::driver::{DriverDevice, DriverOptions, probe};
#[cfg(feature = "emulator")]
use actbench_kernels::cuda::emulator::{CopyTime, EmulatedBackend, Emulator, EmulatorOptions, ThreadOrder};
use actbench_kernels::cuda::{Architecture, KernelSet};
use actbench_kernels::{CudaBackend, KernelError};
use bytesize::ByteSize;

use crate::error::{Error, Result};

/// What GPUs are looked for: unset, those that the driver has.
pub const VARIABLE: &str = "ACTBENCH_CUDA";

/// Whether launches of short batches go to a GPU together, as graphs: `on`, as when it is unset, or `off`.
pub const GRAPHS_VARIABLE: &str = "ACTBENCH_CUDA_GRAPHS";

/// More devices than anybody has, so that a mistyped number is no work for hours.
const MOST_DEVICES: usize = 64;

/// The values of [`VARIABLE`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Visible {
    /// The driver's devices.
    #[default]
    Driver,
    /// None, whatever there is.
    None,
    /// So many logical devices on the driver's device 0, each with a stream and a memory pool of its own.
    Split(usize),
    /// So many emulated devices, each with as much memory as said, or as the host has.
    Emulator(usize, Option<u64>),
}

impl FromStr for Visible {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let bad = || {
            Error::usage(format!(
                "{VARIABLE}={text}: use none, split:K, emulator:K or emulator:K:SIZE with K from 1 to {MOST_DEVICES}, or unset it"
            ))
        };
        let count = |text: &str| text.parse().ok().filter(|count| (1..=MOST_DEVICES).contains(count)).ok_or_else(bad);
        let mut words = text.split(':');
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some("none"), None, None, None) => Ok(Visible::None),
            (Some("split"), Some(k), None, None) => Ok(Visible::Split(count(k)?)),
            (Some("emulator"), Some(k), size, None) => {
                let size = size.map(|size| size.parse::<ByteSize>().map_err(|_| bad())).transpose()?;
                Ok(Visible::Emulator(count(k)?, size.map(|size| size.as_u64())))
            }
            _ => Err(bad()),
        }
    }
}

impl Visible {
    /// What the environment says.
    ///
    /// # Errors
    /// A value that is none of those above.
    pub fn of_environment() -> Result<Self> {
        match std::env::var_os(VARIABLE).filter(|value| !value.is_empty()) {
            Some(value) => value.to_string_lossy().parse(),
            None => Ok(Visible::Driver),
        }
    }
}

/// A GPU that can be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gpu {
    /// Its name, for people.
    pub name: String,
    /// Bytes of its memory; none where they are the host's.
    pub memory_bytes: Option<u64>,
}

/// Why there is no GPU, and what can be done about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoGpu {
    /// In words that can follow a colon.
    pub why: String,
    /// What to do, as a command.
    pub advice: &'static str,
}

/// The GPUs that can be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gpus {
    visible: Visible,
    graphs: bool,
    /// What machine code the first of them runs; none in the emulator.
    architecture: Option<Architecture>,
    /// By number.
    pub devices: Vec<Gpu>,
    /// The driver's version as CUDA counts, `13.0`; none in the emulator.
    pub cuda: Option<String>,
}

/// Backends of opened GPUs, in the order asked for.
pub enum OpenGpus {
    /// Behind the driver.
    Driver(Vec<CudaBackend<DriverDevice>>),
    /// In the emulator.
    #[cfg(feature = "emulator")]
    Emulator(Vec<EmulatedBackend>),
}

impl Gpus {
    /// Those of a test.
    #[cfg(test)]
    pub(super) fn of(visible: Visible, devices: Vec<Gpu>) -> Gpus {
        Gpus { visible, graphs: true, architecture: None, devices, cuda: None }
    }

    /// Looks for GPUs.
    ///
    /// # Errors
    /// A variable that says nothing known, or asks for the emulator in a build without it.
    pub fn find() -> Result<std::result::Result<Gpus, NoGpu>> {
        let graphs = graphs_in(std::env::var_os(GRAPHS_VARIABLE).as_deref())?;
        Ok(Gpus::find_as(Visible::of_environment()?)?.map(|gpus| Gpus { graphs, ..gpus }))
    }

    /// The same with the environment left out.
    fn find_as(visible: Visible) -> Result<std::result::Result<Gpus, NoGpu>> {
        match visible {
            Visible::None => {
                Ok(Err(NoGpu { why: format!("{VARIABLE}=none hides whatever there is"), advice: "unset it" }))
            }
            Visible::Emulator(..) if !cfg!(feature = "emulator") => {
                Err(Error::usage(format!("{VARIABLE}: this program was built without the feature emulator; unset it")))
            }
            Visible::Emulator(count, memory_bytes) => {
                let device = |ordinal| Gpu { name: format!("emulated cuda:{ordinal}"), memory_bytes };
                let devices = (0..count).map(device).collect();
                Ok(Ok(Gpus { visible, graphs: true, architecture: None, devices, cuda: None }))
            }
            Visible::Driver | Visible::Split(_) => Ok(Gpus::of_driver(visible)),
        }
    }

    fn of_driver(visible: Visible) -> std::result::Result<Gpus, NoGpu> {
        let no_gpu = |why: String| NoGpu { why, advice: "install a GPU and NVIDIA's driver" };
        let found = probe().map_err(|absence| no_gpu(absence.to_string()))?;
        let first = found.first().ok_or_else(|| no_gpu("the CUDA driver has no device".to_owned()))?;
        let version = first.driver_version;
        let cuda = Some(format!("{}.{}", version / 1000, version % 1000 / 10));
        let gpu = |name: &str, bytes: usize| Gpu { name: name.to_owned(), memory_bytes: Some(bytes as u64) };
        let devices = match visible {
            Visible::Split(parts) => (0..parts)
                .map(|part| gpu(&format!("{}, part {part} of {parts}", first.name), first.memory_bytes / parts))
                .collect(),
            _ => found.iter().map(|facts| gpu(&facts.name, facts.memory_bytes)).collect(),
        };
        Ok(Gpus { visible, graphs: true, architecture: Some(first.architecture), devices, cuda })
    }

    /// Why kernels cannot be had for these GPUs, if they cannot: no machine code, and no compiler.
    pub fn lacks_kernels(&self) -> Option<String> {
        let available = check_available(&CubinDirectories::of_executable(), &Nvrtc, self.architecture?);
        available.err().map(|error| error.to_string())
    }

    /// Opens the devices `ordinals`: each gets a context, a stream and a memory pool.
    ///
    /// # Errors
    /// A failure of the driver, or no machine code for the device and no compiler.
    pub fn open(&self, ordinals: &[usize]) -> Result<OpenGpus> {
        match self.visible {
            #[cfg(feature = "emulator")]
            Visible::Emulator(_, memory_bytes) => {
                // What the programming model leaves open is as unfavourable as it can be.
                let options = EmulatorOptions { order: ThreadOrder::Random, copies: CopyTime::Mixed, seed: 1 };
                let open = |ordinal: &usize| Emulator::numbered(options, *ordinal, memory_bytes);
                let backend = |ordinal| CudaBackend::new(open(ordinal), KernelSet::Fast);
                Ok(OpenGpus::Emulator(ordinals.iter().map(backend).collect()))
            }
            visible => {
                let options = DriverOptions { cubins: CubinDirectories::of_executable(), checked: false };
                let open = |ordinal: &usize| -> std::result::Result<_, KernelError> {
                    let ordinal = if matches!(visible, Visible::Split(_)) { 0 } else { *ordinal };
                    let backend = CudaBackend::open(ordinal, &options, KernelSet::Fast)?;
                    backend.device().set_graphs(self.graphs);
                    Ok(backend)
                };
                let backends: std::result::Result<Vec<_>, _> = ordinals.iter().map(open).collect();
                Ok(OpenGpus::Driver(backends?))
            }
        }
    }
}

/// What the value of [`GRAPHS_VARIABLE`] says.
fn graphs_in(value: Option<&OsStr>) -> Result<bool> {
    match value.map(OsStr::to_string_lossy).as_deref() {
        None | Some("" | "on") => Ok(true),
        Some("off") => Ok(false),
        Some(other) => Err(Error::usage(format!("{GRAPHS_VARIABLE}={other}: use on or off, or unset it"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn graphs_are_made_unless_the_variable_says_off() {
        let of = |text: &str| graphs_in(Some(OsStr::new(text)));
        assert!(graphs_in(None).unwrap() && of("").unwrap() && of("on").unwrap() && !of("off").unwrap());
        let error = of("0").unwrap_err();
        assert_eq!((error.exit_code(), error.to_string().contains("use on or off")), (2, true), "{error}");
    }

    #[test]
    fn the_variable_says_which_devices_are_seen() {
        for (text, visible) in [
            ("none", Visible::None),
            ("split:2", Visible::Split(2)),
            ("emulator:3", Visible::Emulator(3, None)),
            ("emulator:1:64MiB", Visible::Emulator(1, Some(64 << 20))),
        ] {
            assert_eq!(text.parse::<Visible>().unwrap(), visible, "{text}");
        }
        for bad in ["", "emulator", "emulator:0", "emulator:x", "emulator:1:much", "split:65", "split:1:1MiB", "cuda:0"]
        {
            let error = bad.parse::<Visible>().unwrap_err();
            assert!(error.to_string().contains("emulator:K:SIZE") && error.exit_code() == 2, "{bad}: {error}");
        }
    }

    #[test]
    fn no_gpu_is_an_answer_and_not_an_error() {
        let answer = Gpus::find_as(Visible::None).unwrap().unwrap_err();
        assert!(answer.why.contains("ACTBENCH_CUDA=none"), "{answer:?}");
    }
}
