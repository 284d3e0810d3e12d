//! A GPU's clocks, and what holds them down: without them a time on a GPU says little.
//!
//! NVIDIA's management library is looked for at run time. Where it is missing, or will not tell something, that is a
//! reason in words and never a failure of what is measured.

use std::fmt;

use nvml_wrapper::Nvml;
use nvml_wrapper::bitmasks::device::ThrottleReasons;
use nvml_wrapper::enum_wrappers::device::{Clock, TemperatureSensor};
use serde::Serialize;

/// What the management library tells of one GPU at one moment. What it does not tell is null.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Clocks {
    /// MHz of the multiprocessors.
    pub sm_mhz: Option<u32>,
    /// The most that they can have.
    pub sm_most_mhz: Option<u32>,
    /// MHz of the memory.
    pub memory_mhz: Option<u32>,
    /// Degrees Celsius.
    pub celsius: Option<u32>,
    /// Watts.
    pub watts: Option<f64>,
    /// What holds the clocks down, in the library's names; idleness is none of these.
    pub slowed_by: Vec<String>,
}

/// Asks for the clocks of one GPU.
pub struct ClockProbe {
    library: Nvml,
    /// Where the GPU is on the bus: the driver and the library may number GPUs differently.
    bus_id: Option<String>,
}

impl ClockProbe {
    /// Of the GPU at `bus_id`; without one, of the only GPU there is.
    ///
    /// # Errors
    /// Why nothing can be learnt, in words.
    pub fn open(bus_id: Option<&str>) -> Result<Self, String> {
        let library = Nvml::init().map_err(|error| format!("NVIDIA's management library: {error}"))?;
        let probe = ClockProbe { library, bus_id: bus_id.map(str::to_owned) };
        probe.read()?;
        Ok(probe)
    }

    /// The clocks now.
    ///
    /// # Errors
    /// No such GPU, in words.
    pub fn read(&self) -> Result<Clocks, String> {
        let told = |error: nvml_wrapper::error::NvmlError| format!("NVIDIA's management library: {error}");
        let device = match &self.bus_id {
            Some(bus_id) => self.library.device_by_pci_bus_id(bus_id.as_str()).map_err(told)?,
            None => match self.library.device_count().map_err(told)? {
                1 => self.library.device_by_index(0).map_err(told)?,
                count => return Err(format!("there are {count} GPUs, and the driver does not say which one this is")),
            },
        };
        let reasons = device.current_throttle_reasons().unwrap_or(ThrottleReasons::empty());
        let idle = ThrottleReasons::GPU_IDLE | ThrottleReasons::NONE;
        Ok(Clocks {
            sm_mhz: device.clock_info(Clock::SM).ok(),
            sm_most_mhz: device.max_clock_info(Clock::SM).ok(),
            memory_mhz: device.clock_info(Clock::Memory).ok(),
            celsius: device.temperature(TemperatureSensor::Gpu).ok(),
            watts: device.power_usage().ok().map(|milliwatts| f64::from(milliwatts) / 1e3),
            slowed_by: reasons.difference(idle).iter_names().map(|(name, _)| name.to_lowercase()).collect(),
        })
    }
}

impl fmt::Display for Clocks {
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
        match self.slowed_by.is_empty() {
            true => f.write_str("not slowed down"),
            false => write!(f, "slowed down by {}", self.slowed_by.join(", ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_without_the_library_is_told_in_words() {
        if let Err(why) = ClockProbe::open(None) {
            assert!(why.starts_with("NVIDIA's management library: ") || why.starts_with("there are "), "{why}");
        }
    }

    #[test]
    fn what_is_not_known_is_a_question_mark() {
        let slowed_by = vec!["sw_power_cap".to_owned()];
        let clocks = Clocks { sm_mhz: Some(1980), watts: Some(699.6), slowed_by, ..Clocks::default() };
        let told = "SM 1980 of ? MHz, memory ? MHz, ? C, 700 W, slowed down by sw_power_cap";
        assert_eq!(clocks.to_string(), told);
        assert!(Clocks::default().to_string().ends_with("not slowed down"));
    }
}
