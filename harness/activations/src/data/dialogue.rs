//! Dialogues: messages with roles, and the label that a probe predicts.

use std::fmt;

/// The author of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// Instructions to the model.
    System,
    /// The human.
    User,
    /// The model. The tokens of its messages are pooled.
    Assistant,
}

impl Role {
    /// The name in data files and in chat templates.
    pub const fn name(self) -> &'static str {
        match self {
            Role::System => "system",
            Role::User => "user",
            Role::Assistant => "assistant",
        }
    }

    /// The role called `name`, if there is one.
    pub fn from_name(name: &str) -> Option<Self> {
        [Role::System, Role::User, Role::Assistant].into_iter().find(|role| role.name() == name)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// One message of a dialogue.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ChatMessage {
    /// The author.
    pub role: Role,
    /// The text, unchanged from the data file.
    pub content: String,
}

impl ChatMessage {
    /// A message of `role`.
    pub fn new(role: Role, content: impl Into<String>) -> Self {
        ChatMessage { role, content: content.into() }
    }
}

/// One labeled dialogue: a row of a data set.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Dialogue {
    /// The messages in order; at least one is from the assistant.
    pub messages: Vec<ChatMessage>,
    /// Whether the dialogue belongs to the positive class (label 1).
    pub label: bool,
}
