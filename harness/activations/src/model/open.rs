//! Opens and checks a model's files before any weight is read.

use std::path::Path;
use std::sync::Arc;

use actbench_kernels::{Backend, DType};

use super::adapter::{Adapter, is_same_model};
use super::check_layer;
use super::context::ContextLength;
use super::decoder::{Decoder, LoadOptions};
use super::locate::{ModelLocation, locate};
use super::spec::DecoderSpec;
use super::tensors::{check_tensors, tensor_warnings};
use super::weights::{Weights, adapter_file};
use crate::error::{Error, Result};
use crate::text::{ChatTokenizer, MaskKind};

/// A model whose configuration, tokenizer and weight headers were read and agree.
pub struct OpenModel {
    /// The shape.
    pub spec: DecoderSpec,
    /// Turns text into tokens.
    pub tokenizer: ChatTokenizer,
    /// Mapped or synthetic weights.
    pub weights: Arc<Weights>,
    /// Where it was found.
    pub location: ModelLocation,
    /// The lengths that its rows should not exceed.
    pub context: ContextLength,
    /// Whether it is the default model, used when none is named.
    pub embedded: bool,
}

impl OpenModel {
    /// Finds and opens the model `name`, by default the embedded one. Its tokenizer sets masks of kind `mask`. `quiet`
    /// hides the progress of a download or an import.
    ///
    /// # Errors
    /// No such model, or files that are missing, broken or of another architecture.
    pub fn open(name: Option<&str>, mask: MaskKind, quiet: bool) -> Result<Self> {
        Self::open_with_adapter(name, None, mask, quiet)
    }

    /// As [`OpenModel::open`], with the LoRA adapter in the directory `adapter` merged into the weights, if one is named.
    ///
    /// # Errors
    /// As [`OpenModel::open`], and an adapter that is broken or does not fit the model.
    pub fn open_with_adapter(name: Option<&str>, adapter: Option<&Path>, mask: MaskKind, quiet: bool) -> Result<Self> {
        let location = locate(name, quiet)?;
        let spec = DecoderSpec::parse(&location.config_json()?, &config_origin(&location))?;
        let tokenizer = match &location {
            ModelLocation::Directory(directory) => ChatTokenizer::from_dir(directory)?,
            ModelLocation::Synthetic(_) => ChatTokenizer::bundled()?,
        };
        let weights = location.weights(&spec).map_err(|error| advise(error, "download the model's weights again"))?;
        let directory = match &location {
            ModelLocation::Directory(directory) => Some(directory.as_path()),
            ModelLocation::Synthetic(_) => None,
        };
        if let Some(file) = directory.filter(|directory| adapter != Some(*directory)).and_then(adapter_file) {
            tracing::warn!(
                "{location}: the adapter of '{file}' is not applied, the features are those of the weights next to it; name its \
                 directory by --adapter to include it"
            );
        }
        let weights = match adapter {
            Some(directory) => {
                let adapter = Adapter::open(directory, &spec, &weights)?;
                warn_of_adapter(&adapter, directory, &location, name);
                weights.with_adapter(adapter)
            }
            None => weights,
        };
        for warning in tensor_warnings(&spec, &weights) {
            tracing::warn!("{location}: {warning}");
        }
        let context = ContextLength::read(spec.max_position_embeddings, directory);
        let embedded = name.is_none_or(|name| name == "embedded");
        let tokenizer = tokenizer.with_mask(mask);
        Ok(OpenModel { spec, tokenizer, weights: Arc::new(weights), context, embedded, location })
    }

    /// Checks that every tensor of the blocks up to `deepest` is there in the right shape.
    ///
    /// # Errors
    /// A layer beyond the model, a tensor that is missing or has another shape.
    pub fn check(&self, deepest: usize) -> Result<()> {
        check_layer(deepest, self.spec.n_layers)?;
        const ADVICE: &str =
            "config.json and the weights belong to different models or are incomplete: download both again";
        check_tensors(&self.spec, &self.weights, deepest + 1).map_err(|error| advise(error, ADVICE))
    }

    /// Loads the blocks up to `deepest` over `backends`, split by free memory.
    ///
    /// # Errors
    /// As [`OpenModel::check`] and [`Decoder::load_over`].
    pub fn load_over<B: Backend>(
        &self,
        backends: Vec<B>,
        dtype: DType,
        deepest: usize,
        max_positions: usize,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Decoder<B>> {
        self.check(deepest)?;
        let options = LoadOptions { dtype, n_blocks: deepest + 1, max_positions };
        Decoder::load_over(backends, self.spec.clone(), self.weights.clone(), &options, progress)
    }
}

/// Prints the warnings about an adapter, and one if it names another base model than `name`, which was found at `location`.
fn warn_of_adapter(adapter: &Adapter, directory: &Path, location: &ModelLocation, name: Option<&str>) {
    let directory = directory.display();
    for warning in adapter.warnings() {
        tracing::warn!("{directory}: {warning}");
    }
    let found = location.to_string();
    if let Some(base) = adapter.base_model().filter(|base| !is_same_model(base, &[name.unwrap_or_default(), &found])) {
        tracing::warn!(
            "{directory}: the adapter was trained on '{base}' and is merged into '{}'; its tensors fit, but check that both are \
             the same model",
            name.unwrap_or("embedded")
        );
    }
}

/// Adds `advice` to an error about weights, unless the error has a remedy of its own that it would contradict.
fn advise(error: Error, advice: &str) -> Error {
    const REMEDIES: [&str; 4] = ["Git LFS pointer", "of an adapter", "are quantized", "rename it to"];
    let text = error.to_string();
    if REMEDIES.iter().any(|remedy| text.contains(remedy)) { error } else { error.advise(advice) }
}

/// The file of a model's configuration, for errors and warnings.
pub(super) fn config_origin(location: &ModelLocation) -> String {
    match location {
        ModelLocation::Directory(directory) => directory.join("config.json").display().to_string(),
        ModelLocation::Synthetic(_) => location.to_string(),
    }
}
