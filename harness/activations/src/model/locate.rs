//! Where a model is: what `--model` says becomes a folder with a checkpoint in it, or a synthetic preset.

mod hub;
mod import_bar;
pub mod places;
#[cfg(test)]
mod tests;

use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};

use actbench_fixtures::presets::{PRESETS, Preset};

use crate::error::{Error, Result};
use crate::import::IMPORT_VERSION;
use crate::model::weights::Weights;
pub use places::Places;

/// The model that is used when none is named.
pub const EMBEDDED_PRESET: &str = "tiny";

/// The seed of synthetic weights: one model a preset, the same on every machine.
pub const SYNTHETIC_SEED: u64 = 0;

/// A model that was found.
#[derive(Clone, Debug, PartialEq)]
pub enum ModelLocation {
    /// A folder with `config.json`, safetensors weights and a tokenizer.
    Directory(PathBuf),
    /// Weights made up from a seed.
    Synthetic(&'static Preset),
}

impl ModelLocation {
    /// The text of the model's `config.json`.
    ///
    /// # Errors
    /// The file cannot be read or is not UTF-8.
    pub fn config_json(&self) -> Result<String> {
        match self {
            ModelLocation::Directory(dir) => {
                let path = dir.join("config.json");
                let text = std::fs::read(&path).map_err(Error::io("read", &path))?;
                String::from_utf8(text).map_err(|_| Error::file(&path, "is not UTF-8; fetch the file anew"))
            }
            ModelLocation::Synthetic(preset) => Ok(preset.config_json()),
        }
    }

    /// Opens the model's weights.
    ///
    /// # Errors
    /// See [`Weights::open`].
    pub fn weights(&self) -> Result<Weights> {
        match self {
            ModelLocation::Directory(dir) => Weights::open(dir),
            ModelLocation::Synthetic(preset) => Ok(Weights::synthetic(preset, SYNTHETIC_SEED)),
        }
    }
}

impl fmt::Display for ModelLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ModelLocation::Directory(dir) => write!(f, "{}", dir.display()),
            ModelLocation::Synthetic(preset) => write!(f, "synthetic:{}", preset.name),
        }
    }
}

/// Finds the model that `model` names, fetching or importing it where needed. In this order:
///
/// - nothing, or `embedded`: the same as `synthetic:tiny`;
/// - `synthetic:<preset>`;
/// - a folder;
/// - a `.gguf` file, which is imported into the user's cache once;
/// - `org/name`, a model of the Hugging Face hub: from its local cache, else from the network.
///
/// `quiet` shows no progress.
///
/// # Errors
/// There is no such model, or it cannot be had.
pub fn locate(model: Option<&str>, quiet: bool) -> Result<ModelLocation> {
    locate_in(model, &Places::from_environment(|name| std::env::var(name).ok()), quiet)
}

/// [`locate`] with caches and hub given by the caller.
///
/// # Errors
/// As [`locate`].
pub fn locate_in(model: Option<&str>, places: &Places, quiet: bool) -> Result<ModelLocation> {
    let name = match model {
        None | Some("embedded") => return preset(EMBEDDED_PRESET).map(ModelLocation::Synthetic),
        Some(name) => name,
    };
    if let Some(name) = name.strip_prefix("synthetic:") {
        return preset(name).map(ModelLocation::Synthetic);
    }
    let path = Path::new(name);
    if path.is_dir() {
        return match path.join("config.json").exists() {
            true => Ok(ModelLocation::Directory(path.to_path_buf())),
            false => Err(Error::file(path, "has no config.json, so it is no model folder")),
        };
    }
    if path.exists() {
        return match path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gguf")) {
            true => imported(path, places, quiet).map(ModelLocation::Directory),
            false => Err(Error::file(path, "is no .gguf file; of other models, name the folder")),
        };
    }
    if hub::is_model_id(name) {
        return hub::fetch(name, places, quiet).map(ModelLocation::Directory);
    }
    Err(Error::input(
        if name.is_empty() { "--model" } else { name },
        "no such model: give a folder, a .gguf file, a hub id like org/name, synthetic:<preset> or embedded",
    ))
}

fn preset(name: &str) -> Result<&'static Preset> {
    Preset::find(name).ok_or_else(|| {
        let known: Vec<&str> = PRESETS.iter().map(|preset| preset.name).collect();
        Error::usage(format!("no preset '{name}' for synthetic models; there are {}", known.join(", ")))
    })
}

/// The folder in the user's cache that a GGUF file was or is now imported into, named by the file's contents.
fn imported(file: &Path, places: &Places, quiet: bool) -> Result<PathBuf> {
    let Some(cache) = &places.cache else {
        return Err(Error::file(file, "no folder to import it into: set ACTBENCH_CACHE to one"));
    };
    // Read, not mapped: this may run in a process whose resident size is being measured.
    let mut hasher = blake3::Hasher::new();
    let opened = File::open(file).map_err(Error::io("open", file))?;
    hasher.update_reader(opened).map_err(Error::io("read", file))?;
    let digest = hasher.finalize().to_hex();
    let folder = cache.join("imported").join(format!("{}-v{IMPORT_VERSION}", &digest[..32]));
    let complete = || folder.join("config.json").exists();
    if !complete() {
        let outcome = import_bar::import_with_bar(file, &folder, false, quiet);
        // Another process may have been faster; its folder has the same contents.
        if !complete() {
            outcome?;
        }
    }
    Ok(folder)
}
