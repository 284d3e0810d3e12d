//! Import of GGUF models: converts a `.gguf` file to a model directory in Hugging Face's layout.
//!
//! The rest of the crate reads only model directories with `config.json`, safetensors weights and `tokenizer.json`.
//! [`gguf`] reads the file; [`architectures`], [`tokenizer`] and [`tensors`] convert its three parts; [`directory`] writes
//! the result completely or not at all.

pub mod architectures;
mod bar;
pub mod config;
pub mod directory;
pub mod gguf;
mod metadata;
#[cfg(test)]
mod missing_tests;
pub mod rope_scaling;
pub mod tensors;
#[cfg(test)]
mod tests;
pub mod tokenizer;

use std::path::Path;

use crate::error::Result;
pub use bar::import_with_bar;
use gguf::GgufFile;
pub use tensors::ImportProgress;

/// Part of the cache key of imported models. Increase it if an import of the same file would give another result.
pub const IMPORT_VERSION: u32 = 2;

/// A description of an imported model for users.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImportSummary {
    /// The model's name, if the file has one.
    pub name: Option<String>,
    /// Decoder blocks.
    pub n_layers: usize,
    /// Tensors written.
    pub n_tensors: usize,
    /// Weights written.
    pub n_parameters: usize,
    /// Bytes of the weights written.
    pub n_bytes: u64,
    /// Assumptions about keys that the file lacks, and keys that the import leaves out.
    pub warnings: Vec<String>,
}

/// Has the warnings of an import, one a line, so that a later use of the directory can repeat them.
const WARNINGS_FILE: &str = "import_warnings.txt";

/// Logs the warnings of the import of `file` into the directory `imported` again.
pub fn repeat_warnings(file: &Path, imported: &Path) {
    let warnings = std::fs::read_to_string(imported.join(WARNINGS_FILE)).unwrap_or_default();
    for warning in warnings.lines() {
        tracing::warn!("{}: {warning}", file.display());
    }
}

/// Imports the GGUF file `file` into the directory `out`.
///
/// No weight is rounded: half precision and bfloat16 stay, single precision stays unless every value of the tensor is
/// exact in bfloat16, and quantized weights become single precision, four bytes each. A run rounds them to its own type.
///
/// A directory that is not empty is an error unless `force` is set. With `force`, the model's files in it are
/// replaced and all other files are kept. `progress` is called for each tensor.
///
/// # Errors
/// An incomplete or malformed file, an unsupported architecture, tensor type or tokenizer, or a directory that cannot
/// be written. After an error no files are left.
pub fn import_gguf(file: &Path, out: &Path, force: bool, progress: &mut ImportProgress<'_>) -> Result<ImportSummary> {
    directory::check_destination(out, force)?;
    let gguf = GgufFile::open(file)?;
    metadata::check_kind(&gguf)?;
    let architecture = architectures::find(&gguf)?;
    let model = (architecture.read)(&gguf)?;
    let mut warnings = Vec::new();
    metadata::check_computation(&gguf, architecture, model.score_scale, &mut warnings)?;
    let tokenizer = tokenizer::read(&gguf, &model.extents, &mut warnings)?;
    let tensors = tensors::plan(&gguf, &architecture.tensors, &model.extents)?;
    let summary = ImportSummary {
        name: gguf.find_string("general.name").map(str::to_owned),
        n_layers: model.extents.n_layers,
        n_tensors: tensors.len(),
        n_parameters: tensors.iter().map(|tensor| tensor.n_elements()).sum(),
        n_bytes: tensors.iter().map(|tensor| tensor.n_bytes() as u64).sum(),
        warnings,
    };
    directory::write(out, force, |dir| {
        let config = model.config_json(tensors::dtype_of(&tensors));
        directory::write_file(dir, "config.json", config.as_bytes())?;
        directory::write_file(dir, "tokenizer.json", tokenizer.tokenizer_json.as_bytes())?;
        directory::write_file(dir, "tokenizer_config.json", tokenizer.tokenizer_config_json.as_bytes())?;
        if !summary.warnings.is_empty() {
            directory::write_file(dir, WARNINGS_FILE, (summary.warnings.join("\n") + "\n").as_bytes())?;
        }
        tensors::write_safetensors(&gguf, &tensors, &dir.join("model.safetensors"), progress)
    })?;
    for warning in &summary.warnings {
        tracing::warn!("{}: {warning}", file.display());
    }
    Ok(summary)
}
