//! Data sets: labeled dialogues from the embedded generator, a registered name or a file.
//!
//! [`load`] loads a [`Dataset`] by name. [`split`] draws the training and the test rows from it. An invalid row is an
//! error that names its line or row number. Skipping such rows would silently shrink the data set, and its results
//! could not be reproduced from the file.

mod csv_file;
mod csv_records;
mod dialogue;
mod embedded;
mod file;
mod hub;
mod jsonl_file;
mod label;
mod parquet_bounds;
mod parquet_file;
mod parquet_format;
mod parquet_headers;
mod parquet_thrift;
mod parquet_value;
mod place;
mod registered;
mod repe;
mod row;
pub mod split;
pub(crate) mod strict_json;

#[cfg(test)]
mod parquet_damage_tests;
#[cfg(test)]
mod parquet_tests;
#[cfg(test)]
mod tests;

use std::path::Path;

use crate::error::{Error, Result};

use place::{FileRows, RowPlaces};

pub use dialogue::{ChatMessage, Dialogue, Role};
pub use registered::{EMBEDDED, REGISTERED};
pub use split::{DataSplit, SharedRows, rows_on_both_sides, stratified_sample_and_split};

/// A data set in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dataset {
    /// The name the user gave.
    pub name: String,
    /// The source of the rows: a path, or the generator with its parameters.
    pub origin: String,
    /// The rows in source order. Both classes occur.
    pub dialogues: Vec<Dialogue>,
    /// The places of the rows, by file; none of a generated data set.
    places: Vec<RowPlaces>,
}

impl Dataset {
    /// The label of each row.
    pub fn labels(&self) -> Vec<bool> {
        self.dialogues.iter().map(|dialogue| dialogue.label).collect()
    }

    /// The place of row `row` (from 0) in its file, such as `rows.jsonl:6`; none for a generated data set.
    pub fn place(&self, row: usize) -> Option<String> {
        RowPlaces::of_row(&self.places, row)
    }
}

/// The rows of the data set `name` if it is generated on demand, so that they need not be loaded to be counted; none for the
/// others.
pub fn generated_rows(name: &str) -> Option<usize> {
    let family = name.split_once(':').map_or(name, |(family, _)| family);
    (family == EMBEDDED).then_some(embedded::ROWS)
}

/// Loads the data set `name`: one of [`REGISTERED`], or the path of a `.jsonl`, `.csv` or `.parquet` file.
///
/// `data_dir` holds local copies of registered data sets. `rows` is the number of rows the caller needs: the embedded
/// data set is generated with that many rows (up to its limit), the others are loaded completely.
///
/// # Errors
/// An unknown name; a missing file; an invalid row (with its line or row number); no row; rows of one class only.
pub fn load(name: &str, data_dir: Option<&Path>, rows: usize) -> Result<Dataset> {
    let (dialogues, origin, places) = match name.split_once(':').map_or(name, |(family, _)| family) {
        EMBEDDED => {
            let (dialogues, origin) = embedded::load(name, rows)?;
            (dialogues, origin, Vec::new())
        }
        registered::REPE if name == registered::REPE => repe::load(data_dir)?,
        _ => {
            let FileRows { dialogues, places } = file::read(Path::new(name))?;
            (dialogues, name.to_owned(), vec![places])
        }
    };
    let positive = dialogues.iter().filter(|dialogue| dialogue.label).count();
    if dialogues.is_empty() {
        return Err(Error::input(origin, "has no rows; a data set needs rows of both classes"));
    }
    if positive == 0 || positive == dialogues.len() {
        return Err(Error::input(
            origin,
            format!(
                "all {} rows have label {}; a probe needs rows of both classes, so add rows with label {}",
                dialogues.len(),
                u8::from(positive > 0),
                u8::from(positive == 0),
            ),
        ));
    }
    Ok(Dataset { name: name.to_owned(), origin, dialogues, places })
}
