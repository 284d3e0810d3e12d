//! Every wait between streams, and of the host for a stream, is needed: without it the fake driver gives other bytes.
//!
//! So a wait that is lost in a change of the driver's code does not go unseen. Each run is a process of its own, as one
//! that reads a table too early may reach for memory that is not there.
#![cfg(all(feature = "testing", feature = "cuda"))]
#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used)]

mod common;
mod fake_driver;

use std::process::Command;
use std::sync::Arc;

use actbench_kernels::cuda::driver::DriverDevice;
use actbench_kernels::cuda::{CudaBackend, KernelSet};
use actbench_kernels::{Backend, DType, PoolGroups, PoolMethod};
use common::*;
use fake_driver::{FakeDriver, options};

const COLUMNS: usize = 16;

/// What the process below is told.
const WAY: &str = "ORDER_OF_THE_TESTS_WAY";
const SETTINGS: &str = "ORDER_OF_THE_TESTS_SETTINGS";

type Driver = CudaBackend<Arc<DriverDevice>>;
type Way = fn(&Driver, &Rows);
type Rows = <Driver as Backend>::Tensor;

/// Row `row` of the tensors here.
fn row(row: u32) -> Vec<f32> {
    (0..COLUMNS).map(|column| (row * 100) as f32 + column as f32).collect()
}

/// Eight rows on the device, with nothing left to wait for.
fn eight_rows(backend: &Driver) -> Rows {
    let values: Vec<f32> = (0..8).flat_map(row).collect();
    let tensor = upload(backend, DType::F32, 8, COLUMNS, &values);
    assert!(floats(backend, &tensor, 8) == values);
    tensor
}

/// The first `rows` rows, behind all that was launched.
fn floats(backend: &Driver, tensor: &Rows, rows: usize) -> Vec<f32> {
    let mut bytes = vec![0; rows * COLUMNS * 4];
    backend.download(tensor, rows, &mut bytes).unwrap();
    DType::F32.to_f32_vec(&bytes)
}

/// The kernels' stream waits for a table on its way to the device.
fn a_table(backend: &Driver, x: &Rows) {
    let mut out = backend.alloc(DType::F32, 3, COLUMNS).unwrap();
    backend.gather_rows(x, &[7, 2, 5], &mut out).unwrap();
    assert!(floats(backend, &out, 3) == [row(7), row(2), row(5)].concat());
}

/// The same in a group, whose launches come after the wait.
fn a_table_of_a_group(backend: &Driver, x: &Rows) {
    let mut outs: Vec<_> = (0..6).map(|_| backend.alloc(DType::F32, 1, COLUMNS).unwrap()).collect();
    let grouped = backend
        .grouped(0, 1, &mut || (0..).zip(&mut outs).try_for_each(|(first, out)| backend.gather_rows(x, &[first], out)));
    grouped.unwrap();
    (0..).zip(&outs).for_each(|(first, out)| assert!(floats(backend, out, 1) == row(first)));
}

/// The stream of copies to the host waits for what is computed.
fn a_result(backend: &Driver, x: &Rows) {
    let mut out = backend.alloc(DType::F32, 8, COLUMNS).unwrap();
    backend.copy_rows(x, 0, 8, &mut out, 0).unwrap();
    let mut copy = backend.download_later(out, 8).unwrap();
    assert!(DType::F32.to_f32_vec(copy.wait().unwrap()) == (0..8).flat_map(row).collect::<Vec<f32>>());
}

/// The host waits for the pinned memory of tables before it fills it again.
fn many_tables(backend: &Driver, x: &Rows) {
    // A fifth of the pinned memory each.
    let results: Vec<Rows> = (0..16u32)
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

/// The host waits for the pinned memory of large copies, on their way to the device.
fn a_large_upload(backend: &Driver, _: &Rows) {
    let rows = (14 << 20) / (COLUMNS * 4);
    let values: Vec<f32> = (0..rows as u32).flat_map(|index| row(index % 1000)).collect();
    let mut large = backend.alloc(DType::F32, rows, COLUMNS).unwrap();
    backend.upload(bytemuck::cast_slice(&values), &mut large).unwrap();
    let picked: Vec<u32> = (0..rows as u32).step_by(10_000).collect();
    let mut out = backend.alloc(DType::F32, picked.len(), COLUMNS).unwrap();
    backend.gather_rows(&large, &picked, &mut out).unwrap();
    let expected: Vec<f32> = picked.iter().flat_map(|index| row(index % 1000)).collect();
    assert!(floats(backend, &out, picked.len()) == expected);
}

/// The same on their way back.
fn a_large_download(backend: &Driver, x: &Rows) {
    let picked: Vec<u32> = (0..40_000).map(|index| index % 8).collect();
    let mut out = backend.alloc(DType::F32, picked.len(), COLUMNS).unwrap();
    backend.gather_rows(x, &picked, &mut out).unwrap();
    let expected: Vec<f32> = picked.iter().flat_map(|index| row(*index)).collect();
    assert!(floats(backend, &out, picked.len()) == expected);
}

/// Each way, and what the driver is told so that one wait of it is lost.
const WAYS: [(&str, Way, &str); 7] = [
    ("a table", a_table, "ignore_events=0"),
    ("a table of a group", a_table_of_a_group, "ignore_events=0"),
    ("a result", a_result, "ignore_events=2"),
    ("a result, by the host", a_result, "no_event_sync=1"),
    ("many tables", many_tables, "no_event_sync=1"),
    ("a large upload", a_large_upload, "no_event_sync=1"),
    ("a large download", a_large_download, "no_event_sync=1"),
];

/// Whether the bytes are right in a process of its own.
fn is_right(way: &str, settings: &str) -> bool {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "run_alone", "--ignored"]).env(WAY, way).env(SETTINGS, settings);
    command.output().unwrap().status.success()
}

/// Not a test: what the test runs in a process of its own.
#[test]
#[ignore = "run by the other test"]
fn run_alone() {
    let (way, settings) = (std::env::var(WAY).unwrap(), std::env::var(SETTINGS).unwrap());
    let driver = FakeDriver::new("");
    let device = Arc::new(DriverDevice::open(0, &options(false)).unwrap());
    let backend = CudaBackend::new(device, KernelSet::Plain);
    let x = eight_rows(&backend);
    driver.change(&settings);
    let (_, run, _) = WAYS.iter().find(|(known, _, _)| *known == way).unwrap();
    run(&backend, &x);
}

#[test]
fn bytes_are_wrong_as_soon_as_one_wait_is_lost() {
    for (way, _, lost) in WAYS {
        assert!(is_right(way, ""), "{way} fails with every wait in its place");
        assert!(!is_right(way, lost), "{way} does not need the wait that {lost} loses");
    }
}
