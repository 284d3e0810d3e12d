//! The parent of a run looks for GPUs and opens none: a context would use memory of the GPU that its cases are measured on.

use crate::fake_driver::{FakeDriver, options};
use actbench::case::{DeviceMap, RunConfig};
use actbench::devices::discover::VisibleGpus;
use actbench::measure::machine_record::MachineRecord;
use actbench::workload::preflight;
use actbench_kernels::cuda::driver::DriverDevice;

#[test]
fn parent_finds_gpus_and_creates_no_context() {
    assert!(std::env::var_os("ACTBENCH_CUDA").is_none(), "this test needs ACTBENCH_CUDA to be unset");
    let driver = FakeDriver::new("devices=2");
    assert_eq!(VisibleGpus::find().unwrap().unwrap().devices.len(), 2);
    for device_map in [DeviceMap::Cuda(1), DeviceMap::Balanced, DeviceMap::Replicas(2), DeviceMap::Auto] {
        let config = RunConfig { samples: 20, device_map, ..RunConfig::default() };
        preflight(&config, true).unwrap();
    }
    assert_eq!(MachineRecord::read().gpus.len(), 2);
    assert_eq!(driver.counted("contexts"), 0);
    drop(DriverDevice::open(1, &options(false)).unwrap());
    assert!(driver.counted("contexts") > 0, "an opened device is counted");
}
