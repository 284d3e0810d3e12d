//! Text: dialogues become token ids and a mask of the assistant's tokens.
//!
//! `files` reads a tokenizer directory. `template` renders its chat template as Hugging Face does, and `python`
//! provides the Python functions that templates call. `turns` changes messages for templates that refuse them, and
//! `arrange` decides where that is needed. `bounds`
//! finds where the text of a message begins and ends, `layout` the text that a template writes around contents, and
//! `probe` the place of a content. `spans` locates the assistant messages in a rendered text with them, and `mask`
//! selects the part that is pooled. [`ChatTokenizer`] combines them. The mask depends only on the rendered
//! text, so it is correct for any template and needs no table of model names.

mod arrange;
mod bounds;
mod files;
mod layout;
mod mask;
mod probe;
mod python;
mod spans;
mod template;
mod tokenizer;
mod turns;

#[cfg(test)]
mod mask_tests;
#[cfg(test)]
mod tests;

pub use files::TokenizerParts;
pub use mask::MaskKind;
pub use template::{DEFAULT_DATE, SpecialTokens};
pub use tokenizer::ChatTokenizer;
pub use turns::TurnChanges;
