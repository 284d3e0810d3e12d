//! Reads `.parquet`: a column `messages` (a list of `role`, `content` structs, or JSON text) and a column `label`.

use std::fs::File;
use std::path::Path;

use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::{Field, Row as ParquetRow};
use serde_json::Value;

use crate::error::{Error, Result};
use crate::panics;

use super::dialogue::{ChatMessage, Dialogue, Role};
use super::row::{self, RowResult};

/// The dialogues of a file, in file order.
///
/// # Errors
/// An unreadable or damaged file, missing columns, or an invalid row (with its number from 1).
pub fn read(path: &Path) -> Result<Vec<Dialogue>> {
    let file = File::open(path).map_err(Error::io("read", path))?;
    // The parquet crate documents errors for damaged files but panics on some. No state of it outlives the call.
    panics::catch(|| read_rows(path, file))
        .unwrap_or_else(|| Err(Error::file(path, "is damaged; write the file again")))
}

fn read_rows(path: &Path, file: File) -> Result<Vec<Dialogue>> {
    let damaged = |error: ParquetError| Error::file(path, format!("is not a readable Parquet file: {error}"));
    let reader = SerializedFileReader::new(file).map_err(damaged)?;
    let columns: Vec<&str> =
        reader.metadata().file_metadata().schema().get_fields().iter().map(|field| field.name()).collect();
    if !columns.contains(&"messages") || !columns.contains(&"label") {
        return Err(Error::file(
            path,
            format!("has the columns `{}`; it must have `messages` and `label`", columns.join(",")),
        ));
    }
    let mut dialogues = Vec::new();
    for (index, record) in reader.get_row_iter(None).map_err(damaged)?.enumerate() {
        let record = record.map_err(damaged)?;
        let dialogue =
            dialogue(&record).map_err(|what| Error::input(format!("{} row {}", path.display(), index + 1), what))?;
        dialogues.push(dialogue);
    }
    Ok(dialogues)
}

fn dialogue(record: &ParquetRow) -> RowResult<Dialogue> {
    let messages = match column(record, "messages") {
        Some(Field::ListInternal(list)) => {
            let messages = list.elements().iter().enumerate().map(|(position, message)| {
                self::message(message).map_err(|what| format!("message {}: {what}", position + 1))
            });
            row::check_messages(messages.collect::<RowResult<Vec<ChatMessage>>>()?)?
        }
        Some(Field::Str(text)) => row::messages_from_json(Some(&Value::from(text.as_str())))?,
        Some(Field::Bytes(_)) => return Err("`messages` is a column of bytes; declare it as text (UTF8)".to_owned()),
        None | Some(Field::Null) => row::messages_from_json(None)?,
        Some(_) => return Err("`messages` is neither a list of {role, content} nor JSON text".to_owned()),
    };
    Ok(Dialogue::new(messages, label(column(record, "label"))?))
}

fn message(field: &Field) -> RowResult<ChatMessage> {
    let Field::Group(fields) = field else {
        return Err("is not a struct with `role` and `content`".to_owned());
    };
    let text = |name: &str| match column(fields, name) {
        Some(Field::Str(text)) => Ok(text.as_str()),
        None | Some(Field::Null) => Err(format!("has no `{name}`")),
        Some(_) => Err(format!("`{name}` is not text")),
    };
    Ok(ChatMessage::new(Role::from_name(text("role")?), text("content")?))
}

fn label(field: Option<&Field>) -> RowResult<bool> {
    let number = match field {
        None | Some(Field::Null) => return row::label_from_json(None),
        Some(Field::Bool(label)) => return Ok(*label),
        Some(Field::Byte(n)) => i64::from(*n),
        Some(Field::Short(n)) => i64::from(*n),
        Some(Field::Int(n)) => i64::from(*n),
        Some(Field::Long(n)) => *n,
        Some(Field::UByte(n)) => i64::from(*n),
        Some(Field::UShort(n)) => i64::from(*n),
        Some(Field::UInt(n)) => i64::from(*n),
        Some(Field::ULong(n)) => i64::try_from(*n).unwrap_or(i64::MAX),
        Some(other) => return Err(row::bad_label(&format!("{other}"))),
    };
    match number {
        0 => Ok(false),
        1 => Ok(true),
        other => Err(row::bad_label(&other.to_string())),
    }
}

fn column<'r>(record: &'r ParquetRow, name: &str) -> Option<&'r Field> {
    record.get_column_iter().find(|(column, _)| column.as_str() == name).map(|(_, field)| field)
}
