//! The memory limit of a case: a size, a percentage of the available memory, or no limit.
//!
//! The limit is enforced by prediction, not by the kernel: a case that is predicted to exceed it is refused before it
//! allocates. The kernel would start the case and later kill it, or another process.

use std::fmt;
use std::str::FromStr;

use bytesize::ByteSize;

use crate::error::Error;

/// A limit on the memory of a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryLimit {
    /// No limit.
    Unlimited,
    /// This percentage, 1 to 100, of the memory that is available when the case starts.
    Percent(u8),
    /// This number of bytes.
    Bytes(u64),
}

impl Default for MemoryLimit {
    fn default() -> Self {
        MemoryLimit::Percent(80)
    }
}

impl MemoryLimit {
    /// The limit in bytes if `available` bytes are available; none if there is no limit or the available memory is unknown.
    pub fn bytes(self, available: Option<u64>) -> Option<u64> {
        match self {
            MemoryLimit::Unlimited => None,
            MemoryLimit::Percent(percent) => available.map(|bytes| bytes / 100 * u64::from(percent)),
            MemoryLimit::Bytes(bytes) => Some(bytes),
        }
    }
}

impl fmt::Display for MemoryLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MemoryLimit::Unlimited => f.write_str("none"),
            MemoryLimit::Percent(percent) => write!(f, "{percent}%"),
            MemoryLimit::Bytes(bytes) => write!(f, "{bytes}"),
        }
    }
}

impl FromStr for MemoryLimit {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        if text == "none" {
            return Ok(MemoryLimit::Unlimited);
        }
        let limit = match text.strip_suffix('%') {
            Some(percent) => {
                percent.parse().ok().filter(|percent| (1..=100).contains(percent)).map(MemoryLimit::Percent)
            }
            None => text
                .parse::<ByteSize>()
                .ok()
                .map(|size| size.as_u64())
                .filter(|bytes| *bytes > 0)
                .map(MemoryLimit::Bytes),
        };
        limit.ok_or_else(|| {
            Error::usage(format!(
                "invalid memory limit '{text}': use bytes, 500MB, 8GiB, a percentage such as 80%, or none"
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_parsed_and_printed() {
        for (text, limit) in [
            ("8GiB", MemoryLimit::Bytes(8 << 30)),
            ("500MB", MemoryLimit::Bytes(500_000_000)),
            ("4096", MemoryLimit::Bytes(4096)),
            ("80%", MemoryLimit::default()),
            ("none", MemoryLimit::Unlimited),
        ] {
            assert_eq!(text.parse::<MemoryLimit>().unwrap(), limit, "{text}");
            assert_eq!(limit.to_string().parse::<MemoryLimit>().unwrap(), limit);
        }
        for bad in ["", "0", "0GiB", "-1", "much", "8 parsecs", "nan", "0%", "101%", "%"] {
            assert!(bad.parse::<MemoryLimit>().is_err(), "{bad}");
        }
    }

    #[test]
    fn percentage_applies_to_available_memory() {
        assert_eq!(MemoryLimit::Percent(80).bytes(Some(1000)), Some(800));
        assert_eq!(MemoryLimit::Percent(80).bytes(None), None);
        assert_eq!(MemoryLimit::Unlimited.bytes(Some(1000)), None);
    }
}
