//! Floating-point operations of a forward pass, counted from what a batch really computes.
//!
//! A multiply-add is two operations. Counted are the products with weights and the two products of attention; norms,
//! rotations and the softmax are linear in the width and left out, as is usual (Kaplan et al. 2020, table 1).

use actbench_kernels::AttentionLayout;

use super::TokenBatch;
use super::config::ModelConfig;

impl ModelConfig {
    /// Operations of `batch` through blocks `0..n_blocks`, padding rows included.
    ///
    /// Where only some rows of the deepest block are wanted, the others cost their key and value projections there.
    pub fn flops(&self, batch: &TokenBatch, n_blocks: usize) -> u64 {
        let Some(before) = n_blocks.checked_sub(1) else { return 0 };
        let rows = batch.ids.len() as u64;
        let whole = rows * self.linear_flops_per_block() + self.attention_flops(&batch.layout);
        let deepest = match &batch.deepest {
            Some(few) => {
                let wanted = few.rows.len() as u64 * (self.linear_flops_per_block() - self.kv_flops());
                rows * self.kv_flops() + wanted + self.attention_flops(&few.layout)
            }
            None => whole,
        };
        before as u64 * whole + deepest
    }

    /// Operations of one token's key and value projections in one block.
    fn kv_flops(&self) -> u64 {
        4 * (self.hidden_size * self.kv_width()) as u64
    }

    /// Scores and weighted sums of values: each query row meets the keys of its own position and all before.
    fn attention_flops(&self, layout: &AttentionLayout) -> u64 {
        let keys_of = |start: u64, len: u64| len * start + len * (len + 1) / 2;
        let keys: u64 =
            layout.segments.iter().map(|segment| keys_of(segment.start_position as u64, segment.len as u64)).sum();
        4 * self.query_width() as u64 * keys
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::batches::{Batches, Batching};
    use crate::plan::prefix::SharedPrefixes;
    use crate::tokens::{TokenSequence, TokenSet};

    fn config() -> ModelConfig {
        let text = r#"{"model_type": "llama", "vocab_size": 9, "hidden_size": 8, "intermediate_size": 12,
            "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 6}"#;
        ModelConfig::parse(text, "test").unwrap()
    }

    /// Three sequences of which two share two tokens; some positions are masked.
    fn tokens() -> TokenSet {
        let sequence =
            |ids: &[u32], mask: &[u8]| TokenSequence { ids: ids.to_vec(), mask: mask.iter().map(|m| *m > 0).collect() };
        TokenSet {
            sequences: vec![
                sequence(&[1, 2, 3], &[0, 0, 1]),
                sequence(&[1, 2, 4, 5, 6], &[0, 1, 0, 1, 0]),
                sequence(&[7], &[1]),
            ],
        }
    }

    /// One product after another, row by row: `(position, whether the deepest block needs its query)`.
    fn brute_force(rows: &[(u64, bool)], n_blocks: usize) -> u64 {
        let (hidden, inner, query, kv) = (8, 12, 24, 12);
        let mut flops = 0;
        for block in 0..n_blocks {
            for (position, wanted) in rows {
                for outputs in [kv, kv] {
                    flops += 2 * hidden * outputs;
                }
                if block + 1 == n_blocks && !wanted {
                    continue;
                }
                flops += 2 * hidden * query;
                for _key in 0..=*position {
                    flops += 2 * query + 2 * query;
                }
                flops += 2 * query * hidden + 2 * hidden * inner + 2 * hidden * inner + 2 * inner * hidden;
            }
        }
        flops
    }

    fn counted(prefixes: &SharedPrefixes, batching: Batching, n_blocks: usize) -> u64 {
        Batches::new(&tokens(), prefixes, batching).map(|scheduled| config().flops(&scheduled.batch, n_blocks)).sum()
    }

    #[test]
    fn every_schedule_counts_what_it_computes() {
        let all = [0, 1, 2];
        let packed = |masked_only| Batching { max_samples: 2, max_rows: 4, padded: false, masked_only };
        let (alone, shared) = (SharedPrefixes::none(&all), SharedPrefixes::of(&tokens(), &all));
        let mask = tokens().sequences.iter().map(|sequence| sequence.mask.clone()).collect::<Vec<_>>();
        let rows = |keep: &dyn Fn(usize, usize) -> bool| -> Vec<(u64, bool)> {
            let mut rows = Vec::new();
            for (sample, mask) in mask.iter().enumerate() {
                let masked = mask.iter().enumerate().filter(|(position, _)| keep(sample, *position));
                rows.extend(masked.map(|(position, wanted)| (position as u64, *wanted)));
            }
            rows
        };
        let every = |rows: &[(u64, bool)]| rows.iter().map(|row| (row.0, true)).collect::<Vec<_>>();
        for n_blocks in 0..=3 {
            let own = rows(&|_, _| true);
            assert_eq!(counted(&alone, packed(true), n_blocks), brute_force(&own, n_blocks));
            assert_eq!(counted(&alone, packed(false), n_blocks), brute_force(&every(&own), n_blocks));

            // The shared rows 1, 2 are computed once; the second of them is masked in one of the two samples.
            let mut once = rows(&|sample, position| sample != 0 || position == 2);
            assert_eq!(once.len(), 7);
            once.sort_unstable();
            assert_eq!(counted(&shared, packed(true), n_blocks), brute_force(&once, n_blocks));
            assert_eq!(counted(&shared, packed(false), n_blocks), brute_force(&every(&once), n_blocks));

            // Padded in pairs: 5 + 5 rows, then 1.
            let padded: Vec<(u64, bool)> = (0..5).chain(0..5).chain(0..1).map(|position| (position, true)).collect();
            let batching = Batching { max_samples: 2, max_rows: usize::MAX, padded: true, masked_only: false };
            assert_eq!(counted(&alone, batching, n_blocks), brute_force(&padded, n_blocks));
        }
    }
}
