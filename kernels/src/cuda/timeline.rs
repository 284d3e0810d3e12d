//! A device wrapper that records when each kernel ran and when each copy ran, by the device's own clock.
//!
//! An event is recorded before and after each launch and each copy. On a GPU an event costs about a microsecond and
//! does not block the host. Event times are read in [`Timeline::finish`] alone, as reading one waits for it.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::device::upload_with_write;
use super::{Architecture, Argument, Device, DeviceClock, Launch, MemoryUsage};
use crate::error::KernelError;
use crate::host::HostTensor;
use crate::pending::PendingCopy;
use crate::profiled::{DeviceSpan, DeviceTrack, Profile};

/// `D`, with its work recorded in a profile.
pub struct Timeline<D: DeviceClock> {
    device: D,
    profile: Profile,
    /// The device's index in the profile.
    device_index: usize,
    /// An event, and the profile's time right after it occurred: aligns the device's clock with the host's.
    origin: (D::Event, Duration),
    unread: Mutex<Vec<UnreadSpan<D::Event>>>,
}

/// Work whose events were not read yet.
struct UnreadSpan<E> {
    track: DeviceTrack,
    name: String,
    bytes: u64,
    call: Option<u64>,
    start: E,
    end: E,
    /// The last event of the kernels' track that an asynchronous download waits for: its own track may be idle before
    /// that, so `start` alone would be too early.
    not_before: Option<E>,
}

impl<D: DeviceClock> Timeline<D> {
    /// Wraps `device`, which has the index `device_index` in `profile`.
    ///
    /// # Errors
    /// A failure of the device.
    pub fn new(device: D, device_index: usize, profile: Profile) -> Result<Self, KernelError> {
        let event = device.record_event()?;
        device.wait()?;
        let origin = (event, profile.now());
        Ok(Timeline { device, profile, device_index, origin, unread: Mutex::default() })
    }

    /// The wrapped device.
    pub fn inner(&self) -> &D {
        &self.device
    }

    /// Waits for the device and adds its spans since the last call to the profile.
    ///
    /// # Errors
    /// A failure of the device, including one of an earlier launch.
    pub fn finish(&self) -> Result<(), KernelError> {
        let unread = std::mem::take(&mut *self.unread.lock().unwrap_or_else(PoisonError::into_inner));
        self.device.wait()?;
        let (origin, origin_time) = &self.origin;
        let mut spans = Vec::with_capacity(unread.len());
        // The resolution of events is about half a microsecond: a negative time, which would not convert, is read as 0.
        let elapsed = |start: &D::Event, end: &D::Event| -> Result<Duration, KernelError> {
            Ok(Duration::try_from_secs_f64(self.device.elapsed_ms(start, end)? / 1e3).unwrap_or_default())
        };
        for span in unread {
            let (mut start, end) = (elapsed(origin, &span.start)?, elapsed(origin, &span.end)?);
            if let Some(not_before) = &span.not_before {
                start = start.max(elapsed(origin, not_before)?);
            }
            spans.push(DeviceSpan {
                device: self.device_index,
                track: span.track,
                name: span.name,
                bytes: span.bytes,
                start: *origin_time + start,
                duration: end.saturating_sub(start),
                call: span.call,
            });
        }
        self.profile.device_spans(spans);
        Ok(())
    }

    /// Runs `work`, which is shown on `track`, between two events of `ordered_on`, the track that it is ordered in.
    fn record<T>(
        &self,
        track: DeviceTrack,
        ordered_on: DeviceTrack,
        name: &str,
        bytes: usize,
        work: impl FnOnce() -> Result<T, KernelError>,
    ) -> Result<T, KernelError> {
        let waits_for_kernels = track == DeviceTrack::FromDevice && ordered_on == track;
        let not_before = if waits_for_kernels { Some(self.device.record_event()?) } else { None };
        let start = self.device.record_event_on(ordered_on)?;
        let result = work()?;
        let end = self.device.record_event_on(ordered_on)?;
        let (name, bytes, call) = (name.to_owned(), bytes as u64, Profile::current_call());
        let mut unread = self.unread.lock().unwrap_or_else(PoisonError::into_inner);
        unread.push(UnreadSpan { track, name, bytes, call, start, end, not_before });
        Ok(result)
    }
}

impl<D: DeviceClock> Device for Timeline<D> {
    type Buffer = D::Buffer;

    fn describe(&self) -> String {
        self.device.describe()
    }

    fn architecture(&self) -> Option<Architecture> {
        self.device.architecture()
    }

    fn multiprocessors(&self) -> usize {
        self.device.multiprocessors()
    }

    fn is_emulated(&self) -> bool {
        self.device.is_emulated()
    }

    fn alloc(&self, bytes: usize) -> Result<Self::Buffer, KernelError> {
        self.device.alloc(bytes)
    }

    fn write(&self, buffer: &mut Self::Buffer, bytes: &[u8]) -> Result<(), KernelError> {
        self.record(DeviceTrack::ToDevice, DeviceTrack::Kernels, "copy", bytes.len(), || {
            self.device.write(buffer, bytes)
        })
    }

    fn write_tensor(
        &self,
        buffer: &mut Self::Buffer,
        tensor: &HostTensor,
        bytes: Range<usize>,
    ) -> Result<(), KernelError> {
        self.record(DeviceTrack::ToDevice, DeviceTrack::Kernels, "copy", bytes.len(), || {
            self.device.write_tensor(buffer, tensor, bytes)
        })
    }

    fn read(&self, buffer: &Self::Buffer, out: &mut [u8]) -> Result<(), KernelError> {
        let bytes = out.len();
        self.record(DeviceTrack::FromDevice, DeviceTrack::Kernels, "copy", bytes, || self.device.read(buffer, out))
    }

    fn poison(&self, buffer: &mut Self::Buffer, bytes: Range<usize>) -> Result<(), KernelError> {
        self.device.poison(buffer, bytes)
    }

    fn launch(&self, launch: &Launch, arguments: &mut [Argument<'_, Self::Buffer>]) -> Result<(), KernelError> {
        self.record(DeviceTrack::Kernels, DeviceTrack::Kernels, &launch.kernel, 0, || {
            self.device.launch(launch, arguments)
        })
    }

    /// Runs `work` without a graph: the events around each launch would not be part of it.
    fn launch_grouped(
        &self,
        _graph_slot: usize,
        _rows: usize,
        work: &mut dyn FnMut() -> Result<(), KernelError>,
    ) -> Result<(), KernelError> {
        work()
    }

    fn upload(&self, bytes: &[u8]) -> Result<Self::Buffer, KernelError> {
        if self.device.uploads_async(bytes.len()) {
            let track = DeviceTrack::ToDevice;
            return self.record(track, track, "copy", bytes.len(), || self.device.upload(bytes));
        }
        upload_with_write(self, bytes)
    }

    fn downloads_are_async(&self) -> bool {
        self.device.downloads_are_async()
    }

    fn read_async(&self, buffer: Self::Buffer, bytes: usize) -> Result<Box<dyn PendingCopy>, KernelError> {
        let track = DeviceTrack::FromDevice;
        let ordered_on = if self.device.downloads_are_async() { track } else { DeviceTrack::Kernels };
        self.record(track, ordered_on, "copy", bytes, || self.device.read_async(buffer, bytes))
    }

    fn memory_usage(&self) -> Result<Option<MemoryUsage>, KernelError> {
        self.device.memory_usage()
    }

    fn reset_peak_memory(&self) -> Result<(), KernelError> {
        self.device.reset_peak_memory()
    }

    fn free_memory(&self) -> Result<Option<u64>, KernelError> {
        self.device.free_memory()
    }
}
