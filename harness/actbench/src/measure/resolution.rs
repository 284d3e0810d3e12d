//! How small a slowdown can be seen on this machine: what `actbench selftest` found, kept in the user's cache folder.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::environment::Environment;
use super::fingerprint;
use crate::error::{Error, Result};
use actbench_activations::model::locate::places::Places;

/// What `actbench selftest` found out about a machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Resolution {
    /// The machine's fingerprint.
    pub machine: String,
    /// When it was found out, RFC 3339 in UTC.
    pub date: String,
    /// The smallest slowdown tried that was caught in at least 90 % of the trials, as were all larger ones; as a share
    /// (0.05 is 5 %). None if none was.
    pub smallest_effect: Option<f64>,
    /// Trials without any difference.
    pub trials_without_difference: usize,
    /// Alarms among them.
    pub false_alarms: usize,
}

impl Resolution {
    /// `this machine resolves slowdowns from 5 % on (0 false alarms in 40 trials, 2026-11-27)`.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sentence_says_what_is_seen_and_how_often_it_was_wrong() {
        let resolution = Resolution {
            machine: "0".repeat(16),
            date: "2026-11-27T01:02:03Z".to_owned(),
            smallest_effect: Some(0.05),
            trials_without_difference: 40,
            false_alarms: 0,
        };
        let wanted = "this machine resolves slowdowns from 5 % on (0 false alarms in 40 trials, actbench selftest of 2026-11-27)";
        assert_eq!(resolution.sentence(), wanted);
        let none = Resolution { smallest_effect: None, ..resolution };
        assert!(none.sentence().starts_with("this machine resolves no slowdown that was tried"));
    }
}
