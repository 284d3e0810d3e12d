//! Panics as errors: panics of libraries are caught silently, panics of actbench are printed on one line.
//!
//! Some parsers of foreign files panic on damaged ones although their documentation promises errors. [`catch`] turns
//! such a panic into a value. The hook that [`install`] sets suppresses its report, which describes the parser's source
//! and not the user's file.

use std::cell::Cell;
use std::io::Write as _;
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind};

use crate::error::REPORT_REQUEST;

thread_local! {
    /// Nesting depth of [`catch`] on this thread.
    static CATCHING: Cell<usize> = const { Cell::new(0) };
}

/// Returns the result of `work`, or `None` if it panics. After a panic the caller must not use data that `work`
/// changed.
pub fn catch<T>(work: impl FnOnce() -> T) -> Option<T> {
    CATCHING.with(|depth| depth.set(depth.get() + 1));
    let outcome = catch_unwind(AssertUnwindSafe(work));
    CATCHING.with(|depth| depth.set(depth.get() - 1));
    outcome.ok()
}

/// Whether the current thread is inside [`catch`].
pub fn is_caught() -> bool {
    CATCHING.with(Cell::get) > 0
}

/// Sets the panic hook of the process: a panic prints one line on standard error, and nothing inside [`catch`].
pub fn install() {
    std::panic::set_hook(Box::new(|panic| {
        if !is_caught() {
            // `eprintln!` would panic again where standard error cannot be written, and abort the process.
            let _ = writeln!(std::io::stderr().lock(), "error: {}", describe(panic));
        }
    }));
}

/// A panic on one line: its message, its source location and the request to report it.
fn describe(panic: &PanicHookInfo<'_>) -> String {
    let message = panic.payload_as_str().unwrap_or("no message");
    let message = message.split_whitespace().collect::<Vec<_>>().join(" ");
    let location =
        panic.location().map(|location| format!(" ({}:{})", location.file(), location.line())).unwrap_or_default();
    format!("internal error: {message}{location}; {REPORT_REQUEST}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(clippy::panic)] // The panics are the subject of the test.
    fn catch_returns_none_after_panic() {
        assert_eq!(catch(|| 3), Some(3));
        assert_eq!(catch(|| -> i32 { panic!("broken") }), None);
        // The outer of two nested calls continues after the inner one has caught the panic.
        assert_eq!(catch(|| catch(|| -> i32 { panic!("broken") })), Some(None));
        assert_eq!(CATCHING.with(Cell::get), 0);
    }
}
