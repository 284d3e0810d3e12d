//! Processor time of this process.

use std::time::Duration;

/// Time that all threads of this process, those that ended included, spent on processors: in user code and in the
/// system on its behalf. None where the system does not say.
pub fn time_used() -> Option<Duration> {
    // SAFETY: all zeros is a valid `rusage`, which holds nothing but numbers.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is to a `rusage` that lives through the call and that nothing else refers to.
    let result = unsafe { libc::getrusage(libc::RUSAGE_SELF, &raw mut usage) };
    let duration = |time: libc::timeval| {
        let seconds = Duration::from_secs(u64::try_from(time.tv_sec).ok()?);
        Some(seconds + Duration::from_micros(u64::try_from(time.tv_usec).ok()?))
    };
    if result == 0 { Some(duration(usage.ru_utime)? + duration(usage.ru_stime)?) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_counted_and_never_taken_back() {
        let before = time_used().unwrap();
        let mut sum = 0u64;
        while time_used().unwrap() < before + Duration::from_millis(20) {
            sum = (0..10_000u64).fold(sum, |sum, value| std::hint::black_box(sum.wrapping_mul(31) + value));
        }
        assert!(time_used().unwrap() >= before + Duration::from_millis(20), "{sum}");
    }
}
