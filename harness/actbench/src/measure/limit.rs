//! The memory that this process can still allocate, within its cgroup.

use std::fs;

/// Bytes that this process can still allocate: `MemAvailable`, or what is left of its cgroup's limit if that is less.
pub fn available() -> Option<u64> {
    let meminfo = fs::read_to_string("/proc/meminfo").ok()?;
    let machine = parse_available(&meminfo)?;
    Some(left_in_cgroup().map_or(machine, |left| left.min(machine)))
}

fn parse_available(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

/// Limit minus usage of the cgroup (version 2); none without a cgroup or limit.
fn left_in_cgroup() -> Option<u64> {
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
    fn available_memory_is_read_from_meminfo() {
        assert_eq!(parse_available("MemTotal: 9 kB\nMemAvailable:   3 kB\n"), Some(3072));
    }
}
