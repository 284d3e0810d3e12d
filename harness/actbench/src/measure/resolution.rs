//! How small a slowdown can be seen on this machine: what `actbench selftest` found, kept in the user's cache folder.

use std::path::{Path, PathBuf};

use super::environment::Environment;
use super::fingerprint;
use crate::error::{Error, Result};
use actbench_activations::model::locate::places::Places;
pub use pairgate::selftest::Resolution;

/// The folder in which this program keeps what can be made again; none where the environment names no place for one.
pub fn cache_folder() -> Option<PathBuf> {
    Places::from_environment(|name| std::env::var(name).ok()).cache
}

/// What was found out about the machine of `environment`; none where that was never tried, or is not to be read.
pub fn known(environment: &Environment) -> Option<Resolution> {
    read(&file(&cache_folder()?, &fingerprint::machine(environment)))
}

fn read(path: &Path) -> Option<Resolution> {
    serde_json::from_str(&std::fs::read_to_string(path).ok()?).ok()
}

/// Keeps what was found out, for all later reports; gives the file.
///
/// # Errors
/// There is no cache folder, or it cannot be written to.
pub fn keep(resolution: &Resolution) -> Result<PathBuf> {
    let folder = cache_folder()
        .ok_or_else(|| Error::usage("no folder to keep the self-test's result in: set HOME or XDG_CACHE_HOME"))?;
    std::fs::create_dir_all(&folder).map_err(Error::io("create", &folder))?;
    let path = file(&folder, &resolution.machine);
    let text = serde_json::to_string_pretty(resolution).map_err(|error| Error::file(&path, error.to_string()))?;
    crate::results::write_whole(&path, format!("{text}\n").as_bytes())?;
    Ok(path)
}

fn file(folder: &Path, machine: &str) -> PathBuf {
    folder.join(format!("selftest-{machine}.json"))
}
