//! SentencePiece's byte-pair encoding with byte fallback (Kudo & Richardson 2018), as in Llama 1 and 2: spaces become
//! `▁`, there is no pre-tokenizer, and text that no piece covers is encoded as bytes.
//!
//! The file has no merges, but a score for each piece. SentencePiece first joins the adjacent pair whose result has the
//! highest score. Hence every split of a piece into two pieces is a merge, ranked by the score of the piece.

use std::collections::HashSet;

use serde_json::{Value as Json, json};

use super::super::gguf::{GgufFile, GgufValue};
use super::rules::TokenizerRules;
use super::vocabulary::{TokenType, Vocabulary, floats};
use crate::error::{Error, Result};

/// The character that replaces a space.
const SPACE: &str = "\u{2581}";

/// The rules of a SentencePiece tokenizer.
///
/// # Errors
/// Missing scores, or an unsupported text normalization.
pub(super) fn rules(gguf: &GgufFile, vocabulary: &Vocabulary) -> Result<TokenizerRules> {
    let flag = |key: &str| gguf.optional(key, "a boolean", GgufValue::as_bool);
    if flag("tokenizer.ggml.remove_extra_whitespaces")? == Some(true)
        || gguf.find("tokenizer.ggml.precompiled_charsmap").is_some()
    {
        return Err(Error::file(gguf.path(), "has a text normalization that is not supported"));
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
    Ok(TokenizerRules {
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

/// The pieces that two other pieces join to.
pub(super) fn joined(vocabulary: &Vocabulary) -> HashSet<String> {
    merges(vocabulary, &vec![0.0; vocabulary.tokens.len()])
        .into_iter()
        .map(|(left, right)| [left, right].concat())
        .collect()
}

/// All pairs of pieces that join to a piece, the one with the highest score first.
fn merges<'a>(vocabulary: &'a Vocabulary, scores: &[f32]) -> Vec<(&'a str, &'a str)> {
    let is_text = |kind: &TokenType| matches!(kind, TokenType::Normal | TokenType::UserDefined | TokenType::Unused);
    let texts = || vocabulary.tokens.iter().zip(&vocabulary.types).zip(scores).filter(|((_, kind), _)| is_text(kind));
    let pieces: HashSet<&str> = texts().map(|((piece, _), _)| piece.as_str()).collect();
    let mut ranked = Vec::new();
    for ((piece, _), &score) in texts() {
        for (middle, _) in piece.char_indices().skip(1) {
            let (left, right) = piece.split_at(middle);
            if pieces.contains(left) && pieces.contains(right) {
                ranked.push((score, left, right));
            }
        }
    }
    // For equal scores, and thus within one piece, the longer left part comes first, as in the published conversions.
    let length = |text: &str| text.chars().count();
    ranked.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| length(b.1).cmp(&length(a.1))));
    ranked.into_iter().map(|(_, left, right)| (left, right)).collect()
}
