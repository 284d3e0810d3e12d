//! The program: parse, dispatch, exit status.

use std::process::ExitCode;

use actbench::cli;
use actbench::measure::memory::ALLOCATOR;
use peak_alloc::PeakAlloc;

#[global_allocator]
static GLOBAL: &PeakAlloc = &ALLOCATOR;

fn main() -> ExitCode {
    cli::main()
}
