//! The clock of a GPU: events on its streams.

use cudarc::driver::{CudaEvent, result};

use super::DriverDevice;
use super::memory::DriverBuffer;
use super::timing::{elapsed_ms, record_timed_event};
use super::upload::AsyncUploads;
use crate::cuda::{Device as _, DeviceClock};
use crate::error::KernelError;
use crate::profiled::DeviceTrack;

impl DeviceClock for DriverDevice {
    type Event = CudaEvent;

    fn record_event_on(&self, track: DeviceTrack) -> Result<CudaEvent, KernelError> {
        self.session.enter_in_order("timing")?;
        let context = &self.session.context;
        let stream = match track {
            DeviceTrack::Kernels => &context.stream,
            DeviceTrack::ToDevice => &context.upload_stream,
            DeviceTrack::FromDevice => &context.download_stream,
        };
        context.check("timing", || "recording an event".to_owned(), record_timed_event(context, stream))
    }

    fn record_event(&self) -> Result<CudaEvent, KernelError> {
        self.record_event_on(DeviceTrack::Kernels)
    }

    fn uploads_async(&self, bytes: usize) -> bool {
        AsyncUploads::accepts(&self.memory, bytes)
    }

    fn elapsed_ms(&self, start: &CudaEvent, end: &CudaEvent) -> Result<f64, KernelError> {
        let context = &self.session.context;
        context.enter("timing")?;
        context.check("timing", || "the time between two events".to_owned(), elapsed_ms(start, end))
    }

    fn wait(&self) -> Result<(), KernelError> {
        self.session.context.enter("wait")?;
        self.session.synchronize_all("wait", || format!("waiting for {}", self.describe()))
    }

    fn cache_bytes(&self) -> usize {
        self.session.context.facts.l2_bytes
    }

    fn overwrite(&self, buffer: &mut DriverBuffer) -> Result<(), KernelError> {
        self.session.enter_in_order("timing")?;
        let context = &self.session.context;
        // SAFETY: the buffer has as many bytes, and memory is freed in the order of the stream, so after this.
        let filled = unsafe { result::memset_d8_async(buffer.start(), 0, buffer.len(), context.stream.cu_stream()) };
        context.check("timing", || format!("filling {} bytes", buffer.len()), filled)
    }

    fn copy(&self, from: &DriverBuffer, to: &mut DriverBuffer) -> Result<(), KernelError> {
        self.session.enter_in_order("timing")?;
        let context = &self.session.context;
        let bytes = from.len().min(to.len());
        // SAFETY: both buffers have as many bytes, and memory is freed in the order of the stream, so after this.
        let copied = unsafe { result::memcpy_dtod_async(to.start(), from.start(), bytes, context.stream.cu_stream()) };
        context.check("timing", || format!("copying {bytes} bytes"), copied)
    }
}
