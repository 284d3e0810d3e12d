//! The journal of a partial cache file: the samples that are finished, so that a killed write can be resumed.
//!
//! Records follow the last byte of the final file and are truncated when it is complete, so that no second file can be left
//! over. A record is: the number of samples (u64, little-endian), their positions (u64 each, increasing), the BLAKE3 digest
//! of their bytes, and the BLAKE3 digest of the record so far, which detects a torn record.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::layout::DIGEST_BYTES;

/// Bytes of a number in a record.
const NUMBER_BYTES: usize = size_of::<u64>();

/// The offset of the next record to write or to read.
#[derive(Debug)]
pub(super) struct WriteJournal {
    end: u64,
}

/// Samples that were written together.
#[derive(Debug, PartialEq)]
pub(super) struct JournalRecord {
    /// Their positions in the file, increasing.
    pub(super) samples: Vec<usize>,
    /// The digest of their bytes.
    pub(super) digest: blake3::Hash,
}

impl WriteJournal {
    /// A journal whose first record is at `start`, in bytes of the file.
    pub(super) fn at(start: u64) -> Self {
        WriteJournal { end: start }
    }

    /// The offset after the records so far.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// Adds a record. Called after the samples are written, not before.
    pub(super) fn append(&mut self, file: &File, samples: &[usize], digest: blake3::Hash) -> io::Result<()> {
        let mut record = Vec::with_capacity((samples.len() + 1) * NUMBER_BYTES + 2 * DIGEST_BYTES);
        record.extend((samples.len() as u64).to_le_bytes());
        samples.iter().for_each(|sample| record.extend((*sample as u64).to_le_bytes()));
        record.extend(digest.as_bytes());
        let check = blake3::hash(&record);
        record.extend(check.as_bytes());
        file.write_all_at(&record, self.end)?;
        self.end += record.len() as u64;
        Ok(())
    }

    /// The next record, or none if it is torn or not of a file of `n_samples`.
    pub(super) fn read_next(&mut self, file: &File, n_samples: usize) -> io::Result<Option<JournalRecord>> {
        let Some(count) = read(file, self.end, NUMBER_BYTES)? else { return Ok(None) };
        // Checked before memory is allocated: a torn number can be anything.
        let Some(count) = number(&count).filter(|count| *count <= n_samples) else { return Ok(None) };
        let checked = (count + 1) * NUMBER_BYTES + DIGEST_BYTES;
        let Some(record) = read(file, self.end, checked + DIGEST_BYTES)? else { return Ok(None) };
        if blake3::hash(&record[..checked]).as_bytes() != &record[checked..] {
            return Ok(None);
        }
        let (positions, digest) = record[NUMBER_BYTES..checked].split_at(count * NUMBER_BYTES);
        let samples: Option<Vec<usize>> = positions.chunks_exact(NUMBER_BYTES).map(number).collect();
        let Some(samples) = samples.filter(|samples| samples.iter().all(|sample| *sample < n_samples)) else {
            return Ok(None);
        };
        let Ok(digest) = blake3::Hash::from_slice(digest) else { return Ok(None) };
        self.end += record.len() as u64;
        Ok(Some(JournalRecord { samples, digest }))
    }
}

/// `len` bytes at `offset`, or none if the file ends before.
fn read(file: &File, offset: u64, len: usize) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = vec![0; len];
    match file.read_exact_at(&mut bytes, offset) {
        Ok(()) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error),
    }
}

/// A little-endian `u64`, if it fits `usize`.
fn number(bytes: &[u8]) -> Option<usize> {
    usize::try_from(u64::from_le_bytes(bytes.try_into().ok()?)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: u64 = 7;

    fn records(file: &File, n_samples: usize) -> Vec<JournalRecord> {
        let mut journal = WriteJournal::at(START);
        std::iter::from_fn(|| journal.read_next(file, n_samples).unwrap()).collect()
    }

    #[test]
    fn complete_records_are_read_and_torn_ones_skipped() {
        let file = tempfile::tempfile().unwrap();
        let mut journal = WriteJournal::at(START);
        journal.append(&file, &[4, 5, 9], blake3::hash(b"first")).unwrap();
        let first_end = journal.end();
        journal.append(&file, &[0], blake3::hash(b"second")).unwrap();
        let first = JournalRecord { samples: vec![4, 5, 9], digest: blake3::hash(b"first") };
        let second = JournalRecord { samples: vec![0], digest: blake3::hash(b"second") };
        assert_eq!(records(&file, 10), [first, second]);
        assert_eq!(records(&file, 9), [], "sample 9 of a file of 9");
        for len in first_end..journal.end() {
            file.set_len(len).unwrap();
            assert_eq!(records(&file, 10).len(), 1, "{len} bytes");
        }
    }

    #[test]
    fn record_with_flipped_bit_is_rejected() {
        let file = tempfile::tempfile().unwrap();
        let mut journal = WriteJournal::at(START);
        journal.append(&file, &[1, 2], blake3::hash(b"bytes")).unwrap();
        for offset in START..journal.end() {
            let mut byte = [0];
            file.read_exact_at(&mut byte, offset).unwrap();
            file.write_all_at(&[byte[0] ^ 1], offset).unwrap();
            assert_eq!(records(&file, 10), [], "byte {offset}");
            file.write_all_at(&byte, offset).unwrap();
        }
        file.write_all_at(&u64::MAX.to_le_bytes(), START).unwrap();
        assert_eq!(records(&file, usize::MAX / 64), [], "a count that fits no memory");
    }
}
