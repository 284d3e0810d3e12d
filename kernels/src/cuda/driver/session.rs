//! A context with its one stream, and what is told when a call into it fails.

use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use cudarc::driver::{CudaContext, CudaStream, DriverError, result, sys};

use super::held::Held;
use super::prepared::Prepared;
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
    /// Launches that are not in the stream yet.
    pub(super) held: Held,
    /// What the context was lost to.
    lost: OnceLock<String>,
    /// The last launch that may not have ended, for errors that show later.
    last: Mutex<Option<LastWork>>,
}

/// What was launched last, put into words when that is asked for.
pub(super) enum LastWork {
    Launch(Prepared),
    /// Several, and what they are.
    Group(Arc<str>),
}

impl fmt::Display for LastWork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LastWork::Launch(launch) => write!(f, "{launch}"),
            LastWork::Group(told) => f.write_str(told),
        }
    }
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
        let (held, lost, last) = (Held::default(), OnceLock::new(), Mutex::new(None));
        Ok(Arc::new(Session { context, stream, copy_in, copy_out, facts, held, lost, last }))
    }

    /// The device in errors.
    pub(super) fn device(&self) -> String {
        format!("cuda:{}", self.facts.ordinal)
    }

    /// An error of this device.
    pub(super) fn error(&self, op: &'static str, message: impl Into<String>) -> KernelError {
        KernelError::Device { op, device: self.device(), message: message.into() }
    }

    /// Makes the context the calling thread's: what every call into the driver needs first. Enough for what has no place
    /// in the order of the stream, such as new memory.
    ///
    /// # Errors
    /// A context that was lost before.
    pub(super) fn enter(&self, op: &'static str) -> Result<(), KernelError> {
        if let Some(lost) = self.lost.get() {
            return Err(self.error(op, format!("the context is lost, start the program anew: {lost}")));
        }
        self.check(op, || "entering the context".to_owned(), self.context.bind_to_thread())
    }

    /// The same for what comes behind all that this thread has launched, also what it held back.
    ///
    /// # Errors
    /// A context that was lost before, or a launch that was held back and fails.
    pub(super) fn enter_in_order(&self, op: &'static str) -> Result<(), KernelError> {
        self.enter(op)?;
        self.let_go()
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
            let last = self.last.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(LastWork::to_string);
            if let Some(launch) = last.filter(|launch| !message.starts_with(launch.as_str())) {
                message.push_str(&format!("; the last launch before it: {launch}"));
            }
            let _ = self.lost.set(message.clone());
            message.push_str("; the context is lost, start the program anew");
        }
        Err(self.error(op, message))
    }

    /// Waits for everything that was given to the stream, and for what this thread held back.
    pub(super) fn synchronize(&self, op: &'static str, what: impl FnOnce() -> String) -> Result<(), KernelError> {
        self.let_go()?;
        self.check(op, what, self.stream.synchronize())?;
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = None;
        Ok(())
    }

    /// Waits for everything that was given to any of the streams, and for what this thread held back.
    pub(super) fn synchronize_all(&self, op: &'static str, what: impl FnOnce() -> String) -> Result<(), KernelError> {
        self.let_go()?;
        let streams = [&self.copy_in, &self.copy_out, &self.stream];
        self.check(op, what, streams.into_iter().try_for_each(|stream| stream.synchronize()))
    }

    /// Notes a launch, for errors that show later.
    pub(super) fn launched(&self, launch: Prepared) {
        self.did(LastWork::Launch(launch));
    }

    /// The same of several launches.
    pub(super) fn did(&self, work: LastWork) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(work);
    }

    /// Gives memory back to the driver behind everything that was launched, or when that can be said of it.
    pub(super) fn give_back(&self, start: sys::CUdeviceptr) {
        if !self.held.keeps(start) {
            self.release(start);
        }
    }

    /// Gives memory back to the driver now, in the stream's order where it has such memory.
    pub(super) fn release(&self, start: sys::CUdeviceptr) {
        if self.context.bind_to_thread().is_err() {
            return;
        }
        // Nobody is left to tell of a failure here; the next call meets whatever is wrong with the context.
        let _ = match self.facts.has_pools {
            // SAFETY: of `Memory::alloc_on`, and given back here alone, after what was launched before.
            true => unsafe { result::free_async(start, self.stream.cu_stream()) },
            // SAFETY: as above; kernels that use the memory have ended.
            false => self.stream.synchronize().and_then(|()| unsafe { result::free_sync(start) }),
        };
    }

    /// What the context was lost to, if it was.
    pub(super) fn lost(&self) -> Option<&str> {
        self.lost.get().map(String::as_str)
    }
}
