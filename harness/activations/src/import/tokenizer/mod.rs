//! A GGUF file's tokenizer as `tokenizer.json` and `tokenizer_config.json`.
//!
//! A GGUF file has a vocabulary and the name of a known way to cut text; how that way works is in the program that
//! reads it. [`byte_level`] and [`sentence_piece`] spell it out as a `tokenizer.json`, in the form in which the
//! models' own authors published it.

pub mod byte_level;
pub mod sentence_piece;
pub mod vocabulary;

use serde_json::{Map, Value as Json, json};
use tokenizers::Tokenizer;

use super::config::ModelConfig;
use super::gguf::{GgufFile, Value};
use crate::error::{Error, Result};
use vocabulary::{TokenType, Vocabulary};

/// The two files of a tokenizer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenizerFiles {
    /// Vocabulary, merges and rules.
    pub tokenizer_json: String,
    /// Special tokens and the chat template.
    pub tokenizer_config_json: String,
}

/// What differs between kinds of tokenizers.
struct Rules {
    normalizer: Json,
    pre_tokenizer: Json,
    decoder: Json,
    model: Json,
    /// Whether an encoding begins with the opening token, where the file does not say.
    adds_bos: bool,
}

/// Reads the tokenizer under `tokenizer.ggml.`.
///
/// # Errors
/// A kind of tokenizer that is not known here, or a vocabulary that contradicts itself.
pub fn read(gguf: &GgufFile, config: &ModelConfig) -> Result<TokenizerFiles> {
    let vocabulary = Vocabulary::read(gguf, config)?;
    let rules = match gguf.string("tokenizer.ggml.model")? {
        "gpt2" => byte_level::rules(gguf, &vocabulary)?,
        "llama" => sentence_piece::rules(gguf, &vocabulary)?,
        other => {
            let what = format!("has a tokenizer of kind '{other}'; known are 'gpt2' (byte-level) and 'llama'");
            return Err(Error::file(gguf.path(), what));
        }
    };
    let flag = |key: &str, default: bool| -> Result<bool> {
        Ok(gguf.optional(key, "a flag", Value::as_bool)?.unwrap_or(default))
    };
    let bos = vocabulary.bos.filter(|_| rules.adds_bos);
    let bos = if flag("tokenizer.ggml.add_bos_token", bos.is_some())? { vocabulary.bos } else { None };
    let eos = if flag("tokenizer.ggml.add_eos_token", false)? { vocabulary.eos } else { None };
    let tokenizer = json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added_tokens(&vocabulary),
        "normalizer": rules.normalizer,
        "pre_tokenizer": rules.pre_tokenizer,
        "post_processor": post_processor(&vocabulary, bos, eos),
        "decoder": rules.decoder,
        "model": rules.model,
    });
    let tokenizer_json = tokenizer.to_string();
    // The crate that will read the file has the last word on whether it is one.
    Tokenizer::from_bytes(&tokenizer_json)
        .map_err(|error| Error::file(gguf.path(), format!("has a tokenizer that does not work: {error}")))?;
    let tokenizer_config_json = tokenizer_config(gguf, config, &vocabulary, bos.is_some(), eos.is_some())?;
    Ok(TokenizerFiles { tokenizer_json, tokenizer_config_json })
}

/// Tokens that are found in text before it is cut: control tokens, which are special, and those that users defined.
fn added_tokens(vocabulary: &Vocabulary) -> Vec<Json> {
    let named = [vocabulary.bos, vocabulary.eos, vocabulary.unknown, vocabulary.padding];
    let tokens = vocabulary.tokens.iter().zip(&vocabulary.types).enumerate();
    let added = tokens.filter_map(|(id, (content, kind))| {
        let special = matches!(kind, TokenType::Control | TokenType::Unknown) || named.contains(&Some(id));
        (special || *kind == TokenType::UserDefined).then(|| {
            json!({
                "id": id,
                "content": content,
                "single_word": false,
                "lstrip": false,
                "rstrip": false,
                "normalized": false,
                "special": special,
            })
        })
    });
    added.collect()
}

/// Puts the opening and the closing token around an encoding, for callers that ask for special tokens.
fn post_processor(vocabulary: &Vocabulary, bos: Option<usize>, eos: Option<usize>) -> Json {
    if bos.is_none() && eos.is_none() {
        return Json::Null;
    }
    let special =
        |id: usize, sequence: usize| json!({"SpecialToken": {"id": vocabulary.tokens[id], "type_id": sequence}});
    let one = |name: &str, sequence: usize| {
        let text = json!({"Sequence": {"id": name, "type_id": sequence}});
        let around = [bos.map(|id| special(id, sequence)), Some(text), eos.map(|id| special(id, sequence))];
        around.into_iter().flatten().collect::<Vec<_>>()
    };
    let tokens: Map<String, Json> = [bos, eos]
        .into_iter()
        .flatten()
        .map(|id| {
            let token = &vocabulary.tokens[id];
            (token.clone(), json!({"id": token, "ids": [id], "tokens": [token]}))
        })
        .collect();
    let pair = [one("A", 0), one("B", 1)].concat();
    json!({
        "type": "TemplateProcessing",
        "single": one("A", 0),
        "pair": pair,
        "special_tokens": tokens,
    })
}

fn tokenizer_config(
    gguf: &GgufFile,
    config: &ModelConfig,
    vocabulary: &Vocabulary,
    adds_bos: bool,
    adds_eos: bool,
) -> Result<String> {
    let token = |id: Option<usize>| id.map(|id| vocabulary.tokens[id].as_str());
    let mut json = json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": config.max_position_embeddings,
        "clean_up_tokenization_spaces": false,
        "add_bos_token": adds_bos,
        "add_eos_token": adds_eos,
        "bos_token": token(vocabulary.bos),
        "eos_token": token(vocabulary.eos),
        "unk_token": token(vocabulary.unknown),
        "pad_token": token(vocabulary.padding),
    });
    if let Some(template) = gguf.optional("tokenizer.chat_template", "a string", Value::as_str)? {
        json["chat_template"] = template.into();
    }
    Ok(format!("{json:#}\n"))
}
