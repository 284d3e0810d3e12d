//! The program: parse, dispatch, exit status.

use std::process::ExitCode;

use actbench::cli;
use peak_alloc::PeakAlloc;

/// The system's allocator with a count of bytes and their peak, which `measure::memory` reads.
#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

fn main() -> ExitCode {
    cli::main()
}
