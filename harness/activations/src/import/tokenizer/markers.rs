//! Finds control tokens that a GGUF file does not mark as such: files without `tokenizer.ggml.token_type`, and converters
//! that mark every token as normal.
//!
//! A marker of a chat template that is not a control token would be split into bytes. The evidence for a marker is an
//! id that the metadata gives it, its form, and that no merge forms it: a token that cannot be the result of merges was
//! added to the vocabulary by its authors.

use std::collections::HashSet;

use super::super::gguf::{GgufFile, GgufValue};
use super::vocabulary::{TokenType, Vocabulary};
use crate::error::Result;

/// Tokens that a warning names before it counts the rest.
const SHOWN: usize = 8;

/// Corrects the types of `vocabulary`. `formed` has the tokens that merges can form.
///
/// # Errors
/// Metadata of an unexpected type.
pub(super) fn infer(
    gguf: &GgufFile,
    vocabulary: &mut Vocabulary,
    formed: &HashSet<String>,
    warnings: &mut Vec<String>,
) -> Result<()> {
    let template = gguf.optional("tokenizer.chat_template", "a string", GgufValue::as_str)?.unwrap_or_default();
    let named = named_ids(gguf, vocabulary.tokens.len());
    // These four are special tokens whatever their type is.
    let known = [vocabulary.bos, vocabulary.eos, vocabulary.unknown, vocabulary.padding];
    let mut inferred = Vec::new();
    for (id, token) in vocabulary.tokens.iter().enumerate() {
        if !matches!(vocabulary.types[id], TokenType::Normal | TokenType::Unused) || known.contains(&Some(id)) {
            continue;
        }
        let added = !formed.contains(token) && token.chars().nth(1).is_some();
        let written = template.contains(token.as_str());
        let is_marker = named.contains(&id)
            || is_enclosed(token, "<|", "|>")
            || is_enclosed(token, "<\u{ff5c}", "\u{ff5c}>")
            || (is_enclosed(token, "<", ">") && byte_of(token).is_none() && (added || written))
            || (is_punctuated(token) && added && written);
        if is_marker {
            vocabulary.types[id] = TokenType::Control;
            inferred.push(token.as_str());
        }
    }
    if !inferred.is_empty() {
        let shown = inferred.iter().take(SHOWN).copied().collect::<Vec<_>>().join(" ");
        let more = inferred.len().saturating_sub(SHOWN);
        let more = if more == 0 { String::new() } else { format!(" and {more} more") };
        warnings.push(format!(
            "does not mark {shown}{more} as control tokens (tokenizer.ggml.token_type); they are taken as such, so that \
             each is one token"
        ));
    }
    Ok(())
}

/// Sets the types of byte tokens such as `<0x0A>` if the file sets none, which SentencePiece's byte fallback requires.
pub(super) fn infer_bytes(vocabulary: &mut Vocabulary) {
    if vocabulary.types.contains(&TokenType::Byte) {
        return;
    }
    let bytes: HashSet<u8> = vocabulary.tokens.iter().filter_map(|token| byte_of(token)).collect();
    if bytes.len() == 256 {
        for (token, kind) in vocabulary.tokens.iter().zip(&mut vocabulary.types) {
            if byte_of(token).is_some() {
                *kind = TokenType::Byte;
            }
        }
    }
}

/// The tokens that any key `tokenizer.ggml.*_token_id` names, such as the end of a turn. An id outside of the vocabulary
/// names none.
fn named_ids(gguf: &GgufFile, n_tokens: usize) -> HashSet<usize> {
    let keys = gguf.keys_under("tokenizer.ggml.").filter(|(key, _)| key.ends_with("_token_id"));
    keys.filter_map(|(key, _)| gguf.token_id(key, n_tokens).ok().flatten()).collect()
}

fn is_enclosed(token: &str, open: &str, close: &str) -> bool {
    token.len() > open.len() + close.len()
        && token.starts_with(open)
        && token.ends_with(close)
        && !token.contains(char::is_whitespace)
}

/// Whether a token of at least three characters begins and ends with punctuation, as `[INST]` does.
fn is_punctuated(token: &str) -> bool {
    let punctuation = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_punctuation);
    token.chars().nth(2).is_some() && punctuation(token.as_bytes().first()) && punctuation(token.as_bytes().last())
}

/// The byte that a token such as `<0x0A>` stands for.
fn byte_of(token: &str) -> Option<u8> {
    let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
    (digits.len() == 2).then(|| u8::from_str_radix(digits, 16).ok()).flatten()
}
