//! Validation of rows, shared by the readers of all file formats.

use serde_json::{Map, Value};

use super::dialogue::{ChatMessage, Dialogue, Role};
use super::{label, strict_json};

/// The error describes the defect of a row; the reader of the file adds the path and the line.
pub(super) type RowResult<T> = std::result::Result<T, String>;

const SHAPE: &str = r#"a row is {"messages": [{"role", "content"}, ...], "label": 0 or 1}"#;

/// The keys of a row that are variables of the chat template: parameters of transformers' `apply_chat_template`, and
/// further ones in an object, as in data sets of TRL.
const TEMPLATE_LISTS: [&str; 2] = ["tools", "documents"];
const TEMPLATE_KWARGS: &str = "chat_template_kwargs";

/// All keys that [`template_values`] asks for.
pub(super) const TEMPLATE_KEYS: [&str; 3] = [TEMPLATE_LISTS[0], TEMPLATE_LISTS[1], TEMPLATE_KWARGS];

/// Bytes that a row may have. The longest contexts of models are a few million tokens, of four bytes or so each; a larger
/// row is a mistake, or made to exhaust memory.
pub(super) const MAX_ROW_BYTES: usize = 16 << 20;

/// The message for a row of more than [`MAX_ROW_BYTES`].
pub(super) fn too_large() -> String {
    format!("has more than {} MiB of data, which no model reads; shorten or remove the row", MAX_ROW_BYTES >> 20)
}

/// A dialogue from the text of a JSON object with `messages`, `label` and, optionally, the keys of [`template_values`].
/// Other keys are ignored.
pub(super) fn from_json_line(text: &str) -> RowResult<Dialogue> {
    let row = strict_json::parse(text).map_err(|what| match what.starts_with("is not JSON") {
        true => format!("{what}; each line must be one whole JSON object"),
        false => what,
    })?;
    let Some(row) = row.as_object() else {
        return Err(format!("is not an object; {SHAPE}"));
    };
    let messages = messages_from_json(row.get("messages"))?;
    let label = label::from_json(row.get("label"), strict_json::raw_value(text, "label"))?;
    Ok(Dialogue { messages, template_values: template_values(|key| row.get(key).cloned())?, label })
}

/// The variables of the chat template in a row: `tools` and `documents` (lists of objects), and the entries of
/// `chat_template_kwargs` (an object). `value` returns the value of a key; text is read as JSON. Null is as absent.
pub(super) fn template_values(value: impl Fn(&str) -> Option<Value>) -> RowResult<Map<String, Value>> {
    let parsed = |key: &str| match value(key) {
        // Cells of CSV files are empty where a row has no value.
        Some(Value::String(text)) if text.trim().is_empty() => Ok(None),
        Some(Value::String(text)) => match strict_json::parse(&text) {
            Ok(Value::Null) => Ok(None),
            Ok(value) => Ok(Some(value)),
            Err(what) => Err(format!("`{key}` {what}")),
        },
        None | Some(Value::Null) => Ok(None),
        Some(value) => Ok(Some(value)),
    };
    let parsed = |key: &str| match parsed(key)? {
        Some(value) if !is_exact(&value) => Err(format!("`{key}` {INEXACT}")),
        value => Ok(value),
    };
    let mut values = match parsed(TEMPLATE_KWARGS)? {
        None => Map::new(),
        Some(Value::Object(values)) => values,
        Some(_) => return Err(format!("`{TEMPLATE_KWARGS}` is not an object; map names to values")),
    };
    let reserved = ["messages", "add_generation_prompt"].into_iter().chain(TEMPLATE_LISTS);
    if let Some(key) = reserved.into_iter().find(|key| values.contains_key(*key)) {
        return Err(format!("`{TEMPLATE_KWARGS}` has the key `{key}`, which is not an extra variable; remove it"));
    }
    for key in TEMPLATE_LISTS {
        match parsed(key)? {
            None => {}
            Some(Value::Array(list)) if list.iter().all(Value::is_object) => {
                values.insert(key.to_owned(), Value::Array(list));
            }
            Some(_) => return Err(format!("`{key}` is not a list of objects, which the chat template expects")),
        }
    }
    Ok(values)
}

/// Messages from a JSON list of objects with `role` and `content`, or from a string that holds such a list.
pub(super) fn messages_from_json(messages: Option<&Value>) -> RowResult<Vec<ChatMessage>> {
    let parsed: Value;
    let messages = match messages {
        Some(Value::String(text)) => {
            parsed = strict_json::parse(text).map_err(|what| format!("`messages` {what}"))?;
            Some(&parsed)
        }
        other => other,
    };
    let Some(list) = messages.and_then(Value::as_array) else {
        return Err(match messages {
            None | Some(Value::Null) => format!("has no `messages`; {SHAPE}"),
            Some(_) => format!("`messages` is not a list; {SHAPE}"),
        });
    };
    let messages = list
        .iter()
        .enumerate()
        .map(|(position, message)| {
            message_from_json(message).map_err(|what| format!("message {}: {what}", position + 1))
        })
        .collect::<RowResult<Vec<ChatMessage>>>()?;
    check_messages(messages)
}

/// A message from a JSON object. All its keys are kept for the chat template.
pub(super) fn message_from_json(message: &Value) -> RowResult<ChatMessage> {
    if !is_exact(message) {
        return Err(INEXACT.to_owned());
    }
    ChatMessage::from_keys(message.as_object().cloned().unwrap_or_default())
}

const INEXACT: &str =
    "has an integer of more than 64 bits, which the chat template would get rounded; make it a string";

/// Whether Python reads the same numbers. Integers beyond 64 bits are integers there, and rounded here.
fn is_exact(value: &Value) -> bool {
    match value {
        Value::Number(number) => number.as_f64().is_none_or(|float| !number.is_f64() || float.abs() < 9.22e18),
        Value::Array(items) => items.iter().all(is_exact),
        Value::Object(keys) => keys.values().all(is_exact),
        _ => true,
    }
}

/// Returns `messages` if the assistant has written at least one of them, so that there are tokens to pool. A message without
/// a text counts if it has further keys, such as `tool_calls`.
pub(super) fn check_messages(messages: Vec<ChatMessage>) -> RowResult<Vec<ChatMessage>> {
    if messages.is_empty() {
        return Err("`messages` is empty; remove the row or add messages".to_owned());
    }
    if !messages.iter().any(|message| *message.role() == Role::Assistant) {
        return Err("has no message from the assistant, so there are no tokens to pool; remove the row".to_owned());
    }
    let is_answer = |message: &ChatMessage| {
        let n_plain_keys = 1 + usize::from(message.content().is_some());
        *message.role() == Role::Assistant
            && (message.keys().len() > n_plain_keys || message.content().is_some_and(|text| !text.trim().is_empty()))
    };
    if !messages.iter().any(is_answer) {
        return Err("every message of the assistant is empty, so there is no answer to pool; fill one or remove the \
                    row"
        .to_owned());
    }
    Ok(messages)
}
