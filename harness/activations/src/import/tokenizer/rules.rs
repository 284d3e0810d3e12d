//! The parts in which kinds of tokenizers differ.

use serde_json::Value as Json;

/// The parts of a `tokenizer.json` that depend on the kind of tokenizer.
pub(super) struct TokenizerRules {
    pub(super) normalizer: Json,
    pub(super) pre_tokenizer: Json,
    pub(super) decoder: Json,
    pub(super) model: Json,
    /// Whether encodings start with the BOS token if the file has no `tokenizer.ggml.add_bos_token`.
    pub(super) adds_bos: bool,
}
