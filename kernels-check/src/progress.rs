//! What a run tells on standard error while it goes on, and whether it was told to end.

use std::cell::Cell;
use std::io::{self, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// The time between two lines that say how far a run is: a log stays short, and a run that is cut off says where.
const BETWEEN: Duration = Duration::from_secs(2);

/// Of one run.
pub struct Progress {
    started: Instant,
    /// When the last line was told.
    told: Cell<Instant>,
    interrupted: Arc<AtomicBool>,
}

impl Progress {
    /// From now on SIGINT, SIGTERM and SIGHUP are a wish to end, and a second one ends the program at once.
    pub fn start() -> Self {
        let interrupted = Arc::new(AtomicBool::new(false));
        let flag = interrupted.clone();
        // It fails where there is a handler already, which there is not; signals would end the program as ever.
        let _ = ctrlc::set_handler(move || {
            if flag.swap(true, Ordering::SeqCst) {
                std::process::exit(i32::from(crate::INTERRUPTED));
            }
        });
        let now = Instant::now();
        Progress { started: now, told: Cell::new(now), interrupted }
    }

    /// Whether the run was told to end.
    pub fn is_interrupted(&self) -> bool {
        self.interrupted.load(Ordering::SeqCst)
    }

    /// The same, for another thread.
    pub fn interruption(&self) -> Arc<AtomicBool> {
        self.interrupted.clone()
    }

    /// A line, with the seconds since the start.
    pub fn tell(&self, line: &str) {
        self.told.set(Instant::now());
        // Nobody may be reading.
        let _ = writeln!(io::stderr().lock(), "{:6.1} s  {line}", self.started.elapsed().as_secs_f64());
    }

    /// A line, unless one was told just before.
    pub fn tell_now_and_then(&self, line: impl FnOnce() -> String) {
        if self.told.get().elapsed() >= BETWEEN {
            self.tell(&line());
        }
    }
}
