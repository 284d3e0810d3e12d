//! Standard output and standard error, written without panics.
//!
//! `println!` and `eprintln!` panic if a write fails, and a panic within a panic hook aborts the process. Here the first
//! failed write is kept instead, and [`check`] reports it at the end, so that the work is finished and its files are
//! written. A pipe whose reader has left, as of `| head`, is not a failure.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::io::{self, ErrorKind, Write};
use std::sync::{Mutex, PoisonError};

use crate::error::{Error, Result};

/// The first failed write to each stream.
static FAILURES: Mutex<Failures> = Mutex::new(Failures { output: None, error: None });

/// Warnings that were printed: a file that is read twice warns twice.
static WARNINGS: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

struct Failures {
    output: Option<io::Error>,
    error: Option<io::Error>,
}

/// Writes a line to standard error, with the arguments of `format!`: `stderr_line!("warning: {reason}")`.
#[macro_export]
macro_rules! stderr_line {
    ($($argument:tt)*) => { $crate::console::error_line(format_args!($($argument)*)) };
}

/// Writes a line to standard output, with the arguments of `format!`.
#[macro_export]
macro_rules! stdout_line {
    ($($argument:tt)*) => { $crate::console::output(format_args!("{}\n", format_args!($($argument)*))) };
}

/// Writes `line` and a newline to standard error, in one call so that lines of several threads do not mix. A line that
/// begins with `warning: ` is written once per process.
pub fn error_line(line: impl Display) {
    let line = format!("{line}\n");
    let is_warning = line.starts_with("warning: ");
    if is_warning && !WARNINGS.lock().unwrap_or_else(PoisonError::into_inner).insert(line.clone()) {
        return;
    }
    let written = io::stderr().lock().write_all(line.as_bytes());
    keep(written, |failures| &mut failures.error);
}

/// Writes `text` to standard output, unchanged.
pub fn output(text: impl Display) {
    // Formatted first: an error of `Display` is not one of the stream.
    let text = text.to_string();
    let written = io::stdout().lock().write_all(text.as_bytes());
    keep(written, |failures| &mut failures.output);
}

/// Keeps the result of a write that another library made, to standard error or else to standard output.
pub fn keep_result(written: io::Result<()>, is_error_stream: bool) {
    keep(written, |failures| if is_error_stream { &mut failures.error } else { &mut failures.output });
}

fn keep(written: io::Result<()>, stream: impl Fn(&mut Failures) -> &mut Option<io::Error>) {
    if let Err(error) = written
        && error.kind() != ErrorKind::BrokenPipe
    {
        stream(&mut FAILURES.lock().unwrap_or_else(PoisonError::into_inner)).get_or_insert(error);
    }
}

/// Flushes standard output, and returns the first failed write to either stream. Called once, when all is written.
///
/// # Errors
/// A write failed for another reason than a reader that left, such as a full disk.
pub fn check() -> Result<()> {
    // A line without its end is written only now.
    keep_result(io::stdout().lock().flush(), false);
    let mut failures = FAILURES.lock().unwrap_or_else(PoisonError::into_inner);
    match (failures.output.take(), failures.error.take()) {
        (Some(error), _) => Err(Error::io("write", "the standard output")(error)),
        (None, Some(error)) => Err(Error::io("write", "the standard error")(error)),
        (None, None) => Ok(()),
    }
}
