//! Groups of launches as CUDA graphs, over the fake driver: they must have the bits of single launches.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use actbench_kernels::cuda::driver::{DriverBuffer, DriverDevice};
use actbench_kernels::cuda::{Argument, CudaBackend, CudaTensor, CudaVector, CudaWeights, Device, KernelSet, Launch};
use actbench_kernels::{Backend, DType, KernelError};

use crate::DriverBackend;
use crate::common::*;
use crate::fake_driver::{FakeDriver, options};

const WIDTH: usize = 64;
const DTYPE: DType = DType::Bf16;

fn open(checked: bool) -> Arc<DriverDevice> {
    Arc::new(DriverDevice::open(0, &options(checked)).unwrap())
}

/// A sequence of launches like a block of a model: norm, rope, matmuls and a gather, on tensors that are kept.
struct LaunchBlock {
    backend: DriverBackend,
    scale: CudaVector<DriverBuffer>,
    weight: CudaWeights<DriverBuffer>,
    angles: [CudaVector<DriverBuffer>; 2],
    stream: CudaTensor<DriverBuffer>,
    normed: CudaTensor<DriverBuffer>,
    wide: CudaTensor<DriverBuffer>,
}

/// Launches of a [`LaunchBlock`].
const LAUNCHES: usize = 5;

impl LaunchBlock {
    fn new(device: &Arc<DriverDevice>) -> LaunchBlock {
        let backend = CudaBackend::new(device.clone(), KernelSet::Fast);
        let vector = |seed, len| {
            let values = random(seed, DType::F32, len);
            backend.prepare_vector(&[host(DType::F32, &[len], &values)], DType::F32).unwrap()
        };
        let weight = host(DTYPE, &[WIDTH, WIDTH], &random(2, DTYPE, WIDTH * WIDTH));
        let (scale, angles) = (vector(1, WIDTH), [vector(3, 50 * WIDTH / 2), vector(4, 50 * WIDTH / 2)]);
        let weight = backend.prepare_linear(&[weight], DTYPE).unwrap();
        let tensor = || backend.alloc(DTYPE, 0, WIDTH).unwrap();
        let (stream, normed, wide) = (tensor(), tensor(), tensor());
        LaunchBlock { backend, scale, weight, angles, stream, normed, wide }
    }

    /// The result of the block for seeded rows, as a group of `graph_slot`.
    fn run(&mut self, seed: u64, rows: usize, graph_slot: usize) -> Vec<u8> {
        self.stream = upload(&self.backend, DTYPE, rows, WIDTH, &random(seed, DTYPE, rows * WIDTH));
        let backend = CudaBackend::new(self.backend.device().clone(), KernelSet::Fast);
        backend.launch_grouped(graph_slot, rows, &mut || self.launch(seed, rows)).unwrap();
        self.result(rows)
    }

    fn launch(&mut self, seed: u64, rows: usize) -> Result<(), KernelError> {
        let backend = &self.backend;
        // The memory grows and the tables are uploaded within the group.
        backend.resize(&mut self.normed, rows)?;
        backend.rms_norm(&self.stream, &self.scale, 1e-5, &mut self.normed)?;
        let positions: Vec<u32> = (0..rows as u64).map(|row| ((row * 7 + seed) % 50) as u32).collect();
        let [cos, sin] = &self.angles;
        backend.rope(&mut self.normed, 1, WIDTH, WIDTH, &positions, cos, sin)?;
        backend.linear_residual(&self.normed, &self.weight, None, &mut self.stream)?;
        backend.resize(&mut self.wide, rows)?;
        let picked: Vec<u32> = (0..rows as u32).rev().collect();
        backend.gather_rows(&self.stream, &picked, &mut self.wide)?;
        backend.linear(&self.wide, &self.weight, None, &mut self.normed)
    }

    fn result(&self, rows: usize) -> Vec<u8> {
        let mut bytes = vec![0; rows * WIDTH * DTYPE.size()];
        self.backend.download(&self.normed, rows, &mut bytes).unwrap();
        bytes
    }
}

/// Results of blocks with changing numbers of rows, in two graph slots.
fn results(device: &Arc<DriverDevice>) -> Vec<Vec<u8>> {
    let mut block = LaunchBlock::new(device);
    let steps = [(11, 5, 0), (12, 5, 0), (12, 5, 0), (13, 9, 0), (14, 1, 1), (15, 300, 0), (16, 40, 1), (12, 5, 0)];
    steps.map(|(seed, rows, graph_slot)| block.run(seed, rows, graph_slot)).to_vec()
}

fn expected(settings: &str) -> Vec<Vec<u8>> {
    let _driver = FakeDriver::new(settings);
    let device = open(false);
    device.set_graphs(false);
    let results = results(&device);
    assert_eq!(device.graph_usage(), Default::default());
    assert!(results.iter().flatten().any(|byte| *byte != 0) && results[0] != results[1]);
    results
}

#[test]
fn graph_equals_launches_and_is_cached() {
    let expected = expected("");
    for settings in ["", "others=1", "pools=0", "pools=0 others=1"] {
        let driver = FakeDriver::new(settings);
        let device = open(false);
        assert!(results(&device) == expected, "{settings}");
        let usage = device.graph_usage();
        // 300 rows are too many for a graph; each slot has a graph of its own.
        assert_eq!((usage.graphs, usage.launches, usage.created), (7, 7 * LAUNCHES as u64, 2), "{settings}");
        assert_eq!((driver.counted("graphs"), driver.counted("graphs made")), (7, 2));
        assert_eq!((usage.updated as usize, usage.refused), (driver.counted("changed"), None));
        assert!(usage.updated > 0);
    }
}

#[test]
fn repeated_group_updates_no_node() {
    let driver = FakeDriver::new("");
    let device = open(false);
    let mut block = LaunchBlock::new(&device);
    let backend = CudaBackend::new(device.clone(), KernelSet::Fast);
    block.stream = upload(&backend, DTYPE, 5, WIDTH, &random(1, DTYPE, 5 * WIDTH));
    let mut changed = Vec::new();
    for seed in [1, 1, 1, 2] {
        backend.launch_grouped(0, 5, &mut || block.launch(seed, 5)).unwrap();
        changed.push(driver.counted("changed"));
    }
    // Other positions are a table at another address.
    assert_eq!(changed, [0, 0, 0, 1]);
    assert_eq!((driver.counted("graphs made"), driver.counted("graphs")), (1, 4));
    block.result(5);
}

#[test]
fn timed_or_checked_groups_launch_singly() {
    let expected = expected("");
    for checked in [false, true] {
        let driver = FakeDriver::new("");
        let device = open(checked);
        if !checked {
            device.start_timing().unwrap();
        }
        assert!(results(&device) == expected);
        assert_eq!((driver.counted("graphs"), device.graph_usage()), (0, Default::default()));
        let timed = device.stop_timing().unwrap();
        assert!(checked || timed.iter().any(|launch| launch.kernel == "linear_wgmma_bf16"), "{timed:?}");
    }
}

#[test]
fn refused_graphs_fall_back() {
    let expected = expected("");
    let driver = FakeDriver::new("graphs=0");
    let device = open(false);
    assert!(results(&device) == expected);
    let usage = device.graph_usage();
    assert_eq!((usage.graphs, usage.created, driver.counted("graphs")), (0, 0, 0));
    insta::assert_snapshot!(usage.refused.unwrap(), @"CUDA_ERROR_NOT_SUPPORTED (operation not supported)");
    drop((device, driver));

    let driver = FakeDriver::new("updates=0");
    let device = open(false);
    assert!(results(&device) == expected);
    let usage = device.graph_usage();
    assert_eq!((usage.graphs, usage.updated, usage.refused), (7, 0, None));
    assert!(usage.created > 2 && usage.created as usize == driver.counted("graphs made"), "{}", usage.created);
}

#[test]
fn copies_in_group_flush_earlier_launches() {
    for settings in ["", "others=1", "pools=0"] {
        let driver = FakeDriver::new(settings);
        let device = open(false);
        let mut block = LaunchBlock::new(&device);
        let alone = block.run(7, 6, 0);
        let backend = CudaBackend::new(device.clone(), KernelSet::Fast);
        let graphs = driver.counted("graphs");
        block.stream = upload(&backend, DTYPE, 6, WIDTH, &random(7, DTYPE, 6 * WIDTH));
        let mut inside = Vec::new();
        let mut later = None;
        let grouped = backend.launch_grouped(0, 6, &mut || {
            block.launch(7, 6)?;
            inside = block.result(6);
            block.launch(8, 6)?;
            let mut leaving = backend.alloc(DTYPE, 6, WIDTH)?;
            backend.copy_rows(&block.normed, 0, 6, &mut leaving, 0)?;
            later = Some(backend.download_async(leaving, 6)?);
            // This write must come after the launches above.
            backend.upload(&vec![0; 6 * WIDTH * DTYPE.size()], &mut block.normed)
        });
        grouped.unwrap();
        assert!(inside == alone, "{settings}");
        assert!(block.result(6).iter().all(|byte| *byte == 0));
        // The copies ended the group; the next group is a graph again.
        assert_eq!(driver.counted("graphs"), graphs);
        assert!(later.unwrap().wait().unwrap() != &inside[..]);
        assert!(block.run(7, 6, 0) == alone && driver.counted("graphs") == graphs + 1);
    }
}

#[test]
fn memory_freed_in_group_outlives_its_launches() {
    for settings in ["", "others=1", "pools=0"] {
        let driver = FakeDriver::new(settings);
        let device = open(false);
        let backend = CudaBackend::new(device.clone(), KernelSet::Fast);
        let x = upload(&backend, DTYPE, 40, WIDTH, &random(1, DTYPE, 40 * WIDTH));
        let mut out = backend.alloc(DTYPE, 40, WIDTH).unwrap();
        let grouped = backend.launch_grouped(0, 40, &mut || {
            // More tables than the cache keeps, and a tensor that is freed within the group.
            for first in 0..40 {
                let picked: Vec<u32> = (0..40 - first).collect();
                let mut own = backend.alloc(DTYPE, picked.len(), WIDTH)?;
                backend.gather_rows(&x, &picked, &mut own)?;
                backend.copy_rows(&own, 0, 1, &mut out, first as usize)?;
            }
            Ok(())
        });
        grouped.unwrap();
        let mut bytes = vec![0; 40 * WIDTH * DTYPE.size()];
        backend.download(&out, 40, &mut bytes).unwrap();
        let first: Vec<u8> = DTYPE.from_f32_slice(&random(1, DTYPE, WIDTH));
        assert!(bytes.chunks(first.len()).all(|row| row == first), "{settings}");
        assert_eq!(driver.counted("graphs"), 1);
    }
}

#[test]
fn allocation_flushes_group_to_reclaim_memory() {
    let driver = FakeDriver::new("memory=30000000");
    let device = open(false);
    let mut block = LaunchBlock::new(&device);
    let alone = block.run(3, 4, 0);
    let graphs = driver.counted("graphs");
    block.stream = upload(&block.backend, DTYPE, 4, WIDTH, &random(3, DTYPE, 4 * WIDTH));
    let backend = CudaBackend::new(device.clone(), KernelSet::Fast);
    let first = std::cell::Cell::new(Some(device.alloc(20_000_000).unwrap()));
    let grouped = backend.launch_grouped(0, 4, &mut || {
        block.launch(3, 4)?;
        drop(first.take());
        device.alloc(20_000_000).map(drop)
    });
    grouped.unwrap();
    assert!(block.result(4) == alone);
    assert_eq!(driver.counted("graphs"), graphs, "the allocation must end the group");
    // An impossible allocation is the error of the group, after its earlier launches.
    let grouped = backend.launch_grouped(0, 4, &mut || {
        block.launch(3, 4)?;
        device.alloc(40_000_000).map(drop)
    });
    assert!(matches!(grouped, Err(KernelError::OutOfMemory { bytes: 40_000_000, .. })));
    assert!(block.run(3, 4, 0) == alone);
}

#[test]
fn failed_group_does_not_affect_next_group() {
    let driver = FakeDriver::new("");
    let device = open(false);
    let mut block = LaunchBlock::new(&device);
    let alone = block.run(5, 3, 0);
    let backend = CudaBackend::new(device.clone(), KernelSet::Fast);
    // An operation with invalid arguments, which is not launched.
    block.stream = upload(&backend, DTYPE, 3, WIDTH, &random(5, DTYPE, 3 * WIDTH));
    let grouped = backend.launch_grouped(0, 3, &mut || {
        block.launch(5, 3)?;
        backend.gather_rows(&block.stream, &[77], &mut block.wide)
    });
    assert!(grouped.unwrap_err().to_string().contains("gather rows"));
    assert!(block.result(3) == alone, "launches before the failure are executed");
    // A launch in the middle of a group that the driver refuses.
    let launch = Launch { kernel: "rms_norm_f32".into(), grid: [1, 70_000, 1], threads: 128, shared_bytes: 0 };
    let (x, scale, mut out) = (device.alloc(64).unwrap(), device.alloc(64).unwrap(), device.alloc(64).unwrap());
    let grouped = backend.launch_grouped(0, 3, &mut || {
        let mut arguments = [
            Argument::Read(&x),
            Argument::Read(&scale),
            Argument::U32(16),
            Argument::F32(1e-5),
            Argument::Write(&mut out),
        ];
        block.launch(5, 3)?;
        device.launch(&launch, &mut arguments)?;
        block.launch(5, 3)
    });
    insta::assert_snapshot!(grouped.unwrap_err().to_string(), @"launch on cuda:0: rms_norm_f32 on 1 x 70000 x 1 blocks of 128 threads with 0 bytes of shared memory, arguments (read 64 bytes, read 64 bytes, 16, 0.00001, write 64 bytes): CUDA_ERROR_INVALID_VALUE (invalid argument)");
    assert_eq!((device.lost(), device.graph_usage().refused), (None, None));
    // A panic.
    let used = device.memory_usage().unwrap().unwrap().used;
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let _ = backend.launch_grouped(0, 3, &mut || {
            block.launch(5, 3)?;
            let _own = device.alloc(1000)?;
            panic!("in a group");
        });
    }));
    assert!(panicked.is_err());
    let graphs = driver.counted("graphs");
    assert!(block.run(5, 3, 0) == alone && driver.counted("graphs") == graphs + 1);
    assert!(device.memory_usage().unwrap().unwrap().used <= used);
}

#[test]
fn nested_group_joins_outer_group() {
    let driver = FakeDriver::new("");
    let device = open(false);
    let mut block = LaunchBlock::new(&device);
    let alone = block.run(5, 3, 0);
    let backend = CudaBackend::new(device.clone(), KernelSet::Fast);
    let graphs = driver.counted("graphs");
    block.stream = upload(&backend, DTYPE, 3, WIDTH, &random(5, DTYPE, 3 * WIDTH));
    let mut other = backend.alloc(DTYPE, 1, WIDTH).unwrap();
    let grouped = backend.launch_grouped(0, 3, &mut || {
        backend.gather_rows(&block.stream, &[2], &mut other)?;
        backend.launch_grouped(1, 3, &mut || block.launch(5, 3))
    });
    grouped.unwrap();
    assert!(block.result(3) == alone);
    assert_eq!(driver.counted("graphs"), graphs + 1);
}

#[test]
fn context_loss_in_graph_names_kernels() {
    let _driver = FakeDriver::new("break=linear_residual_wgmma_bf16");
    let device = open(false);
    let mut block = LaunchBlock::new(&device);
    let backend = CudaBackend::new(device.clone(), KernelSet::Fast);
    block.stream = upload(&backend, DTYPE, 3, WIDTH, &random(5, DTYPE, 3 * WIDTH));
    backend.launch_grouped(0, 3, &mut || block.launch(5, 3)).unwrap();
    let error = backend.download(&block.normed, 3, &mut [0; 3 * WIDTH * 2]).unwrap_err();
    insta::assert_snapshot!(error.to_string(), @"read on cuda:0: copying 384 bytes from the device: CUDA_ERROR_ILLEGAL_ADDRESS (an illegal memory access was encountered); the last launch before it: a graph of 5 launches of rms_norm_wide_bf16, rope_wide_bf16, linear_residual_wgmma_bf16, gather_rows_wide, linear_wgmma_bf16 (ACTBENCH_CUDA_GRAPHS=off launches them one by one); the CUDA context is lost; restart the process");
    // A lost context rejects further groups.
    assert!(backend.launch_grouped(0, 3, &mut || block.launch(5, 3)).is_err());
}

#[test]
fn threads_sharing_device_group_separately() {
    let expected = expected("");
    let driver = FakeDriver::new("");
    let device = open(false);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| assert!(results(&device) == expected));
        }
    });
    assert!(driver.counted("graphs") > 0);
}
