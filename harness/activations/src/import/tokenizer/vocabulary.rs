//! The tokens of a GGUF file with their types.

use std::collections::HashMap;

use serde_json::{Map, Value as Json};

use super::super::gguf::{GgufFile, GgufValue};
use crate::error::{Error, Result};

/// The type of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenType {
    /// A piece of text.
    Normal,
    /// Represents text that no token covers.
    Unknown,
    /// Marks structure, such as the end of a message.
    Control,
    /// A piece of text that is never split.
    UserDefined,
    /// Reserved.
    Unused,
    /// One byte of text that no other token covers.
    Byte,
}

/// A vocabulary.
#[derive(Clone, Debug)]
pub struct Vocabulary {
    /// Tokens by id.
    pub tokens: Vec<String>,
    /// Types by id.
    pub types: Vec<TokenType>,
    /// The id of the BOS token.
    pub bos: Option<usize>,
    /// The id of the EOS token.
    pub eos: Option<usize>,
    /// The id of the token for text that no other token covers.
    pub unknown: Option<usize>,
    /// The id of the padding token.
    pub padding: Option<usize>,
}

impl Vocabulary {
    /// Reads tokens, types and the ids of special tokens of a model with `vocab_size` embeddings.
    ///
    /// # Errors
    /// More tokens than embeddings, a duplicate token, or lists of different lengths.
    pub fn read(gguf: &GgufFile, vocab_size: usize) -> Result<Vocabulary> {
        let fail = |what: String| Err(Error::file(gguf.path(), what));
        let tokens = gguf.required("tokenizer.ggml.tokens", "a list of strings", strings)?;
        if tokens.len() > vocab_size {
            return fail(format!("has {} tokens but {vocab_size} embeddings", tokens.len()));
        }
        let mut ids = HashMap::with_capacity(tokens.len());
        for (id, token) in tokens.iter().enumerate() {
            if let Some(first) = ids.insert(token, id) {
                return fail(format!("has the token {token:?} twice, with the ids {first} and {id}"));
            }
        }
        let types = match gguf.optional("tokenizer.ggml.token_type", "a list of token types", token_types)? {
            // `markers::infer` finds the other types.
            None => vec![TokenType::Normal; tokens.len()],
            Some(types) if types.len() == tokens.len() => types,
            Some(types) => return fail(format!("has {} tokens and {} token types", tokens.len(), types.len())),
        };
        let id = |key: &str| gguf.token_id(key, tokens.len());
        let (bos, eos) = (id("tokenizer.ggml.bos_token_id")?, id("tokenizer.ggml.eos_token_id")?);
        let (unknown, padding) = (id("tokenizer.ggml.unknown_token_id")?, id("tokenizer.ggml.padding_token_id")?);
        Ok(Vocabulary { tokens, types, bos, eos, unknown, padding })
    }

    /// The map from tokens to ids, as in a `tokenizer.json`.
    pub fn to_json(&self) -> Map<String, Json> {
        self.tokens.iter().enumerate().map(|(id, token)| (token.clone(), id.into())).collect()
    }
}

/// An array of strings.
pub fn strings(value: &GgufValue) -> Option<Vec<String>> {
    value.as_array()?.iter().map(|value| value.as_str().map(str::to_owned)).collect()
}

/// An array of single-precision numbers.
pub fn floats(value: &GgufValue) -> Option<Vec<f32>> {
    let float = |value: &GgufValue| match value {
        GgufValue::Float32(value) => Some(*value),
        _ => None,
    };
    value.as_array()?.iter().map(float).collect()
}

fn token_types(value: &GgufValue) -> Option<Vec<TokenType>> {
    let token_type = |value: &GgufValue| match value.as_u64()? {
        1 => Some(TokenType::Normal),
        2 => Some(TokenType::Unknown),
        3 => Some(TokenType::Control),
        4 => Some(TokenType::UserDefined),
        5 => Some(TokenType::Unused),
        6 => Some(TokenType::Byte),
        _ => None,
    };
    value.as_array()?.iter().map(token_type).collect()
}
