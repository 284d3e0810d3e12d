//! Text: dialogues become token ids and the mask of what the assistant says.
//!
//! `files` reads a tokenizer's folder and `template` runs its chat template as Hugging Face does, with what it expects
//! of Python in `python`. `turns` prepares the messages; `layout` finds out what a template writes around messages of
//! given roles, and `spans` where in a rendered text the assistant's are. [`ChatTokenizer`] puts these together. The mask
//! follows from what the template renders, for any template, and from nothing else.

mod files;
mod layout;
mod python;
mod spans;
mod template;
mod tokenizer;
mod turns;

#[cfg(test)]
mod tests;

pub use files::TokenizerParts;
pub use template::{DEFAULT_DATE, SpecialTokens};
pub use tokenizer::ChatTokenizer;
