//! Text: dialogues become token ids and the mask of what the assistant says.
//!
//! `files` reads a tokenizer's folder and `template` runs its chat template as Hugging Face does, with what it expects
//! of Python in `python`. `turns` prepares the messages; `layout` finds out what a template writes around messages of
//! given roles, and `spans` where in a rendered text the assistant's are. [`ChatTokenizer`] puts these together. The mask
//! follows from what the template renders, for any template, and from nothing else.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};

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

/// Which tokens of a dialogue are pooled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum MaskKind {
    /// Every token that the template writes for an assistant message: its header, its content, its closing.
    #[default]
    Assistant,
    /// The content of the assistant messages alone. Headers and closings stand after the whole prompt in the same
    /// words for every sample, so a mean over them tells prompts apart with ease; without them the task is harder.
    Content,
}

impl MaskKind {
    /// The name on the command line and in files.
    pub const fn name(self) -> &'static str {
        match self {
            MaskKind::Assistant => "assistant",
            MaskKind::Content => "content",
        }
    }
}

impl fmt::Display for MaskKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for MaskKind {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        [MaskKind::Assistant, MaskKind::Content]
            .into_iter()
            .find(|kind| kind.name() == text)
            .ok_or_else(|| Error::usage(format!("unknown mask '{text}': use assistant or content")))
    }
}
