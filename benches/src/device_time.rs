//! Criterion's measurement by a device's own clock: events of a GPU around what is measured, not the host's time.
//!
//! It is over the trait [`DeviceClock`], so that the emulator can stand in for a GPU where only the path is to be seen.

use actbench_kernels::KernelError;
use actbench_kernels::cuda::DeviceClock;
use criterion::measurement::{Measurement, ValueFormatter, WallTime};

/// Nanoseconds of a device.
pub struct DeviceTime<D: DeviceClock> {
    device: D,
    /// Times are told as criterion tells those of the host.
    formatter: WallTime,
}

impl<D: DeviceClock> DeviceTime<D> {
    /// By the clock of `device`.
    pub fn new(device: D) -> Self {
        DeviceTime { device, formatter: WallTime }
    }

    /// A mark now. Criterion takes no failure, and after one nothing that follows can be believed.
    fn or_leave<T>(&self, result: Result<T, KernelError>) -> T {
        result.unwrap_or_else(|error| leave(&error))
    }

    /// Nanoseconds of all of `iterations` calls, each between marks of its own and behind `before`, which is not
    /// counted.
    ///
    /// # Errors
    /// A failure of the device.
    pub fn each(
        &self,
        iterations: u64,
        mut before: impl FnMut() -> Result<(), KernelError>,
        mut call: impl FnMut() -> Result<(), KernelError>,
    ) -> Result<f64, KernelError> {
        let mut marks = Vec::new();
        for _ in 0..iterations {
            before()?;
            let start = self.device.mark()?;
            call()?;
            marks.push((start, self.device.mark()?));
        }
        marks.iter().try_fold(0.0, |sum, (start, end)| Ok(sum + self.device.milliseconds(start, end)? * 1e6))
    }
}

/// Ends the program over a device that failed.
pub fn leave(error: &KernelError) -> ! {
    eprintln!("error: {error}");
    std::process::exit(1)
}

impl<D: DeviceClock> Measurement for DeviceTime<D> {
    type Intermediate = D::Mark;
    type Value = f64;

    fn start(&self) -> D::Mark {
        self.or_leave(self.device.mark())
    }

    fn end(&self, start: D::Mark) -> f64 {
        let end = self.or_leave(self.device.mark());
        self.or_leave(self.device.milliseconds(&start, &end)) * 1e6
    }

    fn add(&self, a: &f64, b: &f64) -> f64 {
        a + b
    }

    fn zero(&self) -> f64 {
        0.0
    }

    /// A clock that stood still would be a rate of infinity, which criterion takes no more than a failure.
    fn to_f64(&self, value: &f64) -> f64 {
        value.max(f64::MIN_POSITIVE)
    }

    fn formatter(&self) -> &dyn ValueFormatter {
        self.formatter.formatter()
    }
}
