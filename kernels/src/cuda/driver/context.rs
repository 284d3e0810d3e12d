//! A device's context and its streams, and the errors of calls into the driver.

use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Instant;

use cudarc::driver::{CudaContext, CudaStream, DriverError, result, sys};

use super::driver_error::{error_message, is_fatal};
use super::encoded_launch::EncodedLaunch;
use super::open_times::DeviceOpenTimes;
use super::probe::{DeviceFacts, probe_one};
use crate::error::KernelError;

/// Appended to every error after which the context is unusable.
const CONTEXT_LOST: &str = "the CUDA context is lost; restart the process";

/// A device's primary context with three streams: one for the kernels, which also orders all memory, and one for the
/// asynchronous copies in each direction.
pub(super) struct DriverContext {
    pub(super) cuda: Arc<CudaContext>,
    /// Kernels, and copies in their order.
    pub(super) stream: Arc<CudaStream>,
    /// Copies to memory that no kernel has used yet.
    pub(super) upload_stream: Arc<CudaStream>,
    /// Copies from memory that no later kernel writes.
    pub(super) download_stream: Arc<CudaStream>,
    pub(super) facts: DeviceFacts,
    /// The error that made the context unusable.
    lost: OnceLock<String>,
    /// The last launch that may not have completed, for errors that appear in a later call.
    last_launch: Mutex<Option<LastLaunch>>,
}

/// A launch for error messages, formatted only when one is needed.
pub(super) enum LastLaunch {
    Single(EncodedLaunch),
    /// The description of a graph.
    Graph(Arc<str>),
}

impl fmt::Display for LastLaunch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LastLaunch::Single(launch) => write!(f, "{launch}"),
            LastLaunch::Graph(description) => f.write_str(description),
        }
    }
}

impl DriverContext {
    /// Opens device `ordinal`, and adds the durations to `times`.
    pub(super) fn open(ordinal: usize, times: &mut DeviceOpenTimes) -> Result<Self, KernelError> {
        let start = Instant::now();
        let facts = probe_one(ordinal).map_err(|unavailable| KernelError::Device {
            op: "open",
            device: format!("cuda:{ordinal}"),
            message: unavailable.to_string(),
        })?;
        times.driver += start.elapsed();
        let start = Instant::now();
        let failed = |error: DriverError| KernelError::Device {
            op: "open",
            device: format!("cuda:{ordinal}"),
            message: format!("{facts}: {}", error_message(error)),
        };
        let cuda = CudaContext::new(ordinal).map_err(failed)?;
        // SAFETY: this module's own events order the uses of memory on the three streams. With cudarc's tracking, each
        // launch would wait for and record events.
        unsafe { cuda.disable_event_tracking() };
        let new_stream = || cuda.new_stream().map_err(failed);
        let (stream, upload_stream, download_stream) = (new_stream()?, new_stream()?, new_stream()?);
        times.context += start.elapsed();
        let (lost, last_launch) = (OnceLock::new(), Mutex::new(None));
        Ok(DriverContext { cuda, stream, upload_stream, download_stream, facts, lost, last_launch })
    }

    /// The device's name in errors: `cuda:0`.
    pub(super) fn device_name(&self) -> String {
        format!("cuda:{}", self.facts.ordinal)
    }

    /// An error of this device.
    pub(super) fn error(&self, op: &'static str, message: impl Into<String>) -> KernelError {
        KernelError::Device { op, device: self.device_name(), message: message.into() }
    }

    /// Makes the context current for the calling thread, which every call into the driver requires. Sufficient for
    /// calls that are not ordered in the stream, such as an allocation; the others need `Session::enter_in_order`.
    ///
    /// # Errors
    /// A lost context.
    pub(super) fn enter(&self, op: &'static str) -> Result<(), KernelError> {
        if let Some(lost) = self.lost.get() {
            return Err(self.error(op, format!("{CONTEXT_LOST} ({lost})")));
        }
        self.check(op, || "entering the context".to_owned(), self.cuda.bind_to_thread())
    }

    /// Converts the driver's `result` of `action` to an error of `op`, and remembers a lost context.
    pub(super) fn check<T>(
        &self,
        op: &'static str,
        action: impl FnOnce() -> String,
        result: Result<T, DriverError>,
    ) -> Result<T, KernelError> {
        let error = match result {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        let mut message = format!("{}: {}", action(), error_message(error));
        if is_fatal(error) {
            // The driver reports a kernel's error in a later call: the culprit is a launch since the last wait.
            let last = self.lock_last_launch().as_ref().map(LastLaunch::to_string);
            if let Some(launch) = last.filter(|launch| !message.starts_with(launch.as_str())) {
                message.push_str(&format!("; the last launch before it: {launch}"));
            }
            let _ = self.lost.set(message.clone());
            message.push_str("; ");
            message.push_str(CONTEXT_LOST);
        }
        Err(self.error(op, message))
    }

    /// Remembers a launch for errors that appear in a later call.
    pub(super) fn set_last_launch(&self, launch: LastLaunch) {
        *self.lock_last_launch() = Some(launch);
    }

    /// Forgets the last launch, which has completed.
    pub(super) fn clear_last_launch(&self) {
        *self.lock_last_launch() = None;
    }

    fn lock_last_launch(&self) -> std::sync::MutexGuard<'_, Option<LastLaunch>> {
        self.last_launch.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Frees memory: in the order of the kernels' stream where the device supports that, else after waiting for it.
    pub(super) fn free(&self, start: sys::CUdeviceptr) {
        if self.cuda.bind_to_thread().is_err() {
            return;
        }
        // An error cannot be returned from a drop. A broken context fails the next call as well.
        let _ = if self.facts.has_pools {
            // SAFETY: allocated in `Memory::alloc_on` and freed here alone, after all launches that use it.
            unsafe { result::free_async(start, self.stream.cu_stream()) }
        } else {
            // SAFETY: as above; the wait ends the kernels that use the memory.
            self.stream.synchronize().and_then(|()| unsafe { result::free_sync(start) })
        };
    }

    /// The error that made the context unusable, if there was one.
    pub(super) fn lost(&self) -> Option<&str> {
        self.lost.get().map(String::as_str)
    }
}
