//! A GPU's clock: events on its streams.

use cudarc::driver::{CudaEvent, result};

use super::DriverDevice;
use super::incoming::Incoming;
use super::memory::DriverBuffer;
use super::timing::{elapsed, event_in};
use crate::cuda::{Device as _, DeviceClock};
use crate::error::KernelError;
use crate::profiled::Lane;

impl DeviceClock for DriverDevice {
    type Mark = CudaEvent;

    fn mark_in(&self, lane: Lane) -> Result<CudaEvent, KernelError> {
        self.session.enter_in_order("timing")?;
        let stream = match lane {
            Lane::Kernels => &self.session.stream,
            Lane::ToDevice => &self.session.copy_in,
            Lane::FromDevice => &self.session.copy_out,
        };
        self.session.check("timing", || "recording an event".to_owned(), event_in(&self.session, stream))
    }

    fn uploads_beside(&self, bytes: usize) -> bool {
        Incoming::takes(&self.memory, bytes)
    }

    fn milliseconds(&self, from: &CudaEvent, to: &CudaEvent) -> Result<f64, KernelError> {
        self.session.enter("timing")?;
        self.session.check("timing", || "the time between two events".to_owned(), elapsed(from, to))
    }

    fn wait(&self) -> Result<(), KernelError> {
        self.session.enter("wait")?;
        self.session.synchronize_all("wait", || format!("waiting for {}", self.describe()))
    }

    fn cache_bytes(&self) -> usize {
        self.session.facts.l2_bytes
    }

    fn overwrite(&self, buffer: &mut DriverBuffer) -> Result<(), KernelError> {
        self.session.enter_in_order("timing")?;
        let stream = self.session.stream.cu_stream();
        // SAFETY: the buffer has as many bytes, and memory is given back in the stream's order, so after this.
        let filled = unsafe { result::memset_d8_async(buffer.start(), 0, buffer.len(), stream) };
        self.session.check("timing", || format!("filling {} bytes", buffer.len()), filled)
    }

    fn copy(&self, from: &DriverBuffer, to: &mut DriverBuffer) -> Result<(), KernelError> {
        self.session.enter_in_order("timing")?;
        let (bytes, stream) = (from.len().min(to.len()), self.session.stream.cu_stream());
        // SAFETY: both buffers have as many bytes, and memory is given back in the stream's order, so after this.
        let copied = unsafe { result::memcpy_dtod_async(to.start(), from.start(), bytes, stream) };
        self.session.check("timing", || format!("copying {bytes} bytes"), copied)
    }
}
