//! Reads `.csv`: either `messages,label` with the messages as JSON, or `system,user,assistant,label`.

use std::fs::File;
use std::path::Path;

use csv::StringRecord;

use crate::error::{Error, Result};

use super::dialogue::{ChatMessage, Dialogue, Role};
use super::row::{self, RowResult};

/// The indices of the columns that are read.
enum CsvColumns {
    /// A JSON list in one column.
    Messages { messages: usize, label: usize },
    /// One exchange with a column for each message.
    Exchange { system: Option<usize>, user: usize, assistant: usize, label: usize },
}

impl CsvColumns {
    fn find(header: &StringRecord) -> RowResult<Self> {
        let column = |name: &str| header.iter().position(|column| column.trim().eq_ignore_ascii_case(name));
        let messages = column("messages");
        let (user, assistant) = (column("user"), column("assistant"));
        if column("statement").is_some() && messages.is_none() && assistant.is_none() {
            return Err("has bare statements without roles; for the `repe` data set put the file at \
                        DIR/repe/true_false_facts.csv and pass `--dataset repe --data-dir DIR`, otherwise use the \
                        columns `system,user,assistant,label`"
                .to_owned());
        }
        let Some(label) = column("label") else {
            return Err("has no column `label`; add one with 0 or 1 in each row".to_owned());
        };
        match (messages, user, assistant) {
            (Some(messages), ..) => Ok(CsvColumns::Messages { messages, label }),
            (None, Some(user), Some(assistant)) => {
                Ok(CsvColumns::Exchange { system: column("system"), user, assistant, label })
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
            CsvColumns::Messages { messages, label } => {
                let text = serde_json::Value::from(cell(messages));
                Ok(Dialogue::new(row::messages_from_json(Some(&text))?, row::label_from_text(cell(label))?))
            }
            CsvColumns::Exchange { system, user, assistant, label } => {
                if cell(user).trim().is_empty() || cell(assistant).trim().is_empty() {
                    return Err("`user` or `assistant` is empty; fill it or remove the row".to_owned());
                }
                // By convention, an empty cell means that there is no system message.
                let system = system.map(cell).filter(|text| !text.trim().is_empty());
                let messages = system.map(|text| ChatMessage::new(Role::System, text)).into_iter();
                let exchange =
                    [ChatMessage::new(Role::User, cell(user)), ChatMessage::new(Role::Assistant, cell(assistant))];
                let label = row::label_from_text(cell(label))?;
                Ok(Dialogue::new(messages.chain(exchange).collect(), label))
            }
        }
    }
}

/// The dialogues of a file, in file order.
///
/// # Errors
/// An unreadable file, a header without the columns, or an invalid row (with its first line).
pub fn read(path: &Path) -> Result<Vec<Dialogue>> {
    let mut reader = open(path)?;
    let columns = CsvColumns::find(header(path, &mut reader)?).map_err(|what| Error::file(path, what))?;
    let mut dialogues = Vec::new();
    for record in reader.records() {
        let record = record.map_err(|error| csv_error(path, error))?;
        dialogues.push(columns.dialogue(&record).map_err(|what| row_error(path, &record, what))?);
    }
    Ok(dialogues)
}

/// A CSV reader of a file with a header.
pub(super) fn open(path: &Path) -> Result<csv::Reader<File>> {
    let file = File::open(path).map_err(Error::io("read", path))?;
    Ok(csv::Reader::from_reader(file))
}

/// The column names.
pub(super) fn header<'r>(path: &Path, reader: &'r mut csv::Reader<File>) -> Result<&'r StringRecord> {
    reader.headers().map_err(|error| csv_error(path, error))
}

/// An error about a row, with the first line of the row.
pub(super) fn row_error(path: &Path, record: &StringRecord, what: impl Into<String>) -> Error {
    let line = record.position().map_or(0, csv::Position::line);
    Error::input(format!("{}:{line}", path.display()), what)
}

/// Converts an error of the CSV reader.
pub(super) fn csv_error(path: &Path, error: csv::Error) -> Error {
    let location = |position: Option<&csv::Position>| match position {
        Some(position) => format!("{}:{}", path.display(), position.line()),
        None => path.display().to_string(),
    };
    match error.into_kind() {
        csv::ErrorKind::Io(source) => Error::io("read", path)(source),
        csv::ErrorKind::Utf8 { pos, .. } => {
            Error::input(location(pos.as_ref()), "is not UTF-8; convert the file to UTF-8")
        }
        csv::ErrorKind::UnequalLengths { pos, expected_len, len } => Error::input(
            location(pos.as_ref()),
            format!("has {len} cells, the header has {expected_len}; quote cells that contain commas or line breaks"),
        ),
        other => Error::file(path, format!("is not CSV: {other:?}")),
    }
}
