//! Which samples of a partial cache file are finished, so that a killed write can be gone on with.
//!
//! Records stand behind the end of the file to be and are cut off when it is whole; a second file would be one more
//! thing to leave behind. A record is: the number of samples (u64, little-endian), their places (u64 each,
//! increasing), the BLAKE3 digest of their bytes, and the BLAKE3 digest of the record so far, by which one that was
//! being written at the end is told from a whole one.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::layout::DIGEST_BYTES;

/// Bytes of a number in a record.
const NUMBER_BYTES: usize = size_of::<u64>();

/// Where the next record goes, or comes from.
#[derive(Debug)]
pub(super) struct Journal {
    end: u64,
}

/// Samples that were written together.
#[derive(Debug, PartialEq)]
pub(super) struct Record {
    /// Their places, increasing.
    pub(super) samples: Vec<usize>,
    /// Of their bytes.
    pub(super) digest: blake3::Hash,
}

impl Journal {
    /// A journal whose first record is at `start`, in bytes of the file.
    pub(super) fn at(start: u64) -> Self {
        Journal { end: start }
    }

    /// The first byte behind the records so far.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// Adds a record. To be called when the samples are written, not before.
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

    /// The next record, or none where there is no whole one of a file of `n_samples`.
    pub(super) fn read_next(&mut self, file: &File, n_samples: usize) -> io::Result<Option<Record>> {
        let Some(count) = read(file, self.end, NUMBER_BYTES)? else { return Ok(None) };
        // Compared before memory is taken: the number may be anything.
        let Some(count) = number(&count).filter(|count| *count <= n_samples) else { return Ok(None) };
        let checked = (count + 1) * NUMBER_BYTES + DIGEST_BYTES;
        let Some(record) = read(file, self.end, checked + DIGEST_BYTES)? else { return Ok(None) };
        if blake3::hash(&record[..checked]).as_bytes() != &record[checked..] {
            return Ok(None);
        }
        let (places, digest) = record[NUMBER_BYTES..checked].split_at(count * NUMBER_BYTES);
        let samples: Option<Vec<usize>> = places.chunks_exact(NUMBER_BYTES).map(number).collect();
        let Some(samples) = samples.filter(|samples| samples.iter().all(|sample| *sample < n_samples)) else {
            return Ok(None);
        };
        let Ok(digest) = blake3::Hash::from_slice(digest) else { return Ok(None) };
        self.end += record.len() as u64;
        Ok(Some(Record { samples, digest }))
    }
}

/// `len` bytes at `offset`, or none where the file ends before.
fn read(file: &File, offset: u64, len: usize) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = vec![0; len];
    match file.read_exact_at(&mut bytes, offset) {
        Ok(()) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error),
    }
}

/// A little-endian `u64`, if it counts something that fits in memory.
fn number(bytes: &[u8]) -> Option<usize> {
    usize::try_from(u64::from_le_bytes(bytes.try_into().ok()?)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: u64 = 7;

    fn records(file: &File, n_samples: usize) -> Vec<Record> {
        let mut journal = Journal::at(START);
        std::iter::from_fn(|| journal.read_next(file, n_samples).unwrap()).collect()
    }

    #[test]
    fn whole_records_come_back_and_torn_ones_do_not() {
        let file = tempfile::tempfile().unwrap();
        let mut journal = Journal::at(START);
        journal.append(&file, &[4, 5, 9], blake3::hash(b"first")).unwrap();
        let first_end = journal.end();
        journal.append(&file, &[0], blake3::hash(b"second")).unwrap();
        let first = Record { samples: vec![4, 5, 9], digest: blake3::hash(b"first") };
        let second = Record { samples: vec![0], digest: blake3::hash(b"second") };
        assert_eq!(records(&file, 10), [first, second]);
        assert_eq!(records(&file, 9), [], "sample 9 of a file of 9");
        for len in first_end..journal.end() {
            file.set_len(len).unwrap();
            assert_eq!(records(&file, 10).len(), 1, "{len} bytes");
        }
    }

    #[test]
    fn a_record_with_any_bit_flipped_is_no_record() {
        let file = tempfile::tempfile().unwrap();
        let mut journal = Journal::at(START);
        journal.append(&file, &[1, 2], blake3::hash(b"bytes")).unwrap();
        for at in START..journal.end() {
            let mut byte = [0];
            file.read_exact_at(&mut byte, at).unwrap();
            file.write_all_at(&[byte[0] ^ 1], at).unwrap();
            assert_eq!(records(&file, 10), [], "byte {at}");
            file.write_all_at(&byte, at).unwrap();
        }
        file.write_all_at(&u64::MAX.to_le_bytes(), START).unwrap();
        assert_eq!(records(&file, usize::MAX / 64), [], "a count that nothing has room for");
    }
}
