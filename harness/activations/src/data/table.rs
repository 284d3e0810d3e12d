//! Reads `.csv`: either `messages,label` with the messages as JSON, or `system,user,assistant,label`.

use std::fs::File;
use std::path::Path;

use csv::StringRecord;

use crate::error::{Error, Result};

use super::dialogue::{Dialogue, Message, Role};
use super::row::{self, RowResult};

/// Which columns hold what.
enum Columns {
    /// A JSON list in one column.
    Messages { messages: usize, label: usize },
    /// One exchange, its messages in columns of their own.
    Exchange { system: Option<usize>, user: usize, assistant: usize, label: usize },
}

impl Columns {
    fn find(header: &StringRecord) -> RowResult<Self> {
        let column = |name: &str| header.iter().position(|column| column.trim().eq_ignore_ascii_case(name));
        let messages = column("messages");
        let (user, assistant) = (column("user"), column("assistant"));
        if column("statement").is_some() && messages.is_none() && assistant.is_none() {
            return Err(
                "holds bare statements, which say nothing about who speaks; for the `repe` data set put the file \
                        at DIR/repe/true_false_facts.csv and pass `--dataset repe --data-dir DIR`, else make the \
                        columns `system,user,assistant,label`"
                    .to_owned(),
            );
        }
        let Some(label) = column("label") else {
            return Err("has no column `label`; add one with 0 or 1 in each row".to_owned());
        };
        match (messages, user, assistant) {
            (Some(messages), ..) => Ok(Columns::Messages { messages, label }),
            (None, Some(user), Some(assistant)) => {
                Ok(Columns::Exchange { system: column("system"), user, assistant, label })
            }
            _ => Err(format!(
                "has the columns `{}`; they must be `messages,label` (messages as JSON) or `system,user,assistant,label`",
                header.iter().collect::<Vec<_>>().join(",")
            )),
        }
    }

    fn dialogue(&self, record: &StringRecord) -> RowResult<Dialogue> {
        let cell = |column: usize| record.get(column).unwrap_or_default();
        match *self {
            Columns::Messages { messages, label } => {
                let text = serde_json::Value::from(cell(messages));
                Ok(Dialogue {
                    messages: row::messages_from_json(Some(&text))?,
                    label: row::label_from_text(cell(label))?,
                })
            }
            Columns::Exchange { system, user, assistant, label } => {
                if cell(user).trim().is_empty() || cell(assistant).trim().is_empty() {
                    return Err("`user` or `assistant` is empty; fill it or remove the row".to_owned());
                }
                // An empty cell is the usual way of saying that there is no system message.
                let system = system.map(cell).filter(|text| !text.trim().is_empty());
                let messages = system.map(|text| Message::new(Role::System, text)).into_iter();
                let exchange = [Message::new(Role::User, cell(user)), Message::new(Role::Assistant, cell(assistant))];
                let label = row::label_from_text(cell(label))?;
                Ok(Dialogue { messages: messages.chain(exchange).collect(), label })
            }
        }
    }
}

/// The dialogues of a file, in its order.
///
/// # Errors
/// A file that cannot be read; a header without the columns; the first bad row, with the line on which it begins.
pub fn read(path: &Path) -> Result<Vec<Dialogue>> {
    let mut reader = open(path)?;
    let columns = Columns::find(header(path, &mut reader)?).map_err(|what| Error::file(path, what))?;
    let mut dialogues = Vec::new();
    for record in reader.records() {
        let record = record.map_err(|error| csv_error(path, error))?;
        dialogues.push(columns.dialogue(&record).map_err(|what| row_error(path, &record, what))?);
    }
    Ok(dialogues)
}

/// A reader of a file with a header.
pub(super) fn open(path: &Path) -> Result<csv::Reader<File>> {
    let file = File::open(path).map_err(Error::io("read", path))?;
    Ok(csv::Reader::from_reader(file))
}

/// The names of the columns.
pub(super) fn header<'r>(path: &Path, reader: &'r mut csv::Reader<File>) -> Result<&'r StringRecord> {
    reader.headers().map_err(|error| csv_error(path, error))
}

/// A complaint about a row, with the line on which the row begins.
pub(super) fn row_error(path: &Path, record: &StringRecord, what: impl Into<String>) -> Error {
    let line = record.position().map_or(0, csv::Position::line);
    Error::input(format!("{}:{line}", path.display()), what)
}

/// A complaint of the CSV reader.
pub(super) fn csv_error(path: &Path, error: csv::Error) -> Error {
    let at = |position: Option<&csv::Position>| match position {
        Some(position) => format!("{}:{}", path.display(), position.line()),
        None => path.display().to_string(),
    };
    match error.into_kind() {
        csv::ErrorKind::Io(source) => Error::io("read", path)(source),
        csv::ErrorKind::Utf8 { pos, .. } => Error::input(at(pos.as_ref()), "is not UTF-8; convert the file to UTF-8"),
        csv::ErrorKind::UnequalLengths { pos, expected_len, len } => Error::input(
            at(pos.as_ref()),
            format!(
                "has {len} cells where the header has {expected_len}; quote cells that contain commas or line breaks"
            ),
        ),
        other => Error::file(path, format!("is not CSV: {other:?}")),
    }
}
