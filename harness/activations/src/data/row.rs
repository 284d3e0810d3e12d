//! Validation of rows, shared by the readers of all file formats.

use serde_json::Value;

use super::dialogue::{ChatMessage, Dialogue, Role};

/// The error describes the defect of a row; the reader of the file adds the path and the line.
pub(super) type RowResult<T> = std::result::Result<T, String>;

const SHAPE: &str = r#"a row is {"messages": [{"role", "content"}, ...], "label": 0 or 1}"#;

/// A dialogue from a JSON object with `messages` and `label`. Other keys are ignored.
pub(super) fn from_json(row: &Value) -> RowResult<Dialogue> {
    let Some(row) = row.as_object() else {
        return Err(format!("is not an object; {SHAPE}"));
    };
    let messages = messages_from_json(row.get("messages"))?;
    let label = label_from_json(row.get("label"))?;
    Ok(Dialogue { messages, label })
}

/// Messages from a JSON list of objects with `role` and `content`, or from a string that holds such a list.
pub(super) fn messages_from_json(messages: Option<&Value>) -> RowResult<Vec<ChatMessage>> {
    let parsed: Value;
    let messages = match messages {
        Some(Value::String(text)) => {
            parsed = serde_json::from_str(text).map_err(|error| format!("`messages` is not JSON: {error}"))?;
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

fn message_from_json(message: &Value) -> RowResult<ChatMessage> {
    let role = match message.get("role") {
        Some(Value::String(role)) => role_from(role)?,
        _ => return Err("has no `role`; set it to `system`, `user` or `assistant`".to_owned()),
    };
    match message.get("content") {
        Some(Value::String(content)) => Ok(ChatMessage::new(role, content)),
        None | Some(Value::Null) => Err("has no `content`; add a string, which may be empty".to_owned()),
        Some(_) => Err("`content` is not a string; join its parts into one string".to_owned()),
    }
}

/// The role called `name`.
pub(super) fn role_from(name: &str) -> RowResult<Role> {
    Role::from_name(name)
        .ok_or_else(|| format!("unknown role {name:?}; the roles are `system`, `user` and `assistant`"))
}

/// Returns `messages` if at least one of them is from the assistant, so that there are tokens to pool.
pub(super) fn check_messages(messages: Vec<ChatMessage>) -> RowResult<Vec<ChatMessage>> {
    if messages.is_empty() {
        return Err("`messages` is empty; remove the row or add messages".to_owned());
    }
    if !messages.iter().any(|message| message.role == Role::Assistant) {
        return Err("has no message from the assistant, so there are no tokens to pool; remove the row".to_owned());
    }
    Ok(messages)
}

/// A label from JSON: `0`, `1`, `false` or `true`.
pub(super) fn label_from_json(label: Option<&Value>) -> RowResult<bool> {
    match label {
        None | Some(Value::Null) => Err("has no `label`; set it to 0 or 1, or remove the row".to_owned()),
        Some(Value::Bool(label)) => Ok(*label),
        Some(Value::Number(number)) if number.as_f64() == Some(0.0) => Ok(false),
        Some(Value::Number(number)) if number.as_f64() == Some(1.0) => Ok(true),
        Some(other) => Err(bad_label(&other.to_string())),
    }
}

/// A label from a CSV cell.
pub(super) fn label_from_text(label: &str) -> RowResult<bool> {
    match label.trim() {
        "" => label_from_json(None),
        "0" => Ok(false),
        "1" => Ok(true),
        other => Err(bad_label(&format!("{other:?}"))),
    }
}

/// The message for a label that is neither 0 nor 1.
pub(super) fn bad_label(label: &str) -> String {
    let mut shown: String = label.chars().take(40).collect();
    if shown.len() < label.len() {
        shown.push_str("...");
    }
    format!("label {shown} is neither 0 nor 1; probes are binary, so map the labels to 0 and 1")
}
