//! Floating-point operations of a forward pass, counted from the tokens that a batch computes.
//!
//! A multiply-add is two operations. Counted are the GEMMs with weights and the two matrix products of attention; norms,
//! rotations and the softmax are linear in the width and left out, as is usual (Kaplan et al. 2020, table 1).

use actbench_kernels::AttentionLayout;

use super::TokenBatch;
use super::config::ModelConfig;

impl ModelConfig {
    /// Operations of `batch` through blocks `0..n_blocks`, padding included.
    ///
    /// Tokens pruned from the last block cost their key and value projections there.
    pub fn flops(&self, batch: &TokenBatch, n_blocks: usize) -> u64 {
        let Some(n_full_blocks) = n_blocks.checked_sub(1) else { return 0 };
        let n_tokens = batch.ids.len() as u64;
        let full_block = n_tokens * self.linear_flops_per_block() + self.attention_flops(&batch.layout);
        let last_block = match &batch.last_layer {
            Some(left) => {
                let n_left = left.tokens.len() as u64;
                let past_kv = n_left * (self.linear_flops_per_block() - self.kv_flops());
                n_tokens * self.kv_flops() + past_kv + self.attention_flops(&left.layout)
            }
            None => full_block,
        };
        n_full_blocks as u64 * full_block + last_block
    }

    /// Operations of one token's key and value projections in one block.
    fn kv_flops(&self) -> u64 {
        4 * (self.hidden_size * self.kv_width()) as u64
    }

    /// Scores and weighted sums of values: each query meets the keys of its own position and of all before.
    fn attention_flops(&self, layout: &AttentionLayout) -> u64 {
        let segment_keys = |start: u64, len: u64| len * start + len * (len + 1) / 2;
        let keys: u64 =
            layout.segments.iter().map(|segment| segment_keys(segment.start_position as u64, segment.len as u64)).sum();
        4 * self.query_width() as u64 * keys
    }
}
