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
/// The name under which transformers expects the template for dialogues with tools.
const WITH_TOOLS: &str = "tool_use";

/// A chat template and the file that has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ChatTemplateSource {
    /// The Jinja source.
    pub(super) source: String,
    /// The Jinja source for dialogues with tools, if the files have one of its own.
    pub(super) with_tools: Option<String>,
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
        let with_tools = files.get(WITH_TOOLS).map(|path| read_text(path)).transpose()?;
        return Ok(ChatTemplateSource { source: read_text(path)?, with_tools, origin: path.display().to_string() });
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

fn read_text(path: &Path) -> Result<String> {
    String::from_utf8(read_bytes(path)?).map_err(|_| Error::file(path, "is not UTF-8; download the file again"))
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
    let find = |wanted: &str| named.iter().rev().find(|(name, _)| name == wanted).map(|(_, source)| source.clone());
    match find(DEFAULT) {
        Some(source) => {
            Ok(Some(ChatTemplateSource { source, with_tools: find(WITH_TOOLS), origin: origin.to_owned() }))
        }
        None => {
            let names: Vec<&str> = named.iter().map(|(name, _)| name.as_str()).collect();
            Err(Error::input(origin, without_default(&names)))
        }
    }
}

fn without_default(names: &[&str]) -> String {
    format!("has chat templates ({}) and none is named `default`; copy the one to use to {TEMPLATE}", names.join(", "))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn template_for_tools_is_read_from_files_and_entry() {
        let directory = tempfile::tempdir().unwrap();
        let config = json!({"chat_template": [
            {"name": "tool_use", "template": "T"}, {"name": "default", "template": "D"}, {"name": "rag", "template": "R"},
        ]});
        let read = || {
            let template =
                read_template(directory.path(), "tokenizer_config.json", config.as_object().unwrap()).unwrap();
            (template.source, template.with_tools)
        };
        assert_eq!(read(), ("D".to_owned(), Some("T".to_owned())));
        fs::write(directory.path().join(TEMPLATE), "d").unwrap();
        assert_eq!(read(), ("d".to_owned(), None));
        fs::create_dir(directory.path().join(DIRECTORY)).unwrap();
        fs::write(directory.path().join(DIRECTORY).join("tool_use.jinja"), "t").unwrap();
        assert_eq!(read(), ("d".to_owned(), Some("t".to_owned())));
    }
}
