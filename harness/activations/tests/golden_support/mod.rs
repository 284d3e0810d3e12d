//! Helpers for tests on golden models.

use actbench_activations::model::TokenBatch;
use actbench_fixtures::golden::Golden;
use actbench_kernels::AttentionLayout;
use actbench_kernels::backend::AttentionSegment;

/// All sequences of a golden as one ragged batch.
pub fn batch(golden: &Golden) -> TokenBatch {
    let mut batch = TokenBatch::default();
    let mut segments = Vec::new();
    for sequence in &golden.sequences {
        let (first, len) = (batch.ids.len(), sequence.tokens.len());
        batch.ids.extend(&sequence.tokens);
        batch.positions.extend(0..len as u32);
        segments.push(AttentionSegment { query_row: first, start_position: 0, len, keys: vec![(first, len)] });
    }
    batch.layout = AttentionLayout { segments };
    batch
}
