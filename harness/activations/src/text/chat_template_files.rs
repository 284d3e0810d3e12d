//! The chat template of a tokenizer directory: its file or its entry, as transformers 5 selects them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::hub::cache::may_lack;

use super::text_files::read_bytes;

const TEMPLATE: &str = "chat_template.jinja";
const DIRECTORY: &str = "additional_chat_templates";
const SUFFIX: &str = ".jinja";
const DEFAULT: &str = "default";

/// A chat template and the file that has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ChatTemplateSource {
    /// The Jinja source.
    pub(super) source: String,
    /// The path of the file, for messages.
    pub(super) origin: String,
}

/// The template of a directory. Files (`chat_template.jinja`, `additional_chat_templates/NAME.jinja`) take precedence
/// over the entry `chat_template` of the configuration, whose path is `config_name`.
///
/// # Errors
/// No template, none named `default` among several, or an unreadable file.
pub(super) fn read_template(
    directory: &Path,
    config_name: &str,
    config: &Map<String, Value>,
) -> Result<ChatTemplateSource> {
    let mut files = named_files(&directory.join(DIRECTORY))?;
    let main = directory.join(TEMPLATE);
    if main.is_file() {
        files.entry(DEFAULT.to_owned()).or_insert(main);
    }
    if let Some(path) = files.get(DEFAULT) {
        let source = String::from_utf8(read_bytes(path)?)
            .map_err(|_| Error::file(path, "is not UTF-8; download the file again"))?;
        return Ok(ChatTemplateSource { source, origin: path.display().to_string() });
    }
    if !files.is_empty() {
        let names: Vec<&str> = files.keys().map(String::as_str).collect();
        return Err(Error::file(directory.join(DIRECTORY), without_default(&names)));
    }
    if let Some(inline) = inline_template(config_name, config)? {
        return Ok(inline);
    }
    // The hub's cache may be filled by a client that did not ask for the separate file.
    let what = if may_lack(directory, TEMPLATE) {
        format!(
            "has no chat template in the hub's cache; the hub may have {TEMPLATE}: run once with the network and without \
             HF_HUB_OFFLINE to download it"
        )
    } else {
        format!(
            "has no chat template, neither in {TEMPLATE} nor in tokenizer_config.json; use an instruction-tuned model or \
             add its template"
        )
    };
    Err(Error::file(directory, what))
}

/// The files of named templates, by name.
fn named_files(directory: &Path) -> Result<BTreeMap<String, PathBuf>> {
    let mut files = BTreeMap::new();
    if !directory.is_dir() {
        return Ok(files);
    }
    for entry in fs::read_dir(directory).map_err(Error::io("read", directory))? {
        let path = entry.map_err(Error::io("read", directory))?.path();
        let name = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_suffix(SUFFIX));
        if let Some(name) = name.filter(|_| path.is_file()) {
            files.insert(name.to_owned(), path);
        }
    }
    Ok(files)
}

/// The template in the entry `chat_template` of a configuration: a string, or the one named `default` of several.
///
/// # Errors
/// A malformed entry, or several templates without a default.
pub(super) fn inline_template(origin: &str, config: &Map<String, Value>) -> Result<Option<ChatTemplateSource>> {
    let text = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_owned);
    let named: Option<Vec<(String, String)>> = match config.get("chat_template") {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(source)) => Some(vec![(DEFAULT.to_owned(), source.clone())]),
        Some(Value::Array(list)) => {
            list.iter().map(|item| Some((text(item.get("name"))?, text(item.get("template"))?))).collect()
        }
        Some(Value::Object(map)) => {
            map.iter().map(|(name, source)| Some((name.clone(), text(Some(source))?))).collect()
        }
        Some(_) => None,
    };
    let named =
        named.ok_or_else(|| Error::input(origin, "`chat_template` must be a string or a list of {name, template}"))?;
    of_named(origin, &named)
}

/// The template named `default`; of several with that name the last, as in a Python dictionary.
fn of_named(origin: &str, named: &[(String, String)]) -> Result<Option<ChatTemplateSource>> {
    match named.iter().rev().find(|(name, _)| name == DEFAULT) {
        Some((_, source)) => Ok(Some(ChatTemplateSource { source: source.clone(), origin: origin.to_owned() })),
        None => {
            let names: Vec<&str> = named.iter().map(|(name, _)| name.as_str()).collect();
            Err(Error::input(origin, without_default(&names)))
        }
    }
}

fn without_default(names: &[&str]) -> String {
    format!("has chat templates ({}) and none is named `default`; copy the one to use to {TEMPLATE}", names.join(", "))
}
