//! Splits CSV text into records (RFC 4180), with the line on which each record starts.
//!
//! The crate `csv` gives the line before for files with CRLF, takes the rest of a file into a cell if a quote is not
//! closed, and drops a quote that closes in the middle of a cell; each of these would move text of one row to another
//! without a word.

use std::io::{self, BufRead};

use super::row::{MAX_ROW_BYTES, RowResult, too_large};

/// A record: its cells, and the line of the file on which it starts, from 1. Lines end with LF, CRLF or CR, also within
/// quotes.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct CsvRecord {
    pub(super) line: u64,
    pub(super) cells: Vec<String>,
}

/// A defect of a file.
#[derive(Debug)]
pub(super) enum CsvFault {
    Io(io::Error),
    /// A record that is not well-formed, with the line on which it starts.
    Record(u64, String),
}

/// Records of a file, in order. Empty lines and a byte order mark are left out.
pub(super) struct CsvRecords<R> {
    reader: R,
    /// The current line.
    line: u64,
    at_start: bool,
}

impl<R: BufRead> CsvRecords<R> {
    pub(super) fn new(reader: R) -> Self {
        CsvRecords { reader, line: 1, at_start: true }
    }

    /// The next record, if there is one.
    pub(super) fn next_record(&mut self) -> Result<Option<CsvRecord>, CsvFault> {
        if std::mem::take(&mut self.at_start) {
            self.skip_byte_order_mark()?;
        }
        while let Some(b'\r' | b'\n') = self.peek()? {
            self.take_line_end()?;
        }
        if self.peek()?.is_none() {
            return Ok(None);
        }
        let line = self.line;
        let fault = |what: String| CsvFault::Record(line, what);
        let mut cells = Vec::new();
        let mut size = 0;
        loop {
            let mut cell = Vec::new();
            if self.peek()? == Some(b'"') {
                self.quoted(&mut cell, size).map_err(|error| error.at(line))?;
            } else {
                self.unquoted(&mut cell, size).map_err(|error| error.at(line))?;
            }
            size += cell.len() + 1;
            cells.push(
                String::from_utf8(cell).map_err(|_| fault("is not UTF-8; convert the file to UTF-8".to_owned()))?,
            );
            match self.peek()? {
                Some(b',') => self.consume(),
                Some(_) => {
                    self.take_line_end()?;
                    break;
                }
                None => break,
            }
        }
        Ok(Some(CsvRecord { line, cells }))
    }

    /// Appends the text up to a comma, a line end or the end of the file. Quotes within it are text.
    fn unquoted(&mut self, cell: &mut Vec<u8>, before: usize) -> Result<(), CellFault> {
        while let Some(byte) = self.peek()?.filter(|byte| !matches!(byte, b',' | b'\r' | b'\n')) {
            push(cell, byte, before)?;
            self.consume();
        }
        Ok(())
    }

    /// Appends the text between quotes, with doubled quotes as one.
    fn quoted(&mut self, cell: &mut Vec<u8>, before: usize) -> Result<(), CellFault> {
        let opened = self.line;
        self.consume();
        loop {
            let Some(byte) = self.peek()? else {
                return Err(CellFault::Record(format!(
                    "has a quote, opened on line {opened}, that is never closed; close it, or write a quote within a cell twice"
                )));
            };
            self.consume();
            match byte {
                b'"' if self.peek()? == Some(b'"') => self.consume(),
                b'"' => break,
                b'\n' => self.line += 1,
                b'\r' if self.peek()? != Some(b'\n') => self.line += 1,
                _ => {}
            }
            push(cell, byte, before)?;
        }
        match self.peek()? {
            None | Some(b',' | b'\r' | b'\n') => Ok(()),
            Some(_) => Err(CellFault::Record(format!(
                "has text behind a closing quote on line {}; write a quote within a cell twice, and the cell in quotes",
                self.line
            ))),
        }
    }

    fn skip_byte_order_mark(&mut self) -> io::Result<()> {
        const MARK: &[u8] = b"\xef\xbb\xbf";
        // A buffered reader of a file fills more than three bytes if the file has them.
        if self.reader.fill_buf()?.starts_with(MARK) {
            self.reader.consume(MARK.len());
        }
        Ok(())
    }

    fn peek(&mut self) -> io::Result<Option<u8>> {
        Ok(self.reader.fill_buf()?.first().copied())
    }

    /// Skips a byte that `peek` has returned.
    fn consume(&mut self) {
        self.reader.consume(1);
    }

    fn take_line_end(&mut self) -> io::Result<()> {
        let mut byte = [0];
        self.reader.read_exact(&mut byte)?;
        if byte == *b"\r" && self.peek()? == Some(b'\n') {
            self.consume();
        }
        self.line += 1;
        Ok(())
    }
}

/// A defect within a cell; the line of the record is added by the caller.
enum CellFault {
    Io(io::Error),
    Record(String),
}

impl CellFault {
    fn at(self, line: u64) -> CsvFault {
        match self {
            CellFault::Io(error) => CsvFault::Io(error),
            CellFault::Record(what) => CsvFault::Record(line, what),
        }
    }
}

impl From<io::Error> for CellFault {
    fn from(error: io::Error) -> Self {
        CellFault::Io(error)
    }
}

impl From<io::Error> for CsvFault {
    fn from(error: io::Error) -> Self {
        CsvFault::Io(error)
    }
}

/// Appends a byte to a cell of a record with `before` bytes in its other cells.
fn push(cell: &mut Vec<u8>, byte: u8, before: usize) -> Result<(), CellFault> {
    if before + cell.len() >= MAX_ROW_BYTES {
        return Err(CellFault::Record(format!("{}, and check that every quote is closed", too_large())));
    }
    cell.push(byte);
    Ok(())
}

/// The index of the column called `name`, regardless of case and of spaces around it.
pub(super) fn find_column(header: &[String], name: &str) -> Option<usize> {
    header.iter().position(|column| column.trim().eq_ignore_ascii_case(name))
}

/// Checks a header.
///
/// # Errors
/// Two columns of one name, or a header that is one cell because another character than a comma separates the columns.
pub(super) fn check_header(header: &[String]) -> RowResult<()> {
    if let Some(first) = header.first().filter(|first| first.trim().to_ascii_lowercase().starts_with("sep=")) {
        return Err(format!("starts with the line `{}`; remove it, and separate columns with commas", first.trim()));
    }
    if let [cell] = header {
        for (separator, name) in [(';', "semicolons"), ('\t', "tabs"), ('|', "vertical bars")] {
            if cell.contains(separator) {
                return Err(format!("seems to separate its columns with {name}; write it with commas"));
            }
        }
    }
    for (index, column) in header.iter().enumerate() {
        let name = column.trim();
        if !name.is_empty() && find_column(header, name).is_some_and(|first| first < index) {
            return Err(format!("has the column `{name}` twice; remove or rename one"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn records(text: &[u8]) -> Result<Vec<CsvRecord>, CsvFault> {
        // A small buffer: records and line ends that cross its end.
        let mut records = CsvRecords::new(io::BufReader::with_capacity(4, text));
        let mut all = Vec::new();
        while let Some(record) = records.next_record()? {
            all.push(record);
        }
        Ok(all)
    }

    fn lines(text: &str) -> Vec<(u64, usize)> {
        records(text.as_bytes()).unwrap().iter().map(|record| (record.line, record.cells.len())).collect()
    }

    fn fault(text: &[u8]) -> (u64, String) {
        match records(text).unwrap_err() {
            CsvFault::Record(line, what) => (line, what),
            CsvFault::Io(error) => panic!("{error}"),
        }
    }

    #[test]
    fn lines_are_physical_for_every_line_end() {
        for end in ["\n", "\r\n", "\r"] {
            let text = ["\u{feff}a,b", "1,2", "", "\"x", "y", "z\",3", "4,5", ""].join(end);
            assert_eq!(lines(&text), [(1, 2), (2, 2), (4, 2), (7, 2)], "{end:?}");
        }
        assert_eq!(lines("a\r\r\nb\n\rc"), [(1, 1), (3, 1), (5, 1)]);
        assert_eq!(lines(""), []);
        assert_eq!(lines("a,"), [(1, 2)]);
    }

    #[test]
    fn quotes_that_do_not_close_are_errors() {
        let (line, what) = fault(b"a,b\r\n1,\"x\r\ny\r\n2,z\r\n");
        assert_eq!(line, 2);
        insta::assert_snapshot!(what, @"has a quote, opened on line 2, that is never closed; close it, or write a quote within a cell twice");
        let (line, what) = fault(b"a,b\n1,\"x\n2,\"y\"\n");
        assert_eq!(line, 2);
        insta::assert_snapshot!(what, @"has text behind a closing quote on line 3; write a quote within a cell twice, and the cell in quotes");
        assert_eq!(fault(b"a,b\n\"x\n\xff\",1\n"), (2, "is not UTF-8; convert the file to UTF-8".to_owned()));
        let long = ["a\n\"".as_bytes(), &vec![b'x'; MAX_ROW_BYTES + 1]].concat();
        assert!(fault(&long).1.ends_with("and check that every quote is closed"));
    }

    #[test]
    fn header_of_other_separator_is_named() {
        let header = |text: &str| check_header(&records(text.as_bytes()).unwrap()[0].cells).unwrap_err();
        insta::assert_snapshot!(header("user;assistant;label"), @"seems to separate its columns with semicolons; write it with commas");
        insta::assert_snapshot!(header("user\tassistant\tlabel"), @"seems to separate its columns with tabs; write it with commas");
        insta::assert_snapshot!(header("sep=;\nuser;label"), @"starts with the line `sep=;`; remove it, and separate columns with commas");
        insta::assert_snapshot!(header("label,user, LABEL"), @"has the column `LABEL` twice; remove or rename one");
    }

    proptest! {
        /// Well-formed text, with any cells and any line ends, has the cells of the crate `csv`.
        #[test]
        fn cells_equal_those_of_the_csv_crate(
            rows in prop::collection::vec(prop::collection::vec("[a\",\r\n é]{0,4}", 3), 1..6),
            crlf in any::<bool>(),
        ) {
            let mut builder = csv::WriterBuilder::new();
            builder.quote_style(csv::QuoteStyle::Always);
            if crlf {
                builder.terminator(csv::Terminator::CRLF);
            }
            let mut writer = builder.from_writer(Vec::new());
            rows.iter().for_each(|row| writer.write_record(row).unwrap());
            let text = writer.into_inner().unwrap();
            let cells: Vec<Vec<String>> = records(&text).unwrap().into_iter().map(|record| record.cells).collect();
            prop_assert_eq!(cells, rows);
        }

        #[test]
        fn any_text_gives_records_or_an_error(text in "[a\",\r\n]{0,12}") {
            if let Ok(found) = records(text.as_bytes()) {
                let ends = found.iter().all(|record| !record.cells.is_empty());
                prop_assert!(ends && found.windows(2).all(|pair| pair[0].line < pair[1].line));
            }
        }
    }
}
