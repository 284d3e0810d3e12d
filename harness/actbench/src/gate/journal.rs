//! The journal of a gate: every pair as soon as it was taken, so that a gate that was ended goes on where it was, and
//! with the same pairs at the same looks.
//!
//! The first line says what was gated and how; a journal of anything else is not gone on with. Each further line is a
//! pair, on the disk before the next one is begun. A last line that was cut off is a pair that was never taken.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::design::Design;
use super::engine::{Pair, Stage};
use super::report::Identity;
use crate::error::{Error, Result};

/// The schema's name and version.
const SCHEMA: &str = "actbench-gate-journal/1";

/// What was gated and how: what must be the same for a gate to go on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Subject {
    /// [`SCHEMA`].
    pub schema: String,
    /// How it is judged.
    pub design: Design,
    /// Digest of the base program.
    pub base: String,
    /// Digest of the head program.
    pub head: String,
    /// The machine's fingerprint.
    pub machine: String,
    /// The cases, with whatever tells them from others of the same name.
    pub cases: Value,
}

impl Subject {
    /// A subject.
    pub fn new(design: &Design, base: &Identity, head: &Identity, machine: &str, cases: Value) -> Self {
        Subject {
            schema: SCHEMA.to_owned(),
            design: design.clone(),
            base: base.build.clone(),
            head: head.build.clone(),
            machine: machine.to_owned(),
            cases,
        }
    }

    /// What differs, in words; none where nothing does.
    fn difference(&self, other: &Subject) -> Option<&'static str> {
        let parts = [
            (self.schema == other.schema, "a journal of another version of this program"),
            (self.design == other.design, "the settings or the seed differ"),
            (self.base == other.base, "the base program is another"),
            (self.head == other.head, "the head program is another"),
            (self.machine == other.machine, "the machine is another"),
            (self.cases == other.cases, "the suite differs"),
        ];
        parts.into_iter().find(|(same, _)| !same).map(|(_, what)| what)
    }
}

/// A journal that is being written.
#[derive(Debug)]
pub struct Journal {
    file: File,
    path: PathBuf,
    recorded: BTreeMap<(Stage, String, usize), Pair>,
}

impl Journal {
    /// Begins a journal; what is there already is replaced.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn begin(path: &Path, subject: &Subject) -> Result<Self> {
        let line = serde_json::to_string(subject).map_err(|error| Error::file(path, error.to_string()))?;
        crate::results::write_whole(path, format!("{line}\n").as_bytes())?;
        Self::append_to(path, BTreeMap::new())
    }

    /// Goes on with the journal that is there; begins one where there is none.
    ///
    /// # Errors
    /// It is none of `subject`, or cannot be read or written.
    pub fn resume(path: &Path, subject: &Subject) -> Result<Self> {
        if !path.exists() {
            return Self::begin(path, subject);
        }
        let bytes = std::fs::read(path).map_err(Error::io("read", path))?;
        // What follows the last line break was being written when the gate was ended.
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let text = String::from_utf8_lossy(&bytes[..whole]);
        let mut lines = text.lines();
        let advice = "remove it, or leave --resume out, to begin anew";
        let first = lines.next().and_then(|line| serde_json::from_str::<Subject>(line).ok());
        let first = first.ok_or_else(|| Error::file(path, format!("is no journal of a gate; {advice}")))?;
        if let Some(what) = subject.difference(&first) {
            return Err(Error::file(path, format!("cannot be gone on with: {what}; {advice}")));
        }
        let mut recorded = BTreeMap::new();
        for (index, line) in lines.enumerate() {
            let pair: Pair = serde_json::from_str(line)
                .map_err(|error| Error::file(path, format!("line {}: {error}; {advice}", index + 2)))?;
            recorded.insert((pair.stage, pair.case.clone(), pair.index), pair);
        }
        let journal = Self::append_to(path, recorded)?;
        journal.file.set_len(whole as u64).map_err(Error::io("write", path))?;
        Ok(journal)
    }

    fn append_to(path: &Path, recorded: BTreeMap<(Stage, String, usize), Pair>) -> Result<Self> {
        let file = OpenOptions::new().append(true).open(path).map_err(Error::io("open", path))?;
        Ok(Journal { file, path: path.to_path_buf(), recorded })
    }

    /// Pairs that were there.
    pub fn n_recorded(&self) -> usize {
        self.recorded.len()
    }

    /// The pair at that place, if it was taken before.
    pub fn recorded(&mut self, stage: Stage, case: &str, index: usize) -> Option<Pair> {
        self.recorded.remove(&(stage, case.to_owned(), index))
    }

    /// Puts a pair on the disk.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn append(&mut self, pair: &Pair) -> Result<()> {
        let line = serde_json::to_string(pair).map_err(|error| Error::file(&self.path, error.to_string()))?;
        let write = |file: &mut File| file.write_all(format!("{line}\n").as_bytes()).and_then(|()| file.sync_data());
        write(&mut self.file).map_err(Error::io("write", &self.path))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::source::{Observed, Side};
    use super::*;

    fn subject() -> Subject {
        let identity = |build: &str| Identity { build: build.to_owned(), ..Identity::default() };
        Subject::new(&Design::looks(1), &identity("a"), &identity("b"), "m", json!(["case"]))
    }

    fn pair(index: usize) -> Pair {
        let failed = || Observed::Failed("x".to_owned());
        Pair { stage: Stage::Screen, case: "case".to_owned(), index, first: Side::Head, base: failed(), head: failed() }
    }

    #[test]
    fn pairs_come_back_and_a_line_that_was_cut_off_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let mut journal = Journal::begin(&path, &subject()).unwrap();
        journal.append(&pair(0)).unwrap();
        journal.append(&pair(1)).unwrap();
        drop(journal);
        let whole = std::fs::read(&path).unwrap();
        let mut cut = whole.clone();
        cut.extend(&whole[whole.len() - 30..whole.len() - 1]);
        std::fs::write(&path, &cut).unwrap();
        let mut journal = Journal::resume(&path, &subject()).unwrap();
        assert_eq!(journal.n_recorded(), 2);
        assert_eq!(journal.recorded(Stage::Screen, "case", 1), Some(pair(1)));
        assert_eq!(journal.recorded(Stage::Screen, "case", 2), None);
        assert_eq!(journal.recorded(Stage::Confirm, "case", 0), None);
        journal.append(&pair(2)).unwrap();
        drop(journal);
        assert_eq!(Journal::resume(&path, &subject()).unwrap().n_recorded(), 3);
    }

    #[test]
    fn a_journal_of_something_else_is_refused_with_what_differs() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        Journal::begin(&path, &subject()).unwrap();
        let says = |subject: Subject, part: &str| {
            let error = Journal::resume(&path, &subject).unwrap_err().to_string();
            assert!(error.contains(part) && error.contains("journal"), "{error}");
        };
        says(Subject { head: "c".to_owned(), ..subject() }, "the head program is another");
        says(Subject { design: Design::looks(2), ..subject() }, "seed");
        says(Subject { cases: json!([]), ..subject() }, "the suite differs");
        std::fs::write(&path, "something\n").unwrap();
        says(subject(), "no journal");
    }
}
