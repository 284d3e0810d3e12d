//! Ctrl-C and the terminate signal: recorded here, and acted on by the loops that poll [`requested`].
//!
//! Work that does not poll must not keep the process: if nothing has noticed the signal after [`UNNOTICED`], or the process is
//! still there after [`NOTICED`], it exits with status 130. What it must not leave is removed before ([`at_forced_exit`]).

use std::io::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::error::{Error, Result};

/// How long the work may take to notice a signal.
const UNNOTICED: Duration = Duration::from_millis(500);

/// How long work that has noticed it may take to write and remove its files.
const NOTICED: Duration = Duration::from_secs(5);

/// Signals within this time are one: `timeout` sends its signal to the process, then to the group of the process.
const ONE_SIGNAL: Duration = Duration::from_millis(200);

/// The exit status of an interrupted process.
const EXIT_STATUS: i32 = 130;

static REQUESTED: AtomicBool = AtomicBool::new(false);
static WAS_NOTICED: AtomicBool = AtomicBool::new(false);
static INSTALLED: Mutex<bool> = Mutex::new(false);
static FIRST: Mutex<Option<Instant>> = Mutex::new(None);
static REMOVALS: Mutex<Removals> = Mutex::new(Removals { next: 0, pending: Vec::new() });

struct Removals {
    next: u64,
    pending: Vec<(u64, Box<dyn FnOnce() + Send>)>,
}

/// Records Ctrl-C and the terminate signal from now on, instead of ending the process. Does nothing the second time.
///
/// # Errors
/// The handler cannot be installed: the system permits no further thread, or the program has another handler.
pub fn install() -> Result<()> {
    let mut installed = INSTALLED.lock().unwrap_or_else(PoisonError::into_inner);
    if !*installed {
        super::threads::check()?;
        ctrlc::set_handler(on_signal).map_err(|error| Error::internal(format!("cannot handle Ctrl-C: {error}")))?;
        *installed = true;
    }
    Ok(())
}

/// Whether the user asked to stop.
pub fn requested() -> bool {
    let requested = REQUESTED.load(Ordering::SeqCst);
    if requested {
        WAS_NOTICED.store(true, Ordering::SeqCst);
    }
    requested
}

/// Has `remove` called before a forced exit, which runs no destructors; not any more once the result is dropped.
#[must_use]
pub fn at_forced_exit(remove: impl FnOnce() + Send + 'static) -> ForcedExitRemoval {
    let mut removals = REMOVALS.lock().unwrap_or_else(PoisonError::into_inner);
    let number = removals.next;
    removals.next += 1;
    removals.pending.push((number, Box::new(remove)));
    ForcedExitRemoval { number }
}

/// A removal that a forced exit makes while this lives.
#[derive(Debug)]
pub struct ForcedExitRemoval {
    number: u64,
}

impl Drop for ForcedExitRemoval {
    fn drop(&mut self) {
        let mut removals = REMOVALS.lock().unwrap_or_else(PoisonError::into_inner);
        removals.pending.retain(|(number, _)| *number != self.number);
    }
}

/// Called on a thread of its own.
fn on_signal() {
    let first = *FIRST.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(Instant::now);
    if REQUESTED.swap(true, Ordering::SeqCst) {
        // The user asks again: no patience.
        if first.elapsed() > ONE_SIGNAL {
            force_exit();
        }
        return;
    }
    // Without a further thread the next signal waits for this one, and the process still exits in time.
    if thread::Builder::new().name("interrupt".to_owned()).spawn(exit_in_time).is_err() {
        exit_in_time();
    }
}

fn exit_in_time() {
    thread::sleep(UNNOTICED);
    if WAS_NOTICED.load(Ordering::SeqCst) {
        thread::sleep(NOTICED);
    }
    force_exit();
}

fn force_exit() -> ! {
    // Taken, not locked for good: a destructor that runs at the same time must not wait for the exit.
    let pending = std::mem::take(&mut REMOVALS.lock().unwrap_or_else(PoisonError::into_inner).pending);
    pending.into_iter().for_each(|(_, remove)| remove());
    // Not through `console`, whose locks the interrupted work may hold.
    let text = b"error: interrupted\n";
    // SAFETY: a pointer to a live constant and its length. The result does not matter: the process ends.
    unsafe { libc::write(libc::STDERR_FILENO, text.as_ptr().cast(), text.len()) };
    let _ = std::io::stderr().flush();
    // Without destructors and exit handlers, which may wait for what the work holds.
    // SAFETY: a plain system call that does not return.
    unsafe { libc::_exit(EXIT_STATUS) }
}
