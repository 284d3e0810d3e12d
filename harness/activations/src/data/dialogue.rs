//! Dialogues: messages with roles, and the label a probe is to predict.

use std::fmt;

/// Who a message is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// Instructions to the model.
    System,
    /// The person.
    User,
    /// The model: the role whose tokens are pooled.
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

    /// The role of that name, if it is one of the three.
    pub fn from_name(name: &str) -> Option<Self> {
        [Role::System, Role::User, Role::Assistant].into_iter().find(|role| role.name() == name)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// One message.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Message {
    /// Who it is from.
    pub role: Role,
    /// Its text, as the data has it.
    pub content: String,
}

impl Message {
    /// A message of `role`.
    pub fn new(role: Role, content: impl Into<String>) -> Self {
        Message { role, content: content.into() }
    }
}

/// One row of a data set.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Dialogue {
    /// In order; at least one of them from the assistant.
    pub messages: Vec<Message>,
    /// Whether the row is of the positive class (label 1).
    pub label: bool,
}
