//! What machine code is made for, and which devices run it.

use std::fmt;
use std::str::FromStr;

use crate::error::KernelError;

/// A compute capability, ten times the major version plus the minor one: `sm_90` is 90.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Architecture(pub u32);

impl Architecture {
    /// Whether a device of architecture `device` runs machine code made for this one: the same major version, and a
    /// minor version that is not above the device's (CUDA C++ Programming Guide, "Binary Compatibility").
    pub fn runs_on(self, device: Architecture) -> bool {
        self.0 / 10 == device.0 / 10 && self.0 <= device.0
    }
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sm_{}", self.0)
    }
}

impl FromStr for Architecture {
    type Err = KernelError;

    fn from_str(text: &str) -> Result<Self, KernelError> {
        text.strip_prefix("sm_").and_then(|number| number.parse().ok()).map(Architecture).ok_or_else(|| {
            KernelError::shape("architecture", format!("unknown architecture '{text}': one like sm_90 is needed"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_runs_on_its_own_major_version_from_its_minor_one_on() {
        let runs = |code, device| Architecture(code).runs_on(Architecture(device));
        assert!(runs(80, 80) && runs(80, 86) && runs(86, 89) && runs(90, 90) && runs(120, 121));
        assert!(!runs(86, 80) && !runs(80, 90) && !runs(90, 89) && !runs(100, 120));
    }

    #[test]
    fn names_are_read_back() {
        for number in [80, 90, 120] {
            assert_eq!(Architecture(number).to_string().parse::<Architecture>().unwrap(), Architecture(number));
        }
        for text in ["90", "sm_", "sm_x", "compute_90"] {
            assert!(text.parse::<Architecture>().unwrap_err().to_string().contains(text));
        }
    }
}
