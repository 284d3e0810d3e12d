//! Prepares the messages for a template: joins adjacent messages of one role, and folds system messages into user
//! messages for templates without a system role.

use crate::data::{ChatMessage, Role};

/// Separates the texts of adjacent messages of one role.
const JOINT: &str = " ";
/// Separates a folded system text from the user's text.
const FOLD: &str = "\n\n";

/// Joins adjacent messages of one role by a space, because most templates require alternating roles.
pub(super) fn joined(messages: impl IntoIterator<Item = ChatMessage>) -> Vec<ChatMessage> {
    let mut turns: Vec<ChatMessage> = Vec::new();
    for message in messages {
        match turns.last_mut() {
            Some(last) if last.role() == message.role() => {
                let texts = [&*last, &message].map(|message| message.content().unwrap_or_default());
                *last = last.with_content(texts.join(JOINT));
            }
            _ => turns.push(message),
        }
    }
    turns
}

/// Prepends each system message at an index in `folded` to the text of the next user message, separated by a blank
/// line. Returns `None` if no user message follows.
pub(super) fn fold_system(messages: &[ChatMessage], folded: &[usize]) -> Option<Vec<ChatMessage>> {
    let mut pending = String::new();
    let mut turns = Vec::with_capacity(messages.len());
    for (position, message) in messages.iter().enumerate() {
        if folded.contains(&position) {
            pending.push_str(message.content().unwrap_or_default());
            pending.push_str(FOLD);
        } else if *message.role() == Role::User && !pending.is_empty() {
            turns.push(message.with_content(std::mem::take(&mut pending) + message.content().unwrap_or_default()));
        } else {
            turns.push(message.clone());
        }
    }
    // Messages around a folded one can now be adjacent and have the same role.
    pending.is_empty().then(|| joined(turns))
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
        assert_eq!(joined(given), messages(&[(Role::User, "a "), (Role::Assistant, "b c")]));
    }

    #[test]
    fn system_message_is_folded_into_next_user_message() {
        let given = messages(&[(Role::System, "s"), (Role::User, "u"), (Role::System, "t"), (Role::User, "v")]);
        assert_eq!(fold_system(&given, &[0, 2]), Some(messages(&[(Role::User, "s\n\nu t\n\nv")])));
        assert_eq!(fold_system(&given, &[2]), Some(messages(&[(Role::System, "s"), (Role::User, "u t\n\nv")])));
        let greeting = messages(&[(Role::System, "s"), (Role::Assistant, "hello"), (Role::User, "u")]);
        assert_eq!(fold_system(&greeting, &[0]), Some(messages(&[(Role::Assistant, "hello"), (Role::User, "s\n\nu")])));
        assert_eq!(fold_system(&messages(&[(Role::System, "s"), (Role::Assistant, "a")]), &[0]), None);
    }
}
