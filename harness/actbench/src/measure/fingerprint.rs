//! Digests that say whether figures may be compared: of the machine, and of the program.

use std::fs::File;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::environment::Environment;
use crate::error::{Error, Result};

/// Characters of a digest that are kept: enough that two machines never share them by chance.
const KEPT: usize = 16;

/// What says whether figures may be compared. No host name: two machines of a kind share it, and are still only of a kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fingerprint {
    /// Digest of [`machine_facts`].
    pub machine: String,
    /// Digest of [`build_facts`].
    pub build: String,
}

impl Fingerprint {
    /// Of what `environment` says; what it says of its own fingerprint is not believed.
    pub fn of(environment: &Environment) -> Self {
        Fingerprint { machine: machine(environment), build: digest(&build_facts(environment)) }
    }
}

/// Digest of what makes timings of two machines comparable.
pub fn machine(environment: &Environment) -> String {
    digest(&machine_facts(environment))
}

/// What makes timings of two machines comparable: processor, cores, memory, kernel, governor, huge pages, instructions in
/// use, GPUs and their driver. What is not known is a dash.
pub fn machine_facts(environment: &Environment) -> Vec<(&'static str, String)> {
    let known = |fact: &Option<String>| fact.clone().unwrap_or_else(|| "-".to_owned());
    let ram = environment.ram_mb.map_or_else(|| "-".to_owned(), |megabytes| format!("{} GiB", ram_class(megabytes)));
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

/// What makes two builds of different commits comparable: compiler, profile, target, features and flags.
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

/// The memory that was bought, in GiB: the next power of two, or one and a half times one. What the kernel counts is a
/// little less, and differs between kernels.
fn ram_class(megabytes: f64) -> u64 {
    let classes = (0..40).flat_map(|power| [1u64 << power, (1 << power) + (1 << power >> 1)]);
    classes.into_iter().find(|gib| *gib as f64 * 1024.0 >= megabytes).unwrap_or(u64::MAX)
}

fn digest(facts: &[(&'static str, String)]) -> String {
    let lines: Vec<String> = facts.iter().map(|(name, value)| format!("{name}={value:?}")).collect();
    short(blake3::hash(lines.join("\n").as_bytes()))
}

/// Of a program's bytes.
///
/// # Errors
/// The file cannot be read.
pub fn program(path: &Path) -> Result<String> {
    let mut hasher = blake3::Hasher::new();
    let file = File::open(path).map_err(Error::io("open", path))?;
    hasher.update_reader(file).map_err(Error::io("read", path))?;
    Ok(short(hasher.finalize()))
}

fn short(digest: blake3::Hash) -> String {
    digest.to_hex().chars().take(KEPT).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_counts_and_the_time_does_not() {
        let here = Environment::read();
        let later = Environment { date: "2001-01-01T00:00:00Z".to_owned(), command_line: Vec::new(), ..here.clone() };
        assert_eq!(machine(&here), machine(&later));
        assert_eq!(machine(&here).len(), KEPT);
        let other = Environment { cores_logical: here.cores_logical + 1, ..here.clone() };
        assert_ne!(machine(&here), machine(&other));
        assert_eq!(here.fingerprint, Some(Fingerprint::of(&here)));
    }

    #[test]
    fn the_build_counts_apart_from_the_machine_and_the_commit_not_at_all() {
        let here = Environment::read();
        let of = Fingerprint::of;
        let next = Environment { commit: Some("another".to_owned()), version: "9.0".to_owned(), ..here.clone() };
        assert_eq!(of(&next), of(&here));
        let debug = Environment { profile: "other".to_owned(), ..here.clone() };
        assert_eq!(of(&debug).machine, of(&here).machine);
        assert_ne!(of(&debug).build, of(&here).build);
    }

    #[test]
    fn memory_counts_by_what_was_bought() {
        assert_eq!([500.0, 1024.0, 1025.0, 15_800.0, 23_982.0, 64_000.0].map(ram_class), [1, 1, 2, 16, 24, 64]);
        assert_eq!(ram_class(f64::NAN), u64::MAX);
    }

    #[test]
    fn a_program_is_known_by_its_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("program");
        std::fs::write(&path, b"one").unwrap();
        let one = program(&path).unwrap();
        std::fs::write(&path, b"two").unwrap();
        assert_ne!(program(&path).unwrap(), one);
        assert!(program(&folder.path().join("absent")).is_err());
    }
}
