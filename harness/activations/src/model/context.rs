//! The context length of a model, and rows that are longer.
//!
//! transformers computes on beyond it and warns, and so does this engine: samples are never truncated.

use std::path::Path;

use serde_json::Value;

/// A length above it is a placeholder: transformers writes 1e30 for a tokenizer without a limit.
const PLACEHOLDER: f64 = 1e15;

/// The longest sequences that a model was made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContextLength {
    /// Positions, of config.json.
    pub max_position_embeddings: usize,
    /// Tokens, of tokenizer_config.json, where it has a limit.
    pub model_max_length: Option<usize>,
}

impl ContextLength {
    /// That of a model with `max_position_embeddings` whose tokenizer is in `directory`. A limit that cannot be read is none.
    pub fn read(max_position_embeddings: usize, directory: Option<&Path>) -> Self {
        let text =
            directory.and_then(|directory| std::fs::read_to_string(directory.join("tokenizer_config.json")).ok());
        let value = text.and_then(|text| serde_json::from_str::<Value>(&text).ok());
        let length = value.and_then(|value| value.get("model_max_length")?.as_f64());
        let length = length.filter(|length| *length >= 1.0 && *length < PLACEHOLDER).map(|length| length as usize);
        ContextLength { max_position_embeddings, model_max_length: length }
    }

    /// The warning about `rows`, each the number of a dialogue from 0 on and its tokens, if any is longer.
    pub fn warning(&self, rows: impl IntoIterator<Item = (usize, usize)>) -> Option<String> {
        let (name, limit) = match self.model_max_length {
            Some(length) if length < self.max_position_embeddings => ("model_max_length", length),
            _ => ("max_position_embeddings", self.max_position_embeddings),
        };
        let mut n_longer = 0;
        let mut longest = (0, limit);
        for (row, tokens) in rows {
            n_longer += usize::from(tokens > limit);
            if tokens > longest.1 {
                longest = (row, tokens);
            }
        }
        let (row, tokens) = longest;
        (n_longer > 0).then(|| {
            format!(
                "{} longer than the model's {name} of {limit} tokens; the longest, dialogue {}, has {tokens}: its later \
                 positions are computed as in transformers, but the model was not trained on them",
                if n_longer == 1 { "1 dialogue is".to_owned() } else { format!("{n_longer} dialogues are") },
                row + 1
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn longer_rows_are_counted_and_the_longest_named() {
        let context = ContextLength { max_position_embeddings: 64, model_max_length: None };
        assert_eq!(context.warning([(0, 64), (1, 3)]), None);
        insta::assert_snapshot!(context.warning([(5, 65), (2, 244), (3, 64), (7, 244)]).unwrap(), @"3 dialogues are longer than the model's max_position_embeddings of 64 tokens; the longest, dialogue 3, has 244: its later positions are computed as in transformers, but the model was not trained on them");
        let tokenizer = ContextLength { model_max_length: Some(32), ..context };
        insta::assert_snapshot!(tokenizer.warning([(0, 40)]).unwrap(), @"1 dialogue is longer than the model's model_max_length of 32 tokens; the longest, dialogue 1, has 40: its later positions are computed as in transformers, but the model was not trained on them");
        let larger = ContextLength { model_max_length: Some(128), ..context };
        assert_eq!(larger.warning([(0, 64)]), None);
    }

    #[test]
    fn limit_of_the_tokenizer_is_read_and_placeholders_are_none() {
        let dir = tempfile::TempDir::new().unwrap();
        let read = |text: &str| {
            std::fs::write(dir.path().join("tokenizer_config.json"), text).unwrap();
            ContextLength::read(100, Some(dir.path())).model_max_length
        };
        assert_eq!(read(r#"{"model_max_length": 64}"#), Some(64));
        for none in [
            "{}",
            "[]",
            "{",
            r#"{"model_max_length": 1000000000000000019884624838656}"#,
            r#"{"model_max_length": "64"}"#,
        ] {
            assert_eq!(read(none), None, "{none}");
        }
        assert_eq!(ContextLength::read(100, None).model_max_length, None);
    }
}
