//! Standard output of the commands.
//!
//! `println!` panics where the reader has closed the pipe, as `head` does: a reader that has seen enough is no failure.

use std::fmt::Display;
use std::io::{Write as _, stdout};

/// Writes `text` as it is.
pub fn text(text: impl Display) {
    let _ = write!(stdout().lock(), "{text}");
}

/// Writes `line` and an end of line.
pub fn line(line: impl Display) {
    let _ = writeln!(stdout().lock(), "{line}");
}
