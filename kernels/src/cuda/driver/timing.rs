//! The time that kernels take on the device, by events on its stream.
//!
//! While launches are timed, each one starts with a cold L2 cache: a fill of twice the cache size precedes it. The fill
//! also keeps the device busy while the host prepares the launch, so the time between the two events is the time of the
//! kernel and not of the host.

use std::sync::{Mutex, PoisonError};

use cudarc::driver::{CudaEvent, CudaStream, DriverError, result, sys};

use super::context::DriverContext;
use super::memory::DriverBuffer;
use super::session::Session;
use crate::error::KernelError;

/// The minimum size of the fill between launches, in bytes, for devices with a small cache.
const MIN_FILL_BYTES: usize = 64 << 20;

/// Unmeasured copies before the measured ones: the first access to new memory is slower.
const WARMUP_COPIES: usize = 2;

/// The time of one launch.
#[derive(Clone, Debug, PartialEq)]
pub struct LaunchTime {
    /// The kernel's name.
    pub kernel: String,
    /// Milliseconds between the events before and after it.
    pub milliseconds: f64,
}

/// Times launches while it is on.
#[derive(Default)]
pub(super) struct LaunchTimer(Mutex<Option<TimedLaunches>>);

struct TimedLaunches {
    /// The buffer that is filled before each launch.
    fill: DriverBuffer,
    launches: Vec<(String, CudaEvent, CudaEvent)>,
}

/// The number of bytes whose fill evicts everything else from a cache of `l2_bytes` bytes.
pub(super) fn fill_bytes(l2_bytes: usize) -> usize {
    MIN_FILL_BYTES.max(2 * l2_bytes)
}

/// A new event with a time, recorded in `stream`.
pub(super) fn record_timed_event(context: &DriverContext, stream: &CudaStream) -> Result<CudaEvent, DriverError> {
    let event = context.cuda.new_event(Some(sys::CUevent_flags::CU_EVENT_DEFAULT))?;
    event.record(stream)?;
    Ok(event)
}

/// Milliseconds between two events. Waits for both.
pub(super) fn elapsed_ms(start: &CudaEvent, end: &CudaEvent) -> Result<f64, DriverError> {
    start.elapsed_ms(end).map(f64::from)
}

impl LaunchTimer {
    /// Times every launch from now on, with a fill of `fill` before each.
    pub(super) fn start(&self, fill: DriverBuffer) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(TimedLaunches { fill, launches: Vec::new() });
    }

    /// Stops timing and returns the launches since the start, in order.
    pub(super) fn stop(&self, session: &Session) -> Result<Vec<LaunchTime>, KernelError> {
        let Some(timed) = self.0.lock().unwrap_or_else(PoisonError::into_inner).take() else { return Ok(Vec::new()) };
        let context = &session.context;
        context.enter("timing")?;
        session.synchronize("timing", || "waiting for timed launches".to_owned())?;
        timed
            .launches
            .into_iter()
            .map(|(kernel, start, end)| {
                let milliseconds = elapsed_ms(&start, &end);
                let milliseconds = context.check("timing", || format!("the time of {kernel}"), milliseconds)?;
                Ok(LaunchTime { kernel, milliseconds })
            })
            .collect()
    }

    /// Whether launches are timed.
    pub(super) fn is_on(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Runs `launch`, timed if the timer is on.
    pub(super) fn around(
        &self,
        context: &DriverContext,
        kernel: &str,
        launch: impl FnOnce() -> Result<(), DriverError>,
    ) -> Result<(), DriverError> {
        let mut timed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(timed) = timed.as_mut() else { return launch() };
        // SAFETY: the buffer has as many bytes and is kept until timing stops.
        unsafe { result::memset_d8_async(timed.fill.start(), 0, timed.fill.len(), context.stream.cu_stream()) }?;
        let start = record_timed_event(context, &context.stream)?;
        launch()?;
        timed.launches.push((kernel.to_owned(), start, record_timed_event(context, &context.stream)?));
        Ok(())
    }
}

/// Milliseconds that the device takes to copy `from` to `to`, as many bytes as both have: the median of `repeats`
/// copies.
pub(super) fn copy_milliseconds(
    session: &Session,
    from: &DriverBuffer,
    to: &DriverBuffer,
    repeats: usize,
) -> Result<f64, KernelError> {
    let context = &session.context;
    let bytes = from.len().min(to.len());
    let copy = || -> Result<f64, DriverError> {
        let start = record_timed_event(context, &context.stream)?;
        // SAFETY: both buffers have as many bytes and live until `elapsed_ms` has waited for the copy.
        unsafe { result::memcpy_dtod_async(to.start(), from.start(), bytes, context.stream.cu_stream()) }?;
        elapsed_ms(&start, &record_timed_event(context, &context.stream)?)
    };
    session.enter_in_order("timing")?;
    let times = (0..repeats + WARMUP_COPIES).map(|_| copy()).collect::<Result<Vec<f64>, DriverError>>();
    let times = context.check("timing", || format!("copying {bytes} bytes"), times)?;
    let mut times = times.into_iter().skip(WARMUP_COPIES).collect::<Vec<f64>>();
    times.sort_by(f64::total_cmp);
    Ok(times.get(times.len() / 2).copied().unwrap_or(f64::NAN))
}
