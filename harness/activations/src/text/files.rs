//! The files of a Hugging Face tokenizer folder: what they are called and what is taken from them.

use std::fs;
use std::path::Path;

use serde_json::{Map, Value};

use crate::error::{Error, Result};

use super::template::SpecialTokens;

/// Everything a chat tokenizer is made of, as text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenizerParts {
    /// Names the tokenizer in messages: its folder, or `bundled`.
    pub name: String,
    /// The content of `tokenizer.json`.
    pub tokenizer_json: Vec<u8>,
    /// The Jinja source of the chat template.
    pub chat_template: String,
    /// The file that the template is from, for messages.
    pub template_origin: String,
    /// Texts that the template may name.
    pub special: SpecialTokens,
}

const TOKENIZER: &str = "tokenizer.json";
const CONFIG: &str = "tokenizer_config.json";
const TEMPLATE: &str = "chat_template.jinja";
const SPECIAL_TOKENS: &str = "special_tokens_map.json";

impl TokenizerParts {
    /// Reads a folder as it is on the hub: `tokenizer.json`; the template from `chat_template.jinja`, else from
    /// `tokenizer_config.json`; special tokens from there, else from `special_tokens_map.json`.
    ///
    /// # Errors
    /// A file that is missing, cannot be read or does not hold what it should.
    pub fn read(folder: &Path) -> Result<Self> {
        let tokenizer = folder.join(TOKENIZER);
        if !tokenizer.is_file() {
            let what = if folder.is_dir() { "has no tokenizer.json" } else { "is not a folder" };
            return Err(Error::file(
                folder,
                format!(
                    "{what}; a tokenizer is needed in Hugging Face's fast format, which `save_pretrained` of a fast tokenizer writes"
                ),
            ));
        }
        let tokenizer_json = fs::read(&tokenizer).map_err(Error::io("read", &tokenizer))?;
        let config = read_object(&folder.join(CONFIG))?;
        let map = read_object(&folder.join(SPECIAL_TOKENS))?;
        let token = |name: &str| special_token(&config, name).or_else(|| special_token(&map, name));
        let special = SpecialTokens {
            bos: token("bos_token"),
            eos: token("eos_token"),
            unk: token("unk_token"),
            pad: token("pad_token"),
        };
        let (chat_template, template_origin) = read_template(folder, &config)?;
        Ok(TokenizerParts {
            name: folder.display().to_string(),
            tokenizer_json,
            chat_template,
            template_origin,
            special,
        })
    }

    /// The tokenizer that comes with the embedded model.
    ///
    /// # Errors
    /// None for the files this program was built with.
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

/// The template's source and the file it is from. transformers, too, prefers the file of its own.
fn read_template(folder: &Path, config: &Map<String, Value>) -> Result<(String, String)> {
    let path = folder.join(TEMPLATE);
    if path.is_file() {
        let source = fs::read_to_string(&path).map_err(Error::io("read", &path))?;
        return Ok((source, path.display().to_string()));
    }
    let origin = folder.join(CONFIG).display().to_string();
    match chosen_template(&origin, config.get("chat_template"))? {
        Some(source) => Ok((source, origin)),
        None => Err(Error::file(
            folder,
            format!(
                "has no chat template, neither in {TEMPLATE} nor in {CONFIG}; use an instruction-tuned model or put its template there"
            ),
        )),
    }
}

/// The template in a `chat_template` entry: a text, or the default one of a list of named ones.
fn chosen_template(origin: &str, entry: Option<&Value>) -> Result<Option<String>> {
    let malformed = || Error::input(origin, "`chat_template` must be a text or a list of {name, template}");
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
                        "has several chat templates ({}) and none is called `default`; put the one to use into {TEMPLATE}",
                        named.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", "),
                    ),
                )),
            }
        }
        Some(_) => Err(malformed()),
    }
}

/// A special token, which is a text or an object with the text as `content`.
fn special_token(entries: &Map<String, Value>, name: &str) -> Option<String> {
    let entry = entries.get(name)?;
    entry.as_str().or_else(|| entry.get("content")?.as_str()).map(str::to_owned)
}

/// The object in a JSON file; an empty one where there is no file.
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
        Ok(_) => Err(Error::input(origin, "is not a JSON object; fetch the file anew")),
        Err(error) => Err(Error::input(origin, format!("is not JSON ({error}); fetch the file anew"))),
    }
}
