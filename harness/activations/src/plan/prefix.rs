//! Prefix sharing (prefix caching): which tokens of which samples are the same computation.
//!
//! Causal attention makes a token's activations a function of the tokens up to it, so samples share the activations of
//! their common prefix. Sorting the samples by their tokens visits the radix tree of all of them depth
//! first: each sample adds only what follows its longest common prefix with the sample before it. No tree is built.

use crate::tokens::TokenSet;

/// Samples in an order that visits their prefix tree depth first, and the length of the prefix shared at each visit.
#[derive(Clone, Debug)]
pub struct SharedPrefixes {
    /// Samples, sorted by their tokens; equal ones by number.
    order: Vec<usize>,
    /// `shared[i]`: tokens that `order[i]` has in common with `order[i - 1]`; 0 for the first.
    shared: Vec<usize>,
}

impl SharedPrefixes {
    /// Sorts `samples` (numbers into `tokens`, distinct).
    pub fn of(tokens: &TokenSet, samples: &[usize]) -> Self {
        let ids = |sample: usize| &tokens.sequences[sample].ids[..];
        let mut order = samples.to_vec();
        order.sort_by(|a, b| ids(*a).cmp(ids(*b)).then(a.cmp(b)));
        let shared = std::iter::once(0)
            .chain(order.windows(2).map(|pair| common_prefix(ids(pair[0]), ids(pair[1]))))
            .take(order.len())
            .collect();
        SharedPrefixes { order, shared }
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
    pub fn n_tokens(&self, tokens: &TokenSet) -> usize {
        self.visits().map(|(sample, shared)| tokens.sequences[sample].len() - shared).sum()
    }

    /// For each visit, its tokens after the shared prefix: whether any sample with that token masks it.
    ///
    /// A token is computed at the first visit that reaches it; later visits that share it may still pool it.
    pub fn masked_tokens(&self, tokens: &TokenSet) -> Vec<Vec<bool>> {
        let mut masked: Vec<Vec<bool>> = Vec::with_capacity(self.order.len());
        // For each position of the current path, the visit that computes the token.
        let mut owners: Vec<usize> = Vec::new();
        for (visit, (sample, shared)) in self.visits().enumerate() {
            let mask = &tokens.sequences[sample].mask;
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
    use crate::tokens::TokenSequence;

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

    proptest! {
        #[test]
        fn tokens_are_distinct_prefixes_with_united_masks(sequences in arbitrary_sequences()) {
            let tokens = token_set(&sequences);
            let all: Vec<usize> = (0..sequences.len()).collect();
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
