//! The files of a Hugging Face tokenizer directory: which are read, and the tokenizer that they describe together.
//!
//! Reference: transformers 5.24. Where versions 4 and 5 differ, version 5 is followed (METHODOLOGY.md).

use std::path::Path;

use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::python_json;

use super::chat_template_files::{ChatTemplateSource, inline_template, read_template};
use super::outline::Outline;
use super::special_tokens::{SpecialTokenTable, TokenFiles};
use super::template::SpecialTokens;
use super::text_files::read_bytes;
use super::tokenizer_class::TokenizerClass;
use super::tokenizer_limits;

/// A chat tokenizer as its files describe it: rules, tokens and template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenizerParts {
    /// The tokenizer's name in messages: its directory, or `bundled`.
    pub name: String,
    /// The content of `tokenizer.json`, with the rules of the tokenizer class.
    pub tokenizer_json: Vec<u8>,
    /// The Jinja source of the chat template.
    pub chat_template: String,
    /// The Jinja source for dialogues with tools; `None` if they have the same.
    pub tool_template: Option<String>,
    /// The file of the template, for messages.
    pub template_origin: String,
    /// The special tokens that the template can refer to.
    pub special: SpecialTokens,
    /// Tokens that other files than `tokenizer.json` add or change, in the calls in which they are added: a token that
    /// is not in the vocabulary gets the next free id.
    pub added_tokens: Vec<Vec<tokenizers::AddedToken>>,
    /// Whether special tokens in a rendered text are cut like any text.
    pub split_special_tokens: bool,
    /// A text that must not occur in a rendered dialogue: the tokenizer class would rearrange the dialogue around it.
    pub fill_token: Option<String>,
}

const TOKENIZER: &str = "tokenizer.json";
const CONFIG: &str = "tokenizer_config.json";
const SPECIAL_TOKENS: &str = "special_tokens_map.json";
const ADDED_TOKENS: &str = "added_tokens.json";
const MODEL: &str = "config.json";

impl TokenizerParts {
    /// Reads a directory in the hub's layout: `tokenizer.json`, and, if they exist, `tokenizer_config.json`,
    /// `special_tokens_map.json`, `added_tokens.json`, `config.json` (for the tokenizer class) and the chat templates.
    ///
    /// # Errors
    /// A missing, unreadable or malformed file; an entry that transformers 5 rejects or that changes tokens in a way
    /// that actbench does not implement.
    pub fn read(directory: &Path) -> Result<Self> {
        let tokenizer = directory.join(TOKENIZER);
        if !tokenizer.is_file() {
            let what = if directory.is_dir() { "has no tokenizer.json" } else { "is not a directory" };
            return Err(Error::file(
                directory,
                format!(
                    "{what}; provide a tokenizer in Hugging Face's fast format, as written by `save_pretrained` of a fast tokenizer"
                ),
            ));
        }
        let tokenizer_json = read_bytes(&tokenizer)?;
        let config_path = directory.join(CONFIG);
        let config = read_object(&config_path)?;
        reject_versioned(&config).map_err(|what| Error::file(&config_path, what))?;
        let files = Sources {
            name: directory.display().to_string(),
            config_name: config_path.display().to_string(),
            config,
            map: read_object(&directory.join(SPECIAL_TOKENS))?,
            added: read_object(&directory.join(ADDED_TOKENS))?,
            model: read_model_config(&directory.join(MODEL)),
        };
        let template = read_template(directory, &files.config_name, &files.config)?;
        files.combine(tokenizer_json, template)
    }

    /// The tokenizer of the embedded model.
    ///
    /// # Errors
    /// Never for the bundled files, which the tests read.
    pub fn bundled() -> Result<Self> {
        use actbench_fixtures::tokenizer::{TOKENIZER_CONFIG_JSON, TOKENIZER_JSON};
        let origin = format!("bundled {CONFIG}");
        let config = parse_object(&origin, TOKENIZER_CONFIG_JSON.as_bytes())?;
        let template =
            inline_template(&origin, &config)?.ok_or_else(|| Error::input(&origin, "has no chat template"))?;
        let files = Sources {
            name: "bundled".to_owned(),
            config_name: origin,
            config,
            map: Map::new(),
            added: Map::new(),
            model: Map::new(),
        };
        files.combine(TOKENIZER_JSON.as_bytes().to_vec(), template)
    }
}

/// The JSON files of a directory except `tokenizer.json`.
struct Sources {
    name: String,
    config_name: String,
    config: Map<String, Value>,
    map: Map<String, Value>,
    added: Map<String, Value>,
    model: Map<String, Value>,
}

impl Sources {
    fn combine(self, tokenizer_json: Vec<u8>, template: ChatTemplateSource) -> Result<TokenizerParts> {
        let of_tokenizer = |what: String| Error::input(self.name.as_str(), what);
        let of_config = |what: String| Error::input(self.config_name.as_str(), what);
        let outline = Outline::parse(&tokenizer_json).map_err(of_tokenizer)?;
        let is_byte_level = || memchr_contains(&tokenizer_json, b"\"ByteLevel\"");
        let class = TokenizerClass::choose(&self.config, &self.model, is_byte_level).map_err(of_config)?;
        if !self.config.contains_key("added_tokens_decoder") && outline.added_tokens.is_none() {
            return Err(of_tokenizer("tokenizer.json has no `added_tokens`; download the file again".to_owned()));
        }
        let files = TokenFiles {
            padding: outline.pad_token(),
            serialized: outline.added_tokens.clone().unwrap_or_default(),
            config: self.config,
            map: self.map,
            added: self.added,
        };
        let of_config = |what: String| Error::input(self.config_name.as_str(), what);
        let table = SpecialTokenTable::collect(&files, class).map_err(of_config)?;
        let tokenizer_json = if class.rebuilds() {
            tokenizer_limits::check_outline(&outline).map_err(of_tokenizer)?;
            let mut tokenizer: Map<String, Value> = serde_json::from_slice(&tokenizer_json).map_err(|error| {
                of_tokenizer(format!("tokenizer.json is not JSON ({error}); download the file again"))
            })?;
            class.rebuild(&mut tokenizer, &table.arguments).map_err(of_config)?;
            Value::Object(tokenizer).to_string().into_bytes()
        } else {
            tokenizer_json
        };
        Ok(TokenizerParts {
            name: self.name,
            tokenizer_json,
            chat_template: template.source,
            tool_template: template.with_tools,
            template_origin: template.origin,
            special: table.special,
            added_tokens: table
                .batches
                .iter()
                .map(|batch| batch.iter().map(super::arguments::AddedToken::resolved).collect())
                .collect(),
            split_special_tokens: table.split_special_tokens,
            fill_token: table.fill_token,
        })
    }
}

/// Whether `needle` occurs in `bytes`.
fn memchr_contains(bytes: &[u8], needle: &[u8]) -> bool {
    bytes.windows(needle.len()).any(|window| window == needle)
}

/// Rejects `fast_tokenizer_files`, by which a version of transformers chooses a file other than `tokenizer.json`.
fn reject_versioned(config: &Map<String, Value>) -> Result<(), String> {
    let names = config.get("fast_tokenizer_files").and_then(Value::as_array);
    let versioned = names.into_iter().flatten().filter_map(Value::as_str).find(|name| *name != TOKENIZER);
    match versioned {
        None => Ok(()),
        Some(name) => Err(format!(
            "`fast_tokenizer_files` names {name}, which some versions of transformers read instead of {TOKENIZER}; keep \
             the right one as {TOKENIZER} and remove the key"
        )),
    }
}

/// The object in a JSON file; empty if the file does not exist.
fn read_object(path: &Path) -> Result<Map<String, Value>> {
    if !path.is_file() {
        return Ok(Map::new());
    }
    parse_object(&path.display().to_string(), &read_bytes(path)?)
}

/// The object in `config.json`; empty if there is none, or a malformed one, which the engine reports. It may have numbers that JSON
/// lacks.
fn read_model_config(path: &Path) -> Map<String, Value> {
    let text = read_bytes(path).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    match text.and_then(|text| python_json::parse(&text).ok()) {
        Some(Value::Object(entries)) => entries,
        _ => Map::new(),
    }
}

fn parse_object(origin: &str, bytes: &[u8]) -> Result<Map<String, Value>> {
    match serde_json::from_slice(bytes) {
        Ok(Value::Object(entries)) => Ok(entries),
        Ok(_) => Err(Error::input(origin, "is not a JSON object; download the file again")),
        Err(error) => Err(Error::input(origin, format!("is not JSON ({error}); download the file again"))),
    }
}
