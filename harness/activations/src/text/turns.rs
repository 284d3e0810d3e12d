//! The messages a template is given: neighbours of one role joined, and system texts folded into user messages where
//! the template has no place for them.

use crate::data::{Message, Role};

/// Between the texts of neighbouring messages of one role.
const JOINT: &str = " ";
/// Between a folded system text and the user's own.
const FOLD: &str = "\n\n";

/// Joins neighbouring messages of one role by a space, since most templates insist on alternation.
pub(super) fn joined(messages: impl IntoIterator<Item = Message>) -> Vec<Message> {
    let mut turns: Vec<Message> = Vec::new();
    for message in messages {
        match turns.last_mut() {
            Some(last) if last.role == message.role => {
                last.content.push_str(JOINT);
                last.content.push_str(&message.content);
            }
            _ => turns.push(message),
        }
    }
    turns
}

/// The messages with the system messages at `folded` put before the text of the user message that follows them, a blank
/// line between; for a system message at the beginning that is the first user message. `None` when no user message
/// follows.
pub(super) fn fold_system(messages: &[Message], folded: &[usize]) -> Option<Vec<Message>> {
    let mut pending = String::new();
    let mut turns = Vec::with_capacity(messages.len());
    for (position, message) in messages.iter().enumerate() {
        if folded.contains(&position) {
            pending.push_str(&message.content);
            pending.push_str(FOLD);
        } else if message.role == Role::User && !pending.is_empty() {
            turns.push(Message::new(Role::User, std::mem::take(&mut pending) + &message.content));
        } else {
            turns.push(message.clone());
        }
    }
    // What is left between the folded messages may be neighbours of one role now.
    pending.is_empty().then(|| joined(turns))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(turns: &[(Role, &str)]) -> Vec<Message> {
        turns.iter().map(|(role, content)| Message::new(*role, *content)).collect()
    }

    #[test]
    fn neighbours_of_one_role_are_joined_by_a_space() {
        let given = messages(&[(Role::User, "a"), (Role::User, ""), (Role::Assistant, "b"), (Role::Assistant, "c")]);
        assert_eq!(joined(given), messages(&[(Role::User, "a "), (Role::Assistant, "b c")]));
    }

    #[test]
    fn system_texts_go_before_the_next_user_message() {
        let given = messages(&[(Role::System, "s"), (Role::User, "u"), (Role::System, "t"), (Role::User, "v")]);
        assert_eq!(fold_system(&given, &[0, 2]), Some(messages(&[(Role::User, "s\n\nu t\n\nv")])));
        assert_eq!(fold_system(&given, &[2]), Some(messages(&[(Role::System, "s"), (Role::User, "u t\n\nv")])));
        let greeting = messages(&[(Role::System, "s"), (Role::Assistant, "hello"), (Role::User, "u")]);
        assert_eq!(fold_system(&greeting, &[0]), Some(messages(&[(Role::Assistant, "hello"), (Role::User, "s\n\nu")])));
        assert_eq!(fold_system(&messages(&[(Role::System, "s"), (Role::Assistant, "a")]), &[0]), None);
    }
}
