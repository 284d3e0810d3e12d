//! Which GPUs there are, or why there is none. Nothing here fails or panics where there is no driver.

use std::fmt;

use cudarc::driver::sys::{self, CUdevice_attribute as Attribute};
use cudarc::driver::{DriverError, result};

use super::words::words;
use crate::cuda::Architecture;

/// The oldest version of the driver's interface that has what is used of it, as the driver counts.
const OLDEST_DRIVER: i32 = 12080;

/// Every function of the driver that is called. They are looked up when they are first called, and a missing one would
/// be a panic there.
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

/// What a device is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceFacts {
    /// Its number, from 0, in the driver's order.
    pub ordinal: usize,
    /// The name that the driver gives.
    pub name: String,
    /// What machine code it runs.
    pub architecture: Architecture,
    /// Bytes of its memory.
    pub memory_bytes: usize,
    /// How many multiprocessors it has.
    pub multiprocessors: usize,
    /// Bytes of its second-level cache.
    pub l2_bytes: usize,
    /// Bytes of shared memory that a block can ask for.
    pub shared_bytes: usize,
    /// Whether memory can be had in a stream's order.
    pub has_pools: bool,
    /// Where it is on the bus, as other tools name it (`0000:3b:00.0`); none where the driver does not tell.
    pub bus_id: Option<String>,
    /// The driver's version as CUDA counts: 13000 is 13.0.
    pub driver_version: i32,
}

impl fmt::Display for DeviceFacts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (major, minor) = version(self.driver_version);
        write!(f, "{} ({}, {} MiB, driver {major}.{minor})", self.name, self.architecture, self.memory_bytes >> 20)
    }
}

/// Why no GPU can be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Absence {
    /// The driver's library is not there.
    NoDriver,
    /// The driver lacks functions; the first of them, and the driver's version if it tells one.
    OldDriver(String),
    /// The driver says that there is no device, or fails to start; in its own words.
    Refused(String),
    /// There are devices, but not as many.
    NoSuchDevice {
        /// The number that was asked for.
        ordinal: usize,
        /// How many there are.
        count: usize,
    },
}

impl fmt::Display for Absence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Absence::NoDriver => f.write_str("there is no CUDA driver here: libcuda.so was not found"),
            Absence::OldDriver(why) => {
                let (major, minor) = version(OLDEST_DRIVER);
                write!(f, "the CUDA driver is too old: {why}; {major}.{minor} or later is needed")
            }
            Absence::Refused(words) => write!(f, "the CUDA driver has no device: {words}"),
            Absence::NoSuchDevice { ordinal, count } => {
                write!(f, "there is no CUDA device {ordinal}: the driver has {count}, counted from 0")
            }
        }
    }
}

impl From<DriverError> for Absence {
    fn from(error: DriverError) -> Self {
        Absence::Refused(words(error))
    }
}

/// The devices of this machine.
///
/// # Errors
/// Why there is none.
pub fn probe() -> Result<Vec<DeviceFacts>, Absence> {
    let driver_version = start()?;
    let count = result::device::get_count()?;
    (0..count).map(|ordinal| facts(ordinal, driver_version).map_err(Absence::from)).collect()
}

/// One device of this machine.
pub(super) fn probe_one(ordinal: usize) -> Result<DeviceFacts, Absence> {
    let driver_version = start()?;
    let count = usize::try_from(result::device::get_count()?).unwrap_or(0);
    match i32::try_from(ordinal) {
        Ok(number) if ordinal < count => Ok(facts(number, driver_version)?),
        _ => Err(Absence::NoSuchDevice { ordinal, count }),
    }
}

/// Looks for the driver and all that is used of it, and starts it. Its version.
fn start() -> Result<i32, Absence> {
    // SAFETY: looks for a library and calls nothing in it.
    if !unsafe { sys::is_culib_present() } {
        return Err(Absence::NoDriver);
    }
    // SAFETY: the library was found just now, so that this finds it too; the functions are looked up and not called.
    let lacks = |name: &str| unsafe { sys::culib().get::<unsafe extern "C" fn()>(name).is_err() };
    let mut number = 0;
    if !lacks("cuDriverGetVersion") {
        // SAFETY: the function is there, and the pointer is to an integer that lives through the call.
        unsafe { sys::cuDriverGetVersion(&mut number) }.result().map_err(|_| {
            // A library that stands for a driver on machines without one fails at this already.
            Absence::Refused("the library that was found tells no version".to_owned())
        })?;
    }
    let (major, minor) = version(number);
    if let Some(missing) = FUNCTIONS.iter().copied().find(|name| lacks(name)) {
        return Err(Absence::OldDriver(format!("version {major}.{minor} without {missing}")));
    }
    if number < OLDEST_DRIVER {
        return Err(Absence::OldDriver(format!("version {major}.{minor}")));
    }
    result::init()?;
    Ok(number)
}

fn facts(ordinal: i32, driver_version: i32) -> Result<DeviceFacts, DriverError> {
    let device = result::device::get(ordinal)?;
    // SAFETY: the device was handed out by the driver in the line above.
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

/// Major and minor version of a driver's number.
fn version(number: i32) -> (i32, i32) {
    (number / 1000, number % 1000 / 10)
}
