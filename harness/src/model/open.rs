//! A model's files opened and checked, before any weight is read.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use actbench_kernels::{Backend, DType};

use super::config::ModelConfig;
use super::llama::{Llama, LoadOptions, too_deep};
use super::loader::check_tensors;
use super::locate::{ModelLocation, locate};
use super::weights::Weights;
use crate::error::{Error, Result};
use crate::text::ChatTokenizer;

/// Seed of synthetic weights. One seed for all runs: their features can then be compared.
const SYNTHETIC_SEED: u64 = 0;

/// A model whose configuration, tokenizer and weight headers were read and fit each other.
pub struct OpenModel {
    /// The shape.
    pub config: ModelConfig,
    /// Text to tokens.
    pub tokenizer: ChatTokenizer,
    /// Mapped or synthetic weights.
    pub weights: Arc<Weights>,
}

impl OpenModel {
    /// Finds and opens the model that `name` names; none is the embedded one.
    ///
    /// # Errors
    /// No such model, or files that are missing, broken or of another architecture.
    pub fn open(name: Option<&str>) -> Result<Self> {
        match locate(name)? {
            ModelLocation::Directory(folder) => Self::open_folder(&folder),
            ModelLocation::Synthetic(preset) => {
                let origin = format!("synthetic:{}", preset.name);
                Ok(OpenModel {
                    config: ModelConfig::parse(&preset.config_json(), &origin)?,
                    tokenizer: ChatTokenizer::bundled()?,
                    weights: Arc::new(Weights::synthetic(preset, SYNTHETIC_SEED)),
                })
            }
        }
    }

    fn open_folder(folder: &Path) -> Result<Self> {
        let path = folder.join("config.json");
        let text = fs::read_to_string(&path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => {
                Error::file(folder, "no config.json here: not a Hugging Face model folder")
            }
            _ => Error::Io { action: "read", path: path.clone(), source: error },
        })?;
        let config = ModelConfig::parse(&text, &path.display().to_string())?;
        Ok(OpenModel { config, tokenizer: ChatTokenizer::from_dir(folder)?, weights: Arc::new(Weights::open(folder)?) })
    }

    /// Checks that every tensor of the blocks up to `deepest` is there in the right shape.
    ///
    /// # Errors
    /// A layer beyond the model, a tensor that is missing or has another shape.
    pub fn check(&self, deepest: usize) -> Result<()> {
        if deepest >= self.config.n_layers {
            return Err(too_deep(deepest, self.config.n_layers));
        }
        check_tensors(&self.config, &self.weights, deepest + 1)
    }

    /// Loads the blocks up to `deepest` on `backend`.
    ///
    /// # Errors
    /// As [`Llama::load`].
    pub fn load<B: Backend>(
        &self,
        backend: B,
        dtype: DType,
        deepest: usize,
        max_positions: usize,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Llama<B>> {
        let options = LoadOptions { dtype, n_blocks: deepest + 1, max_positions };
        Llama::load(backend, self.config.clone(), self.weights.clone(), &options, progress)
    }
}
