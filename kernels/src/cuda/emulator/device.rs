//! The emulator as a [`Device`] and a [`DeviceClock`].

use std::ops::Range;
use std::time::Instant;

use super::buffer::POISON;
use super::{EmulatedBuffer, Emulator};
use crate::cuda::device::{read_blocking, upload_with_write};
use crate::cuda::{Architecture, Argument, Device, DeviceClock, Launch, MemoryUsage};
use crate::error::KernelError;
use crate::host::HostTensor;
use crate::pending::PendingCopy;
use crate::profiled::DeviceTrack;

impl Device for Emulator {
    type Buffer = EmulatedBuffer;

    fn describe(&self) -> String {
        match self.ordinal {
            0 => "emulated cuda".to_owned(),
            ordinal => format!("emulated cuda:{ordinal}"),
        }
    }

    fn architecture(&self) -> Option<Architecture> {
        Some(self.architecture)
    }

    fn multiprocessors(&self) -> usize {
        self.multiprocessors
    }

    fn is_emulated(&self) -> bool {
        true
    }

    fn alloc(&self, bytes: usize) -> Result<EmulatedBuffer, KernelError> {
        EmulatedBuffer::new(bytes, &self.memory).ok_or_else(|| KernelError::OutOfMemory {
            op: "alloc",
            bytes,
            device: self.describe(),
        })
    }

    fn write(&self, buffer: &mut EmulatedBuffer, bytes: &[u8]) -> Result<(), KernelError> {
        let len = buffer.len();
        match buffer.as_mut_slice().get_mut(..bytes.len()) {
            Some(start) => start.copy_from_slice(bytes),
            None => return Err(Self::error(format!("{} bytes written to a buffer of {len}", bytes.len()))),
        }
        Ok(())
    }

    fn write_tensor(
        &self,
        buffer: &mut EmulatedBuffer,
        tensor: &HostTensor,
        bytes: Range<usize>,
    ) -> Result<(), KernelError> {
        let len = buffer.len();
        match buffer.as_mut_slice().get_mut(..bytes.len()) {
            Some(start) => tensor.read(bytes.start, start),
            None => Err(Self::error(format!("{} bytes written to a buffer of {len}", bytes.len()))),
        }
    }

    fn read(&self, buffer: &EmulatedBuffer, out: &mut [u8]) -> Result<(), KernelError> {
        match buffer.as_slice().get(..out.len()) {
            Some(start) => out.copy_from_slice(start),
            None => return Err(Self::error(format!("{} bytes read from a buffer of {}", out.len(), buffer.len()))),
        }
        Ok(())
    }

    fn poison(&self, buffer: &mut EmulatedBuffer, bytes: Range<usize>) -> Result<(), KernelError> {
        let len = buffer.len();
        match buffer.as_mut_slice().get_mut(bytes) {
            Some(range) => range.fill(POISON),
            None => return Err(Self::error(format!("poison beyond a buffer of {len} bytes"))),
        }
        Ok(())
    }

    fn launch(&self, launch: &Launch, arguments: &mut [Argument<'_, EmulatedBuffer>]) -> Result<(), KernelError> {
        self.run(launch, arguments)
    }

    fn launch_grouped(
        &self,
        _graph_slot: usize,
        _rows: usize,
        work: &mut dyn FnMut() -> Result<(), KernelError>,
    ) -> Result<(), KernelError> {
        work()
    }

    fn upload(&self, bytes: &[u8]) -> Result<EmulatedBuffer, KernelError> {
        upload_with_write(self, bytes)
    }

    /// Copies complete at once; callers take the same path as on a GPU.
    fn downloads_are_async(&self) -> bool {
        true
    }

    fn read_async(&self, buffer: EmulatedBuffer, bytes: usize) -> Result<Box<dyn PendingCopy>, KernelError> {
        read_blocking(self, &buffer, bytes)
    }

    fn memory_usage(&self) -> Result<Option<MemoryUsage>, KernelError> {
        Ok(Some(self.memory.in_use()))
    }

    fn reset_peak_memory(&self) -> Result<(), KernelError> {
        self.memory.reset_peak();
        Ok(())
    }

    fn free_memory(&self) -> Result<Option<u64>, KernelError> {
        Ok(self.memory.free())
    }
}

/// Work is complete when a call returns, so an event is a time of the CPU's clock.
impl DeviceClock for Emulator {
    type Event = Instant;

    fn record_event_on(&self, _track: DeviceTrack) -> Result<Instant, KernelError> {
        Ok(Instant::now())
    }

    fn record_event(&self) -> Result<Instant, KernelError> {
        Ok(Instant::now())
    }

    fn uploads_async(&self, _bytes: usize) -> bool {
        false
    }

    fn elapsed_ms(&self, start: &Instant, end: &Instant) -> Result<f64, KernelError> {
        Ok(end.duration_since(*start).as_secs_f64() * 1e3)
    }

    fn wait(&self) -> Result<(), KernelError> {
        Ok(())
    }

    fn cache_bytes(&self) -> usize {
        0
    }

    fn overwrite(&self, buffer: &mut EmulatedBuffer) -> Result<(), KernelError> {
        buffer.as_mut_slice().fill(0);
        Ok(())
    }

    fn copy(&self, from: &EmulatedBuffer, to: &mut EmulatedBuffer) -> Result<(), KernelError> {
        let bytes = from.len().min(to.len());
        to.as_mut_slice()[..bytes].copy_from_slice(&from.as_slice()[..bytes]);
        Ok(())
    }
}
