//! A device around another that keeps when each kernel ran and each copy went, by the device's own clock.
//!
//! A mark goes before and behind each launch and each copy. On a GPU these are events, which cost it about a microsecond
//! each and do not hold up the host; they are read when [`Timeline::finish`] is called, and not before.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::{Architecture, Argument, Device, DeviceClock, Launch, MemoryUse};
use crate::error::KernelError;
use crate::pending::PendingCopy;
use crate::profiled::{DeviceSpan, Lane, Profile};

/// `D`, its work noted in a profile.
pub struct Timeline<D: DeviceClock> {
    device: D,
    profile: Profile,
    /// The device's number in the profile.
    number: usize,
    /// A mark, and the profile's time when the device had got there: where the two clocks were laid together.
    origin: (D::Mark, Duration),
    pending: Mutex<Vec<Pending<D::Mark>>>,
}

/// Work whose marks were not read yet.
struct Pending<M> {
    lane: Lane,
    name: String,
    bytes: u64,
    call: Option<u64>,
    start: M,
    end: M,
    /// What a copy of a lane of its own waits for in that of the kernels.
    not_before: Option<M>,
}

impl<D: DeviceClock> Timeline<D> {
    /// Around `device`, the one with this `number`; what it does goes to `profile`.
    ///
    /// # Errors
    /// A failure of the device.
    pub fn new(device: D, number: usize, profile: Profile) -> Result<Self, KernelError> {
        let mark = device.mark()?;
        device.wait()?;
        let origin = (mark, profile.now());
        Ok(Timeline { device, profile, number, origin, pending: Mutex::default() })
    }

    /// The device itself.
    pub fn inner(&self) -> &D {
        &self.device
    }

    /// Waits for the device and hands what it did since the last call to the profile.
    ///
    /// # Errors
    /// A failure of the device, also of an earlier launch.
    pub fn finish(&self) -> Result<(), KernelError> {
        let pending = std::mem::take(&mut *self.pending.lock().unwrap_or_else(PoisonError::into_inner));
        self.device.wait()?;
        let (origin, at) = &self.origin;
        let mut spans = Vec::with_capacity(pending.len());
        // Two marks one after the other may be read as one moment, and never as a negative time.
        let time = |from: &D::Mark, to: &D::Mark| -> Result<Duration, KernelError> {
            Ok(Duration::try_from_secs_f64(self.device.milliseconds(from, to)? / 1e3).unwrap_or_default())
        };
        for work in pending {
            let (mut start, end) = (time(origin, &work.start)?, time(origin, &work.end)?);
            if let Some(not_before) = &work.not_before {
                start = start.max(time(origin, not_before)?);
            }
            spans.push(DeviceSpan {
                device: self.number,
                lane: work.lane,
                name: work.name,
                bytes: work.bytes,
                start: *at + start,
                duration: end.saturating_sub(start),
                call: work.call,
            });
        }
        self.profile.device_spans(spans);
        Ok(())
    }

    /// Runs `work` between two marks of the lane that it is ordered in.
    fn around<T>(
        &self,
        (lane, order): (Lane, Lane),
        name: &str,
        bytes: usize,
        work: impl FnOnce() -> Result<T, KernelError>,
    ) -> Result<T, KernelError> {
        let waits = lane == Lane::FromDevice && order == lane;
        let not_before = if waits { Some(self.device.mark()?) } else { None };
        let start = self.device.mark_in(order)?;
        let result = work()?;
        let end = self.device.mark_in(order)?;
        let (name, bytes, call) = (name.to_owned(), bytes as u64, Profile::current_call());
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        pending.push(Pending { lane, name, bytes, call, start, end, not_before });
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

    fn is_emulated(&self) -> bool {
        self.device.is_emulated()
    }

    fn alloc(&self, bytes: usize) -> Result<Self::Buffer, KernelError> {
        self.device.alloc(bytes)
    }

    fn write(&self, buffer: &mut Self::Buffer, bytes: &[u8]) -> Result<(), KernelError> {
        self.around((Lane::ToDevice, Lane::Kernels), "copy", bytes.len(), || self.device.write(buffer, bytes))
    }

    fn read(&self, buffer: &Self::Buffer, out: &mut [u8]) -> Result<(), KernelError> {
        let bytes = out.len();
        self.around((Lane::FromDevice, Lane::Kernels), "copy", bytes, || self.device.read(buffer, out))
    }

    fn poison(&self, buffer: &mut Self::Buffer, bytes: Range<usize>) -> Result<(), KernelError> {
        self.device.poison(buffer, bytes)
    }

    fn launch(&self, launch: &Launch, arguments: &mut [Argument<'_, Self::Buffer>]) -> Result<(), KernelError> {
        self.around((Lane::Kernels, Lane::Kernels), &launch.kernel, 0, || self.device.launch(launch, arguments))
    }

    fn upload(&self, bytes: &[u8]) -> Result<Self::Buffer, KernelError> {
        if self.device.uploads_beside(bytes.len()) {
            return self.around((Lane::ToDevice, Lane::ToDevice), "copy", bytes.len(), || self.device.upload(bytes));
        }
        let mut buffer = self.alloc(bytes.len())?;
        self.write(&mut buffer, bytes)?;
        Ok(buffer)
    }

    fn copies_overlap(&self) -> bool {
        self.device.copies_overlap()
    }

    fn read_later(&self, buffer: Self::Buffer, bytes: usize) -> Result<Box<dyn PendingCopy>, KernelError> {
        let order = if self.device.copies_overlap() { Lane::FromDevice } else { Lane::Kernels };
        self.around((Lane::FromDevice, order), "copy", bytes, || self.device.read_later(buffer, bytes))
    }

    fn memory_use(&self) -> Result<Option<MemoryUse>, KernelError> {
        self.device.memory_use()
    }

    fn reset_memory_high(&self) -> Result<(), KernelError> {
        self.device.reset_memory_high()
    }

    fn free_memory(&self) -> Result<Option<u64>, KernelError> {
        self.device.free_memory()
    }
}
