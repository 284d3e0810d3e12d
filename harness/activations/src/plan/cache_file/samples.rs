//! The table of samples: where each sample of a file comes from, for readers that need labels or more columns of the data.

use crate::error::{Error, Result};

/// One entry for each sample of a file, in the order of its activations.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SampleTable {
    /// Index of the row in the data set as it was read, from 0, before rows are shuffled and split.
    pub rows: Vec<i64>,
    /// Label, 0 or 1.
    pub labels: Vec<u8>,
    /// 1 on the training side of the split, 0 on the test side.
    pub is_train: Vec<u8>,
    /// The settings that the samples and their activations come from, as JSON text for readers; may be empty. Not compared.
    pub settings: String,
}

impl SampleTable {
    /// Refuses a table that is not one of `n_samples` samples.
    ///
    /// # Errors
    /// A column of another length.
    pub(super) fn check_length(&self, n_samples: usize) -> Result<()> {
        let lengths = [("rows", self.rows.len()), ("labels", self.labels.len()), ("is_train", self.is_train.len())];
        match lengths.iter().find(|(_, length)| *length != n_samples) {
            None => Ok(()),
            Some((name, length)) => Err(Error::usage(format!("{name} has {length} entries for {n_samples} samples"))),
        }
    }

    /// The name of the first column in which two tables differ.
    pub fn difference(&self, other: &SampleTable) -> Option<&'static str> {
        let columns = [
            ("rows", self.rows == other.rows),
            ("labels", self.labels == other.labels),
            ("is_train", self.is_train == other.is_train),
        ];
        columns.iter().find(|(_, equal)| !equal).map(|(name, _)| *name)
    }

    /// The bytes of the columns as a file has them, in the order of `SampleParts::columns`.
    pub(super) fn columns(&self) -> [&[u8]; 3] {
        [bytemuck::cast_slice(&self.rows), &self.labels, &self.is_train]
    }

    /// The table of the bytes of a file, which need not be aligned.
    pub(super) fn of_columns([rows, labels, is_train]: [&[u8]; 3], settings: &str) -> Self {
        let rows = rows.as_chunks().0.iter().map(|bytes| i64::from_le_bytes(*bytes)).collect();
        SampleTable { rows, labels: labels.to_vec(), is_train: is_train.to_vec(), settings: settings.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> SampleTable {
        SampleTable {
            rows: vec![3, 0, 1 << 40],
            labels: vec![1, 0, 1],
            is_train: vec![1, 1, 0],
            settings: "{\"seed\":\"0\"}".to_owned(),
        }
    }

    #[test]
    fn columns_give_the_table_again() {
        assert_eq!(SampleTable::of_columns(table().columns(), &table().settings), table());
    }

    #[test]
    fn first_different_column_is_named() {
        let with = |change: fn(&mut SampleTable)| {
            let mut changed = table();
            change(&mut changed);
            table().difference(&changed)
        };
        assert_eq!(with(|_| ()), None);
        assert_eq!(with(|it| it.rows[0] = 4), Some("rows"));
        assert_eq!(with(|it| it.labels[1] = 1), Some("labels"));
        assert_eq!(with(|it| it.is_train[2] = 1), Some("is_train"));
        assert_eq!(with(|it| it.settings.clear()), None);
    }

    #[test]
    fn table_of_another_length_is_refused() {
        assert!(table().check_length(3).is_ok());
        assert_eq!(table().check_length(2).unwrap_err().to_string(), "rows has 3 entries for 2 samples");
    }
}
