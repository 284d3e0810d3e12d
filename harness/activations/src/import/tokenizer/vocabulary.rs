//! The tokens of a GGUF file and what is said about each.

use std::collections::HashMap;

use serde_json::{Map, Value as Json};

use super::super::config::ModelConfig;
use super::super::gguf::{GgufFile, Value};
use crate::error::{Error, Result};

/// What a token is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenType {
    /// A piece of text.
    Normal,
    /// Stands for text that no token covers.
    Unknown,
    /// Marks structure, such as the end of a message; never found in running text.
    Control,
    /// A piece of text that is never cut.
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
    /// Id of the token that opens a sequence.
    pub bos: Option<usize>,
    /// Id of the token that closes one.
    pub eos: Option<usize>,
    /// Id of the token for text that no other covers.
    pub unknown: Option<usize>,
    /// Id of the token that fills sequences up.
    pub padding: Option<usize>,
}

impl Vocabulary {
    /// Reads tokens, types and the ids of special tokens.
    ///
    /// # Errors
    /// More tokens than the model has embeddings, a token that is there twice, or lists that do not fit each other.
    pub fn read(gguf: &GgufFile, config: &ModelConfig) -> Result<Vocabulary> {
        let fail = |what: String| Err(Error::file(gguf.path(), what));
        let tokens = gguf.required("tokenizer.ggml.tokens", "a list of strings", strings)?;
        if tokens.len() > config.shape.vocab_size {
            return fail(format!("has {} tokens and embeddings for {}", tokens.len(), config.shape.vocab_size));
        }
        let mut ids = HashMap::with_capacity(tokens.len());
        for (id, token) in tokens.iter().enumerate() {
            if let Some(first) = ids.insert(token, id) {
                return fail(format!("has the token {token:?} twice, as {first} and as {id}"));
            }
        }
        let types = match gguf.optional("tokenizer.ggml.token_type", "a list of token types", token_types)? {
            None => vec![TokenType::Normal; tokens.len()],
            Some(types) if types.len() == tokens.len() => types,
            Some(types) => return fail(format!("has {} tokens and {} token types", tokens.len(), types.len())),
        };
        let n_tokens = tokens.len();
        let id = |key: &str| match gguf.optional(key, "a token id", Value::as_u64)? {
            Some(id) if id >= n_tokens as u64 => {
                Err(Error::file(gguf.path(), format!("metadata '{key}' is {id}, there are {n_tokens} tokens")))
            }
            id => Ok(id.map(|id| id as usize)),
        };
        let (bos, eos) = (id("tokenizer.ggml.bos_token_id")?, id("tokenizer.ggml.eos_token_id")?);
        let (unknown, padding) = (id("tokenizer.ggml.unknown_token_id")?, id("tokenizer.ggml.padding_token_id")?);
        Ok(Vocabulary { tokens, types, bos, eos, unknown, padding })
    }

    /// The map from tokens to ids in the form of a `tokenizer.json`.
    pub fn to_json(&self) -> Map<String, Json> {
        self.tokens.iter().enumerate().map(|(id, token)| (token.clone(), id.into())).collect()
    }
}

/// A list of texts.
pub fn strings(value: &Value) -> Option<Vec<String>> {
    value.as_array()?.iter().map(|value| value.as_str().map(str::to_owned)).collect()
}

/// A list of numbers.
pub fn floats(value: &Value) -> Option<Vec<f32>> {
    let float = |value: &Value| match value {
        Value::Float32(value) => Some(*value),
        _ => None,
    };
    value.as_array()?.iter().map(float).collect()
}

fn token_types(value: &Value) -> Option<Vec<TokenType>> {
    let token_type = |value: &Value| match value.as_u64()? {
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
