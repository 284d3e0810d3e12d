//! Bounds on the memory that a Parquet file can ask for.
//!
//! A few kilobytes can declare gigabytes: compressed pages of one letter, or a dictionary with one long text that many
//! rows name. Sizes that the metadata declares are checked before anything is decompressed, and the texts of each row
//! before they are copied.

use parquet::column::reader::ColumnReader;
use parquet::errors::ParquetError;
use parquet::file::metadata::{ParquetMetaData, RowGroupMetaData};
use parquet::file::reader::RowGroupReader;

use super::row::{MAX_ROW_BYTES, RowResult, too_large};
use crate::units::Bytes;

/// Data that every file may have, however small it is.
const MIN_ALLOWANCE: u64 = 256 << 20;
/// Text of all rows that every file may have.
const MIN_TEXT_ALLOWANCE: u64 = 1 << 30;
/// Bytes of data for each byte of the file. Compressed text has about 5, repeated prompts up to 100, and runs of
/// one letter 1000 and more.
const MAX_RATIO: u64 = 200;
/// Values for each row of a group: a message has one in each of its fields.
const MAX_VALUES_PER_ROW: u64 = 100_000;
/// Values that every file may have. A run of equal values has the bytes of one, but each costs time.
const MIN_VALUE_ALLOWANCE: u64 = 1 << 26;
/// Memory of a row that is not text: its messages and their keys.
const ROW_OVERHEAD: u64 = 256;
/// Bytes of values to decode at a time.
const BATCH_BYTES: u64 = 32 << 20;

/// The message for sizes in the metadata that no file has.
pub(super) fn impossible_sizes() -> String {
    "is damaged: its metadata declares impossible sizes; write the file again".to_owned()
}

/// The bounds of one file, and the data read so far.
pub(super) struct ReadBounds {
    file_bytes: u64,
    page_bytes: u64,
    text_bytes: u64,
}

impl ReadBounds {
    pub(super) fn new(file_bytes: u64) -> Self {
        ReadBounds { file_bytes, page_bytes: 0, text_bytes: 0 }
    }

    /// Checks the sizes that the metadata declares for the columns that `is_read` selects.
    pub(super) fn check_declared(&self, metadata: &ParquetMetaData, is_read: fn(&str) -> bool) -> RowResult<()> {
        let (mut declared, mut compressed, mut all_values) = (0u64, 0u64, 0u64);
        for group in metadata.row_groups() {
            let rows = u64::try_from(group.num_rows()).map_err(|_| impossible_sizes())?;
            for column in group.columns().iter().filter(|column| is_read(&column.column_path().parts()[0])) {
                let size = |bytes: i64| u64::try_from(bytes).map_err(|_| impossible_sizes());
                let values = size(column.num_values())?;
                declared = declared.saturating_add(size(column.uncompressed_size())?);
                compressed = compressed.saturating_add(size(column.compressed_size())?);
                all_values = all_values.saturating_add(values);
                // Columns of a file do not overlap. If they did, a small file could have the same pages many times.
                if values < rows || compressed > self.file_bytes {
                    return Err(impossible_sizes());
                }
                if values > rows.saturating_mul(MAX_VALUES_PER_ROW) {
                    return Err(format!(
                        "declares {values} values of `{}` in {rows} rows, which no dialogue has",
                        column.column_path().string()
                    ));
                }
            }
        }
        let limit = MIN_VALUE_ALLOWANCE.max(self.file_bytes.saturating_mul(MAX_RATIO));
        if all_values > limit {
            let size = Bytes(self.file_bytes);
            return Err(format!(
                "declares {all_values} values in a file of {size}, over the limit of {limit}; if it is right, split it into \
                 smaller files"
            ));
        }
        self.check(declared, MIN_ALLOWANCE)
    }

    /// Checks the sizes that the page headers of a row group declare, in addition to those before.
    pub(super) fn check_pages(&mut self, bytes: u64) -> RowResult<()> {
        self.page_bytes = self.page_bytes.saturating_add(bytes);
        self.check(self.page_bytes, MIN_ALLOWANCE)
    }

    /// Checks the texts of a row group. The inner error has the index of the row in the group.
    pub(super) fn check_texts(
        &mut self,
        group: &dyn RowGroupReader,
        is_read: fn(&str) -> bool,
    ) -> Result<Result<(), (usize, String)>, ParquetError> {
        let batch = Self::batch_size(group.metadata(), is_read);
        let mut rows: Vec<usize> = Vec::new();
        for index in 0..group.num_columns() {
            let descriptor = group.metadata().column(index).column_descr_ptr();
            if !is_read(&descriptor.path().parts()[0]) {
                continue;
            }
            let ColumnReader::ByteArrayColumnReader(mut reader) = group.get_column_reader(index)? else {
                continue;
            };
            let mut next_row = 0;
            loop {
                let (mut defined, mut repeated, mut values) = (Vec::new(), Vec::new(), Vec::new());
                let (n_records, _, n_levels) =
                    reader.read_records(batch, Some(&mut defined), Some(&mut repeated), &mut values)?;
                if n_records == 0 {
                    break;
                }
                let mut values = values.iter();
                for level in 0..n_levels {
                    if repeated.get(level).is_none_or(|level| *level == 0) {
                        next_row += 1;
                        if rows.len() < next_row {
                            rows.push(0);
                            self.text_bytes += ROW_OVERHEAD;
                        }
                    }
                    if defined.get(level).is_some_and(|level| *level != descriptor.max_def_level()) {
                        continue;
                    }
                    let row = next_row.saturating_sub(1);
                    let length = values.next().map_or(0, |value| value.len());
                    self.text_bytes += length as u64;
                    if let Some(size) = rows.get_mut(row) {
                        *size += length;
                        if *size > MAX_ROW_BYTES {
                            return Ok(Err((row, too_large())));
                        }
                    }
                    if let Err(what) = self.check(self.text_bytes, MIN_TEXT_ALLOWANCE) {
                        return Ok(Err((row, what)));
                    }
                }
            }
        }
        Ok(Ok(()))
    }

    /// Values to decode at a time, so that they have about [`BATCH_BYTES`].
    pub(super) fn batch_size(group: &RowGroupMetaData, is_read: fn(&str) -> bool) -> usize {
        let read = group.columns().iter().filter(|column| is_read(&column.column_path().parts()[0]));
        let mean = |bytes: i64, values: i64| bytes.max(1).unsigned_abs() / values.max(1).unsigned_abs();
        let largest = read.map(|column| mean(column.uncompressed_size(), column.num_values())).max().unwrap_or(1);
        (BATCH_BYTES / largest.max(1)).clamp(1, 1024) as usize
    }

    fn check(&self, bytes: u64, allowance: u64) -> RowResult<()> {
        if bytes <= allowance.max(self.file_bytes.saturating_mul(MAX_RATIO)) {
            return Ok(());
        }
        Err(format!(
            "has {} of data in a file of {}, which would exhaust memory; if it is right, split it into smaller files",
            Bytes(bytes),
            Bytes(self.file_bytes)
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_is_bounded_by_the_size_of_its_file() {
        let small = ReadBounds::new(10);
        small.check(MIN_TEXT_ALLOWANCE, MIN_TEXT_ALLOWANCE).unwrap();
        let error = small.check(MIN_TEXT_ALLOWANCE + 1, MIN_TEXT_ALLOWANCE).unwrap_err();
        assert!(error.starts_with("has 1.00 GiB of data in a file of 10 B"), "{error}");
        ReadBounds::new(10 << 20).check((10 << 20) * MAX_RATIO, MIN_TEXT_ALLOWANCE).unwrap();
        ReadBounds::new(10 << 20).check((10 << 20) * MAX_RATIO + 1, MIN_TEXT_ALLOWANCE).unwrap_err();
    }
}
