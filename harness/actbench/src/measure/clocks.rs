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
    fn unknown_values_are_question_marks() {
        let slowed_by = vec!["sw_power_cap".to_owned()];
        let clocks = GpuClocks { sm_mhz: Some(1980), watts: Some(699.6), slowed_by, ..GpuClocks::default() };
        let expected = "SM 1980 of ? MHz, memory ? MHz, ? C, 700 W, slowed down by sw_power_cap";
        assert_eq!(clocks.to_string(), expected);
        assert!(GpuClocks::default().to_string().ends_with("not slowed down"));
    }
}
