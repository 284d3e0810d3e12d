//! Text: dialogues become token ids and a mask of the assistant's tokens.
//!
//! `files` reads a tokenizer directory: `chat_template_files` selects the template, `tokenizer_class` applies the rules
//! of the class, `special_tokens` collects the tokens of all files (`arguments`), and `outline` and `bounds` reject
//! tokenizers that would take memory or time without limit. `template` renders its chat template as Hugging Face does, and `python`
//! provides the Python functions that templates call. `turns` prepares the messages. `layout` finds the text that a
//! template writes around messages of given roles, `spans` locates the assistant messages in a rendered text, and
//! `mask` selects the part that is pooled. [`ChatTokenizer`] combines them. The mask depends only on the rendered
//! text, so it is correct for any template and needs no table of model names.

mod arguments;
mod bounds;
mod chat_template_files;
mod files;
mod layout;
mod mask;
mod outline;
mod python;
mod spans;
mod special_tokens;
mod template;
mod text_files;
mod tokenizer;
mod tokenizer_class;
mod turns;

#[cfg(test)]
mod reference_tests;
#[cfg(test)]
mod tests;

pub use files::TokenizerParts;
pub use mask::MaskKind;
pub use template::{DEFAULT_DATE, SpecialTokens};
pub use tokenizer::ChatTokenizer;
