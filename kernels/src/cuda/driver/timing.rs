//! How long kernels take on the device, by events on its stream.
//!
//! While launches are timed, each one meets a cold second-level cache: a fill of twice its size goes before. That fill
//! also keeps the device busy while the host prepares the launch, so that the time between the two events is the
//! kernel's and not the host's.

use std::sync::{Mutex, PoisonError};

use cudarc::driver::{CudaEvent, CudaStream, DriverError, result, sys};

use super::memory::DriverBuffer;
use super::session::Session;
use crate::error::KernelError;

/// The least to fill between launches, for devices whose cache is small.
const LEAST_FILL_BYTES: usize = 64 << 20;

/// The time of one launch.
#[derive(Clone, Debug, PartialEq)]
pub struct LaunchTime {
    /// The kernel.
    pub kernel: String,
    /// Milliseconds between the events around it.
    pub milliseconds: f64,
}

/// Times launches while it is on.
#[derive(Default)]
pub(super) struct Timer(Mutex<Option<Timed>>);

struct Timed {
    /// What is filled before each launch.
    fill: DriverBuffer,
    launches: Vec<(String, CudaEvent, CudaEvent)>,
}

/// Bytes to fill so that nothing of what was used before is left in the cache.
pub(super) fn fill_bytes(l2_bytes: usize) -> usize {
    LEAST_FILL_BYTES.max(2 * l2_bytes)
}

/// An event of the kernels' stream that knows its time.
fn event(session: &Session) -> Result<CudaEvent, DriverError> {
    event_in(session, &session.stream)
}

/// An event of `stream` that knows its time.
pub(super) fn event_in(session: &Session, stream: &CudaStream) -> Result<CudaEvent, DriverError> {
    let event = session.context.new_event(Some(sys::CUevent_flags::CU_EVENT_DEFAULT))?;
    event.record(stream)?;
    Ok(event)
}

/// Milliseconds between two events, once both are over.
pub(super) fn elapsed(start: &CudaEvent, end: &CudaEvent) -> Result<f64, DriverError> {
    start.elapsed_ms(end).map(f64::from)
}

impl Timer {
    /// Times every launch from now on, with a fill of `fill` before each.
    pub(super) fn start(&self, fill: DriverBuffer) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Timed { fill, launches: Vec::new() });
    }

    /// Times no more; the launches since the start, in order.
    pub(super) fn stop(&self, session: &Session) -> Result<Vec<LaunchTime>, KernelError> {
        let Some(timed) = self.0.lock().unwrap_or_else(PoisonError::into_inner).take() else { return Ok(Vec::new()) };
        session.enter("timing")?;
        session.synchronize("timing", || "waiting for timed launches".to_owned())?;
        timed
            .launches
            .into_iter()
            .map(|(kernel, start, end)| {
                let milliseconds = elapsed(&start, &end);
                let milliseconds = session.check("timing", || format!("the time of {kernel}"), milliseconds)?;
                Ok(LaunchTime { kernel, milliseconds })
            })
            .collect()
    }

    /// Whether launches are timed.
    pub(super) fn is_on(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Runs `launch`, timed if this is on.
    pub(super) fn around(
        &self,
        session: &Session,
        kernel: &str,
        launch: impl FnOnce() -> Result<(), DriverError>,
    ) -> Result<(), DriverError> {
        let mut timed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(timed) = timed.as_mut() else { return launch() };
        // SAFETY: the buffer has as many bytes and is kept until the timing is over.
        unsafe { result::memset_d8_async(timed.fill.start(), 0, timed.fill.len(), session.stream.cu_stream()) }?;
        let start = event(session)?;
        launch()?;
        timed.launches.push((kernel.to_owned(), start, event(session)?));
        Ok(())
    }
}

/// Milliseconds that the device takes to copy `bytes` from `from` to `to`, the median of `repeats` copies.
pub(super) fn copy_milliseconds(
    session: &Session,
    from: &DriverBuffer,
    to: &DriverBuffer,
    repeats: usize,
) -> Result<f64, KernelError> {
    let bytes = from.len().min(to.len());
    let copy = || -> Result<f64, DriverError> {
        let start = event(session)?;
        // SAFETY: both buffers have as many bytes and live until the copy was waited for in `elapsed`.
        unsafe { result::memcpy_dtod_async(to.start(), from.start(), bytes, session.stream.cu_stream()) }?;
        elapsed(&start, &event(session)?)
    };
    session.enter_in_order("timing")?;
    // The first ones meet memory that was never touched.
    let times = (0..repeats + 2).map(|_| copy()).collect::<Result<Vec<f64>, DriverError>>();
    let mut times = session.check("timing", || format!("copying {bytes} bytes"), times)?.split_off(2);
    times.sort_by(f64::total_cmp);
    Ok(times.get(times.len() / 2).copied().unwrap_or(f64::NAN))
}
