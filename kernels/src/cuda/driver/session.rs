//! The order of work on a device: launches, waits and frees, with deferred launches flushed before what must follow
//! them.

use std::sync::Arc;

use cudarc::driver::sys;

use super::context::{DriverContext, LastLaunch};
use super::deferred::DeferredLaunches;
use super::encoded_launch::EncodedLaunch;
use super::open_times::DeviceOpenTimes;
use crate::error::KernelError;

/// A context and the launches that are not in its stream yet.
pub(super) struct Session {
    pub(super) context: DriverContext,
    pub(super) deferred: DeferredLaunches,
}

/// Defers the launches of a thread until it is dropped. The owner launches them before that.
pub(super) struct DeferralGuard<'a> {
    session: &'a Session,
}

impl Drop for DeferralGuard<'_> {
    fn drop(&mut self) {
        self.session.end_deferral();
    }
}

impl Session {
    /// Opens the context of device `ordinal`, and adds the durations to `times`.
    pub(super) fn open(ordinal: usize, times: &mut DeviceOpenTimes) -> Result<Arc<Self>, KernelError> {
        let (context, deferred) = (DriverContext::open(ordinal, times)?, DeferredLaunches::default());
        Ok(Arc::new(Session { context, deferred }))
    }

    /// Starts to defer this thread's launches; none if this or another thread's launches are deferred already.
    pub(super) fn defer_launches(&self) -> Option<DeferralGuard<'_>> {
        // Lazily: dropping a guard would end the deferral of an enclosing group.
        self.deferred.begin().then(|| DeferralGuard { session: self })
    }

    /// Launches this thread's deferred launches and stops deferring: the next call on the stream comes after them.
    pub(super) fn flush(&self) -> Result<(), KernelError> {
        let launched = self.launch_all(self.deferred.take());
        self.end_deferral();
        launched
    }

    /// Frees the memory whose release waited for the deferred launches.
    fn end_deferral(&self) {
        self.deferred.end().into_iter().for_each(|start| self.context.free(start));
    }

    /// Launches `launches` one by one, up to the first that fails.
    pub(super) fn launch_all(&self, launches: Vec<EncodedLaunch>) -> Result<(), KernelError> {
        launches.into_iter().try_for_each(|launch| {
            self.context.check("launch", || launch.to_string(), launch.launch(&self.context.stream))?;
            self.context.set_last_launch(LastLaunch::Single(launch));
            Ok(())
        })
    }

    /// Enters the context for a call that must follow all launches of this thread, including its deferred ones.
    ///
    /// # Errors
    /// A lost context, or a deferred launch that fails.
    pub(super) fn enter_in_order(&self, op: &'static str) -> Result<(), KernelError> {
        self.context.enter(op)?;
        self.flush()
    }

    /// Flushes this thread's deferred launches and waits for the kernels' stream.
    pub(super) fn synchronize(&self, op: &'static str, action: impl FnOnce() -> String) -> Result<(), KernelError> {
        self.flush()?;
        self.context.check(op, action, self.context.stream.synchronize())?;
        self.context.clear_last_launch();
        Ok(())
    }

    /// Flushes this thread's deferred launches and waits for all three streams.
    pub(super) fn synchronize_all(&self, op: &'static str, action: impl FnOnce() -> String) -> Result<(), KernelError> {
        self.flush()?;
        let DriverContext { stream, upload_stream, download_stream, .. } = &self.context;
        let streams = [upload_stream, download_stream, stream];
        self.context.check(op, action, streams.into_iter().try_for_each(|stream| stream.synchronize()))
    }

    /// Frees memory after all launches that may use it: at once, or when the deferred launches are flushed.
    pub(super) fn free(&self, start: sys::CUdeviceptr) {
        if !self.deferred.defer_free(start) {
            self.context.free(start);
        }
    }
}
