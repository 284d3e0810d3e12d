//! Resolves `--model` to a directory with a checkpoint, or to a synthetic preset.

mod hub;
pub mod settings;
#[cfg(test)]
mod tests;

use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};

use actbench_fixtures::presets::{PRESETS, Preset};

use crate::error::{Error, Result};
use crate::import::{IMPORT_VERSION, import_with_bar, repeat_warnings};
use crate::model::spec::DecoderSpec;
use crate::model::weights::{Weights, adapter_file};
pub use settings::LocateSettings;

/// The default model.
pub const EMBEDDED_PRESET: &str = "tiny";

/// The seed of synthetic weights, fixed so that a preset is the same model on every machine.
pub const SYNTHETIC_SEED: u64 = 0;

/// The location of a model.
#[derive(Clone, Debug, PartialEq)]
pub enum ModelLocation {
    /// A directory with `config.json`, safetensors weights and a tokenizer.
    Directory(PathBuf),
    /// Weights generated from a seed.
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
                String::from_utf8(text).map_err(|_| Error::file(&path, "is not UTF-8; download the file again"))
            }
            ModelLocation::Synthetic(preset) => Ok(preset.config_json()),
        }
    }

    /// Opens the weights of the model, whose configuration is `spec`.
    ///
    /// # Errors
    /// See [`Weights::open`].
    pub fn weights(&self, spec: &DecoderSpec) -> Result<Weights> {
        match self {
            ModelLocation::Directory(dir) => Weights::open(dir, spec),
            ModelLocation::Synthetic(preset) => Ok(Weights::synthetic(preset, spec, SYNTHETIC_SEED)),
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

/// Finds the model `model`, and downloads or imports it if necessary. In this order:
///
/// - none, or `embedded`: the same as `synthetic:tiny`;
/// - `synthetic:<preset>`;
/// - a directory;
/// - a `.gguf` file, which is imported into the user's cache once;
/// - `org/name`, a model of the Hugging Face hub: from its local cache, else from the network.
///
/// `quiet` hides the progress.
///
/// # Errors
/// There is no such model, or it cannot be downloaded or imported.
pub fn locate(model: Option<&str>, quiet: bool) -> Result<ModelLocation> {
    locate_in(model, &LocateSettings::of_process(), quiet)
}

/// [`locate`] with explicit settings.
///
/// # Errors
/// As [`locate`].
pub fn locate_in(model: Option<&str>, settings: &LocateSettings, quiet: bool) -> Result<ModelLocation> {
    let name = match model {
        None | Some("embedded") => return preset(EMBEDDED_PRESET).map(ModelLocation::Synthetic),
        Some(name) => name,
    };
    if let Some(name) = name.strip_prefix("synthetic:") {
        return preset(name).map(ModelLocation::Synthetic);
    }
    let path = Path::new(name);
    if path.is_dir() {
        if path.join("config.json").exists() {
            return Ok(ModelLocation::Directory(path.to_path_buf()));
        }
        if let Some(file) = adapter_file(path) {
            let what = format!(
                "has no config.json, and '{file}' is of an adapter: name its base model by --model, and this directory by --adapter"
            );
            return Err(Error::file(path, what));
        }
        return Err(Error::file(path, "has no config.json, so it is not a model directory"));
    }
    if path.exists() {
        if path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gguf")) {
            return imported(path, settings, quiet).map(ModelLocation::Directory);
        }
        return Err(Error::file(path, "is not a .gguf file; for other formats, give the model's directory"));
    }
    if let Some(repo) = hub::model_repo(name) {
        return hub::fetch(name, &repo, &settings.hub, quiet).map(ModelLocation::Directory);
    }
    Err(Error::input(
        if name.is_empty() { "--model" } else { name },
        "no such model: give a directory, a .gguf file, a hub id like org/name, synthetic:<preset> or embedded",
    ))
}

fn preset(name: &str) -> Result<&'static Preset> {
    Preset::find(name).ok_or_else(|| {
        let known: Vec<&str> = PRESETS.iter().map(|preset| preset.name).collect();
        Error::usage(format!("unknown preset '{name}' for synthetic models; use one of {}", known.join(", ")))
    })
}

/// Imports a GGUF file into the user's cache unless it is there. The directory is named by a digest of the file.
fn imported(file: &Path, settings: &LocateSettings, quiet: bool) -> Result<PathBuf> {
    let Some(cache) = &settings.cache else {
        return Err(Error::file(
            file,
            "there is no cache directory to import it into: set ACTBENCH_CACHE to a directory",
        ));
    };
    // Read, not mapped: this may run in a process whose resident size is measured.
    let mut hasher = blake3::Hasher::new();
    let opened = File::open(file).map_err(Error::io("open", file))?;
    hasher.update_reader(opened).map_err(Error::io("read", file))?;
    let digest = hasher.finalize().to_hex();
    let directory = cache.join("imported").join(format!("{}-v{IMPORT_VERSION}", &digest[..32]));
    let complete = || directory.join("config.json").exists();
    if complete() {
        repeat_warnings(file, &directory);
    } else {
        let outcome = import_with_bar(file, &directory, false, quiet);
        // Another process may have been faster; its directory has the same contents.
        if !complete() {
            outcome.map_err(|error| name_cache_variable(error, cache))?;
        }
    }
    Ok(directory)
}

/// Adds the remedy to the error of a write into the user's cache.
fn name_cache_variable(error: Error, cache: &Path) -> Error {
    match error {
        Error::Io { action, path, source } if path.starts_with(cache) => {
            let text = format!("{source}; set ACTBENCH_CACHE to a directory that can be written and has space");
            Error::Io { action, path, source: std::io::Error::new(source.kind(), text) }
        }
        other => other,
    }
}
