//! Byte-level byte-pair encoding (Radford et al. 2019): text is cut by a regular expression, and merges join bytes,
//! spelled as printable letters, within each piece.
//!
//! The merges are in the file. How text is cut is not: `tokenizer.ggml.pre` names it.

use serde_json::{Value as Json, json};

use super::super::gguf::{GgufFile, Value};
use super::Rules;
use super::vocabulary::{Vocabulary, strings};
use crate::error::{Error, Result};

/// Ways of cutting text, after the models that brought them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cut {
    /// The expression that is built into the `ByteLevel` step.
    Gpt2,
    /// Every digit by itself, then as GPT-2.
    SmolLm,
    /// Numbers in groups of up to three digits.
    Llama3,
    /// Every digit by itself, and text in Unicode normal form C.
    Qwen2,
}

/// Names of `tokenizer.ggml.pre` and what they stand for.
const CUTS: [(&str, Cut); 8] = [
    ("default", Cut::Gpt2),
    ("gpt-2", Cut::Gpt2),
    ("gpt2", Cut::Gpt2),
    ("smollm", Cut::SmolLm),
    ("llama-bpe", Cut::Llama3),
    ("llama3", Cut::Llama3),
    ("llama-v3", Cut::Llama3),
    ("qwen2", Cut::Qwen2),
];

/// Contractions; letters with at most one other sign before them; numbers (here the two differ); signs; white space.
const LLAMA3_PATTERN: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2_PATTERN: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// The rules of a tokenizer of this kind.
///
/// # Errors
/// An unknown way of cutting text, or no usable merges.
pub(super) fn rules(gguf: &GgufFile, vocabulary: &Vocabulary) -> Result<Rules> {
    let pre = gguf.optional("tokenizer.ggml.pre", "a string", Value::as_str)?.unwrap_or("default");
    let Some((_, cut)) = CUTS.into_iter().find(|(name, _)| *name == pre) else {
        let known = CUTS.map(|(name, _)| name).join(" ");
        let what = format!("cuts text before tokenizing by the unknown rules '{pre}'; known are: {known}");
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
    let pre_tokenizer = match cut {
        Cut::Gpt2 => byte_level(true),
        Cut::SmolLm => sequence([json!({"type": "Digits", "individual_digits": true}), byte_level(true)]),
        Cut::Llama3 => sequence([split(LLAMA3_PATTERN), byte_level(false)]),
        Cut::Qwen2 => sequence([split(QWEN2_PATTERN), byte_level(false)]),
    };
    Ok(Rules {
        normalizer: if cut == Cut::Qwen2 { json!({"type": "NFC"}) } else { Json::Null },
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
            // Llama 3 has tokens that its merges do not reach; a piece that is a token is taken as one.
            "ignore_merges": cut == Cut::Llama3,
            "vocab": vocabulary.to_json(),
            "merges": pairs,
        }),
        adds_bos: cut == Cut::Llama3,
    })
}

fn sequence(steps: [Json; 2]) -> Json {
    json!({"type": "Sequence", "pretokenizers": steps})
}

fn split(pattern: &str) -> Json {
    json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false})
}
