//! Result files with the names by which tables and charts refer to them.

use super::ResultFile;

/// A result file with its name.
#[derive(Clone, Debug)]
pub struct NamedResults {
    /// Distinguishes the file from the others: its path without the directories that all of them have in common.
    pub name: String,
    /// The path as the user gave it.
    pub path: String,
    /// The content.
    pub results: ResultFile,
}
