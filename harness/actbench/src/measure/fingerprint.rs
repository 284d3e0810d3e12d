//! Digests of the machine and of the build: figures are comparable if they are equal.

use std::fs::File;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::environment::Environment;
use crate::error::{Error, Result};

/// Hex digits that are kept of a digest: 64 bits, so that an accidental match is out of the question.
const DIGEST_LENGTH: usize = 16;

/// Which figures are comparable. It has no host name: machines of one kind have the same fingerprint, and remain different
/// machines.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fingerprint {
    /// Digest of [`machine_facts`].
    pub machine: String,
    /// Digest of [`build_facts`].
    pub build: String,
}

impl Fingerprint {
    /// The fingerprint of `environment`.
    pub fn of(environment: &Environment) -> Self {
        Fingerprint { machine: machine(environment), build: digest(&build_facts(environment)) }
    }
}

/// Digest of the facts that timings of two machines must have in common.
pub fn machine(environment: &Environment) -> String {
    digest(&machine_facts(environment))
}

/// The facts that timings of two machines must have in common: processor, cores, memory, kernel, governor, huge pages,
/// instruction set, GPUs and their driver. An unknown fact is a dash.
pub fn machine_facts(environment: &Environment) -> Vec<(&'static str, String)> {
    let known = |fact: &Option<String>| fact.clone().unwrap_or_else(|| "-".to_owned());
    let ram = environment.ram_mb.map_or_else(|| "-".to_owned(), |mib| format!("{} GiB", ram_class(mib)));
    vec![
        ("processor", known(&environment.cpu_model)),
        ("threads", environment.cores_logical.to_string()),
        ("cores", environment.cores_physical.map_or_else(|| "-".to_owned(), |cores| cores.to_string())),
        ("memory", ram),
        ("kernel", known(&environment.kernel)),
        ("governor", known(&environment.governor)),
        ("huge pages", known(&environment.huge_pages)),
        ("instruction set", known(&environment.instruction_set)),
        ("GPUs", environment.gpus.join(", ")),
        ("GPU driver", known(&environment.driver)),
    ]
}

/// The facts that builds of two commits must have in common: compiler, profile, target, features and flags.
pub fn build_facts(environment: &Environment) -> Vec<(&'static str, String)> {
    let known = |fact: &Option<String>| fact.clone().unwrap_or_else(|| "-".to_owned());
    vec![
        ("compiler", known(&environment.rustc)),
        ("profile", environment.profile.clone()),
        ("target", known(&environment.target)),
        ("features", environment.features.join(", ")),
        ("compiler flags", known(&environment.rustflags)),
    ]
}

/// The nominal size of the memory in GiB: the next power of two, or one and a half times a power of two. The kernel
/// reports slightly less, and by kernel a different amount.
fn ram_class(mib: f64) -> u64 {
    let classes = (0..40).flat_map(|power| [1u64 << power, (1 << power) + (1 << power >> 1)]);
    classes.into_iter().find(|gib| *gib as f64 * 1024.0 >= mib).unwrap_or(u64::MAX)
}

fn digest(facts: &[(&'static str, String)]) -> String {
    let lines: Vec<String> = facts.iter().map(|(name, value)| format!("{name}={value:?}")).collect();
    shortened(blake3::hash(lines.join("\n").as_bytes()))
}

/// Digest of the bytes of an executable.
///
/// # Errors
/// The file cannot be read.
pub fn executable(path: &Path) -> Result<String> {
    let mut hasher = blake3::Hasher::new();
    let file = File::open(path).map_err(Error::io("open", path))?;
    hasher.update_reader(file).map_err(Error::io("read", path))?;
    Ok(shortened(hasher.finalize()))
}

fn shortened(digest: blake3::Hash) -> String {
    digest.to_hex().chars().take(DIGEST_LENGTH).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machine_digest_ignores_time_and_command() {
        let here = Environment::read(None);
        let later = Environment { date: "2001-01-01T00:00:00Z".to_owned(), command_line: Vec::new(), ..here.clone() };
        assert_eq!(machine(&here), machine(&later));
        assert_eq!(machine(&here).len(), DIGEST_LENGTH);
        let other = Environment { cores_logical: here.cores_logical + 1, ..here.clone() };
        assert_ne!(machine(&here), machine(&other));
    }

    #[test]
    fn build_digest_ignores_commit_and_machine() {
        let here = Environment::read(None);
        let fingerprint = Fingerprint::of(&here);
        let next = Environment { commit: Some("another".to_owned()), version: "9.0".to_owned(), ..here.clone() };
        assert_eq!(Fingerprint::of(&next), fingerprint);
        let debug = Fingerprint::of(&Environment { profile: "other".to_owned(), ..here });
        assert_eq!(debug.machine, fingerprint.machine);
        assert_ne!(debug.build, fingerprint.build);
    }

    #[test]
    fn memory_is_rounded_to_nominal_size() {
        assert_eq!([500.0, 1024.0, 1025.0, 15_800.0, 23_982.0, 64_000.0].map(ram_class), [1, 1, 2, 16, 24, 64]);
        assert_eq!(ram_class(f64::NAN), u64::MAX);
    }

    #[test]
    fn executable_digest_follows_its_bytes() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("executable");
        std::fs::write(&path, b"one").unwrap();
        let one = executable(&path).unwrap();
        std::fs::write(&path, b"two").unwrap();
        assert_ne!(executable(&path).unwrap(), one);
        assert!(executable(&directory.path().join("absent")).is_err());
    }
}
