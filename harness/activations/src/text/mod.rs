//! Text: dialogues become token ids and a mask of the assistant's tokens.
//!
//! `files` reads a tokenizer directory: `chat_template_files` selects the template, `tokenizer_class` applies the rules
//! of the class, `special_tokens` collects the tokens of all files (`arguments`), and `outline` and `tokenizer_limits`
//! reject tokenizers that would take memory or time without limit. `template` renders the chat template as Hugging Face
//! does, by the engine in `jinja`; `python` has the whitespace of Python. `turns` changes messages for templates that
//! refuse them, and `arrange` decides where that is needed. `boundaries` finds where the text of a message begins and
//! ends, `layout` the text that a template writes around contents, and `probe` the place of a content. `spans` locates
//! the assistant messages in a rendered text with them, and `mask` selects the part that is pooled. [`ChatTokenizer`]
//! combines them. The mask depends only on the rendered text, so it is correct for any template and needs no table of
//! model names.

mod arguments;
mod arrange;
mod boundaries;
mod chat_template_files;
mod files;
mod jinja;
mod layout;
mod mask;
mod outline;
mod probe;
mod python;
mod spans;
mod special_tokens;
mod template;
mod text_files;
mod tokenizer;
mod tokenizer_class;
mod tokenizer_limits;
mod turns;

#[cfg(test)]
mod mask_tests;
#[cfg(test)]
mod reference_tests;
#[cfg(test)]
mod tests;

pub use files::TokenizerParts;
pub use mask::MaskKind;
pub use template::{DEFAULT_DATE, SpecialTokens};
pub use tokenizer::ChatTokenizer;
pub use turns::TurnChanges;
