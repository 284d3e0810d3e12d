//! The smallest slowdown that this machine can show: the result of `actbench selftest`, kept in the user's cache directory.

use std::path::{Path, PathBuf};

use super::environment::Environment;
use super::fingerprint;
use crate::atomic_file::write_whole;
use crate::error::{Error, Result};
use actbench_activations::model::locate::settings::LocateSettings;
pub use pairgate::selftest::Resolution;

/// The directory for files that can be regenerated; none if the environment names no directory.
pub fn cache_directory() -> Option<PathBuf> {
    LocateSettings::of_process().cache
}

/// The stored self-test result for the machine of `environment`; none if there is none or it cannot be read.
pub fn known(environment: &Environment) -> Option<Resolution> {
    read(&file(&cache_directory()?, &fingerprint::machine(environment)))
}

fn read(path: &Path) -> Option<Resolution> {
    serde_json::from_str(&std::fs::read_to_string(path).ok()?).ok()
}

/// Stores a result for later reports; returns the path of the file.
///
/// # Errors
/// There is no cache directory, or it cannot be written to.
pub fn store(resolution: &Resolution) -> Result<PathBuf> {
    let directory = cache_directory().ok_or_else(|| {
        Error::usage("no directory to store the result of the self-test in: set HOME or XDG_CACHE_HOME")
    })?;
    std::fs::create_dir_all(&directory).map_err(Error::io("create", &directory))?;
    let path = file(&directory, &resolution.machine);
    let text = serde_json::to_string_pretty(resolution).map_err(|error| Error::file(&path, error.to_string()))?;
    write_whole(&path, format!("{text}\n").as_bytes())?;
    Ok(path)
}

fn file(directory: &Path, machine: &str) -> PathBuf {
    directory.join(format!("selftest-{machine}.json"))
}
