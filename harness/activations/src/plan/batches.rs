//! From visits of samples to batches of rows, with the rows that pass from one batch to the next.
//!
//! Rows of a batch are numbered own rows first, then rows carried over from the batch before (see [`TokenBatch`]).
//! While a batch is being filled its number of own rows is not known, so rows are named by [`Row`] until it is closed.

use std::sync::atomic::{AtomicU64, Ordering};

use actbench_kernels::backend::AttentionSegment;
use actbench_kernels::{AttentionLayout, PoolGroups};

use super::prefix::SharedPrefixes;
use crate::model::{DeepestRows, TokenBatch};
use crate::tokens::TokenSet;

/// How rows are gathered into batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batching {
    /// Samples of one batch, at most.
    pub max_samples: usize,
    /// Own rows of one batch; a batch is closed by the sample that reaches it. One sample always fits.
    pub max_rows: usize,
    /// Pad every sample to the longest of its batch. Only without prefix sharing.
    pub padded: bool,
    /// In the deepest layer compute masked rows alone.
    pub masked_only: bool,
}

/// A batch, and what of it belongs to which sample.
#[derive(Clone, Debug, Default)]
pub struct ScheduledBatch {
    /// What the model runs.
    pub batch: TokenBatch,
    /// The samples that end in this batch, in the order of their groups.
    pub samples: Vec<usize>,
    /// For each of them, the rows of its masked positions.
    pub masked: PoolGroups,
    /// The same in the numbering of [`DeepestRows`], where the batch has them.
    pub masked_deepest: Option<PoolGroups>,
    /// For each of them, the rows of all its positions.
    pub whole: PoolGroups,
}

/// A row while its batch is being filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Row {
    Own(u32),
    Carried(u32),
}

/// Cuts visits into batches, one at a time, so that memory holds one.
pub struct Batches<'a> {
    tokens: &'a TokenSet,
    visits: Vec<(usize, usize)>,
    /// Which rows are masked by any sample, per visit; empty when nobody asks.
    wanted: Vec<Vec<bool>>,
    batching: Batching,
    next: usize,
    /// The rows of the path that the next visit stands on, with whether each is wanted.
    path: Vec<(Row, bool)>,
    walk: u64,
}

/// Tells walks apart, so that rows kept for one are never taken for another's.
static NEXT_WALK: AtomicU64 = AtomicU64::new(1);

impl<'a> Batches<'a> {
    /// Batches of the visits of `prefixes`.
    pub fn new(tokens: &'a TokenSet, prefixes: &SharedPrefixes, batching: Batching) -> Self {
        let wanted = if batching.masked_only { prefixes.masked_rows(tokens) } else { Vec::new() };
        let walk = NEXT_WALK.fetch_add(1, Ordering::Relaxed);
        Batches { tokens, visits: prefixes.visits().collect(), wanted, batching, next: 0, path: Vec::new(), walk }
    }

    /// The visits of the next batch.
    fn take_visits(&self) -> std::ops::Range<usize> {
        let mut rows = 0;
        let mut end = self.next;
        while end < self.visits.len() && end - self.next < self.batching.max_samples.max(1) {
            let (sample, shared) = self.visits[end];
            let more = self.tokens.sequences[sample].len() - shared;
            if end > self.next && rows + more > self.batching.max_rows {
                break;
            }
            rows += more;
            end += 1;
        }
        self.next..end
    }
}

impl Iterator for Batches<'_> {
    type Item = ScheduledBatch;

    fn next(&mut self) -> Option<ScheduledBatch> {
        if self.next >= self.visits.len() {
            return None;
        }
        let visits = self.take_visits();
        let pad_to = match self.batching.padded {
            true => visits.clone().map(|visit| self.tokens.sequences[self.visits[visit].0].len()).max().unwrap_or(0),
            false => 0,
        };
        let carried = self.path.iter().map(|(_, wanted)| *wanted).collect();
        let mut filling = Filling { walk: self.walk, carried, ..Filling::default() };
        for visit in visits.clone() {
            let (sample, shared) = self.visits[visit];
            let sequence = &self.tokens.sequences[sample];
            self.path.truncate(shared);
            let first_own = filling.ids.len();
            for position in shared..sequence.len() {
                let wanted = self.wanted.get(visit).is_none_or(|rows| rows[position - shared]);
                self.path.push((Row::Own(filling.ids.len() as u32), wanted));
                filling.push_row(sequence.ids[position], position, wanted);
            }
            for position in sequence.len()..pad_to {
                filling.push_row(0, position, !self.batching.masked_only);
            }
            let len = filling.ids.len() - first_own;
            if len > 0 {
                let mut keys: Vec<Row> = self.path.iter().map(|(row, _)| *row).collect();
                keys.extend((first_own + sequence.len() - shared..filling.ids.len()).map(|row| Row::Own(row as u32)));
                filling.segments.push((first_own, shared, len, keys));
            }
            filling.samples.push((sample, self.path.iter().map(|(row, _)| *row).collect()));
        }
        self.next = visits.end;
        let shared_next = self.visits.get(self.next).map_or(0, |visit| visit.1);
        self.path.truncate(shared_next);
        let scheduled = filling.close(self.tokens, &self.path, self.batching.masked_only);
        // In the next batch the kept rows are the carried ones, in path order.
        for (index, (row, _)) in self.path.iter_mut().enumerate() {
            *row = Row::Carried(index as u32);
        }
        Some(scheduled)
    }
}

/// A batch that is being filled.
#[derive(Default)]
struct Filling {
    ids: Vec<u32>,
    positions: Vec<u32>,
    wanted: Vec<bool>,
    /// Whether each carried row is wanted of the deepest layer.
    carried: Vec<bool>,
    walk: u64,
    /// `(first own row, start position, length, rows of all positions)`.
    segments: Vec<(usize, usize, usize, Vec<Row>)>,
    samples: Vec<(usize, Vec<Row>)>,
}

impl Filling {
    fn push_row(&mut self, id: u32, position: usize, wanted: bool) {
        self.ids.push(id);
        self.positions.push(position as u32);
        self.wanted.push(wanted);
    }

    fn close(self, tokens: &TokenSet, path: &[(Row, bool)], masked_only: bool) -> ScheduledBatch {
        let n_own = self.ids.len();
        let number = |row: Row| match row {
            Row::Own(row) => row,
            Row::Carried(index) => n_own as u32 + index,
        };
        let segments = self
            .segments
            .iter()
            .map(|(query_row, start_position, len, keys)| AttentionSegment {
                query_row: *query_row,
                start_position: *start_position,
                len: *len,
                keys: runs(keys.iter().map(|row| number(*row) as usize)),
            })
            .collect();
        let mut scheduled = ScheduledBatch {
            batch: TokenBatch {
                layout: AttentionLayout { segments },
                walk: self.walk,
                n_carried: self.carried.len(),
                keep: path.iter().map(|(row, _)| number(*row)).collect(),
                ids: self.ids,
                positions: self.positions,
                deepest: None,
            },
            ..ScheduledBatch::default()
        };
        for (sample, rows) in &self.samples {
            scheduled.samples.push(*sample);
            scheduled.whole.push(rows.iter().map(|row| number(*row)));
            let masked = tokens.sequences[*sample].masked_positions().map(|position| number(rows[position]));
            scheduled.masked.push(masked);
        }
        if masked_only {
            restrict_deepest(&mut scheduled, &self.wanted, &self.carried, path);
        }
        scheduled
    }
}

/// Adds the numbering of the wanted rows: own ones by number, then carried ones in path order.
fn restrict_deepest(scheduled: &mut ScheduledBatch, wanted: &[bool], carried: &[bool], path: &[(Row, bool)]) {
    let batch = &mut scheduled.batch;
    let mut ranks: Vec<Option<u32>> = Vec::with_capacity(wanted.len() + carried.len());
    let mut next = 0;
    for wanted in wanted.iter().chain(carried) {
        ranks.push(wanted.then_some(next));
        next += u32::from(*wanted);
    }
    let mut segments = Vec::new();
    for segment in &batch.layout.segments {
        let own = segment.query_row..segment.query_row + segment.len;
        for (first, len) in runs(own.filter(|row| ranks[*row].is_some())) {
            segments.push(AttentionSegment {
                query_row: ranks[first].unwrap_or_default() as usize,
                start_position: segment.start_position + first - segment.query_row,
                len,
                keys: segment.keys.clone(),
            });
        }
    }
    let kept = path.iter().zip(&batch.keep).filter(|((_, wanted), _)| *wanted);
    batch.deepest = Some(DeepestRows {
        rows: (0..wanted.len() as u32).filter(|row| wanted[*row as usize]).collect(),
        layout: AttentionLayout { segments },
        n_carried: carried.iter().filter(|wanted| **wanted).count(),
        keep: kept.filter_map(|(_, row)| ranks[*row as usize]).collect(),
    });
    let mut masked = PoolGroups::new();
    for group in 0..scheduled.masked.len() {
        masked.push(scheduled.masked.rows_of(group).iter().filter_map(|row| ranks[*row as usize]));
    }
    scheduled.masked_deepest = Some(masked);
}

/// Consecutive numbers joined to `(first, length)`.
fn runs(rows: impl Iterator<Item = usize>) -> Vec<(usize, usize)> {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for row in rows {
        match runs.last_mut() {
            Some((first, len)) if *first + *len == row => *len += 1,
            _ => runs.push((row, 1)),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::tokens::TokenSequence;

    /// Runs the batches on a model that gives each row the tokens it can see, and checks what every sample is given.
    fn check(tokens: &TokenSet, prefixes: &SharedPrefixes, batching: Batching) -> Result<usize, TestCaseError> {
        let mut kept: Vec<Vec<u32>> = Vec::new();
        let mut kept_deepest: Vec<Vec<u32>> = Vec::new();
        let (mut computed, mut seen) = (0, Vec::new());
        for scheduled in Batches::new(tokens, prefixes, batching) {
            let batch = &scheduled.batch;
            computed += batch.ids.len();
            prop_assert_eq!(batch.n_carried, kept.len());
            // Keys are known before attention; their ids are enough to tell what a query sees.
            let mut sees: Vec<Option<Vec<u32>>> = vec![None; batch.ids.len()];
            let key = |row: usize| match row.checked_sub(batch.ids.len()) {
                None => batch.ids[row],
                Some(carried) => *kept[carried].last().unwrap(),
            };
            let visible = |segment: &AttentionSegment| {
                segment.keys.iter().flat_map(|&(first, len)| first..first + len).map(key).collect::<Vec<u32>>()
            };
            for segment in &batch.layout.segments {
                let keys = visible(segment);
                for offset in 0..segment.len {
                    let position = segment.start_position + offset;
                    prop_assert_eq!(batch.positions[segment.query_row + offset] as usize, position);
                    prop_assert!(sees[segment.query_row + offset].replace(keys[..=position].to_vec()).is_none());
                }
            }
            let mut rows: Vec<Vec<u32>> = sees.into_iter().map(|row| row.unwrap()).collect();
            rows.extend(kept.iter().cloned());
            for (group, sample) in scheduled.samples.iter().enumerate() {
                let sequence = &tokens.sequences[*sample];
                let whole: Vec<&Vec<u32>> =
                    scheduled.whole.rows_of(group).iter().map(|row| &rows[*row as usize]).collect();
                prop_assert_eq!(whole.len(), sequence.len());
                for (position, row) in whole.iter().enumerate() {
                    prop_assert_eq!(&row[..], &sequence.ids[..=position]);
                }
                let masked: Vec<u32> =
                    sequence.masked_positions().map(|position| scheduled.whole.rows_of(group)[position]).collect();
                prop_assert_eq!(scheduled.masked.rows_of(group), &masked[..]);
                seen.push(*sample);
            }
            if let Some(deepest) = &batch.deepest {
                prop_assert_eq!(deepest.n_carried, kept_deepest.len());
                let mut few: Vec<Option<Vec<u32>>> = vec![None; deepest.rows.len()];
                for segment in &deepest.layout.segments {
                    let keys = visible(segment);
                    for offset in 0..segment.len {
                        let seen = keys[..=segment.start_position + offset].to_vec();
                        prop_assert!(few[segment.query_row + offset].replace(seen).is_none());
                    }
                }
                let mut few: Vec<Vec<u32>> = few.into_iter().map(|row| row.unwrap()).collect();
                few.extend(kept_deepest.iter().cloned());
                let groups = scheduled.masked_deepest.as_ref().unwrap();
                for group in 0..scheduled.samples.len() {
                    let (full, compact) = (scheduled.masked.rows_of(group), groups.rows_of(group));
                    prop_assert_eq!(full.len(), compact.len());
                    for (full, compact) in full.iter().zip(compact) {
                        prop_assert_eq!(&rows[*full as usize], &few[*compact as usize]);
                    }
                }
                kept_deepest = deepest.keep.iter().map(|row| few[*row as usize].clone()).collect();
            }
            kept = batch.keep.iter().map(|row| rows[*row as usize].clone()).collect();
        }
        seen.sort_unstable();
        prop_assert_eq!(seen, (0..tokens.len()).collect::<Vec<_>>());
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
        fn every_sample_sees_its_own_tokens_however_rows_are_shared_and_cut(
            tokens in arbitrary_tokens(), max_samples in 1usize..9, max_rows in 1usize..30, masked_only in any::<bool>(),
        ) {
            let all: Vec<usize> = (0..tokens.len()).collect();
            let batching = Batching { max_samples, max_rows, padded: false, masked_only };
            let shared = SharedPrefixes::of(&tokens, &all);
            prop_assert_eq!(check(&tokens, &shared, batching)?, shared.n_rows(&tokens));
            let alone = SharedPrefixes::none(&all);
            prop_assert_eq!(check(&tokens, &alone, batching)?, tokens.n_tokens());
            let padded = check(&tokens, &alone, Batching { padded: true, ..batching })?;
            prop_assert!(padded >= tokens.n_tokens());
        }
    }
}
