//! Copies between host and device by the host's clock, as the harness makes them: uploads through pinned staging memory,
//! downloads into memory of the caller, and downloads that stay in pinned memory.

use std::hint::black_box;

use actbench_kernels::KernelError;
use actbench_kernels::cuda::DeviceClock;
use criterion::{BenchmarkId, Criterion, Throughput};

use crate::device_time::exit_with;

/// The kinds of copies.
const KINDS: [&str; 3] = ["upload", "download", "pinned download"];

/// Measures copies of each of `sizes` bytes.
pub fn copies<D: DeviceClock>(criterion: &mut Criterion, device: &D, sizes: &[usize]) {
    let mut group = criterion.benchmark_group("copies");
    for &bytes in sizes {
        group.throughput(Throughput::BytesDecimal(bytes as u64));
        for kind in KINDS {
            group.bench_function(BenchmarkId::new(kind, format!("{bytes} bytes")), |bencher| {
                // Not zeros, whose pages the system may share.
                let mut host = vec![1u8; bytes];
                let mut buffer = device.alloc(bytes).unwrap_or_else(|error| exit_with(&error));
                bencher.iter(|| {
                    copy(device, kind, &mut buffer, &mut host).unwrap_or_else(|error| exit_with(&error));
                });
            });
        }
    }
    group.finish();
}

/// Makes one copy of all of `host`, and waits for it.
fn copy<D: DeviceClock>(device: &D, kind: &str, buffer: &mut D::Buffer, host: &mut [u8]) -> Result<(), KernelError> {
    match kind {
        "upload" => {
            device.write(buffer, host)?;
            device.wait()
        }
        "download" => device.read(buffer, host),
        // Takes its buffer, whose memory comes from the pool.
        _ => {
            let own = device.alloc(host.len())?;
            black_box(device.read_async(own, host.len())?.wait()?);
            Ok(())
        }
    }
}
