//! Everything found, as the JSON file has it.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::path::Path;

use serde::Serialize;

use crate::check::Found;
use crate::differences::KernelDifference;
use crate::timing::Timings;

/// What the file says it is; the number counts its forms.
pub const FORMAT: &str = "actbench kernels-check 1";

/// A whole run.
#[derive(Debug, Serialize)]
pub struct Report {
    pub format: &'static str,
    pub version: &'static str,
    /// What the kernels ran on.
    pub device: String,
    /// Whether that is the emulator, which says nothing of a GPU's speed and little of its errors.
    pub emulated: bool,
    /// Where the machine code of each source came from.
    pub machine_code: BTreeMap<String, String>,
    /// What results were compared with.
    pub reference: String,
    pub seed: u64,
    pub found: Found,
    /// What the GPU computed otherwise than the emulator; nothing where they were not compared.
    pub differences_from_emulator: Option<BTreeMap<String, KernelDifference>>,
    pub timings: Option<Timings>,
    /// Why nothing was timed though it was asked for.
    pub timing_error: Option<String>,
    /// Whether the run was told to end before it had done everything.
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

    /// Writes the report as JSON, whole or not at all.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        serde_json::to_writer_pretty(&mut file, &serde_json::json!({ "passed": self.passed(), "report": self }))?;
        file.write_all(b"\n")?;
        file.as_file().sync_all()?;
        file.persist(path).map_err(|error| error.error)?;
        Ok(())
    }
}
