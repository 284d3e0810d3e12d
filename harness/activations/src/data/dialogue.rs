//! Dialogues: messages with roles, and the label that a probe predicts.

use std::borrow::Cow;
use std::fmt;

use serde_json::{Map, Value};

/// The names of a message's reasoning text, the standard one first.
const REASONING: [&str; 3] = ["reasoning_content", "thinking", "reasoning"];

/// The author of a message.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// Instructions to the model.
    System,
    /// The human.
    User,
    /// The model. The tokens of its messages are pooled.
    Assistant,
    /// Any other name, such as `tool` or `developer`. The chat template decides whether it accepts the role.
    Other(String),
}

impl Role {
    /// The name in data files and in chat templates.
    pub fn name(&self) -> &str {
        match self {
            Role::System => "system",
            Role::User => "user",
            Role::Assistant => "assistant",
            Role::Other(name) => name,
        }
    }

    /// The role called `name`.
    pub fn from_name(name: &str) -> Self {
        [Role::System, Role::User, Role::Assistant]
            .into_iter()
            .find(|role| role.name() == name)
            .unwrap_or_else(|| Role::Other(name.to_owned()))
    }
}

impl fmt::Display for Role {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// One message of a dialogue: a JSON object with a `role`, usually a `content`, and any further keys, such as
/// `tool_calls` or `reasoning_content`. The chat template receives the object unchanged, its keys in their order, but
/// without keys whose value is null: transformers 5 drops those, because many templates would print `None`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChatMessage {
    role: Role,
    keys: Map<String, Value>,
}

impl ChatMessage {
    /// A message with the keys `role` and `content`.
    pub fn new(role: Role, content: impl Into<String>) -> Self {
        let mut keys = Map::new();
        keys.insert("role".to_owned(), Value::from(role.name()));
        keys.insert("content".to_owned(), Value::from(content.into()));
        ChatMessage { role, keys }
    }

    /// A message from the keys of a JSON object.
    ///
    /// # Errors
    /// No `role`; a `content` that is neither text nor null; neither a content nor another key. The error describes the
    /// defect of the message.
    pub fn from_keys(mut keys: Map<String, Value>) -> Result<Self, String> {
        keys.retain(|_, value| !value.is_null());
        let role = match keys.get("role") {
            Some(Value::String(role)) if !role.is_empty() => Role::from_name(role),
            _ => return Err("has no `role`; set it to `system`, `user` or `assistant`".to_owned()),
        };
        match keys.get("content") {
            Some(Value::String(_)) => {}
            // Messages of tool calls have no text. An object without any value is a mistake in the data.
            None if keys.len() > 1 => {}
            None => return Err("has no `content`; add a string, which may be empty".to_owned()),
            Some(_) => return Err("`content` is not a string; join its parts into one string".to_owned()),
        }
        Ok(ChatMessage { role, keys })
    }

    /// The author.
    pub fn role(&self) -> &Role {
        &self.role
    }

    /// The text, unchanged from the data file; none if it is null or absent.
    pub fn content(&self) -> Option<&str> {
        self.keys.get("content").and_then(Value::as_str)
    }

    /// All keys in the order of the data file, with `role` and `content`, without those that are null.
    pub fn keys(&self) -> &Map<String, Value> {
        &self.keys
    }

    /// The keys that a chat template receives: as transformers 5, a reasoning text under any of its names is also passed
    /// as `reasoning_content`, and as `thinking` for templates of gpt-oss.
    pub fn template_keys(&self) -> Cow<'_, Map<String, Value>> {
        let Some(reasoning) = REASONING.into_iter().find_map(|key| self.keys.get(key)) else {
            return Cow::Borrowed(&self.keys);
        };
        let mut keys = Map::new();
        keys.insert("thinking".to_owned(), reasoning.clone());
        keys.extend(self.keys.clone());
        keys.insert("reasoning_content".to_owned(), reasoning.clone());
        Cow::Owned(keys)
    }

    /// The message with the text `content` and all its other keys.
    #[must_use]
    pub fn with_content(&self, content: impl Into<String>) -> Self {
        let mut message = self.clone();
        message.keys.insert("content".to_owned(), Value::from(content.into()));
        message
    }
}

/// One labeled dialogue: a row of a data set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dialogue {
    /// The messages in order; at least one is from the assistant.
    pub messages: Vec<ChatMessage>,
    /// Further variables of the chat template, such as `tools` and `documents`.
    pub template_values: Map<String, Value>,
    /// Whether the dialogue belongs to the positive class (label 1).
    pub label: bool,
}

impl Dialogue {
    /// A dialogue without further variables of the template.
    pub fn new(messages: Vec<ChatMessage>, label: bool) -> Self {
        Dialogue { messages, template_values: Map::new(), label }
    }
}
