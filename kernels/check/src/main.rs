//! `kernels-check`: checks every CUDA kernel on this machine's GPU against the plain kernel and the CPU, and times it.
//!
//! A separate small binary, to be copied to a machine that has a GPU and no Rust: it needs the C library, the driver, and a
//! directory of machine code or NVRTC.

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser;

use crate::arguments::Arguments;
use crate::progress::INTERRUPTED;

mod arguments;
mod case;
mod check;
mod compare;
mod differences;
mod folded;
mod folded_operation;
mod inputs;
mod operation;
mod progress;
mod recording;
mod report;
mod run;
mod table;
mod timing;

/// Every kernel passed.
const PASSED: u8 = 0;
/// A kernel failed.
const FAILED: u8 = 1;
/// No check could run: no device, no machine code, or wrong arguments.
const COULD_NOT_RUN: u8 = 2;

fn main() -> ExitCode {
    // For wrong arguments clap exits with status 2 as well.
    let arguments = Arguments::parse();
    ExitCode::from(match run::run(&arguments) {
        Ok(report) if report.interrupted => INTERRUPTED,
        Ok(report) if report.passed() => PASSED,
        Ok(_) => FAILED,
        Err(error) => {
            // `eprintln!` would panic where standard error cannot be written.
            let _ = writeln!(std::io::stderr().lock(), "kernels-check: {error}");
            COULD_NOT_RUN
        }
    })
}
