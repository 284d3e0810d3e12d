//! A context with its one stream, and what is told when a call into it fails.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use cudarc::driver::{CudaContext, CudaStream, DriverError};

use super::probe::{DeviceFacts, probe_one};
use super::words::{is_fatal, words};
use crate::error::KernelError;

/// A device's primary context and its streams: that of the kernels, which all work goes through in the order it was
/// given, and one for each way of the copies that go on beside it.
pub(super) struct Session {
    pub(super) context: Arc<CudaContext>,
    pub(super) stream: Arc<CudaStream>,
    /// Copies to memory that no kernel has seen yet.
    pub(super) copy_in: Arc<CudaStream>,
    /// Copies from memory that no kernel will write any more.
    pub(super) copy_out: Arc<CudaStream>,
    pub(super) facts: DeviceFacts,
    /// What the context was lost to.
    lost: OnceLock<String>,
    /// The last launch that may not have ended, for errors that show later.
    last_launch: Mutex<Option<String>>,
}

impl Session {
    pub(super) fn open(ordinal: usize) -> Result<Arc<Self>, KernelError> {
        let facts = probe_one(ordinal).map_err(|absence| KernelError::Device {
            op: "open",
            device: format!("cuda:{ordinal}"),
            message: absence.to_string(),
        })?;
        let failed = |error: DriverError| KernelError::Device {
            op: "open",
            device: format!("cuda:{ordinal}"),
            message: format!("{facts}: {}", words(error)),
        };
        let context = CudaContext::new(ordinal).map_err(failed)?;
        // SAFETY: what orders the uses of memory on the three streams are this module's own events. Otherwise each launch
        // would wait for and record events.
        unsafe { context.disable_event_tracking() };
        let stream = || context.new_stream().map_err(failed);
        let (stream, copy_in, copy_out) = (stream()?, stream()?, stream()?);
        let (lost, last_launch) = (OnceLock::new(), Mutex::new(None));
        Ok(Arc::new(Session { context, stream, copy_in, copy_out, facts, lost, last_launch }))
    }

    /// The device in errors.
    pub(super) fn device(&self) -> String {
        format!("cuda:{}", self.facts.ordinal)
    }

    /// An error of this device.
    pub(super) fn error(&self, op: &'static str, message: impl Into<String>) -> KernelError {
        KernelError::Device { op, device: self.device(), message: message.into() }
    }

    /// Makes the context the calling thread's: what every call into the driver needs first.
    ///
    /// # Errors
    /// A context that was lost before.
    pub(super) fn enter(&self, op: &'static str) -> Result<(), KernelError> {
        if let Some(lost) = self.lost.get() {
            return Err(self.error(op, format!("the context is lost, start the program anew: {lost}")));
        }
        self.check(op, || "entering the context".to_owned(), self.context.bind_to_thread())
    }

    /// Turns what the driver said to `what` into an error of `op`, and notes a context that is lost by it.
    pub(super) fn check<T>(
        &self,
        op: &'static str,
        what: impl FnOnce() -> String,
        result: Result<T, DriverError>,
    ) -> Result<T, KernelError> {
        let error = match result {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        let mut message = format!("{}: {}", what(), words(error));
        if is_fatal(error) {
            // Such an error belongs to some launch since the last wait, not to the call that it shows in.
            let last = self.last_launch.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(launch) = last.as_ref().filter(|launch| !message.starts_with(launch.as_str())) {
                message.push_str(&format!("; the last launch before it: {launch}"));
            }
            let _ = self.lost.set(message.clone());
            message.push_str("; the context is lost, start the program anew");
        }
        Err(self.error(op, message))
    }

    /// Waits for everything that was given to the stream.
    pub(super) fn synchronize(&self, op: &'static str, what: impl FnOnce() -> String) -> Result<(), KernelError> {
        self.check(op, what, self.stream.synchronize())?;
        *self.last_launch.lock().unwrap_or_else(PoisonError::into_inner) = None;
        Ok(())
    }

    /// Waits for everything that was given to any of the streams.
    pub(super) fn synchronize_all(&self, op: &'static str, what: impl FnOnce() -> String) -> Result<(), KernelError> {
        let streams = [&self.copy_in, &self.copy_out, &self.stream];
        self.check(op, what, streams.into_iter().try_for_each(|stream| stream.synchronize()))
    }

    /// Notes a launch, for errors that show later.
    pub(super) fn launched(&self, launch: String) {
        *self.last_launch.lock().unwrap_or_else(PoisonError::into_inner) = Some(launch);
    }

    /// What the context was lost to, if it was.
    pub(super) fn lost(&self) -> Option<&str> {
        self.lost.get().map(String::as_str)
    }
}
