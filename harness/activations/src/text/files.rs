//! The files of a Hugging Face tokenizer directory: their names, and the entries that are read from them.

use std::fs;
use std::path::Path;

use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::hub::cache::may_lack;

use super::template::SpecialTokens;

/// The files of a chat tokenizer, as text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenizerParts {
    /// The tokenizer's name in messages: its directory, or `bundled`.
    pub name: String,
    /// The content of `tokenizer.json`.
    pub tokenizer_json: Vec<u8>,
    /// The Jinja source of the chat template.
    pub chat_template: String,
    /// The file of the template, for messages.
    pub template_origin: String,
    /// The special tokens that the template can refer to.
    pub special: SpecialTokens,
}

const TOKENIZER: &str = "tokenizer.json";
const CONFIG: &str = "tokenizer_config.json";
const TEMPLATE: &str = "chat_template.jinja";
const SPECIAL_TOKENS: &str = "special_tokens_map.json";

impl TokenizerParts {
    /// Reads a directory in the hub's layout: `tokenizer.json`; the template from `chat_template.jinja`, else from
    /// `tokenizer_config.json`; special tokens from the latter, else from `special_tokens_map.json`.
    ///
    /// # Errors
    /// A missing, unreadable or malformed file.
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
        let tokenizer_json = fs::read(&tokenizer).map_err(Error::io("read", &tokenizer))?;
        let config = read_object(&directory.join(CONFIG))?;
        let map = read_object(&directory.join(SPECIAL_TOKENS))?;
        let token = |name: &str| special_token(&config, name).or_else(|| special_token(&map, name));
        let special = SpecialTokens {
            bos: token("bos_token"),
            eos: token("eos_token"),
            unk: token("unk_token"),
            pad: token("pad_token"),
        };
        let (chat_template, template_origin) = read_template(directory, &config)?;
        Ok(TokenizerParts {
            name: directory.display().to_string(),
            tokenizer_json,
            chat_template,
            template_origin,
            special,
        })
    }

    /// The tokenizer of the embedded model.
    ///
    /// # Errors
    /// Never for the bundled files, which the tests read.
    pub fn bundled() -> Result<Self> {
        use actbench_fixtures::tokenizer::{TOKENIZER_CONFIG_JSON, TOKENIZER_JSON};
        let origin = format!("bundled {CONFIG}");
        let config = parse_object(&origin, TOKENIZER_CONFIG_JSON.as_bytes())?;
        let chat_template = chosen_template(&origin, config.get("chat_template"))?
            .ok_or_else(|| Error::input(origin.as_str(), "has no chat template"))?;
        let token = |name: &str| special_token(&config, name);
        Ok(TokenizerParts {
            name: "bundled".to_owned(),
            tokenizer_json: TOKENIZER_JSON.as_bytes().to_vec(),
            chat_template,
            template_origin: origin,
            special: SpecialTokens {
                bos: token("bos_token"),
                eos: token("eos_token"),
                unk: token("unk_token"),
                pad: token("pad_token"),
            },
        })
    }
}

/// The template's source and its file. Like transformers, a separate file takes precedence over the configuration.
fn read_template(directory: &Path, config: &Map<String, Value>) -> Result<(String, String)> {
    let path = directory.join(TEMPLATE);
    if path.is_file() {
        let source = fs::read_to_string(&path).map_err(Error::io("read", &path))?;
        return Ok((source, path.display().to_string()));
    }
    let origin = directory.join(CONFIG).display().to_string();
    match chosen_template(&origin, config.get("chat_template"))? {
        Some(source) => Ok((source, origin)),
        // The hub's cache may be filled by a client that did not ask for the separate file.
        None if may_lack(directory, TEMPLATE) => Err(Error::file(
            directory,
            format!(
                "has no chat template in the hub's cache; the hub may have {TEMPLATE}: run once with the network and without \
                 HF_HUB_OFFLINE to download it"
            ),
        )),
        None => Err(Error::file(
            directory,
            format!(
                "has no chat template, neither in {TEMPLATE} nor in {CONFIG}; use an instruction-tuned model or add its template"
            ),
        )),
    }
}

/// The template in a `chat_template` entry: a string, or the default one of a list of named templates.
fn chosen_template(origin: &str, entry: Option<&Value>) -> Result<Option<String>> {
    let malformed = || Error::input(origin, "`chat_template` must be a string or a list of {name, template}");
    match entry {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(source)) => Ok(Some(source.clone())),
        Some(Value::Array(list)) => {
            let mut named = Vec::new();
            for item in list {
                match (item.get("name").and_then(Value::as_str), item.get("template").and_then(Value::as_str)) {
                    (Some(name), Some(template)) => named.push((name, template)),
                    _ => return Err(malformed()),
                }
            }
            match named.iter().find(|(name, _)| *name == "default").or(if named.len() == 1 {
                named.first()
            } else {
                None
            }) {
                Some((_, template)) => Ok(Some((*template).to_owned())),
                None => Err(Error::input(
                    origin,
                    format!(
                        "has several chat templates ({}) and none is named `default`; copy the one to use to {TEMPLATE}",
                        named.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", "),
                    ),
                )),
            }
        }
        Some(_) => Err(malformed()),
    }
}

/// A special token: a string, or an object with the string as `content`.
fn special_token(entries: &Map<String, Value>, name: &str) -> Option<String> {
    let entry = entries.get(name)?;
    entry.as_str().or_else(|| entry.get("content")?.as_str()).map(str::to_owned)
}

/// The object in a JSON file; empty if the file does not exist.
fn read_object(path: &Path) -> Result<Map<String, Value>> {
    match fs::read(path) {
        Ok(bytes) => parse_object(&path.display().to_string(), &bytes),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Map::new()),
        Err(error) => Err(Error::io("read", path)(error)),
    }
}

fn parse_object(origin: &str, bytes: &[u8]) -> Result<Map<String, Value>> {
    match serde_json::from_slice(bytes) {
        Ok(Value::Object(entries)) => Ok(entries),
        Ok(_) => Err(Error::input(origin, "is not a JSON object; download the file again")),
        Err(error) => Err(Error::input(origin, format!("is not JSON ({error}); download the file again"))),
    }
}
