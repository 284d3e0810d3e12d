//! Single metadata values under the prefix of an architecture.

use super::super::gguf::{GgufFile, GgufValue};
use crate::error::{Error, Result};

/// The metadata of one architecture.
#[derive(Clone, Copy)]
pub(super) struct ModelKeys<'a> {
    pub(super) gguf: &'a GgufFile,
    /// The name of the architecture, which is the prefix of its keys.
    pub(super) architecture: &'static str,
}

impl<'a> ModelKeys<'a> {
    fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.architecture)
    }

    /// An error of the file.
    pub(super) fn fail<T>(&self, what: impl Into<String>) -> Result<T> {
        Err(Error::file(self.gguf.path(), what))
    }

    /// An integer, if the key is present.
    pub(super) fn count(&self, name: &str) -> Result<Option<usize>> {
        self.gguf.optional_count(&self.key(name))
    }

    /// An integer that must be present.
    pub(super) fn required_count(&self, name: &str) -> Result<usize> {
        self.present(name, self.count(name)?)
    }

    /// A number, if the key is present.
    pub(super) fn number(&self, name: &str) -> Result<Option<f64>> {
        self.gguf.optional_number(&self.key(name))
    }

    /// A positive and finite number, if the key is present.
    pub(super) fn positive(&self, name: &str) -> Result<Option<f64>> {
        match self.number(name)? {
            Some(number) if !(number.is_finite() && number > 0.0) => {
                self.fail(format!("metadata '{}' is {number}, it must be positive", self.key(name)))
            }
            number => Ok(number),
        }
    }

    /// A positive and finite number that must be present.
    pub(super) fn required_positive(&self, name: &str) -> Result<f64> {
        self.present(name, self.positive(name)?)
    }

    /// A flag, if the key is present.
    pub(super) fn flag(&self, name: &str) -> Result<Option<bool>> {
        self.gguf.optional(&self.key(name), "a boolean", GgufValue::as_bool)
    }

    /// A text, if the key is present.
    pub(super) fn text(&self, name: &str) -> Result<Option<&'a str>> {
        self.gguf.optional(&self.key(name), "a string", GgufValue::as_str)
    }

    fn present<T>(&self, name: &str, value: Option<T>) -> Result<T> {
        value.map_or_else(|| self.fail(format!("has no metadata '{}'", self.key(name))), Ok)
    }

    /// Whether the attention of each layer has a window, if the file has the pattern: a list, or a period whose last layer has
    /// no window.
    pub(super) fn sliding_layers(&self, n_layers: usize) -> Result<Option<Vec<bool>>> {
        const NAME: &str = "attention.sliding_window_pattern";
        let key = self.key(NAME);
        let Some(value) = self.gguf.find(&key) else { return Ok(None) };
        let Some(items) = value.as_array() else {
            let period = self.required_count(NAME)?;
            // No layer is a multiple of 0, with which all layers have a window.
            return Ok(Some((1..=n_layers).map(|layer| !layer.is_multiple_of(period)).collect()));
        };
        let slides = |item: &GgufValue| item.as_bool().or_else(|| item.as_u64().map(|number| number != 0));
        let layers: Option<Vec<bool>> = items.iter().map(slides).collect();
        match layers {
            Some(layers) if layers.len() == n_layers => Ok(Some(layers)),
            _ => self.fail(format!("metadata '{key}' is not a list of {n_layers} booleans")),
        }
    }
}
