//! Digests that say whether figures may be compared: of the machine, and of the program.

use std::fs::File;
use std::path::Path;

use super::environment::Environment;
use crate::error::{Error, Result};

/// Characters of a digest that are kept: enough that two machines never share them by chance.
const KEPT: usize = 16;

/// Of what makes timings of two machines comparable: processor, cores, memory (to the GiB), kernel, governor, GPUs and
/// their driver. No host name: two machines of a kind share it, and are still only of a kind.
pub fn machine(environment: &Environment) -> String {
    let ram_gib = environment.ram_mb.map(|megabytes| (megabytes / 1024.0).round() as u64);
    let text = format!(
        "{:?}|{}|{:?}|{:?}|{:?}|{:?}|{:?}|{:?}",
        environment.cpu_model,
        environment.cores_logical,
        environment.cores_physical,
        ram_gib,
        environment.governor,
        environment.kernel,
        environment.gpus,
        environment.driver,
    );
    short(blake3::hash(text.as_bytes()))
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
