//! Progress on standard error, and interruption by signals.

use std::cell::Cell;
use std::io::{self, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// The minimum time between two progress lines, to keep logs short.
const INTERVAL: Duration = Duration::from_secs(2);

/// The exit status of a process that a signal interrupted: 128 + SIGINT.
pub const INTERRUPTED: u8 = 130;

/// The progress of one run.
pub struct Progress {
    started: Instant,
    last_line: Cell<Instant>,
    interrupted: Arc<AtomicBool>,
}

impl Progress {
    /// Installs a handler: SIGINT, SIGTERM and SIGHUP request the end of the run, and a second one exits at once.
    pub fn start() -> Self {
        let interrupted = Arc::new(AtomicBool::new(false));
        let flag = interrupted.clone();
        // It fails only if there is a handler already; then signals end the process as usual.
        let _ = ctrlc::set_handler(move || {
            if flag.swap(true, Ordering::SeqCst) {
                std::process::exit(i32::from(INTERRUPTED));
            }
        });
        let now = Instant::now();
        Progress { started: now, last_line: Cell::new(now), interrupted }
    }

    /// Whether a signal has requested the end of the run.
    pub fn is_interrupted(&self) -> bool {
        self.interrupted.load(Ordering::SeqCst)
    }

    /// The flag of [`Progress::is_interrupted`], for another thread.
    pub fn interruption(&self) -> Arc<AtomicBool> {
        self.interrupted.clone()
    }

    /// Prints a line with the seconds since the start.
    pub fn print(&self, line: &str) {
        self.last_line.set(Instant::now());
        // A closed standard error is not an error.
        let _ = writeln!(io::stderr().lock(), "{:6.1} s  {line}", self.started.elapsed().as_secs_f64());
    }

    /// Prints a line, unless one was printed within the interval.
    pub fn print_occasionally(&self, line: impl FnOnce() -> String) {
        if self.last_line.get().elapsed() >= INTERVAL {
            self.print(&line());
        }
    }
}
