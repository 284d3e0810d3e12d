//! The code that drives a GPU, over the fake driver, which executes the kernels in the emulator as late as it may.
#![cfg(all(feature = "testing", feature = "cuda"))]
#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used)]

mod common;
mod fake_driver;
#[path = "common/operations.rs"]
mod operations;

use std::sync::Arc;

use actbench_kernels::cuda::driver::{DriverDevice, DriverOptions, probe};
use actbench_kernels::cuda::emulator::FAKE_DRIVER_CUBIN;
use actbench_kernels::cuda::{Architecture, Argument, CudaBackend, Device, KernelSet, Launch, Tiles};
use actbench_kernels::{AttentionShape, Backend, DType, KernelError, PoolMethod};
use common::*;
use fake_driver::{FakeDriver, options};
use operations::PRODUCTS;

fn open(checked: bool) -> Arc<DriverDevice> {
    Arc::new(DriverDevice::open(0, &options(checked)).unwrap())
}

fn error<T>(result: Result<T, KernelError>) -> String {
    result.err().expect("an error").to_string()
}

/// Every operation once, down to the bytes.
fn every_operation<B: Backend>(backend: &B, dtype: DType) -> Vec<(String, Vec<u8>)> {
    let mut results = Vec::new();
    for product in PRODUCTS {
        let bytes = operations::product(backend, product, true, dtype, (0, 5), 24, 37);
        results.push((format!("{product:?}"), bytes));
    }
    results.push(("rms norm".into(), operations::rms_norm(backend, dtype, 4, 130)));
    results.push(("copies".into(), operations::copies(backend, dtype, 33)));
    for method in PoolMethod::ALL {
        results.push((format!("{method} pool"), operations::pool(backend, dtype, 130, method)));
    }
    results.push(("rope".into(), operations::rope(backend, dtype, 10, &[3, 0, 9])));
    let shape = AttentionShape { n_heads: 4, n_kv_heads: 2, head_dim: 16 };
    results.push(("attention".into(), operations::attention(backend, dtype, shape, [5, 141])));
    results.push(("a node".into(), operations::attention_of_a_node(backend, dtype, shape, 23, 14)));
    results
}

#[test]
fn plain_kernels_have_the_bits_of_the_cpu_and_fast_ones_are_near() {
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
            // Tools that watch the driver report each question that it refuses.
            assert_eq!(driver.counted("refused"), 0);
        }
    }
}

#[test]
fn threads_share_a_device_and_keep_their_bits() {
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
    assert_eq!(device.memory_use().unwrap().unwrap().used, 0);
}

#[test]
fn a_device_says_what_it_is() {
    let _driver = FakeDriver::new("memory=2147483648 devices=2");
    let found = probe().unwrap();
    assert_eq!(found.iter().map(|facts| facts.ordinal).collect::<Vec<_>>(), [0, 1]);
    let device = open(false);
    assert_eq!(device.architecture(), Some(Architecture::new(90)));
    insta::assert_snapshot!(device.describe(), @"cuda:0, fake GPU (sm_90, 2048 MiB, driver 13.0)");
}

#[test]
fn copies_larger_than_the_staging_memory_keep_every_byte() {
    let _driver = FakeDriver::new("");
    let device = open(false);
    for len in [0, 1, 4095, 4 << 20, (4 << 20) + 1, (17 << 20) + 3] {
        let mut bytes: Vec<u8> = (0..len).map(|index: usize| (index.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        let expected = bytes.clone();
        let mut buffer = device.alloc(len).unwrap();
        device.write(&mut buffer, &bytes).unwrap();
        // What was given to be copied may change as soon as the call is over.
        bytes.fill(7);
        let mut back = vec![0; len];
        device.read(&buffer, &mut back).unwrap();
        assert!(back == expected, "{len} bytes");
    }
}

#[test]
fn memory_is_counted_and_its_high_water_marks_start_anew() {
    for (settings, has_pool) in [("", true), ("pools=0", false)] {
        let _driver = FakeDriver::new(settings);
        let device = open(false);
        assert_eq!(device.memory_use().unwrap().unwrap().used, 0);
        let small = device.alloc(1000).unwrap();
        let large = device.alloc(5 << 20).unwrap();
        let both = device.memory_use().unwrap().unwrap();
        assert_eq!((both.used, both.used_high), (1000 + (5 << 20), 1000 + (5 << 20)));
        assert!(both.reserved >= both.used && both.reserved_high >= both.reserved, "{both:?}");
        drop(large);
        let one = device.memory_use().unwrap().unwrap();
        assert_eq!((one.used, one.used_high), (1000, both.used_high));
        // A pool keeps what is given back; without one nothing is kept.
        assert_eq!(one.reserved, if has_pool { both.reserved } else { 1000 });
        device.reset_memory_high().unwrap();
        let reset = device.memory_use().unwrap().unwrap();
        assert_eq!((reset.used_high, reset.reserved_high), (1000, reset.reserved));
        drop(small);
        assert_eq!(device.memory_use().unwrap().unwrap().used, 0);
    }
}

#[test]
fn buffers_outlive_the_device_that_made_them() {
    let _driver = FakeDriver::new("");
    let device = open(true);
    let buffer = device.alloc(100).unwrap();
    drop(device);
    drop(buffer);
}

#[test]
fn timed_launches_are_told_in_order_and_copies_take_some_time() {
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
fn a_launch_that_breaks_the_context_is_named_in_every_error_after_it() {
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
            insta::assert_snapshot!(error(launched), @"launch on cuda:0: rms_norm_f32 on 3 x 1 x 1 blocks of 128 threads with 0 bytes of shared memory, given 96 bytes to read, 32 bytes to read, 8, 0.00001, 96 bytes to write: CUDA_ERROR_ILLEGAL_ADDRESS (an illegal memory access was encountered); the context is lost, start the program anew");
        } else {
            // A launch says nothing of how it ends: that shows in what waits for it.
            launched.unwrap();
            insta::assert_snapshot!(error(backend.download(&out, 3, &mut bytes)), @"read on cuda:0: copying 96 bytes from the device: CUDA_ERROR_ILLEGAL_ADDRESS (an illegal memory access was encountered); the last launch before it: rms_norm_f32 on 3 x 1 x 1 blocks of 128 threads with 0 bytes of shared memory, given 96 bytes to read, 32 bytes to read, 8, 0.00001, 96 bytes to write; the context is lost, start the program anew");
            insta::assert_snapshot!(error(backend.download(&out, 3, &mut bytes)), @"read on cuda:0: the context is lost, start the program anew: copying 96 bytes from the device: CUDA_ERROR_ILLEGAL_ADDRESS (an illegal memory access was encountered); the last launch before it: rms_norm_f32 on 3 x 1 x 1 blocks of 128 threads with 0 bytes of shared memory, given 96 bytes to read, 32 bytes to read, 8, 0.00001, 96 bytes to write");
        }
        assert!(device.lost().unwrap().contains("rms_norm_f32"));
        assert!(device.memory_use().is_err() && device.start_timing().is_err());
    }
}

#[test]
fn memory_that_cannot_be_had_is_an_error_with_the_bytes_and_the_device_goes_on() {
    for settings in ["memory=30000000", "memory=30000000 pools=0"] {
        let _driver = FakeDriver::new(settings);
        let device = open(false);
        insta::allow_duplicates! {
            insta::assert_snapshot!(error(device.alloc(40_000_000)), @"alloc: could not allocate 40000000 bytes on cuda:0");
        }
        assert!(matches!(device.alloc(usize::MAX), Err(KernelError::OutOfMemory { .. })));
        assert!(device.alloc(20_000_000).is_ok());
    }
}

#[test]
fn arguments_that_are_not_the_kernels_never_reach_the_driver() {
    let _driver = FakeDriver::new("");
    let device = open(false);
    let launch = |kernel: &str, shared_bytes| Launch {
        kernel: kernel.to_owned().into(),
        grid: [1, 1, 1],
        threads: 32,
        shared_bytes,
    };
    let mut arguments = [Argument::U32(1), Argument::F32(0.5)];
    let told = [
        error(device.launch(&launch("rms_norm_f32", 0), &mut arguments)),
        error(device.launch(&launch("rms_norm_f64", 0), &mut arguments)),
        error(device.launch(&launch("rms_norm_f32", 1 << 20), &mut arguments)),
        error(device.write(&mut device.alloc(3).unwrap(), &[0; 4])),
        error(device.read(&device.alloc(3).unwrap(), &mut [0; 4])),
        error(device.poison(&mut device.alloc(3).unwrap(), 1..4)),
    ];
    insta::assert_snapshot!(told.join("\n"), @r"
launch on cuda:0: rms_norm_f32: its parameters are of [8, 8, 4, 4, 8] bytes, and it was given [4, 4]
launch on cuda:0: there is no kernel rms_norm_f64
launch on cuda:0: rms_norm_f32 needs 1048576 bytes of shared memory a block of 232448: CUDA_ERROR_INVALID_VALUE (invalid argument)
write on cuda:0: 4 bytes of a buffer of 3
read on cuda:0: 4 bytes of a buffer of 3
poison on cuda:0: 4 bytes of a buffer of 3
");
}

#[test]
fn a_refused_launch_is_told_with_its_shape_and_arguments() {
    let _driver = FakeDriver::new("");
    let device = open(false);
    let (x, scale, mut out) = (device.alloc(64).unwrap(), device.alloc(64).unwrap(), device.alloc(64).unwrap());
    let launch = Launch { kernel: "rms_norm_f32".into(), grid: [1, 70_000, 1], threads: 128, shared_bytes: 0 };
    let mut arguments =
        [Argument::Read(&x), Argument::Read(&scale), Argument::U32(16), Argument::F32(1e-5), Argument::Write(&mut out)];
    insta::assert_snapshot!(error(device.launch(&launch, &mut arguments)), @"launch on cuda:0: rms_norm_f32 on 1 x 70000 x 1 blocks of 128 threads with 0 bytes of shared memory, given 64 bytes to read, 64 bytes to read, 16, 0.00001, 64 bytes to write: CUDA_ERROR_INVALID_VALUE (invalid argument)");
    // The driver refused it, and nothing else is the worse for it.
    assert_eq!(device.lost(), None);
}

#[test]
fn a_checked_device_sees_a_row_written_beyond_the_end_and_one_left_out() {
    let product = |kernels, fault: &str, rows| {
        let _driver = FakeDriver::new(&format!("mutant={fault}"));
        let backend = CudaBackend::new(open(true), kernels);
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
    for (kernels, name) in [(KernelSet::Mma, "mma"), (KernelSet::Fast, "wgmma")] {
        let message = error(product(kernels, &format!("{name}_row_beyond_the_end"), 3));
        assert!(message.contains("wrote outside its argument 6"), "{message}");
        assert_eq!(product(kernels, &format!("{name}_unwritten_output"), 3).unwrap(), 3);
    }
}

#[test]
fn the_device_decides_on_the_kernels_of_products() {
    for (architecture, kernel, id) in [
        (80, "linear_mma_bf16", "cuda-mma-2"),
        (90, "linear_wgmma_bf16", "cuda-wgmma-1"),
        (100, "linear_mma_bf16", "cuda-mma-2"),
    ] {
        let _driver = FakeDriver::new(&format!("architecture={architecture}"));
        let folder = tempfile::tempdir().unwrap();
        let cubins: Vec<_> = actbench_kernels::cuda::registry::SOURCES
            .iter()
            .map(|source| (source, Architecture::new(architecture), FAKE_DRIVER_CUBIN.to_vec()))
            .collect();
        actbench_kernels::cuda::cubins::write_prebuilt(folder.path(), "the tests", &cubins).unwrap();
        let mut options: DriverOptions = options(false);
        options.cubins.prebuilt = Some(folder.path().to_path_buf());
        let device = Arc::new(DriverDevice::open(0, &options).unwrap());
        let backend = CudaBackend::new(device.clone(), KernelSet::Fast);
        assert_eq!(backend.kernel_id(), id);
        device.start_timing().unwrap();
        // Whatever the number of rows.
        for rows in [1, 130] {
            operations::product(&backend, operations::Product::Linear, false, DType::Bf16, (0, rows), 16, 8);
        }
        let launches = device.stop_timing().unwrap();
        let products: Vec<_> = launches.iter().filter(|launch| launch.kernel.starts_with("linear")).collect();
        assert!(products.len() == 2 && products.iter().all(|launch| launch.kernel == kernel), "{launches:?}");
    }
}

#[test]
fn a_matrix_that_no_map_can_be_made_of_is_refused_with_its_rule() {
    let _driver = FakeDriver::new("");
    let device = open(false);
    let buffer = device.alloc(1024).unwrap();
    let launch = Launch { kernel: "linear_wgmma_bf16".into(), grid: [1, 1, 1], threads: 384, shared_bytes: 0 };
    let map = |rows, columns| {
        let tiles = Tiles {
            buffer: &buffer,
            dtype: DType::Bf16,
            rows,
            columns,
            tile_rows: 128,
            tile_columns: 64,
            swizzled: true,
        };
        error(device.launch(&launch, &mut [Argument::Tiles(tiles)]))
    };
    insta::assert_snapshot!([map(8, 60), map(8, 72)].join("\n"), @r"
launch on cuda:0: mapping 8 x 60 elements of bf16 by tiles of 128 x 64: rows of 120 bytes by tiles of 128, not multiples of 16
launch on cuda:0: mapping 8 x 72 elements of bf16 by tiles of 128 x 64: 8 rows of 144 bytes in a buffer of 1024
");
}

#[test]
fn machine_code_that_is_none_is_refused_before_the_driver_reads_it() {
    let _driver = FakeDriver::new("architecture=120");
    let message = error(DriverDevice::open(0, &options(false)));
    assert!(message.contains("has none for sm_120"), "{message}");
    drop(_driver);
    let _driver = FakeDriver::new("");
    let folder = tempfile::tempdir().unwrap();
    let cubins: Vec<_> = actbench_kernels::cuda::registry::SOURCES
        .iter()
        .map(|source| (source, Architecture::new(90), b"not machine code".to_vec()))
        .collect();
    actbench_kernels::cuda::cubins::write_prebuilt(folder.path(), "the tests", &cubins).unwrap();
    let mut options: DriverOptions = options(false);
    options.cubins.prebuilt = Some(folder.path().to_path_buf());
    insta::assert_snapshot!(error(DriverDevice::open(0, &options)), @"load kernels on cuda:0: attention.cu for sm_90: this is no machine code");
}

#[test]
fn copies_that_wait_for_nobody_keep_every_byte_whatever_stream_runs_first() {
    for settings in ["", "others=1", "pools=0", "pools=0 others=1"] {
        let _driver = FakeDriver::new(settings);
        let device = open(false);
        let backend = CudaBackend::new(device.clone(), KernelSet::Plain);
        let columns = 24;
        let rows_of = |step: u32, rows: usize| -> Vec<f32> {
            (0..rows * columns).map(|index| (step as usize * 1000 + index) as f32).collect()
        };
        let mut pending = std::collections::VecDeque::new();
        let mut working = backend.alloc(DType::F32, 40, columns).unwrap();
        for step in 0..60u32 {
            let rows = 40 - step as usize % 7;
            let x = upload(&backend, DType::F32, rows, columns, &rows_of(step, rows));
            // The same memory step after step, as a model's workspace is.
            backend.copy_rows(&x, 0, rows, &mut working, 0).unwrap();
            let picked: Vec<u32> = (0..rows as u32).rev().collect();
            let mut leaving = backend.alloc(DType::F32, rows, columns).unwrap();
            backend.gather_rows(&working, &picked, &mut leaving).unwrap();
            pending.push_back((step, rows, backend.download_later(leaving, rows).unwrap()));
            if pending.len() > 2 {
                let (step, rows, mut copy) = pending.pop_front().unwrap();
                let expected: Vec<f32> = rows_of(step, rows).chunks(columns).rev().flatten().copied().collect();
                assert_eq!(DType::F32.to_f32_vec(copy.wait().unwrap()), expected, "{settings} step {step}");
                assert_eq!(DType::F32.to_f32_vec(copy.wait().unwrap()), expected, "asked again");
            }
        }
        // A copy that nobody waits for is waited for before its memory goes.
        drop(pending);
        let used = device.memory_use().unwrap().unwrap();
        assert!(used.used > 0 && used.used_high < (60 * 40 * columns * 4) as u64, "{used:?}");
    }
}

#[test]
fn tables_go_to_the_device_once_and_no_upload_waits_for_it() {
    let _driver = FakeDriver::new("");
    let device = open(false);
    let backend = CudaBackend::new(device.clone(), KernelSet::Plain);
    let x = upload(&backend, DType::F32, 8, 16, &[1.0; 128]);
    backend.reset_device_use().unwrap();
    let mut out = backend.alloc(DType::F32, 8, 16).unwrap();
    for _ in 0..5 {
        backend.gather_rows(&x, &[7, 6, 5], &mut out).unwrap();
    }
    let used = backend.device_use().unwrap().unwrap();
    assert_eq!((used.to_device, used.to_host), (12, 0));
    // More than the pinned memory takes at once: halves are used again only when the copies from them have ended.
    let mut expected = Vec::new();
    let mut pending = Vec::new();
    for step in 0..40u32 {
        let picked: Vec<u32> = (0..50_000).map(|index| (index + step) % 8).collect();
        let mut wide = backend.alloc(DType::F32, picked.len(), 16).unwrap();
        backend.gather_rows(&x, &picked, &mut wide).unwrap();
        let mut last = backend.alloc(DType::F32, 1, 16).unwrap();
        backend.copy_rows(&wide, 0, 1, &mut last, 0).unwrap();
        expected.push(vec![1.0f32; 16]);
        pending.push(backend.download_later(last, 1).unwrap());
    }
    let got: Vec<Vec<f32>> = pending.iter_mut().map(|copy| DType::F32.to_f32_vec(copy.wait().unwrap())).collect();
    assert_eq!(got, expected);
}

#[test]
fn memory_that_work_still_to_come_gives_back_is_waited_for() {
    let _driver = FakeDriver::new("memory=30000000");
    let device = open(false);
    let first = device.alloc(20_000_000).unwrap();
    drop(first);
    // The fake driver has not come to the free yet; a pool that gave up here would fail a run that fits.
    assert!(device.alloc(20_000_000).is_ok());
    let (kept, free) = (device.alloc(10_000_000).unwrap(), device.free_memory().unwrap().unwrap());
    assert!((15_000_000..=20_000_000).contains(&free), "{free}");
    drop(kept);
    device.reset_memory_high().unwrap();
    let reset = device.memory_use().unwrap().unwrap();
    assert_eq!((reset.used_high, reset.reserved, reset.reserved_high), (0, 0, 0));
}
