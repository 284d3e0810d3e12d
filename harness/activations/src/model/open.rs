//! A model's files opened and checked, before any weight is read.

use std::sync::Arc;

use actbench_kernels::{Backend, DType};

use super::config::ModelConfig;
use super::llama::{Llama, LoadOptions, too_deep};
use super::loader::check_tensors;
use super::locate::{ModelLocation, locate};
use super::weights::Weights;
use crate::error::Result;
use crate::text::{ChatTokenizer, MaskKind};

/// A model whose configuration, tokenizer and weight headers were read and fit each other.
pub struct OpenModel {
    /// The shape.
    pub config: ModelConfig,
    /// Text to tokens.
    pub tokenizer: ChatTokenizer,
    /// Mapped or synthetic weights.
    pub weights: Arc<Weights>,
    /// Where it was found.
    pub location: ModelLocation,
    /// Whether it is the model that is used when none is named.
    pub embedded: bool,
}

impl OpenModel {
    /// Finds and opens the model that `name` names; none is the embedded one. Its tokenizer masks as `mask` says. `quiet`
    /// shows no progress where a model has to be fetched or imported first.
    ///
    /// # Errors
    /// No such model, or files that are missing, broken or of another architecture.
    pub fn open(name: Option<&str>, mask: MaskKind, quiet: bool) -> Result<Self> {
        let location = locate(name, quiet)?;
        let origin = match &location {
            ModelLocation::Directory(folder) => folder.join("config.json").display().to_string(),
            ModelLocation::Synthetic(_) => location.to_string(),
        };
        let config = ModelConfig::parse(&location.config_json()?, &origin)?;
        let tokenizer = match &location {
            ModelLocation::Directory(folder) => ChatTokenizer::from_dir(folder)?,
            ModelLocation::Synthetic(_) => ChatTokenizer::bundled()?,
        };
        let weights = location.weights().map_err(|error| error.advise("fetch the model's weights anew"))?;
        let embedded = name.is_none_or(|name| name == "embedded");
        let tokenizer = tokenizer.with_mask(mask);
        Ok(OpenModel { config, tokenizer, weights: Arc::new(weights), embedded, location })
    }

    /// Checks that every tensor of the blocks up to `deepest` is there in the right shape.
    ///
    /// # Errors
    /// A layer beyond the model, a tensor that is missing or has another shape.
    pub fn check(&self, deepest: usize) -> Result<()> {
        if deepest >= self.config.n_layers {
            return Err(too_deep(deepest, self.config.n_layers));
        }
        check_tensors(&self.config, &self.weights, deepest + 1).map_err(|error| {
            error.advise("config.json and the weights are not of one model, or not whole: fetch both anew")
        })
    }

    /// Loads the blocks up to `deepest` over `backends`, split by free memory.
    ///
    /// # Errors
    /// As [`Llama::load_over`].
    pub fn load_over<B: Backend>(
        &self,
        backends: Vec<B>,
        dtype: DType,
        deepest: usize,
        max_positions: usize,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Llama<B>> {
        let options = LoadOptions { dtype, n_blocks: deepest + 1, max_positions };
        Llama::load_over(backends, self.config.clone(), self.weights.clone(), &options, progress)
    }
}
