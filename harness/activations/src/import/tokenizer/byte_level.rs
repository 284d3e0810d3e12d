//! Byte-level byte-pair encoding (Radford et al. 2019): a pre-tokenizer splits the text by a regular expression, and
//! merges join bytes, written as printable characters, within each piece.
//!
//! The merges are in the file. The pre-tokenizer is not; [`super::pre_tokenizer`] determines it.

use serde_json::{Value as Json, json};

use super::super::gguf::GgufFile;
use super::pre_tokenizer::PreTokenizer;
use super::rules::TokenizerRules;
use super::vocabulary::{Vocabulary, strings};
use crate::error::{Error, Result};

/// Alternatives in order: contractions; letters, optionally after one other character; numbers (the two patterns differ
/// here); other characters; whitespace.
const LLAMA3_PATTERN: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2_PATTERN: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// The pairs of `tokenizer.ggml.merges`, the first to be applied first.
///
/// # Errors
/// Missing or malformed merges.
pub(super) fn merges(gguf: &GgufFile) -> Result<Vec<(String, String)>> {
    let merges = gguf.required("tokenizer.ggml.merges", "a list of strings", strings)?;
    let pair = |(rank, merge): (usize, &String)| match merge.split_once(' ') {
        Some((left, right)) => Ok((left.to_owned(), right.to_owned())),
        None => Err(Error::file(gguf.path(), format!("merge {rank} is {merge:?}, expected a pair"))),
    };
    merges.iter().enumerate().map(pair).collect()
}

/// The rules of a byte-level tokenizer.
pub(super) fn rules(kind: PreTokenizer, vocabulary: &Vocabulary, merges: &[(String, String)]) -> TokenizerRules {
    let byte_level = |use_regex: bool| json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": use_regex});
    let pre_tokenizer = match kind {
        PreTokenizer::Gpt2 => byte_level(true),
        PreTokenizer::SmolLm => sequence([json!({"type": "Digits", "individual_digits": true}), byte_level(true)]),
        PreTokenizer::Llama3 => sequence([split(LLAMA3_PATTERN), byte_level(false)]),
        PreTokenizer::Qwen2 => sequence([split(QWEN2_PATTERN), byte_level(false)]),
    };
    TokenizerRules {
        normalizer: if kind == PreTokenizer::Qwen2 { json!({"type": "NFC"}) } else { Json::Null },
        pre_tokenizer,
        decoder: byte_level(true),
        model: json!({
            "type": "BPE",
            "dropout": null,
            "unk_token": null,
            "continuing_subword_prefix": null,
            "end_of_word_suffix": null,
            "fuse_unk": false,
            "byte_fallback": false,
            // Some tokens of Llama 3 cannot be formed by its merges; a piece that equals a token becomes that token.
            "ignore_merges": kind == PreTokenizer::Llama3,
            "vocab": vocabulary.to_json(),
            "merges": merges,
        }),
        adds_bos: kind == PreTokenizer::Llama3,
    }
}

fn sequence(steps: [Json; 2]) -> Json {
    json!({"type": "Sequence", "pretokenizers": steps})
}

fn split(pattern: &str) -> Json {
    json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false})
}
