//! A `tokenizer.json` without its vocabulary: cheap to parse before the library builds the tokenizer.

use serde::Deserialize;
use serde_json::Value;

/// The parts of a `tokenizer.json` that decide whether and how it is built.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Outline {
    #[serde(default)]
    pub(super) normalizer: Value,
    #[serde(default)]
    pub(super) pre_tokenizer: Value,
    #[serde(default)]
    pub(super) post_processor: Value,
    #[serde(default)]
    pub(super) decoder: Value,
    #[serde(default)]
    pub(super) padding: Value,
    #[serde(default)]
    pub(super) added_tokens: Option<Vec<Value>>,
    #[serde(default)]
    pub(super) model: Option<ModelOutline>,
}

/// The model without vocabulary and merges.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct ModelOutline {
    #[serde(default)]
    pub(super) dropout: Value,
}

impl Outline {
    /// Parses a `tokenizer.json`.
    ///
    /// # Errors
    /// What is malformed, and the remedy.
    pub(super) fn parse(tokenizer_json: &[u8]) -> Result<Self, String> {
        serde_json::from_slice(tokenizer_json)
            .map_err(|error| format!("tokenizer.json is not a tokenizer ({error}); download the file again"))
    }

    /// The padding token of the file's padding, which transformers takes as the default of `pad_token`.
    pub(super) fn pad_token(&self) -> Option<String> {
        self.padding.get("pad_token").and_then(Value::as_str).map(str::to_owned)
    }

    /// The added tokens that the library normalizes.
    pub(super) fn normalized_texts(&self) -> impl Iterator<Item = &str> {
        let normalized = |token: &&Value| token.get("normalized").and_then(Value::as_bool).unwrap_or(true);
        self.added_tokens.iter().flatten().filter(normalized).filter_map(|token| token.get("content")?.as_str())
    }
}
