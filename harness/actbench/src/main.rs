//! The program: parse, dispatch, exit status.

use std::process::ExitCode;

use actbench::cli;
use peak_alloc::PeakAlloc;

/// The system's allocator with a count of bytes and their peak, which `measure::memory` reads.
#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

fn main() -> ExitCode {
    // A write past the limit on file sizes is then an error like a full disk, told with the file's name, and the
    // partial file is removed. The default is to die of the signal.
    // SAFETY: a plain system call; no other thread runs yet, and ignoring a signal runs no code of ours.
    #[cfg(unix)]
    unsafe {
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN)
    };
    cli::main()
}
