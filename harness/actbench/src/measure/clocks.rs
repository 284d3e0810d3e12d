//! GpuClocks of a GPU and the reasons that throttle them, without which a time on a GPU cannot be interpreted.
//!
//! NVML, NVIDIA's management library, is loaded at run time. If it is missing or does not report a value, the reason is
//! reported as text, and the measurement does not fail.

use std::fmt;

use nvml_wrapper::Nvml;
use nvml_wrapper::bitmasks::device::ThrottleReasons;
use nvml_wrapper::enum_wrappers::device::{Clock, TemperatureSensor};
use serde::Serialize;

/// GpuClocks, temperature and power of one GPU at one moment. A value that NVML does not report is null.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct GpuClocks {
    /// Clock of the multiprocessors in MHz.
    pub sm_mhz: Option<u32>,
    /// Its maximum in MHz.
    pub sm_most_mhz: Option<u32>,
    /// Clock of the memory in MHz.
    pub memory_mhz: Option<u32>,
    /// Temperature in degrees Celsius.
    pub celsius: Option<u32>,
    /// Power in watts.
    pub watts: Option<f64>,
    /// Reasons that throttle the clocks, by NVML's names; idleness is not one of them.
    pub slowed_by: Vec<String>,
}

/// Reads the clocks of one GPU.
pub struct ClockProbe {
    library: Nvml,
    /// Identifies the GPU: the driver and NVML may number GPUs differently.
    bus_id: Option<String>,
}

impl ClockProbe {
    /// Opens NVML for the GPU at `bus_id`, or without an address for the only GPU of the machine.
    ///
    /// # Errors
    /// The reason why no clocks are available.
    pub fn open(bus_id: Option<&str>) -> Result<Self, String> {
        let library = Nvml::init().map_err(|error| format!("NVIDIA's management library: {error}"))?;
        let probe = ClockProbe { library, bus_id: bus_id.map(str::to_owned) };
        probe.read()?;
        Ok(probe)
    }

    /// Reads the current clocks.
    ///
    /// # Errors
    /// There is no such GPU.
    pub fn read(&self) -> Result<GpuClocks, String> {
        let message = |error: nvml_wrapper::error::NvmlError| format!("NVIDIA's management library: {error}");
        let device = match &self.bus_id {
            Some(bus_id) => self.library.device_by_pci_bus_id(bus_id.as_str()).map_err(message)?,
            None => match self.library.device_count().map_err(message)? {
                1 => self.library.device_by_index(0).map_err(message)?,
                count => {
                    return Err(format!(
                        "there are {count} GPUs, and the driver does not report the bus address of this one"
                    ));
                }
            },
        };
        let reasons = device.current_throttle_reasons().unwrap_or(ThrottleReasons::empty());
        let idle = ThrottleReasons::GPU_IDLE | ThrottleReasons::NONE;
        Ok(GpuClocks {
            sm_mhz: device.clock_info(Clock::SM).ok(),
            sm_most_mhz: device.max_clock_info(Clock::SM).ok(),
            memory_mhz: device.clock_info(Clock::Memory).ok(),
            celsius: device.temperature(TemperatureSensor::Gpu).ok(),
            watts: device.power_usage().ok().map(|milliwatts| f64::from(milliwatts) / 1e3),
            slowed_by: reasons.difference(idle).iter_names().map(|(name, _)| name.to_lowercase()).collect(),
        })
    }
}

impl GpuClocks {
    /// The median of each value over `samples`, and all reasons for throttling; none without samples.
    pub fn median_of(samples: &[GpuClocks]) -> Option<GpuClocks> {
        if samples.is_empty() {
            return None;
        }
        let number = |value: fn(&GpuClocks) -> Option<u32>| middle(samples.iter().filter_map(value).collect());
        let watts = samples.iter().filter_map(|sample| sample.watts).map(|watts| (watts * 1e3) as u64).collect();
        let mut slowed_by: Vec<String> = samples.iter().flat_map(|sample| sample.slowed_by.clone()).collect();
        slowed_by.sort_unstable();
        slowed_by.dedup();
        Some(GpuClocks {
            sm_mhz: number(|sample| sample.sm_mhz),
            sm_most_mhz: number(|sample| sample.sm_most_mhz),
            memory_mhz: number(|sample| sample.memory_mhz),
            celsius: number(|sample| sample.celsius),
            // NVML counts milliwatts.
            watts: middle::<u64>(watts).map(|milliwatts| milliwatts as f64 / 1e3),
            slowed_by,
        })
    }
}

/// The middle of `values`, the upper one of two.
fn middle<T: Ord + Copy>(mut values: Vec<T>) -> Option<T> {
    values.sort_unstable();
    values.get(values.len() / 2).copied()
}

impl fmt::Display for GpuClocks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = |value: Option<u32>| value.map_or_else(|| "?".to_owned(), |value| value.to_string());
        write!(
            f,
            "SM {} of {} MHz, memory {} MHz, {} C, {} W, ",
            number(self.sm_mhz),
            number(self.sm_most_mhz),
            number(self.memory_mhz),
            number(self.celsius),
            self.watts.map_or_else(|| "?".to_owned(), |watts| format!("{watts:.0}"))
        )?;
        if self.slowed_by.is_empty() {
            f.write_str("not slowed down")
        } else {
            write!(f, "slowed down by {}", self.slowed_by.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_library_is_a_readable_error() {
        if let Err(why) = ClockProbe::open(None) {
            assert!(why.starts_with("NVIDIA's management library: ") || why.starts_with("there are "), "{why}");
        }
    }

    #[test]
    fn median_is_of_each_value_alone() {
        let sample = |mhz: Option<u32>, watts: Option<f64>, reason: &str| GpuClocks {
            sm_mhz: mhz,
            watts,
            slowed_by: vec![reason.to_owned()],
            ..GpuClocks::default()
        };
        let samples = [
            sample(Some(1980), Some(420.5), "b"),
            sample(Some(1455), None, "a"),
            sample(Some(1500), Some(694.25), "a"),
            sample(None, Some(690.0), "a"),
        ];
        let median = GpuClocks::median_of(&samples).unwrap();
        assert_eq!((median.sm_mhz, median.watts, median.celsius), (Some(1500), Some(690.0), None));
        assert_eq!(median.slowed_by, ["a", "b"]);
        assert_eq!(GpuClocks::median_of(&[]), None);
    }

    #[test]
    fn unknown_values_are_question_marks() {
        let slowed_by = vec!["sw_power_cap".to_owned()];
        let clocks = GpuClocks { sm_mhz: Some(1980), watts: Some(699.6), slowed_by, ..GpuClocks::default() };
        let expected = "SM 1980 of ? MHz, memory ? MHz, ? C, 700 W, slowed down by sw_power_cap";
        assert_eq!(clocks.to_string(), expected);
        assert!(GpuClocks::default().to_string().ends_with("not slowed down"));
    }
}
