//! The device of a GPU, over the fake driver, which delays the kernels as long as the CUDA API allows.

use std::sync::Arc;
use std::time::Duration;

use actbench_kernels::cuda::driver::{DeviceOpenTimes, DriverDevice, DriverOptions, probe};
use actbench_kernels::cuda::emulator::FAKE_DRIVER_CUBIN;
use actbench_kernels::cuda::{Architecture, Argument, CudaBackend, Device, KernelSet, Launch, Tiles};
use actbench_kernels::{AttentionShape, Backend, DType, KernelError, PoolMethod, ScoreRule};

use crate::common::*;
use crate::fake_driver::{FakeDriver, options};
use crate::operations::{self, MATMUL_KINDS, NORM_KINDS};

fn open(checked: bool) -> Arc<DriverDevice> {
    Arc::new(DriverDevice::open(0, &options(checked)).unwrap())
}

fn error_text<T>(result: Result<T, KernelError>) -> String {
    result.err().expect("an error").to_string()
}

/// Runs every operation once. Returns its name and the bytes of its result.
fn every_operation<B: Backend>(backend: &B, dtype: DType) -> Vec<(String, Vec<u8>)> {
    let mut results = Vec::new();
    for kind in MATMUL_KINDS {
        let bytes = operations::matmul(backend, kind, true, dtype, (0, 5), 24, 37);
        results.push((format!("{kind:?}"), bytes));
    }
    for kind in NORM_KINDS {
        results.push((format!("{kind:?} norm"), operations::norm(backend, kind, dtype, (0, 4), 130)));
    }
    results.push(("scaled embedding".into(), operations::scaled_embedding(backend, dtype, 33)));
    results.push(("added embedding".into(), operations::added_embedding(backend, dtype, 33)));
    results.push(("copies".into(), operations::copies(backend, dtype, 33)));
    for method in PoolMethod::ALL {
        results.push((format!("{method} pool"), operations::pool(backend, dtype, 130, method)));
    }
    results.push(("rope".into(), operations::rope(backend, dtype, 10, 8, &[3, 0, 9])));
    let shape = AttentionShape { n_heads: 4, n_kv_heads: 2, head_dim: 16 };
    let usual = ScoreRule::of_head_dim(shape.head_dim);
    for scores in [usual, ScoreRule { window: Some(30), soft_cap: Some(3.0), ..usual }] {
        results.push((format!("attention {scores:?}"), operations::attention(backend, dtype, shape, scores, [5, 141])));
    }
    results.push(("a node".into(), operations::attention_of_node(backend, dtype, shape, usual, 23, 14)));
    results
}

#[test]
fn plain_kernels_equal_cpu_fast_are_close() {
    for settings in ["", "pools=0"] {
        for checked in [false, true] {
            let driver = FakeDriver::new(settings);
            let device = open(checked);
            let plain = CudaBackend::new(device.clone(), KernelSet::Plain);
            let fast = [KernelSet::Mma, KernelSet::Fast].map(|kernels| CudaBackend::new(device.clone(), kernels));
            for dtype in DTYPES {
                let expected = every_operation(&fused_multiply_add_cpu(), dtype);
                assert!(every_operation(&plain, dtype) == expected, "{dtype} differs from the CPU");
                for backend in &fast {
                    for ((what, got), (_, expected)) in every_operation(backend, dtype).iter().zip(&expected) {
                        let expected: Vec<f64> = dtype.to_f32_vec(expected).into_iter().map(f64::from).collect();
                        assert_close(&dtype.to_f32_vec(got), &expected, 2.0 * tolerance(dtype), what);
                    }
                }
            }
            // Tools such as compute-sanitizer report every call that the driver refuses.
            assert_eq!(driver.counted("refused"), 0);
        }
    }
}

#[test]
fn threads_sharing_device_get_correct_bits() {
    let _driver = FakeDriver::new("");
    let device = open(false);
    std::thread::scope(|scope| {
        for dtype in DTYPES {
            let backend = CudaBackend::new(device.clone(), KernelSet::Plain);
            scope.spawn(move || {
                let expected = every_operation(&fused_multiply_add_cpu(), dtype);
                (0..3).for_each(|_| assert!(every_operation(&backend, dtype) == expected, "{dtype}"));
            });
        }
    });
    assert_eq!(device.memory_usage().unwrap().unwrap().used, 0);
}

#[test]
fn device_description_has_name_and_memory() {
    let _driver = FakeDriver::new("memory=2147483648 devices=2");
    let found = probe().unwrap();
    assert_eq!(found.iter().map(|facts| facts.ordinal).collect::<Vec<_>>(), [0, 1]);
    let device = open(false);
    assert_eq!(device.architecture(), Some(Architecture::new(90)));
    insta::assert_snapshot!(device.describe(), @"cuda:0, fake GPU (sm_90, 2048 MiB, driver 13.0)");
}

#[test]
fn opened_device_has_the_time_of_each_part() {
    let _driver = FakeDriver::new("");
    let times = open(false).open_times();
    for part in [times.driver, times.context, times.modules] {
        assert!(part > Duration::ZERO, "{times:?}");
    }
    assert_eq!([times, times].into_iter().sum::<DeviceOpenTimes>().modules, 2 * times.modules);
}

#[test]
fn chunked_copies_keep_all_bytes() {
    let _driver = FakeDriver::new("");
    let device = open(false);
    for len in [0, 1, 4095, 4 << 20, (4 << 20) + 1, (17 << 20) + 3] {
        let mut bytes: Vec<u8> = (0..len).map(|index: usize| (index.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        let expected = bytes.clone();
        let mut buffer = device.alloc(len).unwrap();
        device.write(&mut buffer, &bytes).unwrap();
        // The source may change as soon as the call returns.
        bytes.fill(7);
        let mut back = vec![0; len];
        device.read(&buffer, &mut back).unwrap();
        assert!(back == expected, "{len} bytes");
    }
}

#[test]
fn memory_usage_counts_and_resets_peaks() {
    for (settings, has_pool) in [("", true), ("pools=0", false)] {
        let _driver = FakeDriver::new(settings);
        let device = open(false);
        assert_eq!(device.memory_usage().unwrap().unwrap().used, 0);
        let small = device.alloc(1000).unwrap();
        let large = device.alloc(5 << 20).unwrap();
        let both = device.memory_usage().unwrap().unwrap();
        assert_eq!((both.used, both.peak_used), (1000 + (5 << 20), 1000 + (5 << 20)));
        assert!(both.reserved >= both.used && both.peak_reserved >= both.reserved, "{both:?}");
        drop(large);
        let one = device.memory_usage().unwrap().unwrap();
        assert_eq!((one.used, one.peak_used), (1000, both.peak_used));
        // A pool keeps freed memory; without a pool nothing is kept.
        assert_eq!(one.reserved, if has_pool { both.reserved } else { 1000 });
        device.reset_peak_memory().unwrap();
        let reset = device.memory_usage().unwrap().unwrap();
        assert_eq!((reset.peak_used, reset.peak_reserved), (1000, reset.reserved));
        drop(small);
        assert_eq!(device.memory_usage().unwrap().unwrap().used, 0);
    }
}

#[test]
fn buffers_outlive_their_device() {
    let _driver = FakeDriver::new("");
    let device = open(true);
    let buffer = device.alloc(100).unwrap();
    drop(device);
    drop(buffer);
}

#[test]
fn timed_launches_are_reported_in_order() {
    let _driver = FakeDriver::new("");
    let device = open(false);
    let backend = CudaBackend::new(device.clone(), KernelSet::Plain);
    let x = upload(&backend, DType::F32, 3, 8, &[1.0; 24]);
    let scale = backend.prepare_vector(&[host(DType::F32, &[8], &[1.0; 8])], DType::F32).unwrap();
    let mut out = backend.alloc(DType::F32, 3, 8).unwrap();
    device.start_timing().unwrap();
    backend.gather_rows(&x, &[2, 1, 0], &mut out).unwrap();
    backend.rms_norm(&x, &scale, 1e-5, &mut out).unwrap();
    let launches = device.stop_timing().unwrap();
    let kernels: Vec<&str> = launches.iter().map(|launch| launch.kernel.as_str()).collect();
    assert_eq!(kernels, ["gather_rows_f32", "rms_norm_f32"]);
    assert!(launches.iter().all(|launch| launch.milliseconds > 0.0), "{launches:?}");
    assert!(device.stop_timing().unwrap().is_empty());
    assert!(device.copy_milliseconds(1 << 20, 3).unwrap() > 0.0);
}

#[test]
fn context_loss_errors_name_the_launch() {
    for checked in [false, true] {
        let _driver = FakeDriver::new("break=rms_norm_f32");
        let device = open(checked);
        let backend = CudaBackend::new(device.clone(), KernelSet::Plain);
        let scale = backend.prepare_vector(&[host(DType::F32, &[8], &[1.0; 8])], DType::F32).unwrap();
        let x = upload(&backend, DType::F32, 3, 8, &[1.0; 24]);
        let mut out = backend.alloc(DType::F32, 3, 8).unwrap();
        assert_eq!(device.lost(), None);
        let launched = backend.rms_norm(&x, &scale, 1e-5, &mut out);
        let mut bytes = vec![0; 96];
        if checked {
            insta::assert_snapshot!(error_text(launched), @"launch on cuda:0: rms_norm_f32 on 3 x 1 x 1 blocks of 128 threads with 0 bytes of shared memory, arguments (read 96 bytes, read 32 bytes, 8, 0.00001, write 96 bytes): CUDA_ERROR_ILLEGAL_ADDRESS (an illegal memory access was encountered); the CUDA context is lost; restart the process");
        } else {
            // A launch is asynchronous: the call that waits for it reports its error.
            launched.unwrap();
            insta::assert_snapshot!(error_text(backend.download(&out, 3, &mut bytes)), @"read on cuda:0: copying 96 bytes from the device: CUDA_ERROR_ILLEGAL_ADDRESS (an illegal memory access was encountered); the last launch before it: rms_norm_f32 on 3 x 1 x 1 blocks of 128 threads with 0 bytes of shared memory, arguments (read 96 bytes, read 32 bytes, 8, 0.00001, write 96 bytes); the CUDA context is lost; restart the process");
            insta::assert_snapshot!(error_text(backend.download(&out, 3, &mut bytes)), @"read on cuda:0: the CUDA context is lost; restart the process (copying 96 bytes from the device: CUDA_ERROR_ILLEGAL_ADDRESS (an illegal memory access was encountered); the last launch before it: rms_norm_f32 on 3 x 1 x 1 blocks of 128 threads with 0 bytes of shared memory, arguments (read 96 bytes, read 32 bytes, 8, 0.00001, write 96 bytes))");
        }
        assert!(device.lost().unwrap().contains("rms_norm_f32"));
        assert!(device.memory_usage().is_err() && device.start_timing().is_err());
    }
}

#[test]
fn out_of_memory_error_leaves_device_usable() {
    for settings in ["memory=30000000", "memory=30000000 pools=0"] {
        let _driver = FakeDriver::new(settings);
        let device = open(false);
        insta::allow_duplicates! {
            insta::assert_snapshot!(error_text(device.alloc(40_000_000)), @"alloc: could not allocate 40000000 bytes on cuda:0");
        }
        assert!(matches!(device.alloc(usize::MAX), Err(KernelError::OutOfMemory { .. })));
        assert!(device.alloc(20_000_000).is_ok());
    }
}

#[test]
fn mismatched_arguments_never_reach_driver() {
    let _driver = FakeDriver::new("");
    let device = open(false);
    let launch = |kernel: &str, shared_bytes| Launch {
        kernel: kernel.to_owned().into(),
        grid: [1, 1, 1],
        threads: 32,
        shared_bytes,
    };
    let mut arguments = [Argument::U32(1), Argument::F32(0.5)];
    let errors = [
        error_text(device.launch(&launch("rms_norm_f32", 0), &mut arguments)),
        error_text(device.launch(&launch("rms_norm_f64", 0), &mut arguments)),
        error_text(device.launch(&launch("rms_norm_f32", 1 << 20), &mut arguments)),
        error_text(device.write(&mut device.alloc(3).unwrap(), &[0; 4])),
        error_text(device.read(&device.alloc(3).unwrap(), &mut [0; 4])),
        error_text(device.poison(&mut device.alloc(3).unwrap(), 1..4)),
    ];
    insta::assert_snapshot!(errors.join("\n"), @r"
launch on cuda:0: rms_norm_f32: expected parameters of [8, 8, 4, 4, 8] bytes, got [4, 4]
launch on cuda:0: unknown kernel rms_norm_f64
launch on cuda:0: rms_norm_f32 needs 1048576 bytes of shared memory per block, the device has 232448: CUDA_ERROR_INVALID_VALUE (invalid argument)
write on cuda:0: 4 bytes exceed the buffer of 3 bytes
read on cuda:0: 4 bytes exceed the buffer of 3 bytes
poison on cuda:0: 4 bytes exceed the buffer of 3 bytes
");
}

#[test]
fn refused_launch_error_has_shape_and_arguments() {
    let _driver = FakeDriver::new("");
    let device = open(false);
    let (x, scale, mut out) = (device.alloc(64).unwrap(), device.alloc(64).unwrap(), device.alloc(64).unwrap());
    let launch = Launch { kernel: "rms_norm_f32".into(), grid: [1, 70_000, 1], threads: 128, shared_bytes: 0 };
    let mut arguments =
        [Argument::Read(&x), Argument::Read(&scale), Argument::U32(16), Argument::F32(1e-5), Argument::Write(&mut out)];
    insta::assert_snapshot!(error_text(device.launch(&launch, &mut arguments)), @"launch on cuda:0: rms_norm_f32 on 1 x 70000 x 1 blocks of 128 threads with 0 bytes of shared memory, arguments (read 64 bytes, read 64 bytes, 16, 0.00001, write 64 bytes): CUDA_ERROR_INVALID_VALUE (invalid argument)");
    // The context remains usable.
    assert_eq!(device.lost(), None);
}

#[test]
fn checked_device_detects_extra_and_missing_writes() {
    let nan_outputs = |fault: &str, rows| {
        let _driver = FakeDriver::new(&format!("mutant={fault}"));
        let backend = CudaBackend::new(open(true), KernelSet::Mma);
        let x = upload(&backend, DType::Bf16, rows, 16, &vec![1.0; rows * 16]);
        let matrix = host(DType::Bf16, &[42, 16], &[1.0; 672]);
        let weight = backend.prepare_linear(&[matrix], DType::Bf16).unwrap();
        let mut out = backend.alloc(DType::Bf16, rows, 42).unwrap();
        backend.linear(&x, &weight, None, &mut out).map(|()| {
            let mut bytes = vec![0; rows * 42 * 2];
            backend.download(&out, rows, &mut bytes).unwrap();
            DType::Bf16.to_f32_vec(&bytes).iter().filter(|value| value.is_nan()).count()
        })
    };
    let message = error_text(nan_outputs("mma_row_beyond_the_end", 3));
    assert!(message.contains("wrote outside its argument 7"), "{message}");
    assert_eq!(nan_outputs("mma_unwritten_output", 3).unwrap(), 3);
}

#[test]
fn architecture_selects_matmul_kernels() {
    for (architecture, kernel, id) in [
        (80, "linear_mma_bf16", "cuda-mma-3"),
        (90, "linear_wgmma_bf16", "cuda-wgmma-3"),
        (100, "linear_mma_bf16", "cuda-mma-3"),
    ] {
        let _driver = FakeDriver::new(&format!("architecture={architecture}"));
        let directory = tempfile::tempdir().unwrap();
        let cubins: Vec<_> = actbench_kernels::cuda::registry::SOURCES
            .iter()
            .map(|source| (source, Architecture::new(architecture), FAKE_DRIVER_CUBIN.to_vec()))
            .collect();
        actbench_kernels::cuda::cubins::write_prebuilt(directory.path(), "the tests", &cubins).unwrap();
        let mut options: DriverOptions = options(false);
        options.cubins.prebuilt = Some(directory.path().to_path_buf());
        let device = Arc::new(DriverDevice::open(0, &options).unwrap());
        let backend = CudaBackend::new(device.clone(), KernelSet::Fast);
        assert_eq!(backend.kernel_id(), id);
        device.start_timing().unwrap();
        // For every number of rows.
        for rows in [1, 130] {
            operations::matmul(&backend, operations::MatmulKind::Linear, false, DType::Bf16, (0, rows), 16, 8);
        }
        // TMA stores rows of multiples of 16 bytes.
        operations::matmul(&backend, operations::MatmulKind::Linear, false, DType::Bf16, (0, 1), 16, 12);
        let launches = device.stop_timing().unwrap();
        let matmuls = launches.iter().map(|launch| &*launch.kernel).filter(|kernel| kernel.starts_with("linear"));
        assert_eq!(matmuls.collect::<Vec<_>>(), [kernel, kernel, "linear_mma_bf16"]);
    }
}

#[test]
fn invalid_tensor_map_error_has_rule() {
    let _driver = FakeDriver::new("");
    let device = open(false);
    let buffer = device.alloc(1024).unwrap();
    let launch = Launch { kernel: "linear_wgmma_bf16".into(), grid: [1, 1, 1], threads: 384, shared_bytes: 0 };
    let map_error = |rows, columns| {
        let tiles = Tiles {
            buffer: &buffer,
            dtype: DType::Bf16,
            rows,
            columns,
            tile_rows: 128,
            tile_columns: 64,
            swizzled: true,
        };
        error_text(device.launch(&launch, &mut [Argument::Tiles(tiles)]))
    };
    insta::assert_snapshot!([map_error(8, 60), map_error(8, 72)].join("\n"), @r"
launch on cuda:0: tensor map of 8 x 60 elements of bf16 in tiles of 128 x 64: rows of 120 bytes by tiles of 128, not multiples of 16
launch on cuda:0: tensor map of 8 x 72 elements of bf16 in tiles of 128 x 64: 8 rows of 144 bytes in a buffer of 1024
");
}

#[test]
fn invalid_machine_code_never_reaches_driver() {
    let _driver = FakeDriver::new("architecture=120");
    let message = error_text(DriverDevice::open(0, &options(false)));
    assert!(message.contains("has none for sm_120"), "{message}");
    drop(_driver);
    let _driver = FakeDriver::new("");
    let directory = tempfile::tempdir().unwrap();
    let cubins: Vec<_> = actbench_kernels::cuda::registry::SOURCES
        .iter()
        .map(|source| (source, Architecture::new(90), b"not machine code".to_vec()))
        .collect();
    actbench_kernels::cuda::cubins::write_prebuilt(directory.path(), "the tests", &cubins).unwrap();
    let mut options: DriverOptions = options(false);
    options.cubins.prebuilt = Some(directory.path().to_path_buf());
    insta::assert_snapshot!(error_text(DriverDevice::open(0, &options)), @"load kernels on cuda:0: add_weighted_rows.cu for sm_90: not a cubin");
}

#[test]
fn async_downloads_keep_all_bytes() {
    for settings in ["", "others=1", "pools=0", "pools=0 others=1"] {
        let driver = FakeDriver::new(settings);
        let device = open(false);
        let backend = CudaBackend::new(device.clone(), KernelSet::Plain);
        let columns = 24;
        let step_values = |step: u32, rows: usize| -> Vec<f32> {
            (0..rows * columns).map(|index| (step as usize * 1000 + index) as f32).collect()
        };
        let mut pending = std::collections::VecDeque::new();
        let mut working = backend.alloc(DType::F32, 40, columns).unwrap();
        let mut pinned = 0;
        for step in 0..60u32 {
            // The first batches allocate pinned memory, and later ones use it again.
            match step {
                10 => pinned = driver.counted("pinned"),
                _ => assert!(step < 10 || driver.counted("pinned") == pinned, "{settings} step {step}"),
            }
            let rows = 40 - step as usize % 7;
            let x = upload(&backend, DType::F32, rows, columns, &step_values(step, rows));
            // The same memory in every step, like the workspace of a model.
            backend.copy_rows(&x, 0, rows, &mut working, 0).unwrap();
            let picked: Vec<u32> = (0..rows as u32).rev().collect();
            let mut leaving = backend.alloc(DType::F32, rows, columns).unwrap();
            backend.gather_rows(&working, &picked, &mut leaving).unwrap();
            pending.push_back((step, rows, backend.download_async(leaving, rows).unwrap()));
            if pending.len() > 2 {
                let (step, rows, mut copy) = pending.pop_front().unwrap();
                let expected: Vec<f32> = step_values(step, rows).chunks(columns).rev().flatten().copied().collect();
                assert_eq!(DType::F32.to_f32_vec(copy.wait().unwrap()), expected, "{settings} step {step}");
                assert_eq!(DType::F32.to_f32_vec(copy.wait().unwrap()), expected, "second wait");
            }
        }
        // Dropping a copy waits for it before its memory is freed.
        drop(pending);
        let used = device.memory_usage().unwrap().unwrap();
        assert!(used.used > 0 && used.peak_used < (60 * 40 * columns * 4) as u64, "{used:?}");
    }
}

/// Downloads of `bytes` bytes, three at a time, that are all of one value; asserts that they are.
fn large_downloads(device: &Arc<DriverDevice>, bytes: usize, count: u8) {
    let mut pending = std::collections::VecDeque::new();
    let assert_next = |value: u8, copy: &mut Box<dyn actbench_kernels::PendingCopy>| {
        assert!(copy.wait().unwrap() == vec![value; bytes], "{value} of {bytes} bytes");
    };
    for value in 0..count {
        let mut buffer = device.alloc(bytes).unwrap();
        device.write(&mut buffer, &vec![value; bytes]).unwrap();
        pending.push_back((value, device.read_async(buffer, bytes).unwrap()));
        if pending.len() > 2 {
            let (value, mut copy) = pending.pop_front().unwrap();
            assert_next(value, &mut copy);
            assert_next(value, &mut copy);
        }
    }
    // The last but one is dropped in flight.
    pending.pop_front();
    pending.into_iter().for_each(|(value, mut copy)| assert_next(value, &mut copy));
}

#[test]
fn large_downloads_use_ring_until_pinning_pays() {
    for settings in ["", "others=1", "pools=0"] {
        let driver = FakeDriver::new(settings);
        let device = open(false);
        // Together more than the ring; one of them less than a slot.
        for (bytes, count) in [(18 << 20, 5), ((1 << 20) + 3, 4)] {
            large_downloads(&device, bytes, count);
        }
        // Eight slots at most, and no staging buffer yet.
        assert!(driver.counted("pinned") <= 8, "{settings}: {}", driver.counted("pinned"));
        large_downloads(&device, (1 << 20) + 9, 8);
        let pinned = driver.counted("pinned");
        assert!((3..=9).contains(&pinned), "{settings}: {pinned}");
    }
}

#[test]
fn tables_are_uploaded_once_without_waiting() {
    let _driver = FakeDriver::new("");
    let device = open(false);
    let backend = CudaBackend::new(device.clone(), KernelSet::Plain);
    let x = upload(&backend, DType::F32, 8, 16, &[1.0; 128]);
    backend.reset_device_usage().unwrap();
    let mut out = backend.alloc(DType::F32, 8, 16).unwrap();
    for _ in 0..5 {
        backend.gather_rows(&x, &[7, 6, 5], &mut out).unwrap();
    }
    let used = backend.device_usage().unwrap().unwrap();
    assert_eq!((used.to_device, used.to_host), (12, 0));
    // More than the pinned memory holds: a half is reused only after the copies from it have completed.
    let mut expected = Vec::new();
    let mut pending = Vec::new();
    for step in 0..40u32 {
        let picked: Vec<u32> = (0..50_000).map(|index| (index + step) % 8).collect();
        let mut wide = backend.alloc(DType::F32, picked.len(), 16).unwrap();
        backend.gather_rows(&x, &picked, &mut wide).unwrap();
        let mut last = backend.alloc(DType::F32, 1, 16).unwrap();
        backend.copy_rows(&wide, 0, 1, &mut last, 0).unwrap();
        expected.push(vec![1.0f32; 16]);
        pending.push(backend.download_async(last, 1).unwrap());
    }
    let got: Vec<Vec<f32>> = pending.iter_mut().map(|copy| DType::F32.to_f32_vec(copy.wait().unwrap())).collect();
    assert_eq!(got, expected);
}

#[test]
fn allocation_waits_for_pending_frees() {
    let _driver = FakeDriver::new("memory=30000000");
    let device = open(false);
    let first = device.alloc(20_000_000).unwrap();
    drop(first);
    // The fake driver has not executed the free yet: an allocator that did not wait would fail.
    assert!(device.alloc(20_000_000).is_ok());
    let (kept, free) = (device.alloc(10_000_000).unwrap(), device.free_memory().unwrap().unwrap());
    assert!((15_000_000..=20_000_000).contains(&free), "{free}");
    drop(kept);
    device.reset_peak_memory().unwrap();
    let reset = device.memory_usage().unwrap().unwrap();
    assert_eq!((reset.peak_used, reset.reserved, reset.peak_reserved), (0, 0, 0));
}
