//! Digests of the data and of the model of a run, for [`RunIdentity`].

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

use actbench_activations::data::{self, Dataset};
use actbench_activations::model::locate::ModelLocation;
use actbench_activations::model::open::OpenModel;

use crate::error::{Error, Result};
use crate::results::identity::RunIdentity;

/// Files up to this size are read whole.
const READ_WHOLE: u64 = 64 << 20;
/// Blocks that are read of a larger file, at equal distances from its first to its last byte. Reading the weights of a large
/// model whole takes minutes, and a fine-tuned model differs in nearly all of them.
const SAMPLED_BLOCKS: u64 = 1024;
/// Bytes of such a block.
const BLOCK: u64 = 4096;
/// Bytes at the start of a larger file that are read in any case: the header of a safetensors file, with names, types and
/// shapes.
const HEAD: u64 = 8 << 20;
/// Endings of the files that define a model: configuration, tokenizer, chat template and weights.
const ENDINGS: [&str; 5] = ["json", "jinja", "model", "txt", "safetensors"];
/// Rows of a generated data set that identify it.
const GENERATED_ROWS: usize = 2;

/// The identity of a run on `model` and data of digest `data`.
///
/// # Errors
/// A file of the model cannot be read.
pub fn identity(model: &OpenModel, data: &str) -> Result<RunIdentity> {
    let weights = match &model.location {
        ModelLocation::Directory(directory) => directory_digest(directory)?,
        // With the adapter, if there is one.
        ModelLocation::Synthetic(_) => model.weights.fingerprint().to_owned(),
    };
    let weights = match (&model.location, model.weights.adapter()) {
        (ModelLocation::Directory(_), Some(adapter)) => adapter.fingerprint_with(&weights),
        _ => weights,
    };
    Ok(RunIdentity { data: Some(data.to_owned()), weights: Some(weights) })
}

/// Digest of a data set, which does not depend on `--samples`.
pub fn data_digest(dataset: &Dataset) -> String {
    let rows = match data::generated_rows(&dataset.name) {
        Some(_) => &dataset.dialogues[..dataset.dialogues.len().min(GENERATED_ROWS)],
        None => &dataset.dialogues[..],
    };
    let mut hasher = blake3::Hasher::new();
    for row in rows {
        // The debug form has every field of a row, also one that a later version adds. Hashing does not fail.
        let _ = writeln!(hasher, "{row:?}");
    }
    hasher.finalize().to_hex().to_string()
}

/// Digest of names, sizes and contents of the files that define the model in `directory`.
fn directory_digest(directory: &Path) -> Result<String> {
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(Error::io("read", directory))? {
        let path = entry.map_err(Error::io("read", directory))?.path();
        let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
        if ENDINGS.contains(&ending) && path.is_file() {
            paths.push(path);
        }
    }
    paths.sort();
    let mut hasher = blake3::Hasher::new();
    for path in paths {
        hash_file(&mut hasher, &path).map_err(Error::io("read", &path))?;
    }
    Ok(hasher.finalize().to_hex().to_string())
}

fn hash_file(hasher: &mut blake3::Hasher, path: &Path) -> std::io::Result<()> {
    let mut file = File::open(path)?;
    let size = file.metadata()?.len();
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    writeln!(hasher, "{name}: {size} bytes")?;
    if size <= READ_WHOLE {
        std::io::copy(&mut file, hasher)?;
        return Ok(());
    }
    std::io::copy(&mut (&mut file).take(HEAD), hasher)?;
    for index in 0..SAMPLED_BLOCKS {
        // The product exceeds 64 bits for no file that exists: 2^10 blocks of a file of up to 2^54 bytes.
        let start = (size - BLOCK).saturating_mul(index) / (SAMPLED_BLOCKS - 1);
        file.seek(SeekFrom::Start(start))?;
        std::io::copy(&mut (&mut file).take(BLOCK), hasher)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_change_of_a_small_file_or_of_a_size_changes_the_digest() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).unwrap();
        let digest = || directory_digest(directory.path()).unwrap();
        write("config.json", "{}");
        write("model.safetensors", "weights");
        let first = digest();
        write("README.md", "notes");
        assert_eq!(digest(), first, "a file that does not define the model");
        write("model.safetensors", "wEights");
        let second = digest();
        write("config.json", "{ }");
        assert!(first != second && second != digest());
    }

    #[test]
    fn large_file_is_sampled_from_first_to_last_byte() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("model.safetensors");
        let file = File::create(&path).unwrap();
        file.set_len(READ_WHOLE + 1).unwrap();
        let digest = || directory_digest(directory.path()).unwrap();
        let first = digest();
        let mut file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        file.seek(SeekFrom::End(-1)).unwrap();
        file.write_all(b"x").unwrap();
        assert_ne!(digest(), first);
    }

    #[test]
    fn data_digest_depends_on_rows_and_not_on_samples() {
        let of = |name: &str, rows| data_digest(&data::load(name, None, rows).unwrap());
        assert_eq!(of("embedded", 20), of("embedded", 50));
        assert_ne!(of("embedded", 20), of("embedded:long", 20));
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("data.jsonl");
        let line = |text: &str, label: u8| {
            format!(
                "{{\"messages\":[{{\"role\":\"user\",\"content\":\"a\"}},{{\"role\":\"assistant\",\"content\":\"{text}\"}}],\"label\":{label}}}\n"
            )
        };
        let digest = |last: &str| {
            std::fs::write(&path, line("b", 0) + &line("c", 1) + &line(last, 1)).unwrap();
            of(path.to_str().unwrap(), 2)
        };
        assert_ne!(digest("d"), digest("e"), "every row counts");
    }
}
