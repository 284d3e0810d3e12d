//! The short case of `actbench selftest`: the task train by lazy, with injected work or memory in head, or with a fresh copy
//! of the program as head.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::runs::{ActbenchExecutable, ActbenchRuns};
use super::staging::StagedExecutables;
use super::suite::{Suite, SuiteCase};
use crate::case::{Method, Task};
use pairgate::selftest::trials::{CopiedFile, HeadLoad, Testbed};
use pairgate::source::{ObservationResult, Side, Source};
use pairgate::temporary::TemporaryDirectory;
use pairgate::{Error, Metric, Result};

/// The case's name.
const CASE: &str = "train-lazy";

/// Metrics that every run of the case must have.
const METRICS: [Metric; 6] =
    [Metric::Wall, Metric::Cpu, Metric::PeakAnonymous, Metric::PeakHeap, Metric::Auroc, Metric::ResultDigest];

/// Runs the case with one executable on both sides.
pub struct InjectionTestbed {
    /// The executable.
    pub executable: PathBuf,
    /// Flags of `actbench run` for the case.
    pub arguments: Vec<String>,
    /// The longest that a run may take.
    pub timeout: Option<Duration>,
}

impl Testbed for InjectionTestbed {
    fn source(&self, load: HeadLoad) -> Result<Box<dyn Source>> {
        let case =
            SuiteCase { name: CASE.to_owned(), task: Task::Train, method: Method::Lazy, args: self.arguments.clone() };
        let side = |path: &Path, arguments: Vec<String>| ActbenchExecutable { path: path.to_path_buf(), arguments };
        let suite = Suite { args: Vec::new(), cases: vec![case] };
        let copy = match load {
            HeadLoad::FreshCopy(state) => Some(ExecutableCopy::create(&self.executable, state)?),
            HeadLoad::Unchanged | HeadLoad::WorkUnits(_) | HeadLoad::MemoryBytes(_) => None,
        };
        // Two files are staged, as a gate does.
        let staged = copy.as_ref().map(|_| StagedExecutables::create()).transpose()?;
        let (base, head) = match (&staged, &copy) {
            (Some(staged), Some(copy)) => {
                (staged.stage(&self.executable, Side::Base)?, staged.stage(&copy.path, Side::Head)?)
            }
            _ => (self.executable.clone(), self.executable.clone()),
        };
        let (base, head) = (side(&base, Vec::new()), side(&head, injection_arguments(load)));
        let runs = ActbenchRuns::new(suite, base, head, METRICS.to_vec(), self.timeout)?;
        Ok(Box::new(TestbedRuns { runs, _staged: staged }))
    }
}

/// Runs of executables that may be copies, which are removed with them.
struct TestbedRuns {
    runs: ActbenchRuns,
    _staged: Option<StagedExecutables>,
}

impl Source for TestbedRuns {
    fn cases(&self) -> Vec<String> {
        self.runs.cases()
    }

    fn metrics(&self, case: &str) -> Vec<Metric> {
        self.runs.metrics(case)
    }

    fn observe(&mut self, case: &str, side: Side) -> Result<ObservationResult> {
        self.runs.observe(case, side)
    }
}

/// A copy of an executable, removed when this is dropped.
struct ExecutableCopy {
    path: PathBuf,
    _directory: TemporaryDirectory,
}

impl ExecutableCopy {
    /// Copies `executable`. The copy is on the disk, so that it can be evicted from the page cache.
    fn create(executable: &Path, state: CopiedFile) -> Result<Self> {
        let directory = TemporaryDirectory::create("actbench-gate-", None)?;
        let path = directory.path().join("actbench");
        fs::copy(executable, &path).map_err(Error::io("copy", executable))?;
        let file = File::open(&path).map_err(Error::io("open", &path))?;
        file.sync_all().map_err(Error::io("write", &path))?;
        if state == CopiedFile::Evicted {
            evict(&file).map_err(Error::io("evict from the page cache", &path))?;
        }
        Ok(ExecutableCopy { path, _directory: directory })
    }
}

/// Drops the pages of `file` from the page cache. A file in memory (tmpfs) stays there.
fn evict(file: &File) -> std::io::Result<()> {
    // SAFETY: a plain system call on a descriptor that `file` keeps open.
    match unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) } {
        0 => Ok(()),
        code => Err(std::io::Error::from_raw_os_error(code)),
    }
}

/// The hidden flags of `actbench run` that add work or memory.
fn injection_arguments(load: HeadLoad) -> Vec<String> {
    match load {
        HeadLoad::Unchanged | HeadLoad::FreshCopy(_) => Vec::new(),
        HeadLoad::WorkUnits(units) => vec!["--inject-work".to_owned(), units.to_string()],
        HeadLoad::MemoryBytes(bytes) => vec!["--inject-memory".to_owned(), bytes.to_string()],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::mounts::is_in_memory;
    use crate::measure::page_cache::Residency;

    #[test]
    fn copy_is_cached_or_evicted_and_removed() {
        let executable = std::env::current_exe().unwrap();
        let cached = ExecutableCopy::create(&executable, CopiedFile::Cached).unwrap();
        assert_eq!(fs::metadata(&cached.path).unwrap().len(), fs::metadata(&executable).unwrap().len());
        let evicted = ExecutableCopy::create(&executable, CopiedFile::Evicted).unwrap();
        if !is_in_memory(evicted.path.parent().unwrap()) {
            let fraction = Residency::of(&evicted.path).unwrap().fraction();
            assert!(fraction < 0.5, "{fraction} of the evicted copy is in the page cache");
        }
        let path = cached.path.clone();
        drop(cached);
        assert!(!path.exists());
    }
}
