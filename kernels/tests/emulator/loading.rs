//! Weights on their way to a device: conversions, checks, and embedding tables of files, which are read row by row.

use std::path::Path;
use std::sync::Arc;

use actbench_kernels::cuda::emulator::{EmulatedBackend, EmulatorOptions};
use actbench_kernels::cuda::{Device, KernelSet};
use actbench_kernels::{Backend, DType, HostTensor, SourceFile};
use bytes::Bytes;

use crate::common::*;

const KERNELS: [KernelSet; 2] = [KernelSet::Plain, KernelSet::Mma];

fn emulated(kernels: KernelSet) -> EmulatedBackend {
    EmulatedBackend::emulated(EmulatorOptions::matrix()[0], kernels)
}

/// A file that begins with three other bytes, and a tensor in it. Its mapped bytes are zeros, so that a read of them shows.
fn in_file(path: &Path, dtype: DType, shape: &[usize], values: &[f32]) -> HostTensor {
    let stored = dtype.from_f32_slice(values);
    std::fs::write(path, [&[7; 3], &stored[..]].concat()).unwrap();
    let zeros = HostTensor::new(dtype, shape.to_vec(), Bytes::from(vec![0; stored.len()])).unwrap();
    zeros.with_file(Arc::new(SourceFile::new(std::fs::File::open(path).unwrap(), path)), 3)
}

fn embedded<B: Backend>(backend: &B, table: &B::Embedding, run: DType, columns: usize, rows: &[u32]) -> Vec<f32> {
    let mut out = backend.alloc(run, rows.len(), columns).unwrap();
    backend.embed(table, rows, 1.0, &mut out).unwrap();
    let mut bytes = vec![0; rows.len() * columns * run.size()];
    backend.download(&out, rows.len(), &mut bytes).unwrap();
    run.to_f32_vec(&bytes)
}

#[test]
fn wide_conversions_have_the_rounded_values() {
    for kernels in KERNELS {
        let backend = emulated(kernels);
        for stored in DTYPES {
            for run in DTYPES {
                // Rows of whole vectors, more of them than threads, and rows of other lengths.
                for columns in [8, 24, 2056, 12] {
                    let values = random(1, stored, 3 * columns);
                    let table = backend.prepare_embedding(&host(stored, &[3, columns], &values), run).unwrap();
                    let expected = run.to_f32_vec(&run.from_f32_slice(&values));
                    let got = embedded(&backend, &table, run, columns, &[0, 1, 2]);
                    assert!(got == expected, "{kernels:?} {stored} to {run}, {columns} columns");
                }
            }
        }
    }
}

#[test]
fn first_weight_that_is_not_finite_is_reported_once() {
    for kernels in KERNELS {
        let backend = emulated(kernels);
        let prepare = |bad: &[(usize, f32)]| {
            let mut values = vec![0.5; 4 * 16];
            bad.iter().for_each(|(index, value)| values[*index] = *value);
            let weight = host(DType::F32, &[4, 16], &values);
            drop(backend.prepare_linear(&[host(DType::F32, &[1, 16], &[1.0; 16]), weight], DType::F16).unwrap());
        };
        for (bad, expected) in [
            (&[(45, f32::NEG_INFINITY), (61, f32::NAN)][..], "element 45 is -inf"),
            (&[(17, 1e6), (45, f32::NAN)], "element 17 is inf"),
            (&[(0, f32::NAN)], "element 0 is NaN"),
            (&[(63, -f32::NAN)], "element 63 is NaN"),
        ] {
            prepare(&[]);
            prepare(bad);
            prepare(&[(2, f32::NAN)]);
            let error = backend.verify_weights().unwrap_err().to_string();
            assert!(error.contains("prepare linear") && error.contains(expected), "{kernels:?}: {error}");
            backend.verify_weights().unwrap();
        }
        prepare(&[]);
        backend.verify_weights().unwrap();
    }
}

#[test]
fn table_of_a_file_is_uploaded_by_used_rows() {
    let directory = tempfile::tempdir().unwrap();
    let cpu = fused_multiply_add_cpu();
    for (kernels, stored, run, columns) in [
        (KernelSet::Plain, DType::Bf16, DType::Bf16, 12),
        (KernelSet::Mma, DType::Bf16, DType::Bf16, 16),
        (KernelSet::Mma, DType::F32, DType::F16, 24),
        (KernelSet::Plain, DType::F16, DType::F32, 5),
    ] {
        let backend = emulated(kernels);
        let values = random(3, stored, 100 * columns);
        let table = in_file(&directory.path().join("table"), stored, &[100, columns], &values);
        let device_table = backend.prepare_embedding(&table, run).unwrap();
        backend.verify_weights().unwrap();
        let cpu_table = cpu.prepare_embedding(&host(stored, &[100, columns], &values), run).unwrap();
        let mut uploaded = 0;
        // New rows and repeated ones, in any order; then all of them, by several threads.
        let all: Vec<u32> = (0..100).rev().collect();
        for (rows, new) in [(&[99, 3, 99, 40][..], 3), (&[40, 3], 0), (&[7, 3, 8], 2), (&all, 95), (&[7, 99, 0], 0)] {
            backend.reset_device_usage().unwrap();
            let got = embedded(&backend, &device_table, run, columns, rows);
            assert!(got == embedded(&cpu, &cpu_table, run, columns, rows), "{stored} to {run}: {rows:?}");
            // The rows in their stored type, and the table of places.
            let bytes = new * columns * stored.size() + size_of_val(rows);
            assert_eq!(backend.device_usage().unwrap().unwrap().to_device, bytes as u64, "{rows:?}");
            uploaded += new;
        }
        assert_eq!(uploaded, 100);
        let mut stream = upload(&backend, run, 2, columns, &vec![0.0; 2 * columns]);
        backend.add_embedding(&device_table, &[5, 50], &mut stream).unwrap();
        let mut bytes = vec![0; 2 * columns * run.size()];
        backend.download(&stream, 2, &mut bytes).unwrap();
        assert!(run.to_f32_vec(&bytes) == embedded(&cpu, &cpu_table, run, columns, &[5, 50]));
    }
}

#[test]
fn table_of_a_file_takes_memory_for_used_rows() {
    let directory = tempfile::tempdir().unwrap();
    let backend = emulated(KernelSet::Mma);
    let table = in_file(&directory.path().join("table"), DType::Bf16, &[5000, 64], &vec![0.25; 5000 * 64]);
    let table = backend.prepare_embedding(&table, DType::Bf16).unwrap();
    let used = || backend.device().memory_usage().unwrap().unwrap().used;
    let before = used();
    embedded(&backend, &table, DType::Bf16, 64, &[1, 2, 3, 4000]);
    backend.reset_device_usage().unwrap();
    assert_eq!(used() - before, 4 * 128);
    // One more row: room for twice as many.
    embedded(&backend, &table, DType::Bf16, 64, &[5]);
    backend.reset_device_usage().unwrap();
    assert_eq!(used() - before, 8 * 128);
}

#[test]
fn bad_rows_and_short_files_fail_when_used() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("short.safetensors");
    let mut values = vec![1.0; 20 * 8];
    values[4 * 8 + 3] = f32::INFINITY;
    let table = in_file(&path, DType::F32, &[20, 8], &values);
    let backend = emulated(KernelSet::Mma);
    let device_table = backend.prepare_embedding(&table, DType::F32).unwrap();
    backend.verify_weights().unwrap();
    let mut out = backend.alloc(DType::F32, 2, 8).unwrap();
    let error = backend.embed(&device_table, &[2, 4], 1.0, &mut out).unwrap_err().to_string();
    assert!(error.contains("element 35 is inf"), "{error}");
    std::fs::File::options().write(true).open(&path).unwrap().set_len(3 + 10 * 32).unwrap();
    let error = backend.embed(&device_table, &[9, 10], 1.0, &mut out).unwrap_err().to_string();
    assert!(error.contains("short.safetensors: the file ends before byte 355"), "{error}");
    // Neither failure left a row in the place of another.
    assert_eq!(embedded(&backend, &device_table, DType::F32, 8, &[9, 2]), [1.0; 16]);
    let error = backend.prepare_linear(&[table], DType::F32).err().unwrap().to_string();
    assert!(error.contains("short.safetensors: the file ends before byte 643"), "{error}");
}

/// Over the driver, whose streams run as late and as early as events allow.
#[cfg(feature = "cuda")]
mod driver {
    use std::time::{Duration, Instant};

    use actbench_kernels::cuda::CudaBackend;
    use actbench_kernels::cuda::driver::DriverDevice;

    use super::*;
    use crate::fake_driver::{FakeDriver, options};

    /// Slots of the ring, and their bytes.
    const SLOTS: usize = 8;
    const SLOT_BYTES: usize = 8 << 20;

    fn open() -> Arc<DriverDevice> {
        Arc::new(DriverDevice::open(0, &options(false)).unwrap())
    }

    /// A file of `len` bytes, as a matrix of one row.
    fn file_of(path: &Path, len: usize) -> (HostTensor, Vec<u8>) {
        let pattern: Vec<u8> = (0..1021u32).map(|index| (index.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        let mut bytes = pattern.repeat(len.div_ceil(pattern.len()));
        bytes.truncate(len);
        std::fs::write(path, &bytes).unwrap();
        let mapped = Bytes::from(vec![0; len]);
        let tensor = HostTensor::new(DType::Bf16, vec![1, len / 2], mapped).unwrap();
        (tensor.with_file(Arc::new(SourceFile::new(std::fs::File::open(path).unwrap(), path)), 0), bytes)
    }

    #[test]
    fn more_bytes_than_slots_arrive_from_a_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("weights");
        let (tensor, expected) = file_of(&path, SLOTS * SLOT_BYTES + SLOT_BYTES / 2);
        for settings in ["", "others=1"] {
            let driver = FakeDriver::new(settings);
            let device = open();
            let mut buffer = device.alloc(expected.len()).unwrap();
            device.write_tensor(&mut buffer, &tensor, 0..expected.len()).unwrap();
            let mut back = vec![0; expected.len()];
            device.read(&buffer, &mut back).unwrap();
            assert!(back == expected, "{settings}");
            let part = 100..SLOT_BYTES + 300;
            device.write_tensor(&mut buffer, &tensor, part.clone()).unwrap();
            device.read(&buffer, &mut back[..part.len()]).unwrap();
            assert!(back[..part.len()] == expected[part], "{settings}: a part");
            // All slots are there after the first copies; later ones allocate nothing.
            let start = Instant::now();
            while driver.counted("pinned") < SLOTS && start.elapsed() < Duration::from_secs(10) {
                std::thread::yield_now();
            }
            assert_eq!(driver.counted("pinned"), SLOTS);
            device.write_tensor(&mut buffer, &tensor, 0..expected.len()).unwrap();
            device.read(&buffer, &mut back).unwrap();
            assert!(back == expected && driver.counted("pinned") == SLOTS);
        }
    }

    #[test]
    fn short_file_fails_and_leaves_the_slots() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("weights");
        let (tensor, expected) = file_of(&path, 3 * SLOT_BYTES);
        std::fs::File::options().write(true).open(&path).unwrap().set_len(SLOT_BYTES as u64 + 5).unwrap();
        let _driver = FakeDriver::new("");
        let device = open();
        let mut buffer = device.alloc(expected.len()).unwrap();
        for _ in 0..2 * SLOTS {
            let error = device.write_tensor(&mut buffer, &tensor, SLOT_BYTES..2 * SLOT_BYTES).unwrap_err().to_string();
            assert!(error.contains("weights: the file ends before byte"), "{error}");
        }
        device.write_tensor(&mut buffer, &tensor, 0..SLOT_BYTES).unwrap();
        let mut back = vec![0; SLOT_BYTES];
        device.read(&buffer, &mut back).unwrap();
        assert!(back == expected[..SLOT_BYTES]);
    }

    #[test]
    fn weights_are_checked_without_a_wait_for_each() {
        let driver = FakeDriver::new("");
        let backend = CudaBackend::new(open(), KernelSet::Mma);
        let weight = |bad: Option<usize>| {
            let mut values = vec![0.5; 8 * 8];
            bad.into_iter().for_each(|index| values[index] = f32::NAN);
            host(DType::F32, &[8, 8], &values)
        };
        let mut prepared = Vec::new();
        for bad in [None, None, Some(13), None, Some(1)] {
            prepared.push(backend.prepare_linear(&[weight(bad)], DType::Bf16).unwrap());
        }
        // The driver runs nothing before the host waits for it.
        assert_eq!(driver.counted("executed"), 0);
        let error = backend.verify_weights().unwrap_err().to_string();
        assert!(error.contains("element 13 is NaN") && driver.counted("executed") == 5, "{error}");
        // The pinned memory for tables was allocated, too: the first batch allocates none.
        let pinned = driver.counted("pinned");
        assert!(pinned > 0);
        let x = upload(&backend, DType::Bf16, 4, 8, &[1.0; 32]);
        let mut out = backend.alloc(DType::Bf16, 2, 8).unwrap();
        backend.gather_rows(&x, &[3, 0], &mut out).unwrap();
        let mut bytes = [0; 32];
        backend.download(&out, 2, &mut bytes).unwrap();
        assert!(DType::Bf16.to_f32_vec(&bytes) == [1.0; 16] && driver.counted("pinned") == pinned);
    }

    #[test]
    fn rows_of_a_file_arrive_before_their_kernel() {
        let directory = tempfile::tempdir().unwrap();
        let values = random(5, DType::F32, 3000 * 256);
        for settings in ["", "others=1", "pools=0"] {
            let _driver = FakeDriver::new(settings);
            let backend = CudaBackend::new(open(), KernelSet::Mma);
            let table = in_file(&directory.path().join("table"), DType::F32, &[3000, 256], &values);
            let table = backend.prepare_embedding(&table, DType::F32).unwrap();
            // Growth in each step; the last rows are more than one upload.
            for count in [2, 5, 40, 3000] {
                let rows: Vec<u32> = (0..count).map(|row| row * 7 % 3000).collect();
                let expected: Vec<f32> =
                    rows.iter().flat_map(|row| &values[*row as usize * 256..][..256]).copied().collect();
                assert!(embedded(&backend, &table, DType::F32, 256, &rows) == expected, "{settings} {count}");
            }
        }
    }
}
