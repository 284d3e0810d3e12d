//! How long ago this process started.

/// Seconds since this process was started, by the clock that counts from boot, which no change of the time of day moves. The
/// kernel records the start in clock ticks, of 10 ms on Linux, and rounds it down. None where it has no such record.
pub fn seconds_since_start() -> Option<f64> {
    #[cfg(target_os = "linux")]
    {
        let ticks = start_ticks(&std::fs::read_to_string("/proc/self/stat").ok()?)?;
        // SAFETY: a plain system call without pointers.
        let ticks_per_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
        let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: the pointer is to a `timespec` that lives through the call and that nothing else refers to.
        if unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &raw mut now) } != 0 || ticks_per_second <= 0 {
            return None;
        }
        let since_boot = now.tv_sec as f64 + now.tv_nsec as f64 / 1e9;
        // Negative where a sandbox counts the two from different moments.
        Some(since_boot - ticks as f64 / ticks_per_second as f64).filter(|seconds| *seconds >= 0.0)
    }
    #[cfg(not(target_os = "linux"))]
    {
        None
    }
}

/// The field `starttime` of `/proc/self/stat`, the 22nd (proc_pid_stat(5)): ticks from boot to the start of the process. The
/// second field, the name of the program in parentheses, may have spaces and parentheses itself.
#[cfg(target_os = "linux")]
fn start_ticks(stat: &str) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_whitespace().nth(19)?.parse().ok()
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn start_is_the_field_after_any_name() {
        let fields: String = (3..=52).map(|field| format!(" {}", field * 100)).collect();
        assert_eq!(start_ticks(&format!("7 (a) b) 1 2){fields}\n")), Some(2200));
        assert_eq!(start_ticks("7 (actbench) R 1 2"), None);
        assert_eq!(start_ticks(""), None);
    }

    #[test]
    fn time_since_start_grows_with_the_clock() {
        let (first, clock) = (seconds_since_start().unwrap(), std::time::Instant::now());
        std::thread::sleep(std::time::Duration::from_millis(20));
        let (second, passed) = (seconds_since_start().unwrap(), clock.elapsed().as_secs_f64());
        // Both are computed from one record of the start, so their difference has the clock's own resolution.
        assert!(second - first >= 0.02 && second - first <= passed + 0.01, "{first} {second} {passed}");
    }
}
