//! Adapts the messages of a dialogue to a template that does not render them as they are: joins adjacent messages of one
//! role, and folds system messages into user messages.
//!
//! transformers renders every message as its own turn or raises. Data sets with system messages are also used with
//! templates without a system role, so a dialogue that the template refuses, or of which it leaves out a message, is
//! changed as little as possible. [`TurnChanges`] counts those rows, because their tokens differ from transformers'.

use serde_json::{Map, Value};

use crate::data::{ChatMessage, Role};

use super::template::{ChatTemplate, RenderError};

/// Separates the texts of adjacent messages of one role.
const JOINT: &str = " ";
/// Separates a folded system text from the user's text.
const FOLD: &str = "\n\n";

/// A template with the variables of one dialogue.
#[derive(Clone, Copy)]
pub(super) struct Renderer<'a> {
    pub(super) template: &'a ChatTemplate,
    pub(super) values: &'a Map<String, Value>,
}

impl Renderer<'_> {
    /// Renders `messages` without a generation prompt.
    pub(super) fn render(&self, messages: &[ChatMessage]) -> Result<String, RenderError> {
        self.template.render(messages, self.values)
    }
}

/// The number of rows whose messages were changed because the chat template does not render them as they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TurnChanges {
    /// Rows with adjacent messages of one role that were joined by a space.
    pub joined: usize,
    /// Rows with a system message that the template refuses and that was put before the next user text.
    pub refused_system: usize,
    /// Rows with a system message that the template leaves out and that was put before the next user text.
    pub omitted_system: usize,
}

impl TurnChanges {
    /// The sum of both.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        TurnChanges {
            joined: self.joined + other.joined,
            refused_system: self.refused_system + other.refused_system,
            omitted_system: self.omitted_system + other.omitted_system,
        }
    }

    /// One sentence for each kind of change, for a data set of `rows` rows.
    pub fn notes(self, rows: usize) -> Vec<String> {
        let moved = "the system text was put before the user's text";
        [
            (self.refused_system, "refuses a system message", moved),
            (self.omitted_system, "leaves out the system message", moved),
            (self.joined, "does not render adjacent messages of one role", "their texts were joined by a space"),
        ]
        .into_iter()
        .filter(|(count, ..)| *count > 0)
        .map(|(count, why, what)| format!("the chat template {why}: {what} in {count} of {rows} rows"))
        .collect()
    }
}

/// Whether a message has only a role and a text, so that it can be merged with another one.
pub(super) fn is_plain(message: &ChatMessage) -> bool {
    message.content().is_some() && message.keys().len() == 2
}

/// The indices of all system messages.
pub(super) fn systems(messages: &[ChatMessage]) -> Vec<usize> {
    (0..messages.len()).filter(|message| *messages[*message].role() == Role::System).collect()
}

/// Whether a neighbor of `message` has the same role.
pub(super) fn has_twin(messages: &[ChatMessage], message: usize) -> bool {
    let is_twin = |other: Option<&ChatMessage>| other.is_some_and(|other| other.role() == messages[message].role());
    is_twin(messages.get(message + 1)) || message.checked_sub(1).is_some_and(|left| is_twin(messages.get(left)))
}

/// Joins adjacent messages of one role by a space. Messages with further keys, such as tool calls, stay alone. Returns
/// `None` if there is nothing to join.
pub(super) fn joined(messages: &[ChatMessage]) -> Option<Vec<ChatMessage>> {
    let mut turns: Vec<ChatMessage> = Vec::new();
    for message in messages {
        match turns.last_mut() {
            Some(last) if last.role() == message.role() && is_plain(last) && is_plain(message) => {
                let texts = [&*last, message].map(|message| message.content().unwrap_or_default());
                *last = last.with_content(texts.join(JOINT));
            }
            _ => turns.push(message.clone()),
        }
    }
    (turns.len() < messages.len()).then_some(turns)
}

/// Prepends each system message at an index in `folded` to the text of the next user message, separated by a blank
/// line. Returns `None` if there is none, if no user message with a text follows, or if a system message has further keys.
pub(super) fn fold_system(messages: &[ChatMessage], folded: &[usize]) -> Option<Vec<ChatMessage>> {
    if folded.is_empty() {
        return None;
    }
    let mut pending = String::new();
    let mut turns = Vec::with_capacity(messages.len());
    for (position, message) in messages.iter().enumerate() {
        if folded.contains(&position) {
            if !is_plain(message) {
                return None;
            }
            pending.push_str(message.content()?);
            pending.push_str(FOLD);
        } else if *message.role() == Role::User && !pending.is_empty() {
            turns.push(message.with_content(std::mem::take(&mut pending) + message.content()?));
        } else {
            turns.push(message.clone());
        }
    }
    pending.is_empty().then_some(turns)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(turns: &[(Role, &str)]) -> Vec<ChatMessage> {
        turns.iter().map(|(role, content)| ChatMessage::new(role.clone(), *content)).collect()
    }

    #[test]
    fn adjacent_messages_of_role_are_joined() {
        let given = messages(&[(Role::User, "a"), (Role::User, ""), (Role::Assistant, "b"), (Role::Assistant, "c")]);
        assert_eq!(joined(&given), Some(messages(&[(Role::User, "a "), (Role::Assistant, "b c")])));
        assert_eq!(joined(&given[1..3]), None);
        let call = serde_json::json!({"role": "assistant", "content": "b", "tool_calls": []});
        let call = ChatMessage::from_keys(call.as_object().unwrap().clone()).unwrap();
        assert_eq!(joined(&[call.clone(), call]), None);
    }

    #[test]
    fn system_message_is_folded_into_next_user_message() {
        let given = messages(&[(Role::System, "s"), (Role::User, "u"), (Role::System, "t"), (Role::User, "v")]);
        assert_eq!(fold_system(&given, &[0, 2]), Some(messages(&[(Role::User, "s\n\nu"), (Role::User, "t\n\nv")])));
        assert_eq!(
            fold_system(&given, &[2]),
            Some(messages(&[(Role::System, "s"), (Role::User, "u"), (Role::User, "t\n\nv")]))
        );
        let greeting = messages(&[(Role::System, "s"), (Role::Assistant, "hello"), (Role::User, "u")]);
        assert_eq!(fold_system(&greeting, &[0]), Some(messages(&[(Role::Assistant, "hello"), (Role::User, "s\n\nu")])));
        assert_eq!(fold_system(&messages(&[(Role::System, "s"), (Role::Assistant, "a")]), &[0]), None);
        assert_eq!(fold_system(&given, &[]), None);
    }

    #[test]
    fn notes_count_changed_rows() {
        let changes = TurnChanges { joined: 2, refused_system: 412, omitted_system: 0 };
        assert_eq!(
            changes.plus(TurnChanges { omitted_system: 1, ..changes }).notes(600),
            [
                "the chat template refuses a system message: the system text was put before the user's text in 824 of 600 \
                 rows",
                "the chat template leaves out the system message: the system text was put before the user's text in 1 of \
                 600 rows",
                "the chat template does not render adjacent messages of one role: their texts were joined by a space in 4 \
                 of 600 rows",
            ]
        );
        assert!(TurnChanges::default().notes(600).is_empty());
    }
}
