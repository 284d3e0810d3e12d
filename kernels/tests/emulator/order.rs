//! Every wait between streams, and of the host for a stream, is necessary: without it the fake driver gives other
//! bytes. A change that loses a wait therefore fails a test.
//!
//! Each scenario runs in a process of its own, because a kernel that reads a table too early may access invalid memory.

use std::sync::Arc;

use actbench_kernels::cuda::driver::DriverDevice;
use actbench_kernels::cuda::{CudaBackend, KernelSet};
use actbench_kernels::{Backend, DType, PoolGroups, PoolMethod};

use crate::DriverBackend;
use crate::child_process;
use crate::common::*;
use crate::fake_driver::{FakeDriver, options};

const COLUMNS: usize = 16;

/// The name of the test below, for its children.
const TEST: &str = "order::every_lost_wait_corrupts_bytes";

type DeviceRows = <DriverBackend as Backend>::Tensor;
type Scenario = fn(&DriverBackend, &DeviceRows);

/// The values of row `row` in all scenarios.
fn row(row: u32) -> Vec<f32> {
    (0..COLUMNS).map(|column| (row * 100) as f32 + column as f32).collect()
}

/// Eight rows on the device, after all copies have completed.
fn eight_rows(backend: &DriverBackend) -> DeviceRows {
    let values: Vec<f32> = (0..8).flat_map(row).collect();
    let tensor = upload(backend, DType::F32, 8, COLUMNS, &values);
    assert!(floats(backend, &tensor, 8) == values);
    tensor
}

/// The first `rows` rows, after all launches.
fn floats(backend: &DriverBackend, tensor: &DeviceRows, rows: usize) -> Vec<f32> {
    let mut bytes = vec![0; rows * COLUMNS * 4];
    backend.download(tensor, rows, &mut bytes).unwrap();
    DType::F32.to_f32_vec(&bytes)
}

/// The kernels' stream waits for the upload of a table.
fn upload_of_table(backend: &DriverBackend, x: &DeviceRows) {
    let mut out = backend.alloc(DType::F32, 3, COLUMNS).unwrap();
    backend.gather_rows(x, &[7, 2, 5], &mut out).unwrap();
    assert!(floats(backend, &out, 3) == [row(7), row(2), row(5)].concat());
}

/// The kernels' stream waits for the upload of a table in a group, whose launches come after the wait.
fn upload_of_table_in_group(backend: &DriverBackend, x: &DeviceRows) {
    let mut outs: Vec<_> = (0..6).map(|_| backend.alloc(DType::F32, 1, COLUMNS).unwrap()).collect();
    let grouped = backend.launch_grouped(0, 1, &mut || {
        (0..).zip(&mut outs).try_for_each(|(first, out)| backend.gather_rows(x, &[first], out))
    });
    grouped.unwrap();
    (0..).zip(&outs).for_each(|(first, out)| assert!(floats(backend, out, 1) == row(first)));
}

/// The download stream waits for the kernels that compute the result.
fn download_of_result(backend: &DriverBackend, x: &DeviceRows) {
    let mut out = backend.alloc(DType::F32, 8, COLUMNS).unwrap();
    backend.copy_rows(x, 0, 8, &mut out, 0).unwrap();
    let mut copy = backend.download_async(out, 8).unwrap();
    assert!(DType::F32.to_f32_vec(copy.wait().unwrap()) == (0..8).flat_map(row).collect::<Vec<f32>>());
}

/// The host waits for the uploads from pinned memory before it writes to that memory again.
fn uploads_of_many_tables(backend: &DriverBackend, x: &DeviceRows) {
    // Each table has a fifth of the size of the pinned memory.
    let results: Vec<DeviceRows> = (0..16u32)
        .map(|last| {
            let mut groups = PoolGroups::new();
            groups.push((0..100_000).map(|index| (index + last) % 8).chain([last % 8]));
            let mut result = backend.alloc(DType::F32, 1, COLUMNS).unwrap();
            backend.pool(x, &groups, PoolMethod::Last, &mut result).unwrap();
            result
        })
        .collect();
    (0..).zip(&results).for_each(|(last, result)| assert!(floats(backend, result, 1) == row(last % 8), "{last}"));
}

/// The host waits for the copy from a pinned slot before it writes to that slot again.
fn large_upload(backend: &DriverBackend, _: &DeviceRows) {
    // More than the eight slots of 8 MiB.
    let rows = (68 << 20) / (COLUMNS * 4);
    let pattern: Vec<f32> = (0..1000).flat_map(row).collect();
    let mut values = pattern.repeat(rows.div_ceil(1000));
    values.truncate(rows * COLUMNS);
    let mut large = backend.alloc(DType::F32, rows, COLUMNS).unwrap();
    backend.upload(bytemuck::cast_slice(&values), &mut large).unwrap();
    let picked: Vec<u32> = (0..rows as u32).step_by(10_000).collect();
    let mut out = backend.alloc(DType::F32, picked.len(), COLUMNS).unwrap();
    backend.gather_rows(&large, &picked, &mut out).unwrap();
    let expected: Vec<f32> = picked.iter().flat_map(|index| row(index % 1000)).collect();
    assert!(floats(backend, &out, picked.len()) == expected);
}

/// The host waits for the copy to a pinned slot before it reads the slot.
fn large_download(backend: &DriverBackend, x: &DeviceRows) {
    let picked: Vec<u32> = (0..40_000).map(|index| index % 8).collect();
    let mut out = backend.alloc(DType::F32, picked.len(), COLUMNS).unwrap();
    backend.gather_rows(x, &picked, &mut out).unwrap();
    let expected: Vec<f32> = picked.iter().flat_map(|index| row(*index)).collect();
    assert!(floats(backend, &out, picked.len()) == expected);
}

/// The download stream waits for the kernels, and the host for the slots that a large result is copied to.
fn large_async_download(backend: &DriverBackend, x: &DeviceRows) {
    let picked: Vec<u32> = (0..40_000).map(|index| index % 8).collect();
    let mut out = backend.alloc(DType::F32, picked.len(), COLUMNS).unwrap();
    backend.gather_rows(x, &picked, &mut out).unwrap();
    let mut copy = backend.download_async(out, picked.len()).unwrap();
    let expected: Vec<f32> = picked.iter().flat_map(|index| row(*index)).collect();
    assert!(DType::F32.to_f32_vec(copy.wait().unwrap()) == expected);
}

/// Each scenario, with the setting of the driver that removes one of its waits.
const SCENARIOS: [(&str, Scenario, &str); 9] = [
    ("upload of table", upload_of_table, "ignore_events=0"),
    ("upload of table in group", upload_of_table_in_group, "ignore_events=0"),
    ("download of result", download_of_result, "ignore_events=2"),
    ("download of result, host wait", download_of_result, "no_event_sync=1"),
    ("uploads of many tables", uploads_of_many_tables, "no_event_sync=1"),
    ("large upload", large_upload, "no_event_sync=1"),
    ("large download", large_download, "no_event_sync=1"),
    ("large async download", large_async_download, "ignore_events=2"),
    ("large async download, host wait", large_async_download, "no_event_sync=1"),
];

/// Whether `scenario` passes in a child whose driver has `settings`.
fn passes(scenario: &str, settings: &str) -> bool {
    let output = child_process::command(TEST, &format!("{scenario};{settings}")).output().unwrap();
    output.status.success()
}

/// Runs a scenario. `input` is its name and the settings of the driver, separated by a semicolon.
fn run_scenario(input: &str) {
    let (name, settings) = input.split_once(';').unwrap();
    let driver = FakeDriver::new("");
    let device = Arc::new(DriverDevice::open(0, &options(false)).unwrap());
    let backend = CudaBackend::new(device, KernelSet::Plain);
    let x = eight_rows(&backend);
    driver.change(settings);
    let (_, run, _) = SCENARIOS.iter().find(|(known, _, _)| *known == name).unwrap();
    run(&backend, &x);
}

#[test]
fn every_lost_wait_corrupts_bytes() {
    if let Some(input) = child_process::input() {
        return run_scenario(&input);
    }
    for (scenario, _, lost_wait) in SCENARIOS {
        assert!(passes(scenario, ""), "{scenario} fails with all waits");
        assert!(!passes(scenario, lost_wait), "{scenario} does not need the wait that {lost_wait} removes");
    }
}
