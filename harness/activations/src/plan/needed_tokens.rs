//! The tokens of samples that an extraction needs.
//!
//! Attention is causal, so no activation depends on a later token: where only masked tokens are pooled, the tokens after a
//! sample's last masked one need not be computed.

use crate::tokens::{JoinedTokens, TokenSequence, TokenSet};

/// Samples, and which of their tokens are needed: all, or those up to the last masked one.
#[derive(Clone, Copy, Debug)]
pub struct NeededTokens<'a> {
    /// Samples are numbered through both, in this order.
    parts: [&'a [TokenSequence]; 2],
    cut_tails: bool,
}

impl<'a> NeededTokens<'a> {
    /// The same samples, each cut after its last masked token. A sample without masked tokens stays whole.
    #[must_use]
    pub fn without_tails(self) -> Self {
        NeededTokens { cut_tails: true, ..self }
    }

    /// The whole sequence of `sample`.
    pub fn sequence(&self, sample: usize) -> &'a TokenSequence {
        let [first, second] = self.parts;
        if sample < first.len() { &first[sample] } else { &second[sample - first.len()] }
    }

    /// The number of needed tokens of `sample`.
    pub fn len_of(&self, sample: usize) -> usize {
        let sequence = self.sequence(sample);
        let last_masked = self.cut_tails.then(|| sequence.mask.iter().rposition(|masked| *masked)).flatten();
        last_masked.map_or(sequence.len(), |last| last + 1)
    }

    /// The ids of the needed tokens of `sample`.
    pub fn ids(&self, sample: usize) -> &'a [u32] {
        &self.sequence(sample).ids[..self.len_of(sample)]
    }

    /// Whether each needed token of `sample` is masked.
    pub fn mask(&self, sample: usize) -> &'a [bool] {
        &self.sequence(sample).mask[..self.len_of(sample)]
    }
}

impl<'a> From<&'a TokenSet> for NeededTokens<'a> {
    /// All tokens.
    fn from(tokens: &'a TokenSet) -> Self {
        NeededTokens { parts: [&tokens.sequences, &[]], cut_tails: false }
    }
}

impl<'a> From<&'a JoinedTokens> for NeededTokens<'a> {
    /// All tokens.
    fn from(tokens: &'a JoinedTokens) -> Self {
        NeededTokens { parts: tokens.parts(), cut_tails: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tail_ends_at_the_last_masked_token() {
        let sequence = |mask: &[bool]| TokenSequence { ids: (0..mask.len() as u32).collect(), mask: mask.to_vec() };
        let first = TokenSet { sequences: vec![sequence(&[false, true, true, false, false]), sequence(&[true])] };
        let second = TokenSet { sequences: vec![sequence(&[false, false]), sequence(&[true, false, true])] };
        let joined = JoinedTokens::from([first.into(), second.into()]);
        let whole = NeededTokens::from(&joined);
        assert_eq!([0, 1, 2, 3].map(|sample| whole.len_of(sample)), [5, 1, 2, 3]);
        let needed = whole.without_tails();
        assert_eq!([0, 1, 2, 3].map(|sample| needed.len_of(sample)), [3, 1, 2, 3], "sample 2 has no masked token");
        assert_eq!((needed.ids(0), needed.mask(0)), (&[0, 1, 2][..], &[false, true, true][..]));
        assert_eq!(needed.sequence(0).len(), 5);
    }
}
