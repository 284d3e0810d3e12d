//! Finds the GPUs of this machine, or the reason why there is none. Nothing here panics on a machine without a driver.

use std::fmt;

use cudarc::driver::sys::{self, CUdevice_attribute as Attribute};
use cudarc::driver::{DriverError, result};

use super::driver_error::error_message;
use crate::cuda::Architecture;

/// The oldest supported version of the driver API, in the driver's encoding (1000 * major + 10 * minor).
const MIN_DRIVER_VERSION: i32 = 12080;

/// Every function of the driver that this crate calls. `cudarc` looks a function up at its first call and panics if it
/// is missing, so [`start`] looks up all of them.
const FUNCTIONS: &[&str] = &[
    "cuInit",
    "cuDriverGetVersion",
    "cuGetErrorName",
    "cuGetErrorString",
    "cuDeviceGet",
    "cuDeviceGetCount",
    "cuDeviceGetName",
    "cuDeviceTotalMem_v2",
    "cuDeviceGetAttribute",
    "cuDevicePrimaryCtxRetain",
    "cuDevicePrimaryCtxRelease_v2",
    "cuCtxGetCurrent",
    "cuCtxSetCurrent",
    "cuStreamCreate",
    "cuStreamSynchronize",
    "cuStreamWaitEvent",
    "cuStreamDestroy_v2",
    "cuMemPoolCreate",
    "cuMemPoolDestroy",
    "cuMemPoolSetAttribute",
    "cuMemPoolGetAttribute",
    "cuMemPoolTrimTo",
    "cuMemGetInfo_v2",
    "cuMemAllocFromPoolAsync",
    "cuMemFreeAsync",
    "cuMemAlloc_v2",
    "cuMemFree_v2",
    "cuMemHostAlloc",
    "cuMemFreeHost",
    "cuMemcpyHtoDAsync_v2",
    "cuMemcpyDtoHAsync_v2",
    "cuMemcpyDtoDAsync_v2",
    "cuMemsetD8Async",
    "cuModuleLoadData",
    "cuModuleUnload",
    "cuModuleGetFunction",
    "cuFuncSetAttribute",
    "cuFuncGetParamInfo",
    "cuTensorMapEncodeTiled",
    "cuLaunchKernel",
    "cuGraphCreate",
    "cuGraphDestroy",
    "cuGraphAddKernelNode_v2",
    "cuGraphInstantiateWithFlags",
    "cuGraphExecKernelNodeSetParams_v2",
    "cuGraphExecDestroy",
    "cuGraphLaunch",
    "cuEventCreate",
    "cuEventRecord",
    "cuEventSynchronize",
    "cuEventElapsedTime_v2",
    "cuEventDestroy_v2",
];

/// The properties of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceFacts {
    /// Index of the device in the driver's order, from 0.
    pub ordinal: usize,
    /// The driver's name of the device.
    pub name: String,
    /// The compute capability.
    pub architecture: Architecture,
    /// Total memory in bytes.
    pub memory_bytes: usize,
    /// Number of multiprocessors.
    pub multiprocessors: usize,
    /// Bytes of the L2 cache.
    pub l2_bytes: usize,
    /// The largest shared memory of a block with opt-in, in bytes.
    pub shared_bytes: usize,
    /// Whether the device has memory pools, and thereby stream-ordered allocation.
    pub has_pools: bool,
    /// The PCI address, in the form of other tools (`0000:3b:00.0`); none if the driver does not report it.
    pub bus_id: Option<String>,
    /// The version of the driver API, in the driver's encoding: 13000 is 13.0.
    pub driver_version: i32,
}

impl fmt::Display for DeviceFacts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (major, minor) = version(self.driver_version);
        write!(f, "{} ({}, {} MiB, driver {major}.{minor})", self.name, self.architecture, self.memory_bytes >> 20)
    }
}

/// Why a GPU cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DriverUnavailable {
    /// The driver's library was not found.
    NoDriver,
    /// The driver is older than the oldest supported version or lacks a function: its version, and the function.
    OldDriver(String),
    /// The driver reports no device or does not start: its error.
    Refused(String),
    /// The device's index is not below the number of devices.
    NoSuchDevice {
        /// The requested index.
        ordinal: usize,
        /// The number of devices.
        count: usize,
    },
}

impl fmt::Display for DriverUnavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DriverUnavailable::NoDriver => f.write_str("there is no CUDA driver: libcuda.so was not found"),
            DriverUnavailable::OldDriver(why) => {
                let (major, minor) = version(MIN_DRIVER_VERSION);
                write!(f, "the CUDA driver is too old: {why}; {major}.{minor} or later is required")
            }
            DriverUnavailable::Refused(error) => write!(f, "the CUDA driver has no device: {error}"),
            DriverUnavailable::NoSuchDevice { ordinal, count } => {
                write!(f, "there is no CUDA device {ordinal}: the driver has {count}, numbered from 0")
            }
        }
    }
}

impl From<DriverError> for DriverUnavailable {
    fn from(error: DriverError) -> Self {
        DriverUnavailable::Refused(error_message(error))
    }
}

/// The devices of this machine, in the driver's order.
///
/// # Errors
/// No driver, an unsupported driver, or no device.
pub fn probe() -> Result<Vec<DeviceFacts>, DriverUnavailable> {
    let driver_version = start()?;
    let count = result::device::get_count()?;
    (0..count).map(|ordinal| facts(ordinal, driver_version).map_err(DriverUnavailable::from)).collect()
}

/// The properties of device `ordinal`.
pub(super) fn probe_one(ordinal: usize) -> Result<DeviceFacts, DriverUnavailable> {
    let driver_version = start()?;
    let count = usize::try_from(result::device::get_count()?).unwrap_or(0);
    match i32::try_from(ordinal) {
        Ok(number) if ordinal < count => Ok(facts(number, driver_version)?),
        _ => Err(DriverUnavailable::NoSuchDevice { ordinal, count }),
    }
}

/// Finds the driver and all functions of [`FUNCTIONS`], and initializes it. Returns its version.
fn start() -> Result<i32, DriverUnavailable> {
    // SAFETY: this opens a library and calls nothing in it.
    if !unsafe { sys::is_culib_present() } {
        return Err(DriverUnavailable::NoDriver);
    }
    // SAFETY: the library was found above; the functions are looked up and not called.
    let is_missing = |name: &str| unsafe { sys::culib().get::<unsafe extern "C" fn()>(name).is_err() };
    let mut number = 0;
    if !is_missing("cuDriverGetVersion") {
        // SAFETY: the function exists, and the pointer is to a local variable.
        unsafe { sys::cuDriverGetVersion(&mut number) }.result().map_err(|_| {
            // The stub library of the CUDA toolkit fails here.
            DriverUnavailable::Refused("libcuda.so does not report a version".to_owned())
        })?;
    }
    let (major, minor) = version(number);
    if let Some(missing) = FUNCTIONS.iter().copied().find(|name| is_missing(name)) {
        return Err(DriverUnavailable::OldDriver(format!("version {major}.{minor} without {missing}")));
    }
    if number < MIN_DRIVER_VERSION {
        return Err(DriverUnavailable::OldDriver(format!("version {major}.{minor}")));
    }
    result::init()?;
    Ok(number)
}

fn facts(ordinal: i32, driver_version: i32) -> Result<DeviceFacts, DriverError> {
    let device = result::device::get(ordinal)?;
    // SAFETY: the driver returned the device in the line above.
    let attribute = |attribute| unsafe { result::device::get_attribute(device, attribute) };
    let size = |which| attribute(which).map(|value| usize::try_from(value).unwrap_or(0));
    let number = |which| attribute(which).map(|value| u32::try_from(value).unwrap_or(0));
    let bus_id = || -> Option<String> {
        let domain = attribute(Attribute::CU_DEVICE_ATTRIBUTE_PCI_DOMAIN_ID).ok()?;
        let bus = attribute(Attribute::CU_DEVICE_ATTRIBUTE_PCI_BUS_ID).ok()?;
        let slot = attribute(Attribute::CU_DEVICE_ATTRIBUTE_PCI_DEVICE_ID).ok()?;
        Some(format!("{domain:04x}:{bus:02x}:{slot:02x}.0"))
    };
    Ok(DeviceFacts {
        bus_id: bus_id(),
        ordinal: usize::try_from(ordinal).unwrap_or(0),
        name: result::device::get_name(device)?,
        architecture: Architecture::new(
            10 * number(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?
                + number(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
        ),
        // SAFETY: as above.
        memory_bytes: unsafe { result::device::total_mem(device) }?,
        multiprocessors: size(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
        l2_bytes: size(Attribute::CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE)?,
        shared_bytes: size(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?,
        has_pools: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MEMORY_POOLS_SUPPORTED)? != 0,
        driver_version,
    })
}

/// Major and minor version from the driver's encoding.
fn version(number: i32) -> (i32, i32) {
    (number / 1000, number % 1000 / 10)
}
