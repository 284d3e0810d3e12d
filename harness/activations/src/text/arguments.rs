//! The arguments of a tokenizer's constructor, as transformers collects them from the files of a directory.

use serde_json::{Map, Value};

/// A token with its matching rules: `AddedToken` of the library `tokenizers`.
#[derive(Clone, Debug, Default)]
pub(super) struct AddedToken {
    pub(super) content: String,
    /// Whether it must be a whole word.
    pub(super) single_word: bool,
    /// Whether it takes the whitespace on its left.
    pub(super) lstrip: bool,
    /// Whether it takes the whitespace on its right.
    pub(super) rstrip: bool,
    /// Whether it is searched in the normalized text; by default if it is not special.
    pub(super) normalized: Option<bool>,
    /// Whether it is a special token.
    pub(super) special: bool,
}

impl PartialEq for AddedToken {
    fn eq(&self, other: &Self) -> bool {
        self.resolved() == other.resolved()
    }
}

impl AddedToken {
    pub(super) fn special(content: impl Into<String>) -> Self {
        AddedToken { content: content.into(), special: true, ..AddedToken::default() }
    }

    /// From an object with `content` and flags. Other keys are ignored.
    ///
    /// # Errors
    /// A value of the wrong type.
    pub(super) fn parse(object: &Map<String, Value>) -> Result<Self, String> {
        let flag = |key: &str| match object.get(key) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(other) => Err(format!("`{key}` of an added token must be true or false, not {other}")),
        };
        let content = match object.get("content") {
            Some(Value::String(content)) => content.clone(),
            _ => return Err("an added token must have a string as `content`".to_owned()),
        };
        Ok(AddedToken {
            content,
            single_word: flag("single_word")?.unwrap_or(false),
            lstrip: flag("lstrip")?.unwrap_or(false),
            rstrip: flag("rstrip")?.unwrap_or(false),
            normalized: flag("normalized")?,
            special: flag("special")?.unwrap_or(false),
        })
    }

    /// In the form of the library that matches it.
    pub(super) fn resolved(&self) -> tokenizers::AddedToken {
        tokenizers::AddedToken::from(self.content.as_str(), self.special)
            .single_word(self.single_word)
            .lstrip(self.lstrip)
            .rstrip(self.rstrip)
            .normalized(self.normalized.unwrap_or(!self.special))
    }
}

/// The value of an argument.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Argument {
    /// A value as in the JSON file, but no object with `__type` `AddedToken` after conversion.
    Json(Value),
    /// An added token.
    Token(AddedToken),
    /// A list with added tokens in it.
    List(Vec<Argument>),
}

impl Argument {
    pub(super) fn text(content: &str) -> Self {
        Argument::Json(Value::String(content.to_owned()))
    }

    /// The text of a string or an added token.
    pub(super) fn content(&self) -> Option<&str> {
        match self {
            Argument::Json(Value::String(content)) => Some(content),
            Argument::Token(token) => Some(&token.content),
            _ => None,
        }
    }

    pub(super) fn is_null(&self) -> bool {
        matches!(self, Argument::Json(Value::Null))
    }

    /// Whether Python takes it for true.
    pub(super) fn is_truthy(&self) -> bool {
        match self {
            Argument::Json(Value::Null | Value::Bool(false)) => false,
            Argument::Json(Value::String(text)) => !text.is_empty(),
            Argument::Json(Value::Number(number)) => number.as_f64() != Some(0.0),
            Argument::Json(Value::Array(list)) => !list.is_empty(),
            Argument::Json(Value::Object(map)) => !map.is_empty(),
            Argument::List(list) => !list.is_empty(),
            Argument::Json(Value::Bool(true)) | Argument::Token(_) => true,
        }
    }

    /// The items of a list.
    pub(super) fn items(&self) -> Option<Vec<Argument>> {
        match self {
            Argument::Json(Value::Array(list)) => Some(list.iter().cloned().map(Argument::Json).collect()),
            Argument::List(list) => Some(list.clone()),
            _ => None,
        }
    }

    /// With every object of `__type` `AddedToken` replaced by that token, as `convert_added_tokens` does. Tokens inside
    /// of other objects are converted where those are read.
    ///
    /// # Errors
    /// A malformed token.
    pub(super) fn converted(self) -> Result<Self, String> {
        Ok(match self {
            Argument::Json(Value::Object(map)) if map.get("__type").is_some_and(|kind| kind == "AddedToken") => {
                Argument::Token(AddedToken::parse(&map)?)
            }
            Argument::Json(Value::Array(list)) => {
                Argument::List(list.into_iter().map(|item| Argument::Json(item).converted()).collect::<Result<_, _>>()?)
            }
            Argument::List(list) => {
                Argument::List(list.into_iter().map(Argument::converted).collect::<Result<_, _>>()?)
            }
            other => other,
        })
    }
}

/// Keyword arguments in their order.
#[derive(Clone, Debug, Default)]
pub(super) struct Arguments(Vec<(String, Argument)>);

impl Arguments {
    pub(super) fn of(map: &Map<String, Value>) -> Self {
        Arguments(map.iter().map(|(key, value)| (key.clone(), Argument::Json(value.clone()))).collect())
    }

    pub(super) fn argument(&self, key: &str) -> Option<&Argument> {
        self.0.iter().find(|(known, _)| known == key).map(|(_, argument)| argument)
    }

    /// The plain value of an argument.
    pub(super) fn get(&self, key: &str) -> Option<&Value> {
        match self.argument(key) {
            Some(Argument::Json(value)) => Some(value),
            _ => None,
        }
    }

    /// The text of an argument.
    pub(super) fn content(&self, key: &str) -> Option<&str> {
        self.argument(key).and_then(Argument::content)
    }

    /// A Boolean argument; `None` if it is missing or null.
    ///
    /// # Errors
    /// Another type.
    pub(super) fn flag(&self, key: &str) -> Result<Option<bool>, String> {
        match self.argument(key) {
            None | Some(Argument::Json(Value::Null)) => Ok(None),
            Some(Argument::Json(Value::Bool(flag))) => Ok(Some(*flag)),
            Some(_) => Err(format!("`{key}` must be true or false")),
        }
    }

    /// Sets an argument; a new one comes last.
    pub(super) fn set(&mut self, key: &str, argument: Argument) {
        match self.0.iter_mut().find(|(known, _)| known == key) {
            Some((_, slot)) => *slot = argument,
            None => self.0.push((key.to_owned(), argument)),
        }
    }

    /// Sets an argument that is missing.
    pub(super) fn set_default(&mut self, key: &str, argument: Argument) {
        if self.argument(key).is_none() {
            self.0.push((key.to_owned(), argument));
        }
    }

    pub(super) fn remove(&mut self, key: &str) -> Option<Argument> {
        let position = self.0.iter().position(|(known, _)| known == key)?;
        Some(self.0.remove(position).1)
    }

    pub(super) fn keys(&self) -> Vec<String> {
        self.0.iter().map(|(key, _)| key.clone()).collect()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &Argument)> {
        self.0.iter().map(|(key, argument)| (key.as_str(), argument))
    }

    /// Every argument [converted](Argument::converted).
    ///
    /// # Errors
    /// A malformed token.
    pub(super) fn converted(self) -> Result<Self, String> {
        let pairs = self.0.into_iter().map(|(key, argument)| Ok((key, argument.converted()?)));
        Ok(Arguments(pairs.collect::<Result<_, String>>()?))
    }
}
