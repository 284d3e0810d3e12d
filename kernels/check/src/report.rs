//! The report of a run, in the format of the JSON file.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::path::Path;

use serde::Serialize;

use crate::check::CheckResults;
use crate::differences::KernelDifference;
use crate::timing::Timings;

/// The name and version of the file format.
pub const FORMAT: &str = "actbench kernels-check 1";

/// A whole run.
#[derive(Debug, Serialize)]
pub struct Report {
    pub format: &'static str,
    pub version: &'static str,
    /// The device that ran the kernels.
    pub device: String,
    /// Whether the device is the emulator, whose speed and rounding do not represent a GPU.
    pub emulated: bool,
    /// The origin of each source's machine code.
    pub machine_code: BTreeMap<String, String>,
    /// The backend that results were compared with.
    pub reference: String,
    pub seed: u64,
    pub found: CheckResults,
    /// Differences between the GPU and the emulator; `None` if they were not compared.
    pub differences_from_emulator: Option<BTreeMap<String, KernelDifference>>,
    pub timings: Option<Timings>,
    /// The error that prevented the requested timing.
    pub timing_error: Option<String>,
    /// Whether a signal ended the run early.
    pub interrupted: bool,
}

impl Report {
    /// Whether every kernel was launched and no check failed.
    pub fn passed(&self) -> bool {
        !self.interrupted
            && self.found.lost.is_none()
            && self.timing_error.is_none()
            && self.found.not_launched.is_empty()
            && !self.found.kernels.is_empty()
            && self.found.kernels.values().all(|kernel| kernel.failed == 0)
    }

    /// Writes the report as JSON, atomically.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let directory = path.parent().filter(|directory| !directory.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut file = tempfile::NamedTempFile::new_in(directory)?;
        serde_json::to_writer_pretty(&mut file, &serde_json::json!({ "passed": self.passed(), "report": self }))?;
        file.write_all(b"\n")?;
        file.as_file().sync_all()?;
        file.persist(path).map_err(|error| error.error)?;
        Ok(())
    }
}
