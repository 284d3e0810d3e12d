//! Standard output of the commands, written as `pairgate::console` does: without panics, and with failures kept for the
//! exit status.

use std::fmt::Display;

use pairgate::console::output;
use serde::Serialize;

use crate::error::{Error, Result};

/// Terminals narrower than this, and those that report no width, get unwrapped tables: cells of a few letters are not legible.
const MIN_WIDTH: u16 = 40;

/// The number of columns of the terminal; none if standard output is not one, so that piped text does not depend on it.
pub fn terminal_width() -> Option<u16> {
    comfy_table::Table::new().width().filter(|width| *width >= MIN_WIDTH)
}

/// Writes `text` unchanged.
pub fn text(text: impl Display) {
    output(text);
}

/// Writes `line` and a newline.
pub fn line(line: impl Display) {
    output(format_args!("{line}\n"));
}

/// `value` as indented JSON that ends in a newline.
///
/// # Errors
/// A fault of actbench: every output type can be written as JSON.
pub fn json(value: &impl Serialize) -> Result<String> {
    let text = serde_json::to_string_pretty(value);
    Ok(text.map_err(|error| Error::internal(format!("the output could not be written as JSON: {error}")))? + "\n")
}
