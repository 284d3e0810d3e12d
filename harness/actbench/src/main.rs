//! The binary `actbench`: allocator, signals, and the command line of the library.

use std::process::ExitCode;

use actbench::cli;
use peak_alloc::PeakAlloc;

/// The system allocator with a count of bytes and their peak, which `measure::memory` reads.
#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

fn main() -> ExitCode {
    // With the signal ignored, a write past the limit on file sizes is an error like a full disk: it is reported with the
    // name of the file, and the partial file is removed. By default the signal would kill the process.
    // SAFETY: a plain system call; no other thread runs yet, and ignoring a signal installs no handler.
    #[cfg(unix)]
    unsafe {
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN)
    };
    cli::main()
}
