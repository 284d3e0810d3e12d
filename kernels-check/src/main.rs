//! `kernels-check`: every CUDA kernel on this machine's GPU against its plain version and the CPU, and its speed.
//!
//! A small program of its own, so that it can be carried to a machine that has a GPU and no Rust: it needs the C library
//! and the driver, and a folder of machine code or NVRTC.

use std::process::ExitCode;

use clap::Parser;

use crate::arguments::Arguments;

mod arguments;
mod case;
mod check;
mod compare;
mod differences;
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
/// Nothing was checked: there is no device, no machine code, or the arguments are wrong.
const COULD_NOT_RUN: u8 = 2;
/// A signal ended the run early; what was found until then is told.
const INTERRUPTED: u8 = 130;

fn main() -> ExitCode {
    // Wrong arguments are told by clap, which ends with the status 2 as well.
    let arguments = Arguments::parse();
    ExitCode::from(match run::run(&arguments) {
        Ok(report) if report.interrupted => INTERRUPTED,
        Ok(report) if report.passed() => PASSED,
        Ok(_) => FAILED,
        Err(error) => {
            eprintln!("kernels-check: {error}");
            COULD_NOT_RUN
        }
    })
}
