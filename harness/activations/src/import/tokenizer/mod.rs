//! Converts a GGUF file's tokenizer to `tokenizer.json` and `tokenizer_config.json`.
//!
//! A GGUF file has a vocabulary and the name of a pre-tokenizer; the rules of the pre-tokenizer are in the code that
//! reads the file. [`byte_level`] and [`sentence_piece`] write these rules to a `tokenizer.json`, in the form in
//! which the models' authors published them.

pub mod byte_level;
mod markers;
mod pre_tokenizer;
mod rules;
pub mod sentence_piece;
pub mod vocabulary;

use serde_json::{Map, Value as Json, json};
use tokenizers::Tokenizer;

use super::architectures::table::ModelExtents;
use super::gguf::{GgufFile, GgufValue};
use crate::error::{Error, Result};
use vocabulary::{TokenType, Vocabulary};

/// The two files of a tokenizer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenizerFiles {
    /// The content of `tokenizer.json`: vocabulary, merges and rules.
    pub tokenizer_json: String,
    /// The content of `tokenizer_config.json`: special tokens and the chat template.
    pub tokenizer_config_json: String,
}

/// Reads the tokenizer under `tokenizer.ggml.`. `warnings` receives every assumption about keys that the file lacks.
///
/// # Errors
/// An unsupported kind of tokenizer, or an inconsistent vocabulary.
pub fn read(gguf: &GgufFile, extents: &ModelExtents, warnings: &mut Vec<String>) -> Result<TokenizerFiles> {
    let mut vocabulary = Vocabulary::read(gguf, extents.vocab_size)?;
    let rules = match gguf.string("tokenizer.ggml.model")? {
        "gpt2" => {
            let merges = byte_level::merges(gguf)?;
            let formed = merges.iter().map(|(left, right)| [left.as_str(), right].concat()).collect();
            markers::infer(gguf, &mut vocabulary, &formed, warnings)?;
            let kind = pre_tokenizer::read(gguf, &vocabulary, warnings)?;
            byte_level::rules(kind, &vocabulary, &merges)
        }
        "llama" => {
            markers::infer_bytes(&mut vocabulary);
            let joined = sentence_piece::joined(&vocabulary);
            markers::infer(gguf, &mut vocabulary, &joined, warnings)?;
            sentence_piece::rules(gguf, &vocabulary)?
        }
        other => {
            let what = format!("has a tokenizer of kind '{other}'; supported are 'gpt2' (byte-level) and 'llama'");
            return Err(Error::file(gguf.path(), what));
        }
    };
    let flag = |key: &str, default: bool| -> Result<bool> {
        Ok(gguf.optional(key, "a boolean", GgufValue::as_bool)?.unwrap_or(default))
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
    // Validate with the crate that will read the file.
    Tokenizer::from_bytes(&tokenizer_json)
        .map_err(|error| Error::file(gguf.path(), format!("has an invalid tokenizer: {error}")))?;
    let tokenizer_config_json = tokenizer_config(gguf, extents, &vocabulary, bos.is_some(), eos.is_some())?;
    Ok(TokenizerFiles { tokenizer_json, tokenizer_config_json })
}

/// Tokens that are matched before pre-tokenization: control tokens, which are special, and user-defined tokens.
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

/// Adds the BOS and the EOS token to an encoding, for callers that request special tokens.
fn post_processor(vocabulary: &Vocabulary, bos: Option<usize>, eos: Option<usize>) -> Json {
    if bos.is_none() && eos.is_none() {
        return Json::Null;
    }
    let special =
        |id: usize, sequence: usize| json!({"SpecialToken": {"id": vocabulary.tokens[id], "type_id": sequence}});
    let template = |name: &str, sequence: usize| {
        let text = json!({"Sequence": {"id": name, "type_id": sequence}});
        let pieces = [bos.map(|id| special(id, sequence)), Some(text), eos.map(|id| special(id, sequence))];
        pieces.into_iter().flatten().collect::<Vec<_>>()
    };
    let tokens: Map<String, Json> = [bos, eos]
        .into_iter()
        .flatten()
        .map(|id| {
            let token = &vocabulary.tokens[id];
            (token.clone(), json!({"id": token, "ids": [id], "tokens": [token]}))
        })
        .collect();
    let pair = [template("A", 0), template("B", 1)].concat();
    json!({
        "type": "TemplateProcessing",
        "single": template("A", 0),
        "pair": pair,
        "special_tokens": tokens,
    })
}

fn tokenizer_config(
    gguf: &GgufFile,
    extents: &ModelExtents,
    vocabulary: &Vocabulary,
    adds_bos: bool,
    adds_eos: bool,
) -> Result<String> {
    let token = |id: Option<usize>| id.map(|id| vocabulary.tokens[id].as_str());
    let mut json = json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": extents.max_positions,
        "clean_up_tokenization_spaces": false,
        "add_bos_token": adds_bos,
        "add_eos_token": adds_eos,
        "bos_token": token(vocabulary.bos),
        "eos_token": token(vocabulary.eos),
        "unk_token": token(vocabulary.unknown),
        "pad_token": token(vocabulary.padding),
    });
    if let Some(template) = gguf.optional("tokenizer.chat_template", "a string", GgufValue::as_str)? {
        json["chat_template"] = template.into();
    }
    Ok(format!("{json:#}\n"))
}
