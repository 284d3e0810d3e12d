//! Compute capabilities, and the devices that run their machine code.

use std::fmt;
use std::str::FromStr;

use crate::error::KernelError;

/// A compute capability: `sm_90`, or `sm_90a` for code with instructions of that capability alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Architecture {
    /// Ten times the major version plus the minor one.
    number: u32,
    /// Whether its code may use instructions of this capability alone.
    specific: bool,
}

/// The capability with architecture-specific instructions in the kernels: only `sm_90a` has `wgmma` (PTX ISA, "Asynchronous
/// Warpgroup Level Matrix Instructions").
const HOPPER: u32 = 90;

impl Architecture {
    /// The capability of `number`, ten times the major version plus the minor one: 90 is `sm_90`.
    pub const fn new(number: u32) -> Self {
        Architecture { number, specific: false }
    }

    /// The compilation target with all instructions of a device of this capability.
    pub const fn code(self) -> Self {
        Architecture { number: self.number, specific: self.number == HOPPER }
    }

    /// Whether a device of this capability has the `wgmma` and TMA of `sm_90a`.
    pub const fn has_wgmma(self) -> bool {
        self.number == HOPPER
    }

    /// Whether a device of architecture `device` runs machine code made for this one: the same major version, and a
    /// minor version that is not above the device's (CUDA C++ Programming Guide, "Binary Compatibility"); exactly the
    /// device's where the code is specific.
    pub fn runs_on(self, device: Architecture) -> bool {
        if self.specific {
            self.number == device.number
        } else {
            self.number / 10 == device.number / 10 && self.number <= device.number
        }
    }
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let suffix = if self.specific { "a" } else { "" };
        f.pad(&format!("sm_{}{suffix}", self.number))
    }
}

impl FromStr for Architecture {
    type Err = KernelError;

    fn from_str(text: &str) -> Result<Self, KernelError> {
        let name = text.strip_prefix("sm_");
        let specific = name.is_some_and(|name| name.ends_with('a'));
        let number = name.map(|name| name.strip_suffix('a').unwrap_or(name)).and_then(|number| number.parse().ok());
        number.map(|number| Architecture { number, specific }).ok_or_else(|| {
            KernelError::shape("architecture", format!("unknown architecture '{text}': expected a name like sm_90"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_runs_on_later_minor_versions() {
        let runs = |code: &str, device| code.parse::<Architecture>().unwrap().runs_on(Architecture::new(device));
        assert!(runs("sm_80", 80) && runs("sm_80", 86) && runs("sm_86", 89) && runs("sm_90", 90));
        assert!(runs("sm_120", 121) && runs("sm_90a", 90) && runs("sm_100a", 100));
        assert!(!runs("sm_86", 80) && !runs("sm_80", 90) && !runs("sm_90", 89) && !runs("sm_100", 120));
        assert!(!runs("sm_100a", 103) && !runs("sm_90a", 100));
    }

    #[test]
    fn parsed_names_display_unchanged() {
        for name in ["sm_80", "sm_90", "sm_90a", "sm_120"] {
            assert_eq!(name.parse::<Architecture>().unwrap().to_string(), name);
        }
        for text in ["90", "sm_", "sm_x", "sm_a", "sm_90aa", "compute_90"] {
            assert!(text.parse::<Architecture>().unwrap_err().to_string().contains(text));
        }
    }

    #[test]
    fn code_target_has_all_instructions() {
        assert_eq!(Architecture::new(90).code().to_string(), "sm_90a");
        assert_eq!(Architecture::new(86).code().to_string(), "sm_86");
        for number in [80, 86, 89, 90, 100, 120] {
            assert_eq!(Architecture::new(number).has_wgmma(), number == 90);
            assert!(Architecture::new(number).code().runs_on(Architecture::new(number)));
        }
    }
}
