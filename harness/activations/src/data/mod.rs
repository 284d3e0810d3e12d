//! Data sets: labelled dialogues from the embedded generator, a registered name or a file.
//!
//! [`load`] turns what the user named into a [`Dataset`]; [`split`] draws the training and the test rows from it. A row
//! that cannot be used is an error that names its place, never a row passed over: a data set that is quietly smaller
//! than its file gives results that nobody can reproduce.

mod columnar;
mod dialogue;
mod embedded;
mod hub;
mod jsonl;
mod repe;
mod row;
pub mod split;
mod table;

#[cfg(test)]
mod tests;

use std::path::Path;

use crate::error::{Error, Result};

pub use dialogue::{Dialogue, Message, Role};
pub use embedded::EMBEDDED;
pub use split::{Split, stratified_sample_and_split};

/// Names that [`load`] knows, for help texts and error messages.
pub const REGISTERED: [&str; 6] =
    [EMBEDDED, "embedded:short", "embedded:medium", "embedded:long", "embedded:mixed", "repe"];

/// A data set in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dataset {
    /// As the user named it.
    pub name: String,
    /// Where the rows are from: a path, or the generator with its parameters.
    pub origin: String,
    /// The rows, in their order there. Both classes occur.
    pub dialogues: Vec<Dialogue>,
}

impl Dataset {
    /// The label of each row.
    pub fn labels(&self) -> Vec<bool> {
        self.dialogues.iter().map(|dialogue| dialogue.label).collect()
    }
}

/// Loads the data set called `name`: one of [`REGISTERED`], or the path of a `.jsonl`, `.csv` or `.parquet` file.
///
/// `data_dir` is where local copies of registered data sets are. `rows` is how many rows the caller is going to use; the
/// embedded data set is made that large (to its limit), the others come whole.
///
/// # Errors
/// An unknown name; a file that is not there or holds a row that cannot be used (with its line or row number); no row;
/// rows of one class only.
pub fn load(name: &str, data_dir: Option<&Path>, rows: usize) -> Result<Dataset> {
    let (dialogues, origin) = match name.split_once(':').map_or(name, |(family, _)| family) {
        EMBEDDED => embedded::load(name, rows)?,
        "repe" if name == "repe" => repe::load(data_dir)?,
        _ => (read_file(Path::new(name))?, name.to_owned()),
    };
    let positive = dialogues.iter().filter(|dialogue| dialogue.label).count();
    if dialogues.is_empty() {
        return Err(Error::input(origin, "holds no rows; a data set needs rows of both classes"));
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
    Ok(Dataset { name: name.to_owned(), origin, dialogues })
}

/// The dialogues of a file, by the ending of its name.
fn read_file(path: &Path) -> Result<Vec<Dialogue>> {
    let ending = path.extension().map(|ending| ending.to_string_lossy().to_ascii_lowercase());
    let read: fn(&Path) -> Result<Vec<Dialogue>> = match ending.as_deref() {
        Some("jsonl") => jsonl::read,
        Some("csv") => table::read,
        Some("parquet") => columnar::read,
        _ => {
            return Err(Error::usage(format!(
                "no data set is called `{}`; name one of {} or give the path of a .jsonl, .csv or .parquet file",
                path.display(),
                REGISTERED.join(", "),
            )));
        }
    };
    if let Ok(false) = path.try_exists() {
        return Err(Error::file(path, "no such file; check the path of the data set"));
    }
    if path.is_dir() {
        return Err(Error::file(path, "is a folder; give the path of the file in it"));
    }
    read(path)
}
