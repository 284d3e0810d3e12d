//! Prefix sharing (prefix caching): which tokens of which samples are the same computation.
//!
//! Causal attention makes a token's activations a function of the tokens up to it, so samples share the activations of
//! their common prefix. Sorting the samples by their tokens visits the radix tree of all of them depth
//! first: each sample adds only what follows its longest common prefix with the sample before it. No tree is built.

use super::needed_tokens::NeededTokens;

/// Samples in an order that visits their prefix tree depth first, and the length of the prefix shared at each visit.
#[derive(Clone, Debug)]
pub struct SharedPrefixes {
    /// Samples, sorted by their tokens; equal ones by number.
    order: Vec<usize>,
    /// `shared[i]`: tokens that `order[i]` has in common with `order[i - 1]`; 0 for the first.
    shared: Vec<usize>,
}

impl SharedPrefixes {
    /// Sorts `samples` (numbers into `tokens`, distinct) by their needed tokens.
    pub fn of<'a>(tokens: impl Into<NeededTokens<'a>>, samples: &[usize]) -> Self {
        let tokens = tokens.into();
        let mut sorted: Vec<(&[u32], usize)> = samples.iter().map(|sample| (tokens.ids(*sample), *sample)).collect();
        sorted.sort_unstable();
        let shared = std::iter::once(0)
            .chain(sorted.windows(2).map(|pair| common_prefix(pair[0].0, pair[1].0)))
            .take(sorted.len())
            .collect();
        SharedPrefixes { order: sorted.into_iter().map(|(_, sample)| sample).collect(), shared }
    }

    /// No sharing: `samples` in the order given, each computed in full.
    pub fn none(samples: &[usize]) -> Self {
        SharedPrefixes { order: samples.to_vec(), shared: vec![0; samples.len()] }
    }

    /// `(sample, tokens it shares with the sample before it)`, in order.
    pub fn visits(&self) -> impl DoubleEndedIterator<Item = (usize, usize)> + ExactSizeIterator + '_ {
        self.order.iter().copied().zip(self.shared.iter().copied())
    }

    /// The tokens that are computed if every prefix is computed once.
    pub fn n_tokens<'a>(&self, tokens: impl Into<NeededTokens<'a>>) -> usize {
        let tokens = tokens.into();
        self.visits().map(|(sample, shared)| tokens.len_of(sample) - shared).sum()
    }

    /// For each visit, its tokens after the shared prefix: whether any sample with that token masks it.
    ///
    /// A token is computed at the first visit that reaches it; later visits that share it may still pool it.
    pub fn masked_tokens<'a>(&self, tokens: impl Into<NeededTokens<'a>>) -> Vec<Vec<bool>> {
        let tokens = tokens.into();
        let mut masked: Vec<Vec<bool>> = Vec::with_capacity(self.order.len());
        // For each position of the current path, the visit that computes the token.
        let mut owners: Vec<usize> = Vec::new();
        for (visit, (sample, shared)) in self.visits().enumerate() {
            let mask = tokens.mask(sample);
            owners.truncate(shared);
            for (position, owner) in owners.iter().enumerate().filter(|(position, _)| mask[*position]) {
                let first = self.shared[*owner];
                masked[*owner][position - first] = true;
            }
            masked.push(mask[shared..].to_vec());
            owners.resize(mask.len(), visit);
        }
        masked
    }
}

/// The length of the longest common prefix.
fn common_prefix(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::tokens::{TokenSequence, TokenSet};

    fn token_set(sequences: &[(Vec<u32>, Vec<bool>)]) -> TokenSet {
        let sequences = sequences.iter().map(|(ids, mask)| TokenSequence { ids: ids.clone(), mask: mask.clone() });
        TokenSet { sequences: sequences.collect() }
    }

    fn arbitrary_sequences() -> impl Strategy<Value = Vec<(Vec<u32>, Vec<bool>)>> {
        // Only three token ids, so that long common prefixes, equal sequences and prefixes of others all occur.
        let pair = prop::collection::vec((0u32..3, any::<bool>()), 1..8);
        prop::collection::vec(pair.prop_map(|pairs| pairs.into_iter().unzip()), 1..30)
    }

    #[test]
    fn a_shared_system_prompt_is_counted_once() {
        let mask = |len| vec![false; len];
        let tokens = token_set(&[
            (vec![1, 2, 3, 9], mask(4)),
            (vec![1, 2, 3, 7, 8], mask(5)),
            (vec![5], mask(1)),
            (vec![1, 2, 3, 7], mask(4)),
        ]);
        let shared = SharedPrefixes::of(&tokens, &[0, 1, 2, 3]);
        assert_eq!(shared.visits().collect::<Vec<_>>(), [(3, 0), (1, 4), (0, 3), (2, 0)]);
        assert_eq!(shared.n_tokens(&tokens), 7);
        assert_eq!(SharedPrefixes::none(&[2, 1]).n_tokens(&tokens), 6);
    }

    #[test]
    fn prefixes_are_shared_by_cut_samples() {
        // Whole, the first and the third sample are sorted next to each other; cut, the second is a prefix of both.
        let tokens = token_set(&[
            (vec![1, 2, 3, 4, 5], vec![false, false, false, true, false]),
            (vec![1, 2, 3, 4, 6], vec![false, true, false, false, false]),
            (vec![1, 2, 3, 4, 7], vec![false, false, false, false, true]),
            (vec![1, 2, 9], vec![false, false, false]),
        ]);
        let needed = NeededTokens::from(&tokens).without_tails();
        let shared = SharedPrefixes::of(needed, &[0, 1, 2, 3]);
        assert_eq!(shared.visits().collect::<Vec<_>>(), [(1, 0), (0, 2), (2, 4), (3, 2)]);
        assert_eq!((shared.n_tokens(needed), SharedPrefixes::of(&tokens, &[0, 1, 2, 3]).n_tokens(&tokens)), (6, 8));
        let masked = shared.masked_tokens(needed);
        assert_eq!(masked, [vec![false, true], vec![false, true], vec![true], vec![false]]);
    }

    proptest! {
        #[test]
        fn tokens_are_distinct_prefixes_with_united_masks(sequences in arbitrary_sequences()) {
            let tokens = token_set(&sequences);
            let all: Vec<usize> = (0..sequences.len()).collect();
            let needed = NeededTokens::from(&tokens).without_tails();
            let cut: BTreeSet<&[u32]> =
                all.iter().flat_map(|sample| (1..=needed.len_of(*sample)).map(|len| &needed.ids(*sample)[..len])).collect();
            prop_assert_eq!(SharedPrefixes::of(needed, &all).n_tokens(needed), cut.len());
            let shared = SharedPrefixes::of(&tokens, &all);
            let prefixes: BTreeSet<&[u32]> =
                sequences.iter().flat_map(|(ids, _)| (1..=ids.len()).map(move |len| &ids[..len])).collect();
            prop_assert_eq!(shared.n_tokens(&tokens), prefixes.len());

            let mut visited: Vec<usize> = shared.visits().map(|visit| visit.0).collect();
            visited.sort_unstable();
            prop_assert_eq!(visited, all);

            let wanted: BTreeSet<&[u32]> = sequences
                .iter()
                .flat_map(|(ids, mask)| (0..ids.len()).filter(|p| mask[*p]).map(move |p| &ids[..p + 1]))
                .collect();
            let masked = shared.masked_tokens(&tokens);
            for ((sample, first), flags) in shared.visits().zip(&masked) {
                prop_assert_eq!(flags.len(), sequences[sample].0.len() - first);
                for (offset, flag) in flags.iter().enumerate() {
                    prop_assert_eq!(*flag, wanted.contains(&sequences[sample].0[..first + offset + 1]));
                }
            }
        }
    }
}
