//! Reads `.jsonl`: one JSON object per line, with `messages` and `label`.

use std::fs;
use std::path::Path;

use crate::error::{Error, Result};

use super::dialogue::Dialogue;
use super::row;

/// The dialogues of a file, in file order. Blank lines and a byte order mark are ignored.
///
/// # Errors
/// An unreadable file, or an invalid line (with its number from 1).
pub fn read(path: &Path) -> Result<Vec<Dialogue>> {
    let bytes = fs::read(path).map_err(Error::io("read", path))?;
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
    let mut dialogues = Vec::new();
    for (line, text) in bytes.split(|byte| *byte == b'\n').enumerate() {
        if text.trim_ascii().is_empty() {
            continue;
        }
        let dialogue = parse(text).map_err(|what| Error::input(format!("{}:{}", path.display(), line + 1), what))?;
        dialogues.push(dialogue);
    }
    Ok(dialogues)
}

fn parse(line: &[u8]) -> row::RowResult<Dialogue> {
    let text = std::str::from_utf8(line).map_err(|error| {
        format!("is not UTF-8 (byte {} of the line); convert the file to UTF-8", error.valid_up_to())
    })?;
    let value = serde_json::from_str(text).map_err(|error| {
        // serde_json reports "line 1 column N" relative to this line; the caller adds the line number of the file.
        let reason = error.to_string();
        let reason = reason.split(" at line ").next().unwrap_or_default();
        format!("is not JSON: {reason} (column {}); each line must be one whole JSON object", error.column())
    })?;
    row::from_json(&value)
}
