//! SentencePiece's byte-pair encoding with byte fallback (Kudo & Richardson 2018), as in the first two Llamas: spaces
//! become `▁`, the text is not cut, and what no piece covers is spelled in bytes.
//!
//! The file has no merges. Each piece has a score instead, and of all neighbours that join to a piece the one with the
//! highest score is joined first; so every way to put a piece together is a merge, ranked by the score of the piece.

use std::collections::HashSet;

use serde_json::{Value as Json, json};

use super::super::gguf::{GgufFile, Value};
use super::Rules;
use super::vocabulary::{TokenType, Vocabulary, floats};
use crate::error::{Error, Result};

/// The letter that stands for a space.
const SPACE: &str = "\u{2581}";

/// The rules of a tokenizer of this kind.
///
/// # Errors
/// No scores, or a normalisation of the text that is not known here.
pub(super) fn rules(gguf: &GgufFile, vocabulary: &Vocabulary) -> Result<Rules> {
    let flag = |key: &str| gguf.optional(key, "a flag", Value::as_bool);
    if flag("tokenizer.ggml.remove_extra_whitespaces")? == Some(true)
        || gguf.find("tokenizer.ggml.precompiled_charsmap").is_some()
    {
        return Err(Error::file(gguf.path(), "normalises its text before tokenizing in a way that is not known here"));
    }
    let scores = gguf.required("tokenizer.ggml.scores", "a list of floats", floats)?;
    if scores.len() != vocabulary.tokens.len() {
        let what = format!("has {} tokens and {} scores", vocabulary.tokens.len(), scores.len());
        return Err(Error::file(gguf.path(), what));
    }
    let adds_space = flag("tokenizer.ggml.add_space_prefix")?.unwrap_or(true);
    let replace = json!({"type": "Replace", "pattern": {"String": " "}, "content": SPACE});
    let normalizer = if adds_space {
        json!({"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": SPACE}, replace]})
    } else {
        replace
    };
    let mut decoders = vec![
        json!({"type": "Replace", "pattern": {"String": SPACE}, "content": " "}),
        json!({"type": "ByteFallback"}),
        json!({"type": "Fuse"}),
    ];
    if adds_space {
        decoders.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
    }
    let unknown = vocabulary.unknown.or(vocabulary.types.iter().position(|kind| *kind == TokenType::Unknown));
    Ok(Rules {
        normalizer,
        pre_tokenizer: Json::Null,
        decoder: json!({"type": "Sequence", "decoders": decoders}),
        model: json!({
            "type": "BPE",
            "dropout": null,
            "unk_token": unknown.map(|id| vocabulary.tokens[id].as_str()),
            "continuing_subword_prefix": null,
            "end_of_word_suffix": null,
            "fuse_unk": true,
            "byte_fallback": vocabulary.types.contains(&TokenType::Byte),
            "ignore_merges": false,
            "vocab": vocabulary.to_json(),
            "merges": merges(vocabulary, &scores),
        }),
        adds_bos: true,
    })
}

/// Every way to put a piece together from two pieces, best piece first.
fn merges<'a>(vocabulary: &'a Vocabulary, scores: &[f32]) -> Vec<(&'a str, &'a str)> {
    let is_text = |kind: &TokenType| matches!(kind, TokenType::Normal | TokenType::UserDefined | TokenType::Unused);
    let texts = || vocabulary.tokens.iter().zip(&vocabulary.types).zip(scores).filter(|((_, kind), _)| is_text(kind));
    let pieces: HashSet<&str> = texts().map(|((piece, _), _)| piece.as_str()).collect();
    let mut ranked = Vec::new();
    for ((piece, _), &score) in texts() {
        for (at, _) in piece.char_indices().skip(1) {
            let (left, right) = piece.split_at(at);
            if pieces.contains(left) && pieces.contains(right) {
                ranked.push((score, left, right));
            }
        }
    }
    // Within one score, and so within one piece, the longer left part first: as in the published conversions.
    let length = |text: &str| text.chars().count();
    ranked.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| length(b.1).cmp(&length(a.1))));
    ranked.into_iter().map(|(_, left, right)| (left, right)).collect()
}
