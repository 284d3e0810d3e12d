//! The GPUs that this process may use, as restricted by the variable `ACTBENCH_CUDA`.
//!
//! Discovery creates no context: a context would use memory of the GPU that the cases are measured on.

use std::ffi::OsStr;
use std::str::FromStr;
use std::time::{Duration, Instant};

use actbench_kernels::cuda::Architecture;
use actbench_kernels::cuda::driver::probe;
use bytesize::ByteSize;

use crate::error::{Error, Result};

/// Restricts which GPUs are visible; if it is unset, all GPUs of the driver are.
pub const CUDA_VARIABLE: &str = "ACTBENCH_CUDA";

/// Whether launches of short batches are submitted as CUDA graphs: `on`, which is the default, or `off`.
pub const GRAPHS_VARIABLE: &str = "ACTBENCH_CUDA_GRAPHS";

/// More devices than any machine has: a mistyped number must not emulate devices for hours.
const MAX_DEVICES: usize = 64;

/// The values of [`CUDA_VARIABLE`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GpuVisibility {
    /// The devices of the driver.
    #[default]
    Driver,
    /// No device, even if the machine has one.
    None,
    /// This many logical devices on device 0 of the driver, each with its own stream and memory pool.
    Split(usize),
    /// This many emulated devices; the memory of each in bytes, or none for that of the host.
    Emulator(usize, Option<u64>),
}

impl FromStr for GpuVisibility {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let invalid = || {
            Error::usage(format!(
                "{CUDA_VARIABLE}={text}: use none, split:K, emulator:K or emulator:K:SIZE with K from 1 to {MAX_DEVICES}, or \
                 unset it"
            ))
        };
        let count =
            |text: &str| text.parse().ok().filter(|count| (1..=MAX_DEVICES).contains(count)).ok_or_else(invalid);
        let mut parts = text.split(':');
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some("none"), None, None, None) => Ok(GpuVisibility::None),
            (Some("split"), Some(k), None, None) => Ok(GpuVisibility::Split(count(k)?)),
            (Some("emulator"), Some(k), size, None) => {
                let size = size.map(|size| size.parse::<ByteSize>().map_err(|_| invalid())).transpose()?;
                Ok(GpuVisibility::Emulator(count(k)?, size.map(|size| size.as_u64())))
            }
            _ => Err(invalid()),
        }
    }
}

impl GpuVisibility {
    /// The value of the variable in the environment.
    ///
    /// # Errors
    /// An unknown value.
    pub fn from_environment() -> Result<Self> {
        match std::env::var_os(CUDA_VARIABLE).filter(|value| !value.is_empty()) {
            Some(value) => value.to_string_lossy().parse(),
            None => Ok(GpuVisibility::Driver),
        }
    }
}

/// A GPU that can be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gpu {
    /// The name to show.
    pub name: String,
    /// Bytes of its memory; none for an emulated GPU that uses the memory of the host.
    pub memory_bytes: Option<u64>,
}

/// Why no GPU is visible, and what can be done about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoGpu {
    /// The reason, worded to follow a colon.
    pub why: String,
    /// The remedy, as an imperative.
    pub advice: &'static str,
}

/// The GPUs that can be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VisibleGpus {
    pub(super) visibility: GpuVisibility,
    pub(super) graphs: bool,
    /// Architecture of the first device; none in the emulator.
    pub(super) architecture: Option<Architecture>,
    /// The devices, by ordinal.
    pub devices: Vec<Gpu>,
    /// CUDA version of the driver, as in `13.0`; none in the emulator.
    pub cuda: Option<String>,
    /// How long it took to find them: in a new process, loading the driver and `cuInit`. Zero in the emulator.
    pub(super) search_time: Duration,
}

impl VisibleGpus {
    /// Given devices, for tests.
    #[cfg(test)]
    pub(super) fn for_tests(visibility: GpuVisibility, devices: Vec<Gpu>) -> VisibleGpus {
        VisibleGpus { visibility, graphs: true, architecture: None, devices, cuda: None, search_time: Duration::ZERO }
    }

    /// Looks for GPUs; the inner result is an error if there is none.
    ///
    /// # Errors
    /// A variable with an unknown value, or one that asks for the emulator in a build without it.
    pub fn find() -> Result<std::result::Result<VisibleGpus, NoGpu>> {
        let graphs = parse_graphs(std::env::var_os(GRAPHS_VARIABLE).as_deref())?;
        let found = VisibleGpus::find_as(GpuVisibility::from_environment()?)?;
        Ok(found.map(|gpus| VisibleGpus { graphs, ..gpus }))
    }

    /// Looks for GPUs as `visibility` restricts them, without reading the environment.
    fn find_as(visibility: GpuVisibility) -> Result<std::result::Result<VisibleGpus, NoGpu>> {
        match visibility {
            GpuVisibility::None => {
                Ok(Err(NoGpu { why: format!("{CUDA_VARIABLE}=none hides all GPUs"), advice: "unset it" }))
            }
            GpuVisibility::Emulator(..) if !cfg!(feature = "emulator") => Err(Error::usage(format!(
                "{CUDA_VARIABLE}: this binary was built without the feature emulator; unset it"
            ))),
            GpuVisibility::Emulator(count, memory_bytes) => {
                let device = |ordinal| Gpu { name: format!("emulated cuda:{ordinal}"), memory_bytes };
                let devices = (0..count).map(device).collect();
                Ok(Ok(VisibleGpus {
                    visibility,
                    graphs: true,
                    architecture: None,
                    devices,
                    cuda: None,
                    search_time: Duration::ZERO,
                }))
            }
            GpuVisibility::Driver | GpuVisibility::Split(_) => Ok(VisibleGpus::from_driver(visibility)),
        }
    }

    fn from_driver(visibility: GpuVisibility) -> std::result::Result<VisibleGpus, NoGpu> {
        let no_gpu = |why: String| NoGpu { why, advice: "install a GPU and NVIDIA's driver" };
        let start = Instant::now();
        let found = probe().map_err(|absence| no_gpu(absence.to_string()))?;
        let search_time = start.elapsed();
        let first = found.first().ok_or_else(|| no_gpu("the CUDA driver has no device".to_owned()))?;
        let version = first.driver_version;
        let cuda = Some(format!("{}.{}", version / 1000, version % 1000 / 10));
        let gpu = |name: &str, bytes: usize| Gpu { name: name.to_owned(), memory_bytes: Some(bytes as u64) };
        let devices = if let GpuVisibility::Split(parts) = visibility {
            let part_bytes = first.memory_bytes / parts;
            (0..parts).map(|part| gpu(&format!("{}, part {part} of {parts}", first.name), part_bytes)).collect()
        } else {
            found.iter().map(|facts| gpu(&facts.name, facts.memory_bytes)).collect()
        };
        let architecture = Some(first.architecture);
        Ok(VisibleGpus { visibility, graphs: true, architecture, devices, cuda, search_time })
    }
}

/// Parses the value of [`GRAPHS_VARIABLE`].
fn parse_graphs(value: Option<&OsStr>) -> Result<bool> {
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
    fn graphs_variable_off_disables_graphs() {
        let parse = |text: &str| parse_graphs(Some(OsStr::new(text)));
        assert!(parse_graphs(None).unwrap() && parse("").unwrap() && parse("on").unwrap() && !parse("off").unwrap());
        let error = parse("0").unwrap_err();
        assert_eq!((error.exit_code(), error.to_string().contains("use on or off")), (2, true), "{error}");
    }

    #[test]
    fn cuda_variable_restricts_visible_devices() {
        for (text, visibility) in [
            ("none", GpuVisibility::None),
            ("split:2", GpuVisibility::Split(2)),
            ("emulator:3", GpuVisibility::Emulator(3, None)),
            ("emulator:1:64MiB", GpuVisibility::Emulator(1, Some(64 << 20))),
        ] {
            assert_eq!(text.parse::<GpuVisibility>().unwrap(), visibility, "{text}");
        }
        for invalid in
            ["", "emulator", "emulator:0", "emulator:x", "emulator:1:much", "split:65", "split:1:1MiB", "cuda:0"]
        {
            let error = invalid.parse::<GpuVisibility>().unwrap_err();
            assert!(error.to_string().contains("emulator:K:SIZE") && error.exit_code() == 2, "{invalid}: {error}");
        }
    }

    #[test]
    fn hidden_gpus_are_no_error() {
        let absence = VisibleGpus::find_as(GpuVisibility::None).unwrap().unwrap_err();
        assert!(absence.why.contains("ACTBENCH_CUDA=none"), "{absence:?}");
    }
}
