//! How much memory a case may use: a size, a share of what is available, or no limit.
//!
//! A limit is kept by predicting, not by the kernel: a case that would not fit is refused before it allocates, where
//! the kernel would let it begin and kill it, or another process, later.

use std::fmt;
use std::fs;
use std::str::FromStr;

use bytesize::ByteSize;

use crate::error::Error;

/// A limit on the memory of a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryLimit {
    /// Whatever the system gives.
    Unlimited,
    /// So many percent of what is available when the case begins, 1 to 100.
    Percent(u8),
    /// So many bytes.
    Bytes(u64),
}

impl Default for MemoryLimit {
    fn default() -> Self {
        MemoryLimit::Percent(80)
    }
}

impl MemoryLimit {
    /// The limit in bytes where `available` bytes are; none where there is no limit or nothing is known.
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
            Error::usage(format!("'{text}' is no size above 0: use bytes, 500MB, 8GiB, a share as in 80%, or none"))
        })
    }
}

/// Bytes that this process could still get: `MemAvailable`, or what is left in its control group if that is less.
pub fn available() -> Option<u64> {
    let meminfo = fs::read_to_string("/proc/meminfo").ok()?;
    let of_machine = available_of(&meminfo)?;
    Some(left_in_group().map_or(of_machine, |left| left.min(of_machine)))
}

fn available_of(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kilobytes| kilobytes * 1024)
}

/// Limit less use of the control group (version 2); none where there is no group or no limit.
fn left_in_group() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
    let number = |name: &str| -> Option<u64> {
        fs::read_to_string(format!("/sys/fs/cgroup{}/{name}", path.trim_end_matches('/'))).ok()?.trim().parse().ok()
    };
    Some(number("memory.max")?.saturating_sub(number("memory.current")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units_and_are_read_back() {
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
    fn a_share_is_of_what_is_available() {
        assert_eq!(MemoryLimit::Percent(80).bytes(Some(1000)), Some(800));
        assert_eq!(MemoryLimit::Percent(80).bytes(None), None);
        assert_eq!(MemoryLimit::Unlimited.bytes(Some(1000)), None);
        assert_eq!(available_of("MemTotal: 9 kB\nMemAvailable:   3 kB\n"), Some(3072));
    }
}
