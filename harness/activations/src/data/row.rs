//! What makes a row: checks that the readers of all file formats share.

use serde_json::Value;

use super::dialogue::{Dialogue, Message, Role};

/// What is wrong with a row, without its place, which the reader of the file adds.
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
pub(super) fn messages_from_json(messages: Option<&Value>) -> RowResult<Vec<Message>> {
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
        .collect::<RowResult<Vec<Message>>>()?;
    checked(messages)
}

fn message_from_json(message: &Value) -> RowResult<Message> {
    let role = match message.get("role") {
        Some(Value::String(role)) => role_from(role)?,
        _ => return Err("has no `role`; give it `system`, `user` or `assistant`".to_owned()),
    };
    match message.get("content") {
        Some(Value::String(content)) => Ok(Message::new(role, content)),
        None | Some(Value::Null) => Err("has no `content`; give it a text, which may be empty".to_owned()),
        Some(_) => Err("`content` is not a text; join its parts into one string".to_owned()),
    }
}

/// The role of that name.
pub(super) fn role_from(name: &str) -> RowResult<Role> {
    Role::from_name(name)
        .ok_or_else(|| format!("unknown role {name:?}; the roles are `system`, `user` and `assistant`"))
}

/// `messages`, when there is something in them to pool.
pub(super) fn checked(messages: Vec<Message>) -> RowResult<Vec<Message>> {
    if messages.is_empty() {
        return Err("`messages` is empty; remove the row or give it messages".to_owned());
    }
    if !messages.iter().any(|message| message.role == Role::Assistant) {
        return Err("no message is from the assistant, so there is nothing to pool; remove the row".to_owned());
    }
    Ok(messages)
}

/// A label from JSON: `0`, `1`, `false` or `true`.
pub(super) fn label_from_json(label: Option<&Value>) -> RowResult<bool> {
    match label {
        None | Some(Value::Null) => Err("has no `label`; label it 0 or 1, or remove it".to_owned()),
        Some(Value::Bool(label)) => Ok(*label),
        Some(Value::Number(number)) if number.as_f64() == Some(0.0) => Ok(false),
        Some(Value::Number(number)) if number.as_f64() == Some(1.0) => Ok(true),
        Some(other) => Err(bad_label(&other.to_string())),
    }
}

/// A label from the text of a table's cell.
pub(super) fn label_from_text(label: &str) -> RowResult<bool> {
    match label.trim() {
        "" => label_from_json(None),
        "0" => Ok(false),
        "1" => Ok(true),
        other => Err(bad_label(&format!("{other:?}"))),
    }
}

/// The complaint about a label that is neither 0 nor 1.
pub(super) fn bad_label(label: &str) -> String {
    let mut shown: String = label.chars().take(40).collect();
    if shown.len() < label.len() {
        shown.push_str("...");
    }
    format!("label {shown} is neither 0 nor 1; a probe here is binary, so map the labels to 0 and 1")
}
