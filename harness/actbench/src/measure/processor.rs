//! CPU time of this process.

use std::time::Duration;

/// CPU time of all threads of this process, ended ones included, in user and kernel mode. None if the system does not
/// report it.
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
    use std::time::Instant;

    use super::*;

    /// CPU time of this thread, by another clock than the one under test.
    fn thread_time() -> Duration {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: the pointer is to a `timespec` that lives through the call and that nothing else refers to.
        assert_eq!(unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) }, 0);
        Duration::new(u64::try_from(time.tv_sec).unwrap(), u32::try_from(time.tv_nsec).unwrap())
    }

    /// Keeps a processor busy for 20 ms of this thread's CPU time; returns that time as measured.
    fn work() -> Duration {
        let start = thread_time();
        let mut sum = 0u64;
        while thread_time() - start < Duration::from_millis(20) {
            sum = (0..10_000u64).fold(sum, |sum, value| std::hint::black_box(sum.wrapping_mul(31) + value));
        }
        std::hint::black_box(sum);
        thread_time() - start
    }

    #[test]
    fn time_used_counts_work_of_all_threads() {
        let (before, start) = (time_used().unwrap(), Instant::now());
        let own = work();
        let ended = std::thread::spawn(work).join().unwrap();
        let used = time_used().unwrap() - before;
        // The kernel may account the two clocks at different ticks, of at most 10 ms (100 Hz).
        assert!(used + Duration::from_millis(10) >= own + ended, "{used:?} for {own:?} and {ended:?}");
        // All threads of the test binary together cannot use more than every processor for the whole time.
        // SAFETY: a plain system call without pointers.
        let processors = u32::try_from(unsafe { libc::sysconf(libc::_SC_NPROCESSORS_ONLN) }).unwrap();
        let maximum = start.elapsed() * processors + Duration::from_millis(10);
        assert!(used <= maximum, "{used:?} in {:?} on {processors} processors", start.elapsed());
    }
}
