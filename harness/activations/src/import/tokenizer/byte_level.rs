//! Byte-level byte-pair encoding (Radford et al. 2019): a pre-tokenizer splits the text by a regular expression, and
//! merges join bytes, written as printable characters, within each piece.
//!
//! The merges are in the file. The pre-tokenizer is not; `tokenizer.ggml.pre` names it.

use serde_json::{Value as Json, json};

use super::super::gguf::{GgufFile, GgufValue};
use super::rules::TokenizerRules;
use super::vocabulary::{Vocabulary, strings};
use crate::error::{Error, Result};

/// Pre-tokenizers, named after the models that introduced them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PreTokenizer {
    /// The regular expression built into the `ByteLevel` step.
    Gpt2,
    /// Single digits, then as GPT-2.
    SmolLm,
    /// Numbers in groups of up to three digits.
    Llama3,
    /// Single digits, and text in Unicode normalization form C.
    Qwen2,
}

/// The values of `tokenizer.ggml.pre`.
const PRE_TOKENIZERS: [(&str, PreTokenizer); 8] = [
    ("default", PreTokenizer::Gpt2),
    ("gpt-2", PreTokenizer::Gpt2),
    ("gpt2", PreTokenizer::Gpt2),
    ("smollm", PreTokenizer::SmolLm),
    ("llama-bpe", PreTokenizer::Llama3),
    ("llama3", PreTokenizer::Llama3),
    ("llama-v3", PreTokenizer::Llama3),
    ("qwen2", PreTokenizer::Qwen2),
];

/// Alternatives in order: contractions; letters, optionally after one other character; numbers (the two patterns differ
/// here); other characters; whitespace.
const LLAMA3_PATTERN: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2_PATTERN: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// The rules of a byte-level tokenizer.
///
/// # Errors
/// An unknown pre-tokenizer, or missing or malformed merges.
pub(super) fn rules(gguf: &GgufFile, vocabulary: &Vocabulary) -> Result<TokenizerRules> {
    let pre = gguf.optional("tokenizer.ggml.pre", "a string", GgufValue::as_str)?.unwrap_or("default");
    let Some((_, kind)) = PRE_TOKENIZERS.into_iter().find(|(name, _)| *name == pre) else {
        let known = PRE_TOKENIZERS.map(|(name, _)| name).join(" ");
        let what = format!("has the unknown pre-tokenizer '{pre}'; supported are: {known}");
        return Err(Error::file(gguf.path(), what));
    };
    let merges = gguf.required("tokenizer.ggml.merges", "a list of strings", strings)?;
    let mut pairs = Vec::with_capacity(merges.len());
    for (rank, merge) in merges.iter().enumerate() {
        match merge.split_once(' ') {
            Some(pair) => pairs.push(json!([pair.0, pair.1])),
            None => return Err(Error::file(gguf.path(), format!("merge {rank} is {merge:?}, expected a pair"))),
        }
    }
    let byte_level = |use_regex: bool| json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": use_regex});
    let pre_tokenizer = match kind {
        PreTokenizer::Gpt2 => byte_level(true),
        PreTokenizer::SmolLm => sequence([json!({"type": "Digits", "individual_digits": true}), byte_level(true)]),
        PreTokenizer::Llama3 => sequence([split(LLAMA3_PATTERN), byte_level(false)]),
        PreTokenizer::Qwen2 => sequence([split(QWEN2_PATTERN), byte_level(false)]),
    };
    Ok(TokenizerRules {
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
            "merges": pairs,
        }),
        adds_bos: kind == PreTokenizer::Llama3,
    })
}

fn sequence(steps: [Json; 2]) -> Json {
    json!({"type": "Sequence", "pretokenizers": steps})
}

fn split(pattern: &str) -> Json {
    json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false})
}
