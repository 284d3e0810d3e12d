//! Which tokens of a dialogue are pooled.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};

/// Selects the tokens of a dialogue that are pooled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum MaskKind {
    /// All tokens that the template writes for an assistant message: header, content and closing.
    #[default]
    Assistant,
    /// The content of the assistant messages only. Header and closing tokens are the same in every sample and attend to
    /// the whole prompt, so a mean over them separates prompts easily. Without them the probe's task is harder.
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
