//! Importing GGUF models: a `.gguf` file becomes a model folder in Hugging Face's form.
//!
//! Everything else here reads one form of model only, a folder with `config.json`, safetensors weights and
//! `tokenizer.json`. [`gguf`] reads the file; [`config`], [`tokenizer`] and [`tensors`] translate its three parts;
//! [`folder`] writes them, whole or not at all.

pub mod config;
pub mod folder;
pub mod gguf;
pub mod rope_scaling;
pub mod tensors;
#[cfg(test)]
mod tests;
pub mod tokenizer;

use std::path::Path;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::error::{Error, Result};
use gguf::GgufFile;

/// Goes up whenever the same file would be imported differently, so that older imports in a cache are not taken.
pub const IMPORT_VERSION: u32 = 1;

/// What was imported, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImportSummary {
    /// The model's own name, where the file has one.
    pub name: Option<String>,
    /// Decoder blocks.
    pub n_layers: usize,
    /// Tensors written.
    pub n_tensors: usize,
    /// Weights written.
    pub n_parameters: usize,
}

/// Called with the number of tensors written so far and their number in all.
pub type Progress<'a> = dyn FnMut(usize, usize) + 'a;

/// Imports the GGUF file `file` into the folder `out`, with weights rounded to bfloat16.
///
/// A folder that exists and is not empty is an error unless `force` is set; then the model's files in it are replaced
/// and others are left alone.
///
/// # Errors
/// A file that is no whole GGUF file, or one whose architecture, tensor types or tokenizer are not known here, or a
/// folder that cannot be written. Nothing is left behind then.
pub fn import_gguf(file: &Path, out: &Path, force: bool, progress: &mut Progress<'_>) -> Result<ImportSummary> {
    folder::check_destination(out, force)?;
    let gguf = GgufFile::open(file)?;
    let architecture = gguf.string("general.architecture")?;
    if architecture != "llama" {
        let what = format!("is a model of architecture '{architecture}'; only 'llama' can be imported");
        return Err(Error::file(file, what));
    }
    let config = config::ModelConfig::read(&gguf)?;
    let tokenizer = tokenizer::read(&gguf, &config)?;
    let tensors = tensors::plan(&gguf, &config)?;
    let summary = ImportSummary {
        name: gguf.find_string("general.name").map(str::to_owned),
        n_layers: config.shape.n_layers,
        n_tensors: tensors.len(),
        n_parameters: tensors.iter().map(|tensor| tensor.n_elements()).sum(),
    };
    folder::write(out, force, |dir| {
        folder::write_file(dir, "config.json", config.to_json().as_bytes())?;
        folder::write_file(dir, "tokenizer.json", tokenizer.tokenizer_json.as_bytes())?;
        folder::write_file(dir, "tokenizer_config.json", tokenizer.tokenizer_config_json.as_bytes())?;
        tensors::write_safetensors(&gguf, &tensors, &dir.join("model.safetensors"), progress)
    })?;
    Ok(summary)
}

/// [`import_gguf`] with a progress bar on standard error, unless `quiet` or where that is no terminal.
///
/// # Errors
/// As [`import_gguf`].
pub fn import_with_bar(file: &Path, out: &Path, force: bool, quiet: bool) -> Result<ImportSummary> {
    let bar = if quiet { ProgressBar::hidden() } else { ProgressBar::new(0) };
    if let Ok(style) = ProgressStyle::with_template("importing {wide_bar} {pos}/{len} tensors") {
        bar.set_style(style);
    }
    // Reading the tokenizer comes first and has no steps to count.
    bar.enable_steady_tick(Duration::from_millis(200));
    let summary = import_gguf(file, out, force, &mut |done, total| {
        bar.set_length(total as u64);
        bar.set_position(done as u64);
    });
    bar.finish_and_clear();
    summary
}
