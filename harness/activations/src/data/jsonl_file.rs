//! Reads `.jsonl`: one JSON object per line, with `messages` and `label`.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use crate::error::{Error, Result};

use super::dialogue::Dialogue;
use super::place::{FileRows, RowPlaces};
use super::row::{self, MAX_ROW_BYTES};

/// The dialogues of a file, in file order. Blank lines and a byte order mark are ignored.
///
/// # Errors
/// An unreadable file, or an invalid line (with its number from 1).
pub(super) fn read(path: &Path) -> Result<FileRows> {
    let mut reader = BufReader::new(File::open(path).map_err(Error::io("read", path))?);
    let mut dialogues = Vec::new();
    let mut lines = Vec::new();
    let mut line = Vec::new();
    for number in 1u64.. {
        line.clear();
        // One byte more than a row may have, and one for its line end.
        let limit = MAX_ROW_BYTES as u64 + 2;
        reader.by_ref().take(limit).read_until(b'\n', &mut line).map_err(Error::io("read", path))?;
        if line.is_empty() {
            break;
        }
        let text = line.strip_suffix(b"\n").unwrap_or(&line);
        let text = if number == 1 { text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text) } else { text };
        if text.trim_ascii().is_empty() && text.len() <= MAX_ROW_BYTES {
            continue;
        }
        let dialogue = parse(text).map_err(|what| Error::input(format!("{}:{number}", path.display()), what))?;
        dialogues.push(dialogue);
        lines.push(number);
    }
    Ok(FileRows { dialogues, places: RowPlaces::lines(path, lines) })
}

fn parse(line: &[u8]) -> row::RowResult<Dialogue> {
    if line.len() > MAX_ROW_BYTES {
        return Err(row::too_large());
    }
    let text = std::str::from_utf8(line).map_err(|error| {
        format!("is not UTF-8 (byte {} of the line); convert the file to UTF-8", error.valid_up_to())
    })?;
    row::from_json_line(text)
}
