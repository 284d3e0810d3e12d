//! Checks the metadata of a Parquet file and the headers of its pages before the crate `parquet` decodes them.
//!
//! Without the check, a damaged file of a few bytes can cost the decoder billions of steps, overflow its stack by the depth
//! of the schema, or make it reserve gigabytes. Column indexes, offset indexes and bloom filters are not checked, because the
//! reader does not read them.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use parquet::file::metadata::{ColumnChunkMetaData, RowGroupMetaData};

use super::parquet_bounds::impossible_sizes;
use super::parquet_format::{FILE_METADATA, PAGE_HEADER};
use super::parquet_thrift::{Defect, Walker};
use super::row::MAX_ROW_BYTES;
use crate::error::{Error, Result};

/// The length of the metadata and the magic number, at the end of the file.
const TAIL_BYTES: u64 = 8;
const MAGIC: [u8; 4] = *b"PAR1";
/// Levels of the schema, of which a list takes two. Without optimization, so many take over 1 MiB of the stack of a thread,
/// which has 2 MiB.
const MAX_SCHEMA_DEPTH: usize = 128;
/// Bytes to read of a page header before its length is known. A header without statistics has about 30.
const HEADER_WINDOW: u64 = 1 << 10;
/// Bytes of a page header: its statistics may have the least and the greatest value of the page, each twice.
const MAX_HEADER_BYTES: u64 = 4 * MAX_ROW_BYTES as u64 + (64 << 10);

/// A file whose metadata and page headers are checked.
pub(super) struct HeaderCheck<'f> {
    path: &'f Path,
    file: &'f File,
    file_bytes: u64,
}

impl<'f> HeaderCheck<'f> {
    pub(super) fn new(path: &'f Path, file: &'f File, file_bytes: u64) -> Self {
        HeaderCheck { path, file, file_bytes }
    }

    /// Checks the metadata at the end of the file. A file that the crate refuses before it decodes the metadata passes.
    ///
    /// # Errors
    /// Damaged metadata, or a failed read.
    pub(super) fn check_metadata(&self) -> Result<()> {
        let Some(tail_offset) = self.file_bytes.checked_sub(TAIL_BYTES) else { return Ok(()) };
        let tail = self.read(tail_offset, TAIL_BYTES)?;
        let (Some(length), true) = (tail.first_chunk::<4>(), tail.ends_with(&MAGIC)) else { return Ok(()) };
        let length = u64::from(u32::from_le_bytes(*length));
        let Some(offset) = tail_offset.checked_sub(length) else { return Ok(()) };
        check_metadata(&self.read(offset, length)?).map_err(|what| Error::file(self.path, what))
    }

    /// Checks the page headers of the columns of a row group that `is_read` selects, and returns the sum of the sizes that
    /// they declare for their pages without compression.
    ///
    /// # Errors
    /// A damaged header, a column outside the file, or a failed read.
    pub(super) fn check_pages(&self, group: &RowGroupMetaData, is_read: fn(&str) -> bool) -> Result<u64> {
        let mut bytes = 0u64;
        for column in group.columns().iter().filter(|column| is_read(&column.column_path().parts()[0])) {
            bytes = bytes.saturating_add(self.check_column(column)?);
        }
        Ok(bytes)
    }

    fn check_column(&self, column: &ColumnChunkMetaData) -> Result<u64> {
        let impossible = || Error::file(self.path, impossible_sizes());
        let start = column.dictionary_page_offset().unwrap_or_else(|| column.data_page_offset());
        let mut start = u64::try_from(start).map_err(|_| impossible())?;
        let length = u64::try_from(column.compressed_size()).map_err(|_| impossible())?;
        let end = start.checked_add(length).filter(|end| *end <= self.file_bytes).ok_or_else(impossible)?;
        let (mut uncompressed, mut values) = (0u64, 0u64);
        while start < end {
            let damaged = |what: &str| {
                let column = column.column_path().string();
                let what = format!("is damaged: a page header of the column `{column}` {what}; write the file again");
                Error::file(self.path, what)
            };
            let header = self.page_header(start, end - start)?.map_err(|what| damaged(&what))?;
            uncompressed = uncompressed.saturating_add(header.uncompressed_bytes);
            values = values.saturating_add(header.values);
            if !i64::try_from(values).is_ok_and(|values| values <= column.num_values()) {
                return Err(damaged("declares more values than the column has"));
            }
            start += header.header_bytes;
            if header.page_bytes > end - start {
                return Err(damaged("declares more bytes than the column has"));
            }
            start += header.page_bytes;
        }
        Ok(uncompressed)
    }

    /// The page header at `offset`, where the column has `left` bytes. The inner error continues a sentence whose subject
    /// is the header.
    fn page_header(&self, offset: u64, left: u64) -> Result<Result<PageHeader, String>> {
        let longest = left.min(MAX_HEADER_BYTES);
        let mut window = HEADER_WINDOW.min(longest);
        loop {
            let header = PageHeader::of(&self.read(offset, window)?);
            match header {
                Err(defect) if defect.is_cut && window < longest => window = window.saturating_mul(4).min(longest),
                other => return Ok(other.map_err(|defect| defect.what)),
            }
        }
    }

    fn read(&self, offset: u64, length: u64) -> Result<Vec<u8>> {
        let length = usize::try_from(length).map_err(|_| Error::file(self.path, impossible_sizes()))?;
        let mut bytes = vec![0; length];
        self.file.read_exact_at(&mut bytes, offset).map_err(Error::io("read", self.path))?;
        Ok(bytes)
    }
}

/// The sizes in the header of a page.
#[derive(Debug, PartialEq, Eq)]
struct PageHeader {
    header_bytes: u64,
    page_bytes: u64,
    uncompressed_bytes: u64,
    /// Values of a data page, with nulls.
    values: u64,
}

impl PageHeader {
    /// The header at the start of `bytes`.
    fn of(bytes: &[u8]) -> Result<Self, Defect> {
        let mut walker = Walker::new(bytes);
        walker.structure(&PAGE_HEADER)?;
        let size = |number: Option<i32>, what: &str| {
            let size = number.and_then(|number| u64::try_from(number).ok());
            size.ok_or_else(|| Defect { what: format!("has a negative number of {what} or none"), is_cut: false })
        };
        let [uncompressed_bytes, page_bytes] = walker.records().first().copied().unwrap_or_default();
        let mut values = 0;
        for [number, _] in walker.records().iter().skip(1) {
            values += size(*number, "values")?;
        }
        Ok(PageHeader {
            header_bytes: walker.position() as u64,
            page_bytes: size(page_bytes, "bytes")?,
            uncompressed_bytes: size(uncompressed_bytes, "bytes")?,
            values,
        })
    }
}

/// Checks the metadata of a file. The error continues a sentence whose subject is the file.
fn check_metadata(bytes: &[u8]) -> Result<(), String> {
    let damaged = |what: &str| format!("is damaged: its metadata {what}; write the file again");
    let mut walker = Walker::new(bytes);
    walker.structure(&FILE_METADATA).map_err(|defect| damaged(&defect.what))?;
    check_schema(walker.records().iter().map(|[children, _]| children.unwrap_or(0))).map_err(|what| damaged(&what))
}

/// Checks the tree that the numbers of children describe, in depth-first order.
fn check_schema(children: impl ExactSizeIterator<Item = i32>) -> Result<(), String> {
    let mut left = children.len();
    // The children that each open group still lacks, and their sum.
    let (mut open, mut missing): (Vec<usize>, usize) = (Vec::new(), 0);
    for children in children {
        left -= 1;
        while open.last() == Some(&0) {
            open.pop();
        }
        if let Some(lacking) = open.last_mut() {
            *lacking -= 1;
            missing -= 1;
        }
        let Some(children) = usize::try_from(children).ok().filter(|children| missing + children <= left) else {
            return Err(format!("declares a column with {children} fields, which it does not have"));
        };
        missing += children;
        open.push(children);
        if open.len() > MAX_SCHEMA_DEPTH {
            return Err(format!("declares columns nested deeper than {MAX_SCHEMA_DEPTH} levels"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn found_file_is_refused_before_the_crate() {
        // A file of 89 bytes found by fuzzing, whose metadata the crate skips in 2^29 steps.
        let bytes = include_bytes!("../../tests/data/boolean_list.parquet");
        insta::assert_snapshot!(check_metadata(&bytes[32..81]).unwrap_err(), @"is damaged: its metadata declares 555893897 booleans in a list or map, which the format does not have; write the file again");
    }

    #[test]
    fn schema_is_a_bounded_tree() {
        let check = |children: &[i32]| check_schema(children.iter().copied());
        check(&[]).unwrap();
        check(&[3, 0, 2, 0, 1, 0, 0]).unwrap();
        insta::assert_snapshot!(check(&[3, 0, 2, 0, 2, 0, 0]).unwrap_err(), @"declares a column with 2 fields, which it does not have");
        insta::assert_snapshot!(check(&[i32::MAX, 0, 0]).unwrap_err(), @"declares a column with 2147483647 fields, which it does not have");
        insta::assert_snapshot!(check(&[1, -1]).unwrap_err(), @"declares a column with -1 fields, which it does not have");
        let chain = |levels: usize| [vec![1; levels - 1], vec![0]].concat();
        check(&chain(MAX_SCHEMA_DEPTH)).unwrap();
        insta::assert_snapshot!(check(&chain(MAX_SCHEMA_DEPTH + 1)).unwrap_err(), @"declares columns nested deeper than 128 levels");
    }

    #[test]
    fn page_header_has_its_sizes() {
        let header = PageHeader::of(&[0x15, 0, 0x15, 0x14, 0x15, 0x10, 0, 9, 9]).unwrap();
        assert_eq!(header, PageHeader { header_bytes: 7, page_bytes: 8, uncompressed_bytes: 10, values: 0 });
        for sizes in [&[0x15, 0, 0x15, 0x14, 0][..], &[0x15, 0, 0x15, 0x13, 0x15, 0x10, 0], &[0x35, 0x10, 0]] {
            assert_eq!(PageHeader::of(sizes).unwrap_err().what, "has a negative number of bytes or none");
        }
        for data_page in [0x2c, 0x5c] {
            let header = |values: u8| [0x15, 0, 0x15, 0x14, 0x15, 0x10, data_page, 0x15, values, 0, 0];
            assert_eq!(PageHeader::of(&header(14)).unwrap().values, 7);
            assert_eq!(PageHeader::of(&header(13)).unwrap_err().what, "has a negative number of values or none");
        }
    }

    #[test]
    fn long_page_header_is_read_to_its_end() {
        let mut file = tempfile::tempfile().unwrap();
        // The sizes, and a text in a field 15 that is longer than one window.
        let header = [&[0x15, 0, 0x15, 0x14, 0x15, 0x10, 0xc8, 0xb8, 0x17][..], &[b'a'; 3000], &[0]].concat();
        let length = header.len() as u64;
        file.write_all(&[&header[..], b"page after it"].concat()).unwrap();
        let check = HeaderCheck::new(Path::new("d.parquet"), &file, length + 13);
        let found = check.page_header(0, length + 13).unwrap().unwrap();
        assert_eq!(found, PageHeader { header_bytes: length, page_bytes: 8, uncompressed_bytes: 10, values: 0 });
        insta::assert_snapshot!(check.page_header(0, 2000).unwrap().unwrap_err(), @"declares a text of 3000 bytes in 1991 bytes");
        insta::assert_snapshot!(check.page_header(0, length - 1).unwrap().unwrap_err(), @"ends within a value");
    }
}
