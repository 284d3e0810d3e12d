//! Opens visible GPUs. Only the process of a case does so; its parent must not create a context.

use actbench_kernels::cuda::KernelSet;
use actbench_kernels::cuda::cubins::{CubinDirectories, Nvrtc, check_available};
use actbench_kernels::cuda::driver::{DeviceOpenTimes, DriverDevice, DriverOptions};
#[cfg(feature = "emulator")]
use actbench_kernels::cuda::emulator::{CopyTime, EmulatedBackend, Emulator, EmulatorOptions, ThreadOrder};
use actbench_kernels::{CudaBackend, KernelError};

use super::discover::{GpuVisibility, VisibleGpus};
use crate::case::CasePhases;
use crate::error::Result;

/// Backends of opened GPUs, in the requested order.
pub enum OpenGpus {
    /// Devices of the driver.
    Driver(Vec<CudaBackend<DriverDevice>>),
    /// Emulated devices.
    #[cfg(feature = "emulator")]
    Emulator(Vec<EmulatedBackend>),
}

impl VisibleGpus {
    /// The phases of finding these GPUs and opening `opened` of them; all absent for emulated ones, which have no driver.
    pub fn phases(&self, opened: &OpenGpus) -> CasePhases {
        match opened {
            OpenGpus::Driver(backends) => {
                let times: DeviceOpenTimes = backends.iter().map(|backend| backend.device().open_times()).sum();
                CasePhases {
                    driver_init_s: Some((self.search_time + times.driver).as_secs_f64()),
                    context_s: Some(times.context.as_secs_f64()),
                    modules_s: Some(times.modules.as_secs_f64()),
                    ..CasePhases::default()
                }
            }
            #[cfg(feature = "emulator")]
            OpenGpus::Emulator(_) => CasePhases::default(),
        }
    }

    /// Why no kernels are available for these GPUs: neither machine code nor a compiler. None if kernels are available.
    pub fn lacks_kernels(&self) -> Option<String> {
        let available = check_available(&CubinDirectories::of_executable(), &Nvrtc, self.architecture?);
        available.err().map(|error| error.to_string())
    }

    /// Opens the devices `ordinals`: each gets a context, a stream and a memory pool.
    ///
    /// # Errors
    /// A failure of the driver, or no machine code for the device and no compiler.
    pub fn open(&self, ordinals: &[usize]) -> Result<OpenGpus> {
        match self.visibility {
            #[cfg(feature = "emulator")]
            GpuVisibility::Emulator(_, memory_bytes) => {
                // The least favorable choices that the CUDA programming model allows, so that missing waits show.
                let options = EmulatorOptions { order: ThreadOrder::Random, copies: CopyTime::Mixed, seed: 1 };
                let open = |ordinal: &usize| Emulator::numbered(options, *ordinal, memory_bytes);
                let backend = |ordinal| CudaBackend::new(open(ordinal), KernelSet::Fast);
                Ok(OpenGpus::Emulator(ordinals.iter().map(backend).collect()))
            }
            visibility => {
                let options = DriverOptions { cubins: CubinDirectories::of_executable(), checked: false };
                let open = |ordinal: &usize| -> std::result::Result<_, KernelError> {
                    let ordinal = if matches!(visibility, GpuVisibility::Split(_)) { 0 } else { *ordinal };
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
