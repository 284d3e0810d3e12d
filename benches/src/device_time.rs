//! A criterion measurement by the clock of a device: GPU events around the measured work instead of the host's time.
//!
//! Generic over [`DeviceClock`], so that the emulator can replace a GPU to test the benchmark itself.

use actbench_kernels::KernelError;
use actbench_kernels::cuda::DeviceClock;
use criterion::measurement::{Measurement, ValueFormatter, WallTime};

/// Measures nanoseconds of a device.
pub struct DeviceTime<D: DeviceClock> {
    device: D,
    /// Formats times like criterion's host times.
    formatter: WallTime,
}

impl<D: DeviceClock> DeviceTime<D> {
    /// Measures by the clock of `device`.
    pub fn new(device: D) -> Self {
        DeviceTime { device, formatter: WallTime }
    }

    /// Exits on a device failure, because criterion's interface cannot report errors and later times would be invalid.
    fn or_exit<T>(&self, result: Result<T, KernelError>) -> T {
        result.unwrap_or_else(|error| exit_with(&error))
    }

    /// The total nanoseconds of `iterations` calls, each between its own events and after `before`, which is not
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
        let mut events = Vec::new();
        for _ in 0..iterations {
            before()?;
            let start = self.device.record_event()?;
            call()?;
            events.push((start, self.device.record_event()?));
        }
        events.iter().try_fold(0.0, |sum, (start, end)| Ok(sum + self.device.elapsed_ms(start, end)? * 1e6))
    }
}

/// Prints a device failure and exits.
pub fn exit_with(error: &KernelError) -> ! {
    eprintln!("error: {error}");
    std::process::exit(1)
}

impl<D: DeviceClock> Measurement for DeviceTime<D> {
    type Intermediate = D::Event;
    type Value = f64;

    fn start(&self) -> D::Event {
        self.or_exit(self.device.record_event())
    }

    fn end(&self, start: D::Event) -> f64 {
        let end = self.or_exit(self.device.record_event());
        self.or_exit(self.device.elapsed_ms(&start, &end)) * 1e6
    }

    fn add(&self, a: &f64, b: &f64) -> f64 {
        a + b
    }

    fn zero(&self) -> f64 {
        0.0
    }

    /// At least the smallest positive number: criterion cannot handle the infinite rate of a zero time.
    fn to_f64(&self, value: &f64) -> f64 {
        value.max(f64::MIN_POSITIVE)
    }

    fn formatter(&self) -> &dyn ValueFormatter {
        self.formatter.formatter()
    }
}
