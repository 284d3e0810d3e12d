//! Reads `.csv`: either `messages,label` with the messages as JSON, or `system,user,assistant,label`.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use serde_json::Value;

use crate::error::{Error, Result};

use super::csv_records::{self, CsvFault, CsvRecord, CsvRecords, find_column};
use super::dialogue::{ChatMessage, Dialogue, Role};
use super::label;
use super::place::{FileRows, RowPlaces};
use super::row::{self, RowResult};

/// The indices of the columns that are read.
struct CsvColumns {
    layout: CsvLayout,
    label: usize,
    /// Variables of the chat template, by name.
    template: Vec<(&'static str, usize)>,
}

enum CsvLayout {
    /// A JSON list in one column.
    Messages(usize),
    /// One exchange with a column for each message.
    Exchange { system: Option<usize>, user: usize, assistant: usize },
}

impl CsvColumns {
    fn find(header: &[String]) -> RowResult<Self> {
        let column = |name: &str| find_column(header, name);
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
        let layout = match (messages, user, assistant) {
            (Some(messages), ..) => CsvLayout::Messages(messages),
            (None, Some(user), Some(assistant)) => CsvLayout::Exchange { system: column("system"), user, assistant },
            _ => {
                return Err(format!(
                    "has the columns `{}`; they must be `messages,label` (messages as JSON) or `system,user,assistant,label`",
                    header.join(",")
                ));
            }
        };
        let template = row::TEMPLATE_KEYS.into_iter().filter_map(|key| Some((key, column(key)?))).collect();
        Ok(CsvColumns { layout, label, template })
    }

    fn dialogue(&self, cells: &[String]) -> RowResult<Dialogue> {
        let cell = |column: usize| cells.get(column).map(String::as_str).unwrap_or_default();
        let messages = match self.layout {
            CsvLayout::Messages(messages) => row::messages_from_json(Some(&Value::from(cell(messages))))?,
            CsvLayout::Exchange { system, user, assistant } => {
                if cell(user).trim().is_empty() || cell(assistant).trim().is_empty() {
                    return Err("`user` or `assistant` is empty; fill it or remove the row".to_owned());
                }
                // By convention, an empty cell means that there is no system message.
                let system = system.map(cell).filter(|text| !text.trim().is_empty());
                let messages = system.map(|text| ChatMessage::new(Role::System, text)).into_iter();
                let exchange =
                    [ChatMessage::new(Role::User, cell(user)), ChatMessage::new(Role::Assistant, cell(assistant))];
                messages.chain(exchange).collect()
            }
        };
        let label = label::from_text(cell(self.label))?;
        let value = |key: &str| self.template.iter().find(|(name, _)| *name == key).map(|(_, column)| cell(*column));
        let template_values = row::template_values(|key| value(key).map(Value::from))?;
        Ok(Dialogue { messages, template_values, label })
    }
}

/// The dialogues of a file, in file order.
///
/// # Errors
/// An unreadable file, a header without the columns, or an invalid row (with its first line).
pub(super) fn read(path: &Path) -> Result<FileRows> {
    let mut table = CsvTable::open(path)?;
    let columns = CsvColumns::find(&table.header).map_err(|what| Error::file(path, what))?;
    let mut dialogues = Vec::new();
    let mut lines = Vec::new();
    while let Some(record) = table.next_record()? {
        dialogues.push(columns.dialogue(&record.cells).map_err(|what| table.error(&record, what))?);
        lines.push(record.line);
    }
    Ok(FileRows { dialogues, places: RowPlaces::lines(path, lines) })
}

/// A CSV file with a header.
pub(super) struct CsvTable<'p> {
    path: &'p Path,
    records: CsvRecords<BufReader<File>>,
    /// The names of the columns, all different.
    pub(super) header: Vec<String>,
}

impl<'p> CsvTable<'p> {
    /// Opens a file and reads its header.
    ///
    /// # Errors
    /// An unreadable file, or a header with two columns of one name or other separators than commas.
    pub(super) fn open(path: &'p Path) -> Result<Self> {
        let file = File::open(path).map_err(Error::io("read", path))?;
        let mut table = CsvTable { path, records: CsvRecords::new(BufReader::new(file)), header: Vec::new() };
        let header = table.records.next_record().map_err(|fault| table.fault(fault))?;
        table.header = header.map(|record| record.cells).unwrap_or_default();
        csv_records::check_header(&table.header).map_err(|what| Error::file(path, what))?;
        Ok(table)
    }

    /// The next row, if there is one.
    ///
    /// # Errors
    /// A row that is not well-formed, or has not as many cells as the header.
    pub(super) fn next_record(&mut self) -> Result<Option<CsvRecord>> {
        let record = self.records.next_record().map_err(|fault| self.fault(fault))?;
        match record {
            Some(record) if record.cells.len() != self.header.len() => {
                let what = format!(
                    "has {} cells, the header has {}; quote cells that contain commas or line breaks",
                    record.cells.len(),
                    self.header.len()
                );
                Err(self.error(&record, what))
            }
            record => Ok(record),
        }
    }

    /// An error about a row, with the first line of the row.
    pub(super) fn error(&self, record: &CsvRecord, what: impl Into<String>) -> Error {
        Error::input(format!("{}:{}", self.path.display(), record.line), what)
    }

    fn fault(&self, fault: CsvFault) -> Error {
        match fault {
            CsvFault::Io(error) => Error::io("read", self.path)(error),
            CsvFault::Record(line, what) => Error::input(format!("{}:{line}", self.path.display()), what),
        }
    }
}
