//! The device spans of a profile, over the fake driver, whose streams and events are as late as the CUDA API
//! allows.

use std::sync::Arc;
use std::time::Duration;

use actbench_kernels::cuda::driver::DriverDevice;
use actbench_kernels::cuda::{CudaBackend, DeviceClock, KernelSet, Timeline};
use actbench_kernels::profiled::{DeviceSpan, DeviceTrack, OperationWork};
use actbench_kernels::{Backend, DType, HostTensor, Profile, ProfiledBackend};

use crate::fake_driver::{FakeDriver, options};

/// The error of a difference of two event times. The driver returns milliseconds in `f32`, which is exact to 0.06 us
/// within a second, and documents a resolution of 0.5 us.
const EVENT_TOLERANCE: Duration = Duration::from_micros(1);

fn host(rows: usize, columns: usize) -> HostTensor {
    let values: Vec<f32> = (0..rows * columns).map(|index| (index % 23) as f32 / 8.0 - 1.0).collect();
    HostTensor::from_f32(DType::Bf16, vec![rows, columns], &values).unwrap()
}

#[test]
fn device_spans_belong_to_their_calls() {
    let _driver = FakeDriver::new("");
    let profile = Profile::default();
    let device = Arc::new(DriverDevice::open(0, &options(false)).unwrap());
    let timeline = Arc::new(Timeline::new(device, 3, profile.clone()).unwrap());
    let backend = ProfiledBackend::new(CudaBackend::new(timeline.clone(), KernelSet::Fast), profile.clone());
    let weight = backend.prepare_linear(&[host(48, 64)], DType::Bf16).unwrap();
    let table = backend.prepare_embedding(&host(40, 64), DType::Bf16).unwrap();
    timeline.finish().unwrap();
    let loading = profile.take();
    assert!(loading.device.iter().any(|span| span.track == DeviceTrack::ToDevice && span.bytes == 40 * 64 * 2));
    assert!(loading.device.iter().all(|span| span.device == 3 && span.call.is_none()));

    let (mut x, mut out) = (backend.alloc(DType::Bf16, 40, 64).unwrap(), backend.alloc(DType::Bf16, 40, 48).unwrap());
    backend.embed(&table, &(0..40).collect::<Vec<u32>>(), 1.0, &mut x).unwrap();
    backend.linear(&x, &weight, None, &mut out).unwrap();
    let mut bytes = vec![0; 40 * 48 * 2];
    backend.download(&out, 40, &mut bytes).unwrap();
    let mut later = backend.download_async(out, 40).unwrap();
    assert_eq!(later.wait().unwrap(), bytes);
    timeline.finish().unwrap();
    let recording = profile.take();

    let spans_on = |track| recording.device.iter().filter(|span| span.track == track).collect::<Vec<&DeviceSpan>>();
    let kernels = spans_on(DeviceTrack::Kernels);
    assert_eq!(
        kernels.iter().map(|span| &span.name[..]).collect::<Vec<_>>(),
        ["gather_rows_wide", "linear_wgmma_bf16"]
    );
    assert!(kernels[0].start + kernels[0].duration <= kernels[1].start + EVENT_TOLERANCE, "{kernels:?}");
    assert!(kernels.iter().all(|span| span.duration > Duration::ZERO));
    // The token ids are uploaded for the kernel that reads them.
    assert_eq!(spans_on(DeviceTrack::ToDevice).iter().map(|span| span.bytes).collect::<Vec<_>>(), [160]);
    let copies = spans_on(DeviceTrack::FromDevice);
    assert_eq!(copies.iter().map(|span| span.bytes).collect::<Vec<_>>(), [40 * 48 * 2; 2]);
    // The asynchronous download starts after the kernel that it waits for.
    assert!(copies[1].start + EVENT_TOLERANCE >= kernels[1].start + kernels[1].duration);
    for (name, span) in [("embed", kernels[0]), ("linear", kernels[1]), ("download", copies[0])] {
        let call = recording.host.iter().find(|call| Some(call.call) == span.call).unwrap();
        assert_eq!(call.name, name);
        // The device starts no work before its call. The clocks are aligned by a host time that is read after the
        // event, so the error of the alignment shifts spans to later times alone.
        assert!(span.start + EVENT_TOLERANCE >= call.start, "{span:?} {call:?}");
    }
    let table = recording.operations();
    let linear = &table[&("linear".to_owned(), "64 -> 48".to_owned())];
    assert_eq!(linear.durations, [kernels[1].duration]);
    assert_eq!(linear.work, OperationWork { flops: 2 * 40 * 64 * 48, bytes: 2 * (48 * 64 + 40 * 64 + 40 * 48) });
}

#[test]
fn device_clock_advances_and_copies_work() {
    let _driver = FakeDriver::new("");
    let device = DriverDevice::open(0, &options(false)).unwrap();
    use actbench_kernels::cuda::Device as _;
    let (mut from, mut to) = (device.alloc(1 << 16).unwrap(), device.alloc(1 << 16).unwrap());
    let start = device.record_event().unwrap();
    device.write(&mut from, &[7; 1 << 16]).unwrap();
    device.copy(&from, &mut to).unwrap();
    let middle = device.record_event().unwrap();
    let mut bytes = vec![0; 1 << 16];
    device.read(&to, &mut bytes).unwrap();
    assert!(bytes.iter().all(|byte| *byte == 7));
    device.overwrite(&mut to).unwrap();
    device.read(&to, &mut bytes).unwrap();
    assert!(bytes.iter().all(|byte| *byte == 0));
    device.wait().unwrap();
    let end = device.record_event().unwrap();
    let (first, second) = (device.elapsed_ms(&start, &middle).unwrap(), device.elapsed_ms(&middle, &end).unwrap());
    assert!(first >= 0.0 && second >= 0.0 && first.is_finite() && second.is_finite(), "{first} {second}");
    assert!(device.cache_bytes() > 0 && device.uploads_async(4) && !device.uploads_async(64 << 20));
}
