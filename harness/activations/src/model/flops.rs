//! Floating-point operations of a forward pass, counted from the tokens that a batch computes.
//!
//! A multiply-add is two operations. Counted are the GEMMs with weights and the two matrix products of attention; norms,
//! rotations, activations and the softmax are linear in the width and left out, as is usual (Kaplan et al. 2020, table 1).

use actbench_kernels::AttentionLayout;

use super::TokenBatch;
use super::spec::DecoderSpec;

impl DecoderSpec {
    /// Operations of `batch` through blocks `0..n_blocks`, padding included.
    ///
    /// Tokens pruned from the last block cost their key and value projections there.
    pub fn flops(&self, batch: &TokenBatch, n_blocks: usize) -> u64 {
        let Some(last) = n_blocks.checked_sub(1) else { return 0 };
        let n_tokens = batch.ids.len() as u64;
        let mut before = n_tokens * (0..last).map(|layer| self.linear_flops(layer)).sum::<u64>();
        // Attention with the same window does the same work.
        for window in self.windows() {
            let blocks = (0..last).filter(|layer| self.score_rule(*layer).window == window).count() as u64;
            before += blocks * self.attention_flops(&batch.layout, window);
        }
        let linear = self.linear_flops(last);
        let window = self.score_rule(last).window;
        let last_block = match &batch.last_layer {
            Some(left) => {
                let n_left = left.tokens.len() as u64;
                let past_kv = n_left * (linear - self.kv_flops());
                n_tokens * self.kv_flops() + past_kv + self.attention_flops(&left.layout, window)
            }
            None => n_tokens * linear + self.attention_flops(&batch.layout, window),
        };
        before + last_block
    }

    /// Operations of one token's key and value projections in one block.
    fn kv_flops(&self) -> u64 {
        4 * (self.hidden_size * self.kv_width()) as u64
    }

    /// Scores and weighted sums of values: each query meets the keys that it sees.
    fn attention_flops(&self, layout: &AttentionLayout, window: Option<usize>) -> u64 {
        let keys: usize = layout.segments.iter().map(|segment| segment.visible_keys(window)).sum();
        4 * (self.query_width() * keys) as u64
    }
}
