//! Panics as errors: what a library breaks on is caught without a word, and what breaks here is told in one line.
//!
//! Some readers of foreign files panic on damaged ones although they promise errors. [`catch`] turns that into a value;
//! the hook that [`install`] sets keeps the default report, which is of use to nobody then, off standard error.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind};

thread_local! {
    /// Calls of [`catch`] that this thread is inside of.
    static CATCHING: Cell<usize> = const { Cell::new(0) };
}

/// What `work` gives, or nothing if it panics. Whatever `work` has changed by then must not be used afterwards.
pub fn catch<T>(work: impl FnOnce() -> T) -> Option<T> {
    CATCHING.with(|depth| depth.set(depth.get() + 1));
    let outcome = catch_unwind(AssertUnwindSafe(work));
    CATCHING.with(|depth| depth.set(depth.get() - 1));
    outcome.ok()
}

/// From now on a panic is one line on standard error, or none at all inside [`catch`].
pub fn install() {
    std::panic::set_hook(Box::new(|panic| {
        if CATCHING.with(Cell::get) == 0 {
            eprintln!("error: {}", describe(panic));
        }
    }));
}

/// A panic in one line: its message, its place, and whose fault it is.
fn describe(panic: &PanicHookInfo<'_>) -> String {
    let message = panic.payload_as_str().unwrap_or("no message");
    let message = message.split_whitespace().collect::<Vec<_>>().join(" ");
    let place = panic.location().map(|place| format!(" ({}:{})", place.file(), place.line())).unwrap_or_default();
    format!("internal: {message}{place}; this is a fault of actbench, please report it with the command line")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(clippy::panic)] // What is tested.
    fn a_panic_becomes_nothing_and_a_value_stays() {
        assert_eq!(catch(|| 3), Some(3));
        assert_eq!(catch(|| -> i32 { panic!("broken") }), None);
        // Nested, the outer call goes on after the inner one has caught.
        assert_eq!(catch(|| catch(|| -> i32 { panic!("broken") })), Some(None));
        assert_eq!(CATCHING.with(Cell::get), 0);
    }
}
