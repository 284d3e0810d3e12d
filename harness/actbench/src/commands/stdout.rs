//! Standard output of the commands.
//!
//! `println!` panics if the reader closed the pipe, as `head` does after its last line. That is not a failure.

use std::fmt::Display;
use std::io::{Write as _, stdout};

use serde::Serialize;

use crate::error::{Error, Result};

/// Writes `text` unchanged.
pub fn text(text: impl Display) {
    let _ = write!(stdout().lock(), "{text}");
}

/// Writes `line` and a newline.
pub fn line(line: impl Display) {
    let _ = writeln!(stdout().lock(), "{line}");
}

/// `value` as indented JSON that ends in a newline.
///
/// # Errors
/// A fault of actbench: every output type can be written as JSON.
pub fn json(value: &impl Serialize) -> Result<String> {
    let text = serde_json::to_string_pretty(value);
    Ok(text.map_err(|error| Error::internal(format!("the output could not be written as JSON: {error}")))? + "\n")
}
