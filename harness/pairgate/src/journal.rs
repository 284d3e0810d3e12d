//! The journal of a gate: every pair is recorded when it was taken, so that an interrupted gate can be resumed with the
//! same pairs at the same looks.
//!
//! The first line, the header, records the programs and the design; a journal with another header is not resumed. Each
//! further line is a pair, on the disk before the next pair is begun. An incomplete last line is dropped: its pair is taken
//! again, and so is a pair of which a run failed. A failure decides no look, and its cause, such as a full disk, may be gone.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::atomic_file::write_atomically;
use crate::design::GateDesign;
use crate::error::{Error, Result};
use crate::pair::{GatePair, GateStage};
use crate::report::ProgramIdentity;

/// The header of a journal: the facts that a resumed gate must share with the interrupted one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JournalHeader {
    /// Name and version of the caller's journals; raised when a name changes its meaning.
    pub schema: String,
    /// Pairs, margins, levels and seed.
    pub design: GateDesign,
    /// Digest of the base program.
    pub base: String,
    /// Digest of the head program.
    pub head: String,
    /// Digest of the machine's facts.
    pub machine: String,
    /// The cases, with all settings that distinguish them from others of the same name.
    pub cases: Value,
}

impl JournalHeader {
    /// The header of a gate of `base` against `head`.
    pub fn new(
        schema: &str,
        design: &GateDesign,
        (base, head): (&ProgramIdentity, &ProgramIdentity),
        machine: &str,
        cases: Value,
    ) -> Self {
        JournalHeader {
            schema: schema.to_owned(),
            design: design.clone(),
            base: base.build.clone(),
            head: head.build.clone(),
            machine: machine.to_owned(),
            cases,
        }
    }

    /// The first difference from `other`, as text; none where they are equal.
    fn difference(&self, other: &JournalHeader) -> Option<&'static str> {
        let comparisons = [
            (self.schema == other.schema, "another version wrote the journal"),
            (self.design == other.design, "the settings or the seed differ"),
            (self.base == other.base, "the base program differs"),
            (self.head == other.head, "the head program differs"),
            (self.machine == other.machine, "the machine differs"),
            (self.cases == other.cases, "the suite differs"),
        ];
        comparisons.into_iter().find(|(is_equal, _)| !is_equal).map(|(_, difference)| difference)
    }
}

/// A journal that is being written.
#[derive(Debug)]
pub struct GateJournal {
    file: File,
    path: PathBuf,
    recorded: BTreeMap<(GateStage, String, usize), GatePair>,
}

impl GateJournal {
    /// Begins a journal. A file that is there already is replaced.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn begin(path: &Path, header: &JournalHeader) -> Result<Self> {
        let line = serde_json::to_string(header).map_err(|error| Error::internal(error.to_string()))?;
        write_atomically(path, format!("{line}\n").as_bytes())?;
        Self::append_to(path, BTreeMap::new())
    }

    /// Resumes the journal at `path`; begins one if there is no file.
    ///
    /// # Errors
    /// Its header differs from `header`, or it cannot be read or written.
    pub fn resume(path: &Path, header: &JournalHeader) -> Result<Self> {
        if !path.exists() {
            return Self::begin(path, header);
        }
        let bytes = std::fs::read(path).map_err(Error::io("read", path))?;
        // Bytes after the last line break are a pair that was being written when the gate was killed.
        let complete = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let text = String::from_utf8_lossy(&bytes[..complete]);
        let mut lines = text.lines();
        let advice = "to start over, remove it or omit --resume";
        let first = lines.next().and_then(|line| serde_json::from_str::<JournalHeader>(line).ok());
        let first = first.ok_or_else(|| Error::file(path, format!("is not a gate journal; {advice}")))?;
        if let Some(difference) = header.difference(&first) {
            return Err(Error::file(path, format!("cannot resume: {difference}; {advice}")));
        }
        let mut recorded = BTreeMap::new();
        for (index, line) in lines.enumerate() {
            let pair: GatePair = serde_json::from_str(line)
                .map_err(|error| Error::file(path, format!("line {}: {error}; {advice}", index + 2)))?;
            let key = (pair.stage, pair.case.clone(), pair.index);
            // A pair that was taken again follows the failed one.
            if pair.has_failed() {
                recorded.remove(&key);
            } else {
                recorded.insert(key, pair);
            }
        }
        let journal = Self::append_to(path, recorded)?;
        journal.file.set_len(complete as u64).map_err(Error::io("write", path))?;
        Ok(journal)
    }

    fn append_to(path: &Path, recorded: BTreeMap<(GateStage, String, usize), GatePair>) -> Result<Self> {
        let file = OpenOptions::new().append(true).open(path).map_err(Error::io("open", path))?;
        Ok(GateJournal { file, path: path.to_path_buf(), recorded })
    }

    /// Pairs that were recorded before.
    pub fn n_recorded(&self) -> usize {
        self.recorded.len()
    }

    /// The pair with that stage, case and number, if it was recorded before.
    pub fn recorded_pair(&mut self, stage: GateStage, case: &str, index: usize) -> Option<GatePair> {
        self.recorded.remove(&(stage, case.to_owned(), index))
    }

    /// Appends a pair and syncs the file.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn append(&mut self, pair: &GatePair) -> Result<()> {
        let line = serde_json::to_string(pair).map_err(|error| Error::internal(error.to_string()))?;
        let write = |file: &mut File| file.write_all(format!("{line}\n").as_bytes()).and_then(|()| file.sync_data());
        write(&mut self.file).map_err(Error::io("write", &self.path))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::source::{Observation, ObservationResult, Side};

    fn header() -> JournalHeader {
        let identity = |build: &str| ProgramIdentity { build: build.to_owned(), ..ProgramIdentity::default() };
        let (base, head) = (identity("a"), identity("b"));
        JournalHeader::new("test-journal/1", &GateDesign::looks(1), (&base, &head), "m", json!(["case"]))
    }

    fn pair(index: usize) -> GatePair {
        let measured = || ObservationResult::Measured(Observation::default());
        GatePair {
            stage: GateStage::Screen,
            case: "case".to_owned(),
            index,
            first: Side::Head,
            base: measured(),
            head: measured(),
        }
    }

    #[test]
    fn failed_pair_is_taken_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("journal");
        let mut journal = GateJournal::begin(&path, &header()).unwrap();
        journal.append(&pair(0)).unwrap();
        let failed = GatePair { head: ObservationResult::Failed("no space left".to_owned()), ..pair(1) };
        journal.append(&failed).unwrap();
        let mut journal = GateJournal::resume(&path, &header()).unwrap();
        assert_eq!(journal.n_recorded(), 1);
        assert_eq!(journal.recorded_pair(GateStage::Screen, "case", 1), None);
        journal.append(&pair(1)).unwrap();
        let mut journal = GateJournal::resume(&path, &header()).unwrap();
        assert_eq!(journal.recorded_pair(GateStage::Screen, "case", 1), Some(pair(1)));
    }

    #[test]
    fn resume_keeps_pairs_and_drops_an_incomplete_line() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("journal");
        let mut journal = GateJournal::begin(&path, &header()).unwrap();
        journal.append(&pair(0)).unwrap();
        journal.append(&pair(1)).unwrap();
        drop(journal);
        let complete = std::fs::read(&path).unwrap();
        let mut cut = complete.clone();
        cut.extend(&complete[complete.len() - 30..complete.len() - 1]);
        std::fs::write(&path, &cut).unwrap();
        let mut journal = GateJournal::resume(&path, &header()).unwrap();
        assert_eq!(journal.n_recorded(), 2);
        assert_eq!(journal.recorded_pair(GateStage::Screen, "case", 1), Some(pair(1)));
        assert_eq!(journal.recorded_pair(GateStage::Screen, "case", 2), None);
        assert_eq!(journal.recorded_pair(GateStage::Confirm, "case", 0), None);
        journal.append(&pair(2)).unwrap();
        drop(journal);
        assert_eq!(GateJournal::resume(&path, &header()).unwrap().n_recorded(), 3);
    }

    #[test]
    fn resume_with_another_header_names_the_difference() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("journal");
        GateJournal::begin(&path, &header()).unwrap();
        let assert_refused = |header: JournalHeader, part: &str| {
            let error = GateJournal::resume(&path, &header).unwrap_err().to_string();
            assert!(error.contains(part) && error.contains("journal"), "{error}");
        };
        assert_refused(JournalHeader { head: "c".to_owned(), ..header() }, "the head program differs");
        assert_refused(JournalHeader { design: GateDesign::looks(2), ..header() }, "seed");
        assert_refused(JournalHeader { cases: json!([]), ..header() }, "the suite differs");
        std::fs::write(&path, "something\n").unwrap();
        assert_refused(header(), "not a gate journal");
    }
}
