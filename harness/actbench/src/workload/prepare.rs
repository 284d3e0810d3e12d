//! The inputs of both tasks: the samples, split and tokenized, and the opened and checked files of the model.

use std::path::Path;
use std::sync::Arc;

use crate::case::RunConfig;
use crate::error::{Error, Result};
use actbench_activations::data::{self, Dialogue};
use actbench_activations::model::open::OpenModel;
use actbench_activations::text::MaskKind;
use actbench_activations::tokens::TokenSet;

/// One side of the split.
#[derive(Clone, Debug, Default)]
pub struct LabeledTokens {
    /// One sequence per sample.
    pub tokens: Arc<TokenSet>,
    /// One label per sample, 0 or 1.
    pub labels: Vec<u8>,
}

/// Everything a case needs except the loaded weights.
pub struct Prepared {
    /// The model's files.
    pub model: OpenModel,
    /// Samples for training the probe.
    pub train: LabeledTokens,
    /// Samples for scoring the probe.
    pub test: LabeledTokens,
    /// Warnings for the user, such as fewer samples than requested.
    pub warnings: Vec<String>,
}

/// A request for the inputs of a run.
#[derive(Clone, Copy, Debug)]
pub struct InputRequest<'a> {
    /// Model name; none is the embedded one.
    pub model: Option<&'a str>,
    /// Data set name; none is the embedded one.
    pub dataset: Option<&'a str>,
    /// The directory of local copies of registered data sets.
    pub data_dir: Option<&'a Path>,
    /// The tokens to pool.
    pub mask: MaskKind,
    /// Number of samples to use.
    pub samples: usize,
    /// Fraction of the samples used for training.
    pub train_frac: f64,
    /// Seed of the sample selection and of the split.
    pub seed: u64,
    /// Show no progress if a model has to be downloaded or imported first.
    pub quiet: bool,
}

/// The request for the inputs of `config`.
pub fn request(config: &RunConfig, quiet: bool) -> InputRequest<'_> {
    InputRequest {
        model: config.model.as_deref(),
        dataset: config.dataset.as_deref(),
        data_dir: config.data_dir.as_deref(),
        mask: config.mask,
        samples: config.samples,
        train_frac: config.train_frac,
        seed: config.seed,
        quiet,
    }
}

/// Opens the model, loads and splits the data, and tokenizes both sides.
///
/// # Errors
/// Invalid model files, data or chat template.
pub fn prepare(request: InputRequest<'_>) -> Result<Prepared> {
    let model = OpenModel::open(request.model, request.mask, request.quiet)?;
    let dataset = data::load(request.dataset.unwrap_or("embedded"), request.data_dir, request.samples)?;
    let labels = dataset.labels();
    let split = data::stratified_sample_and_split(&labels, request.samples, request.train_frac, request.seed)?;
    let side = |rows: &[usize]| -> Result<LabeledTokens> {
        let dialogues: Vec<&Dialogue> = rows.iter().map(|row| &dataset.dialogues[*row]).collect();
        let tokens = model
            .tokenizer
            .encode_rows(&dialogues, rows)
            .map_err(|error| error.advise("change that row of the data set, or the chat template"))?;
        check_vocabulary(&tokens, &model)?;
        Ok(LabeledTokens { tokens: Arc::new(tokens), labels: rows.iter().map(|row| u8::from(labels[*row])).collect() })
    };
    let (train, test) = (side(&split.train)?, side(&split.test)?);
    let mut warnings: Vec<String> = split.shortfall().into_iter().collect();
    let shared = data::rows_on_both_sides(&dataset.dialogues, &split);
    if shared > 0 {
        warnings.push(format!(
            "{}: {shared} of {} test rows have a dialogue that is also a training row, so the AUROC is too high; remove \
             duplicate rows",
            dataset.origin,
            split.test.len()
        ));
    }
    Ok(Prepared { warnings, model, train, test })
}

/// Detects a tokenizer of another model before any weight is read.
fn check_vocabulary(tokens: &TokenSet, model: &OpenModel) -> Result<()> {
    let vocab_size = model.config.vocab_size;
    let largest = tokens.sequences.iter().flat_map(|sequence| &sequence.ids).max();
    match largest {
        Some(token) if *token as usize >= vocab_size => Err(Error::input(
            model.location.to_string(),
            format!(
                "tokenizer.json gives token {token}, but config.json has a vocabulary of {vocab_size}: they belong to \
                 different models; use the model's own tokenizer"
            ),
        )),
        _ => Ok(()),
    }
}
