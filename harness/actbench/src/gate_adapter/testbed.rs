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
use pairgate::stats::summary::median;
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

/// Samples of the case that measures how long a sample takes, and the fewest that a case has.
const PILOT_SAMPLES: usize = 60;

/// Runs of that case; the median counts.
const PILOT_RUNS: usize = 3;

/// Most samples of a case: more only cost time.
const MAX_SAMPLES: usize = 3000;

/// How long a case takes where the number of samples is not given, in seconds. With the 0.07 s that 60 samples take on a
/// fast processor, the scheduler's noise leaves most gates without a difference inconclusive.
const CASE_SECONDS: f64 = 0.25;

impl InjectionTestbed {
    /// The case with `samples` samples on `threads` threads, run by this executable.
    ///
    /// # Errors
    /// The path of this executable is unknown.
    pub fn of_this_executable(samples: usize, threads: usize, timeout: Option<Duration>) -> Result<Self> {
        let (samples, threads) = (samples.to_string(), threads.to_string());
        let arguments = ["--samples", &samples, "--threads", &threads].map(str::to_owned).to_vec();
        let executable = std::env::current_exe().map_err(Error::io("find", "this executable"))?;
        Ok(InjectionTestbed { executable, arguments, timeout })
    }

    /// How many samples make the case take about [`CASE_SECONDS`] on this machine.
    ///
    /// # Errors
    /// A run that fails, or an interrupt.
    pub fn choose_samples(threads: usize, timeout: Option<Duration>) -> Result<usize> {
        let pilot = InjectionTestbed::of_this_executable(PILOT_SAMPLES, threads, timeout)?;
        let mut runs = pilot.source(HeadLoad::Unchanged)?;
        let mut seconds = Vec::new();
        for _ in 0..PILOT_RUNS {
            match runs.observe(CASE, Side::Base)? {
                ObservationResult::Measured(run) => {
                    let wall = run.values.get(&Metric::Wall).copied();
                    seconds.push(wall.ok_or_else(|| Error::internal("a run of the self-test has no time"))?);
                }
                ObservationResult::Failed(why) => return Err(Error::usage(format!("the case failed: {why}"))),
            }
        }
        Ok(samples_that_take(CASE_SECONDS, median(&seconds)?))
    }
}

/// The number of samples that take `target` seconds where [`PILOT_SAMPLES`] take `pilot`, in steps of 20.
fn samples_that_take(target: f64, pilot: f64) -> usize {
    const STEP: usize = 20;
    let steps = (PILOT_SAMPLES as f64 * target / pilot / STEP as f64).ceil();
    // The cast saturates, and is 0 where the quotient is not a number.
    (steps as usize).saturating_mul(STEP).clamp(PILOT_SAMPLES, MAX_SAMPLES)
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
    fn a_fast_machine_gets_more_samples() {
        assert_eq!(samples_that_take(0.25, 0.066), 240);
        assert_eq!(samples_that_take(0.25, 0.6), PILOT_SAMPLES);
        assert_eq!(samples_that_take(0.25, 1e-9), MAX_SAMPLES);
        assert_eq!(samples_that_take(0.25, f64::NAN), PILOT_SAMPLES);
    }

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
