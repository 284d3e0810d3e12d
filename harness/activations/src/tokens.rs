//! Token sequences with their masks: the input of a model.

use std::sync::Arc;

/// One tokenized dialogue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenSequence {
    /// Token ids, at least one.
    pub ids: Vec<u32>,
    /// Whether the token at each position is pooled; as long as `ids`.
    pub mask: Vec<bool>,
}

impl TokenSequence {
    /// The number of tokens.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether there is no token.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// Positions of the masked tokens, increasing.
    pub fn masked_positions(&self) -> impl Iterator<Item = usize> + '_ {
        self.mask.iter().enumerate().filter(|(_, masked)| **masked).map(|(position, _)| position)
    }
}

/// The sequences of a data split, in the caller's order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenSet {
    /// One per sample.
    pub sequences: Vec<TokenSequence>,
}

impl TokenSet {
    /// The number of samples.
    pub fn len(&self) -> usize {
        self.sequences.len()
    }

    /// Whether there is no sample.
    pub fn is_empty(&self) -> bool {
        self.sequences.is_empty()
    }

    /// Tokens of the longest sequence; the extent of axis `s`.
    pub fn max_len(&self) -> usize {
        self.sequences.iter().map(TokenSequence::len).max().unwrap_or(0)
    }

    /// Tokens in all sequences.
    pub fn n_tokens(&self) -> usize {
        self.sequences.iter().map(TokenSequence::len).sum()
    }
}

/// Two token sets as one: the samples of the first, then those of the second. Neither is copied.
///
/// The sides of a split are joined, so that one pass of the model computes both and prefixes are shared across them.
#[derive(Clone, Debug, Default)]
pub struct JoinedTokens {
    first: Arc<TokenSet>,
    second: Arc<TokenSet>,
}

impl JoinedTokens {
    /// The sequences of both sets.
    pub fn parts(&self) -> [&[TokenSequence]; 2] {
        [&self.first.sequences, &self.second.sequences]
    }

    /// All sequences in order.
    pub fn sequences(&self) -> impl Iterator<Item = &TokenSequence> {
        self.parts().into_iter().flatten()
    }

    /// The number of samples.
    pub fn len(&self) -> usize {
        self.first.len() + self.second.len()
    }

    /// Whether there is no sample.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Tokens of the longest sequence; the extent of axis `s`.
    pub fn max_len(&self) -> usize {
        self.first.max_len().max(self.second.max_len())
    }

    /// Tokens in all sequences.
    pub fn n_tokens(&self) -> usize {
        self.first.n_tokens() + self.second.n_tokens()
    }
}

impl From<Arc<TokenSet>> for JoinedTokens {
    fn from(tokens: Arc<TokenSet>) -> Self {
        JoinedTokens { first: tokens, second: Arc::default() }
    }
}

impl From<[Arc<TokenSet>; 2]> for JoinedTokens {
    fn from([first, second]: [Arc<TokenSet>; 2]) -> Self {
        JoinedTokens { first, second }
    }
}
