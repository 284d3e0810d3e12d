//! The places of rows in their files, for errors that are found after a file was read.

use std::path::Path;

use super::dialogue::Dialogue;

/// The dialogues of a file, and the place of each.
#[derive(Debug)]
pub(super) struct FileRows {
    pub(super) dialogues: Vec<Dialogue>,
    pub(super) places: RowPlaces,
}

/// The places of the dialogues of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RowPlaces {
    path: String,
    numbers: RowNumbers,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum RowNumbers {
    /// The line of each dialogue, from 1.
    Lines(Vec<u64>),
    /// As many dialogues, each of one row of a file without lines.
    Rows(usize),
}

impl RowPlaces {
    /// Dialogues that start on `lines`, from 1.
    pub(super) fn lines(path: &Path, lines: Vec<u64>) -> Self {
        RowPlaces { path: path.display().to_string(), numbers: RowNumbers::Lines(lines) }
    }

    /// `n` dialogues of a file that has no lines.
    pub(super) fn rows(path: &Path, n: usize) -> Self {
        RowPlaces { path: path.display().to_string(), numbers: RowNumbers::Rows(n) }
    }

    /// The place of dialogue `row` of the data set, whose files are `files` in order: `rows.jsonl:6` or `rows.parquet row 6`.
    pub(super) fn of_row(files: &[RowPlaces], row: usize) -> Option<String> {
        let mut first = 0;
        for file in files {
            let within = row - first;
            let place = match &file.numbers {
                RowNumbers::Lines(lines) => lines.get(within).map(|line| format!("{}:{line}", file.path)),
                RowNumbers::Rows(n) => (within < *n).then(|| format!("{} row {}", file.path, within + 1)),
            };
            if place.is_some() {
                return place;
            }
            first += match &file.numbers {
                RowNumbers::Lines(lines) => lines.len(),
                RowNumbers::Rows(n) => *n,
            };
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn place_names_file_and_line() {
        let files = [
            RowPlaces::lines(Path::new("a.jsonl"), vec![1, 3]),
            RowPlaces::rows(Path::new("b.parquet"), 2),
            RowPlaces::lines(Path::new("c.csv"), vec![2]),
        ];
        let places: Vec<Option<String>> = (0..6).map(|row| RowPlaces::of_row(&files, row)).collect();
        let expected = ["a.jsonl:1", "a.jsonl:3", "b.parquet row 1", "b.parquet row 2", "c.csv:2"];
        assert_eq!(places[..5], expected.map(|place| Some(place.to_owned())));
        assert_eq!(places[5], None);
        assert_eq!(RowPlaces::of_row(&[], 0), None);
    }
}
