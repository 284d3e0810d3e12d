//! What both tasks start from: the rows, split and tokenized, and the model's files opened and checked.

use std::path::Path;
use std::sync::Arc;

use crate::error::{Error, Result};
use actbench_activations::data::{self, Dialogue};
use actbench_activations::model::open::OpenModel;
use actbench_activations::text::MaskKind;
use actbench_activations::tokens::TokenSet;

/// One side of the split.
#[derive(Clone, Debug, Default)]
pub struct LabelledTokens {
    /// One sequence a sample.
    pub tokens: Arc<TokenSet>,
    /// One label a sample, 0 or 1.
    pub labels: Vec<u8>,
}

/// Everything a case needs but the loaded weights.
pub struct Prepared {
    /// The model's files.
    pub model: OpenModel,
    /// Samples the probe is trained on.
    pub train: LabelledTokens,
    /// Samples it is scored on.
    pub test: LabelledTokens,
    /// What the user should know, such as fewer rows than asked for.
    pub warnings: Vec<String>,
}

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Model name; none is the embedded one.
    pub model: Option<&'a str>,
    /// Data set name; none is the embedded one.
    pub dataset: Option<&'a str>,
    /// Where local copies of registered data sets are.
    pub data_dir: Option<&'a Path>,
    /// Which tokens are pooled.
    pub mask: MaskKind,
    /// Rows to take.
    pub samples: usize,
    /// Share of them to train on.
    pub train_frac: f64,
    /// Seed of the choice and of the split.
    pub seed: u64,
    /// Show no progress where a model has to be fetched or imported first.
    pub quiet: bool,
}

/// Opens the model, loads and splits the data, and tokenizes both sides.
///
/// # Errors
/// Anything that is wrong with the model's files, the data or the chat template.
pub fn prepare(request: Request<'_>) -> Result<Prepared> {
    let model = OpenModel::open(request.model, request.mask, request.quiet)?;
    let dataset = data::load(request.dataset.unwrap_or("embedded"), request.data_dir, request.samples)?;
    let labels = dataset.labels();
    let split = data::stratified_sample_and_split(&labels, request.samples, request.train_frac, request.seed)?;
    let side = |rows: &[usize]| -> Result<LabelledTokens> {
        let dialogues: Vec<&Dialogue> = rows.iter().map(|row| &dataset.dialogues[*row]).collect();
        let tokens = model
            .tokenizer
            .encode_rows(&dialogues, rows)
            .map_err(|error| error.advise("change that row of the data set, or the chat template"))?;
        check_vocabulary(&tokens, &model)?;
        Ok(LabelledTokens { tokens: Arc::new(tokens), labels: rows.iter().map(|row| u8::from(labels[*row])).collect() })
    };
    let (train, test) = (side(&split.train)?, side(&split.test)?);
    Ok(Prepared { warnings: split.shortfall().into_iter().collect(), model, train, test })
}

/// A tokenizer that does not belong to the model shows here, before any weight is read.
fn check_vocabulary(tokens: &TokenSet, model: &OpenModel) -> Result<()> {
    let vocab_size = model.config.vocab_size;
    let largest = tokens.sequences.iter().flat_map(|sequence| &sequence.ids).max();
    match largest {
        Some(token) if *token as usize >= vocab_size => Err(Error::input(
            model.location.to_string(),
            format!(
                "tokenizer.json gives token {token}, but config.json has a vocabulary of {vocab_size}: they are not of \
                 one model, so put the model's own tokenizer there"
            ),
        )),
        _ => Ok(()),
    }
}
