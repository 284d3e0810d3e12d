//! The smallest slowdown that this machine can show: the result of `actbench selftest`, kept in the user's cache directory.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::environment::Environment;
use super::fingerprint;
use crate::atomic_file::write_whole;
use crate::error::{Error, Result};
use actbench_activations::model::locate::places::Places;

/// The result of `actbench selftest` on a machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Resolution {
    /// Fingerprint of the machine.
    pub machine: String,
    /// When the self-test ran, RFC 3339 in UTC.
    pub date: String,
    /// The smallest slowdown that was detected in at least 90 % of its trials, as all larger ones were; a fraction (0.05
    /// is 5 %). None if no slowdown was.
    pub smallest_effect: Option<f64>,
    /// Trials without a difference.
    pub trials_without_difference: usize,
    /// Alarms in these trials.
    pub false_alarms: usize,
}

impl Resolution {
    /// `this machine resolves slowdowns from 5 % on (0 false alarms in 40 trials, actbench selftest of 2026-11-27)`.
    pub fn sentence(&self) -> String {
        let day = self.date.split('T').next().unwrap_or_default();
        let trials = format!(
            "{} false alarms in {} trials, actbench selftest of {day}",
            self.false_alarms, self.trials_without_difference
        );
        match self.smallest_effect {
            Some(effect) => format!("this machine resolves slowdowns from {:.0} % on ({trials})", 100.0 * effect),
            None => format!("this machine resolves no slowdown that was tried ({trials})"),
        }
    }
}

/// The directory for files that can be regenerated; none if the environment names no directory.
pub fn cache_directory() -> Option<PathBuf> {
    Places::from_environment(|name| std::env::var(name).ok()).cache
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentence_has_smallest_effect_and_false_alarms() {
        let resolution = Resolution {
            machine: "0".repeat(16),
            date: "2026-11-27T01:02:03Z".to_owned(),
            smallest_effect: Some(0.05),
            trials_without_difference: 40,
            false_alarms: 0,
        };
        let expected = "this machine resolves slowdowns from 5 % on (0 false alarms in 40 trials, actbench selftest of 2026-11-27)";
        assert_eq!(resolution.sentence(), expected);
        let none = Resolution { smallest_effect: None, ..resolution };
        assert!(none.sentence().starts_with("this machine resolves no slowdown that was tried"));
    }
}
