//! Text: dialogues become token ids and a mask of the assistant's tokens.
//!
//! `files` reads a tokenizer directory. `template` renders its chat template as Hugging Face does, by the
//! engine in `jinja`; `python` has the whitespace of Python. `turns` prepares the messages. `layout` finds the text that a
//! template writes around messages of given roles, `spans` locates the assistant messages in a rendered text, and
//! `mask` selects the part that is pooled. [`ChatTokenizer`] combines them. The mask depends only on the rendered
//! text, so it is correct for any template and needs no table of model names.

mod files;
mod jinja;
mod layout;
mod mask;
mod python;
mod spans;
mod template;
mod tokenizer;
mod turns;

#[cfg(test)]
mod tests;

pub use files::TokenizerParts;
pub use mask::MaskKind;
pub use template::{DEFAULT_DATE, SpecialTokens};
pub use tokenizer::ChatTokenizer;
