//! From visits of samples to batches of tokens, with the prefix tokens cached from one batch for the next.
//!
//! Tokens of a batch are numbered own tokens first, then tokens cached from the batch before (see [`TokenBatch`]). While a
//! batch is being built its number of own tokens is not known, so tokens are named by [`TokenRef`] until it is finished.

use actbench_kernels::backend::AttentionSegment;
use actbench_kernels::{AttentionLayout, PoolGroups};

use super::needed_tokens::NeededTokens;
use super::prefix::SharedPrefixes;
use crate::model::{LastLayerTokens, TokenBatch};

/// How samples are gathered into batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batching {
    /// Samples of one batch, at most.
    pub max_samples: usize,
    /// Own tokens of one batch; a batch is finished by the sample that reaches it. One sample always fits.
    pub max_tokens: usize,
    /// Pad every sample to the longest of its batch. Only without prefix sharing.
    pub padded: bool,
    /// Prune the last layer to the masked tokens.
    pub masked_only: bool,
}

/// A batch, and which of its tokens belong to which sample.
#[derive(Clone, Debug, Default)]
pub struct ScheduledBatch {
    /// The input of the model.
    pub batch: TokenBatch,
    /// The samples that end in this batch, in the order of their groups.
    pub samples: Vec<usize>,
    /// A group a sample: the tokens at its masked positions, increasing in position.
    pub masked: PoolGroups,
    /// The same groups by index among [`LastLayerTokens`], if the batch has them.
    pub masked_last_layer: Option<PoolGroups>,
    /// A group a sample: the tokens at all its needed positions.
    pub whole: PoolGroups,
}

/// A token of a batch that is being built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TokenRef {
    /// By index among the own tokens.
    Own(u32),
    /// By index among the cached tokens.
    Cached(u32),
}

/// Cuts visits into batches, one at a time, so that memory holds one.
pub struct Batches<'a> {
    tokens: NeededTokens<'a>,
    visits: Vec<(usize, usize)>,
    /// Per visit, which of its new tokens any sample masks; empty unless the last layer is pruned.
    masked: Vec<Vec<bool>>,
    batching: Batching,
    next: usize,
    /// The path in the prefix tree that the next visit starts from: its tokens, and whether any sample masks each.
    path: Vec<(TokenRef, bool)>,
}

impl<'a> Batches<'a> {
    /// Batches of the visits of `prefixes`, which are those of the same needed tokens.
    pub fn new(tokens: impl Into<NeededTokens<'a>>, prefixes: &SharedPrefixes, batching: Batching) -> Self {
        let tokens = tokens.into();
        let masked = if batching.masked_only { prefixes.masked_tokens(tokens) } else { Vec::new() };
        Batches { tokens, visits: prefixes.visits().collect(), masked, batching, next: 0, path: Vec::new() }
    }

    /// The visits of the next batch.
    fn take_visits(&self) -> std::ops::Range<usize> {
        let mut n_tokens = 0;
        let mut end = self.next;
        while end < self.visits.len() && end - self.next < self.batching.max_samples.max(1) {
            let (sample, shared) = self.visits[end];
            let n_new = self.tokens.len_of(sample) - shared;
            if end > self.next && n_tokens + n_new > self.batching.max_tokens {
                break;
            }
            n_tokens += n_new;
            end += 1;
        }
        self.next..end
    }

    /// The length that the samples of `visits` are padded to; 0 without padding.
    fn padded_len(&self, visits: std::ops::Range<usize>) -> usize {
        if !self.batching.padded {
            return 0;
        }
        visits.map(|visit| self.tokens.len_of(self.visits[visit].0)).max().unwrap_or(0)
    }
}

impl Iterator for Batches<'_> {
    type Item = ScheduledBatch;

    fn next(&mut self) -> Option<ScheduledBatch> {
        if self.next >= self.visits.len() {
            return None;
        }
        let visits = self.take_visits();
        let padded_len = self.padded_len(visits.clone());
        let cached = self.path.iter().map(|(_, masked)| *masked).collect();
        let mut builder = BatchBuilder { cached, ..BatchBuilder::default() };
        for visit in visits.clone() {
            let (sample, shared) = self.visits[visit];
            let ids = self.tokens.ids(sample);
            self.path.truncate(shared);
            let first_own = builder.ids.len();
            for (position, id) in ids.iter().enumerate().skip(shared) {
                let masked = self.masked.get(visit).is_none_or(|masked| masked[position - shared]);
                self.path.push((TokenRef::Own(builder.ids.len() as u32), masked));
                builder.push_token(*id, position, masked);
            }
            for position in ids.len()..padded_len {
                builder.push_token(0, position, !self.batching.masked_only);
            }
            let len = builder.ids.len() - first_own;
            if len > 0 {
                let mut keys: Vec<TokenRef> = self.path.iter().map(|(token, _)| *token).collect();
                // Padding attends to itself too, as it does in transformers.
                let padding = first_own + ids.len() - shared..builder.ids.len();
                keys.extend(padding.map(|token| TokenRef::Own(token as u32)));
                builder.segments.push(SegmentParts { first_own, start_position: shared, len, keys });
            }
            builder.samples.push((sample, self.path.iter().map(|(token, _)| *token).collect()));
        }
        self.next = visits.end;
        let shared_next = self.visits.get(self.next).map_or(0, |visit| visit.1);
        self.path.truncate(shared_next);
        let scheduled = builder.finish(&self.tokens, &self.path, self.batching.masked_only);
        // In the next batch the kept tokens are the cached ones, in path order.
        for (index, (token, _)) in self.path.iter_mut().enumerate() {
            *token = TokenRef::Cached(index as u32);
        }
        Some(scheduled)
    }
}

/// A batch that is being built.
#[derive(Default)]
struct BatchBuilder {
    ids: Vec<u32>,
    positions: Vec<u32>,
    /// Whether any sample masks each own token.
    masked: Vec<bool>,
    /// Whether any sample masks each cached token.
    cached: Vec<bool>,
    segments: Vec<SegmentParts>,
    /// Each sample with the tokens at all its needed positions.
    samples: Vec<(usize, Vec<TokenRef>)>,
}

/// An attention segment whose keys are not numbered yet.
struct SegmentParts {
    first_own: usize,
    start_position: usize,
    len: usize,
    keys: Vec<TokenRef>,
}

impl BatchBuilder {
    fn push_token(&mut self, id: u32, position: usize, masked: bool) {
        self.ids.push(id);
        self.positions.push(position as u32);
        self.masked.push(masked);
    }

    fn finish(self, tokens: &NeededTokens<'_>, path: &[(TokenRef, bool)], masked_only: bool) -> ScheduledBatch {
        let n_own = self.ids.len();
        let number = |token: TokenRef| match token {
            TokenRef::Own(index) => index,
            TokenRef::Cached(index) => n_own as u32 + index,
        };
        let segments = self.segments.iter().map(|parts| AttentionSegment {
            query_row: parts.first_own,
            start_position: parts.start_position,
            len: parts.len,
            keys: runs(parts.keys.iter().map(|token| number(*token) as usize)),
        });
        let mut scheduled = ScheduledBatch {
            batch: TokenBatch {
                layout: AttentionLayout { segments: segments.collect() },
                n_cached: self.cached.len(),
                keep: path.iter().map(|(token, _)| number(*token)).collect(),
                ids: self.ids,
                positions: self.positions,
                last_layer: None,
            },
            ..ScheduledBatch::default()
        };
        for (sample, sample_tokens) in &self.samples {
            scheduled.samples.push(*sample);
            scheduled.whole.push(sample_tokens.iter().map(|token| number(*token)));
            let positions = tokens.sequence(*sample).masked_positions();
            scheduled.masked.push(positions.map(|position| number(sample_tokens[position])));
        }
        if masked_only {
            prune_last_layer(&mut scheduled, &self.masked, &self.cached, path);
        }
        scheduled
    }
}

/// Adds the tokens left in the last layer: the masked own ones by number, then the masked cached ones in path order.
fn prune_last_layer(scheduled: &mut ScheduledBatch, own: &[bool], cached: &[bool], path: &[(TokenRef, bool)]) {
    let batch = &mut scheduled.batch;
    // The index of each token of the batch among those left.
    let mut ranks: Vec<Option<u32>> = Vec::with_capacity(own.len() + cached.len());
    let mut next = 0;
    for masked in own.iter().chain(cached) {
        ranks.push(masked.then_some(next));
        next += u32::from(*masked);
    }
    let mut segments = Vec::new();
    for segment in &batch.layout.segments {
        let queries = segment.query_row..segment.query_row + segment.len;
        for (first, len) in runs(queries.filter(|token| ranks[*token].is_some())) {
            segments.push(AttentionSegment {
                query_row: ranks[first].unwrap_or_default() as usize,
                start_position: segment.start_position + first - segment.query_row,
                len,
                keys: segment.keys.clone(),
            });
        }
    }
    let kept = path.iter().zip(&batch.keep).filter(|((_, masked), _)| *masked);
    batch.last_layer = Some(LastLayerTokens {
        tokens: (0..own.len() as u32).filter(|token| own[*token as usize]).collect(),
        layout: AttentionLayout { segments },
        n_cached: cached.iter().filter(|masked| **masked).count(),
        keep: kept.filter_map(|(_, token)| ranks[*token as usize]).collect(),
    });
    let mut masked = PoolGroups::new();
    for group in 0..scheduled.masked.len() {
        masked.push(scheduled.masked.rows_of(group).iter().filter_map(|token| ranks[*token as usize]));
    }
    scheduled.masked_last_layer = Some(masked);
}

/// Joins consecutive numbers to `(first, length)`.
fn runs(numbers: impl Iterator<Item = usize>) -> Vec<(usize, usize)> {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for number in numbers {
        match runs.last_mut() {
            Some((first, len)) if *first + *len == number => *len += 1,
            _ => runs.push((number, 1)),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::tokens::{TokenSequence, TokenSet};

    /// Runs the batches on a model whose activations are the tokens that a token attends to, and checks those of every sample.
    fn check(tokens: NeededTokens<'_>, prefixes: &SharedPrefixes, batching: Batching) -> Result<usize, TestCaseError> {
        let mut kept: Vec<Vec<u32>> = Vec::new();
        let mut kept_pruned: Vec<Vec<u32>> = Vec::new();
        let (mut computed, mut seen) = (0, Vec::new());
        for scheduled in Batches::new(tokens, prefixes, batching) {
            let batch = &scheduled.batch;
            computed += batch.ids.len();
            prop_assert_eq!(batch.n_cached, kept.len());
            // Key ids suffice to list the tokens that a query attends to.
            let mut attended: Vec<Option<Vec<u32>>> = vec![None; batch.ids.len()];
            let key = |index: usize| match index.checked_sub(batch.ids.len()) {
                None => batch.ids[index],
                Some(cached) => *kept[cached].last().unwrap(),
            };
            let visible = |segment: &AttentionSegment| {
                segment.keys.iter().flat_map(|&(first, len)| first..first + len).map(key).collect::<Vec<u32>>()
            };
            for segment in &batch.layout.segments {
                let keys = visible(segment);
                for offset in 0..segment.len {
                    let position = segment.start_position + offset;
                    prop_assert_eq!(batch.positions[segment.query_row + offset] as usize, position);
                    prop_assert!(attended[segment.query_row + offset].replace(keys[..=position].to_vec()).is_none());
                }
            }
            let mut all: Vec<Vec<u32>> = attended.into_iter().map(|tokens| tokens.unwrap()).collect();
            all.extend(kept.iter().cloned());
            for (group, sample) in scheduled.samples.iter().enumerate() {
                let needed = tokens.ids(*sample);
                let whole: Vec<&Vec<u32>> =
                    scheduled.whole.rows_of(group).iter().map(|index| &all[*index as usize]).collect();
                prop_assert_eq!(whole.len(), needed.len());
                for (position, tokens) in whole.iter().enumerate() {
                    prop_assert_eq!(&tokens[..], &needed[..=position]);
                }
                let positions = tokens.sequence(*sample).masked_positions();
                let masked: Vec<u32> = positions.map(|position| scheduled.whole.rows_of(group)[position]).collect();
                prop_assert_eq!(scheduled.masked.rows_of(group), &masked[..]);
                seen.push(*sample);
            }
            if let Some(last_layer) = &batch.last_layer {
                prop_assert_eq!(last_layer.n_cached, kept_pruned.len());
                let mut pruned: Vec<Option<Vec<u32>>> = vec![None; last_layer.tokens.len()];
                for segment in &last_layer.layout.segments {
                    let keys = visible(segment);
                    for offset in 0..segment.len {
                        let seen = keys[..=segment.start_position + offset].to_vec();
                        prop_assert!(pruned[segment.query_row + offset].replace(seen).is_none());
                    }
                }
                let mut pruned: Vec<Vec<u32>> = pruned.into_iter().map(|tokens| tokens.unwrap()).collect();
                pruned.extend(kept_pruned.iter().cloned());
                let groups = scheduled.masked_last_layer.as_ref().unwrap();
                for group in 0..scheduled.samples.len() {
                    let (full, compact) = (scheduled.masked.rows_of(group), groups.rows_of(group));
                    prop_assert_eq!(full.len(), compact.len());
                    for (full, compact) in full.iter().zip(compact) {
                        prop_assert_eq!(&all[*full as usize], &pruned[*compact as usize]);
                    }
                }
                kept_pruned = last_layer.keep.iter().map(|index| pruned[*index as usize].clone()).collect();
            }
            kept = batch.keep.iter().map(|index| all[*index as usize].clone()).collect();
        }
        seen.sort_unstable();
        let mut samples: Vec<usize> = prefixes.visits().map(|(sample, _)| sample).collect();
        samples.sort_unstable();
        prop_assert_eq!(seen, samples);
        Ok(computed)
    }

    fn arbitrary_tokens() -> impl Strategy<Value = TokenSet> {
        let pairs = prop::collection::vec((0u32..3, any::<bool>()), 1..9);
        prop::collection::vec(pairs, 1..40).prop_map(|sequences| TokenSet {
            sequences: sequences
                .into_iter()
                .map(|pairs| {
                    let (ids, mask) = pairs.into_iter().unzip();
                    TokenSequence { ids, mask }
                })
                .collect(),
        })
    }

    proptest! {
        #[test]
        fn samples_attend_to_their_own_tokens_alone(
            tokens in arbitrary_tokens(), max_samples in 1usize..9, max_tokens in 1usize..30, masked_only in any::<bool>(),
        ) {
            let all: Vec<usize> = (0..tokens.len()).collect();
            let batching = Batching { max_samples, max_tokens, padded: false, masked_only };
            for tokens in [NeededTokens::from(&tokens), NeededTokens::from(&tokens).without_tails()] {
                let shared = SharedPrefixes::of(tokens, &all);
                prop_assert_eq!(check(tokens, &shared, batching)?, shared.n_tokens(tokens));
                let alone = SharedPrefixes::none(&all);
                let n_needed = alone.n_tokens(tokens);
                prop_assert_eq!(check(tokens, &alone, batching)?, n_needed);
                let padded = check(tokens, &alone, Batching { padded: true, ..batching })?;
                prop_assert!(padded >= n_needed);
            }
        }
    }
}
