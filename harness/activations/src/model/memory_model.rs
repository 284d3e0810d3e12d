//! Bytes of a model's weights, batches and features, computed from sizes alone.
//!
//! The one place for these formulas. The workspace of a stage, the batches of a plan, the planner's prediction and the
//! check against a memory limit all read them, so that none can drift from the others.

use actbench_kernels::DType;

use super::batch::TokenBatch;
use super::spec::DecoderSpec;

/// Bytes of results that one batch may emit, unless the caller's own batch size asks for more: enough for thousands of
/// pooled vectors, and little next to the activations of a batch.
pub const BATCH_RESULT_BYTES: u64 = 8 << 20;

/// [`BATCH_RESULT_BYTES`] of a batch that fills a GPU: pooled vectors of 16 layers of a thousand samples.
pub const FILLED_BATCH_RESULT_BYTES: u64 = 64 << 20;

/// Bytes of workspace of a batch that fills a GPU: 16,384 tokens of a Llama of 1B parameters, 8,192 of one of 8B. On an H100 the
/// former ran 34,000 tokens/s in batches of 128, 244,000 in those of 2,048, and 266,000 in those of 8,192.
const FILLED_BATCH_BYTES: u64 = 910_000_000;

/// Filled batches have a multiple of this number of tokens: then the tiles of their matmuls leave few multiprocessors idle in
/// the last wave.
const FILLED_BATCH_STEP: usize = 2048;

/// Copies to the host that may be pending while the device computes: one is filled while the host reads the other.
pub const MAX_PENDING_COPIES: usize = 2;

/// Outputs of a stream in host memory that may wait for the caller: the next one keeps its thread waiting.
pub const MAX_OUTPUTS_OF_STREAM: usize = 1;

/// Packed weights are padded to multiples of this in both extents: the widest panel of the GEMM kernels, and the terms
/// that the bf16 ones take at a time.
const WEIGHT_PANEL: u64 = 32;

/// The maximum over the batches of a plan, each figure by itself: what its buffers grow to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LargestBatch {
    /// Own tokens.
    pub tokens: u64,
    /// Prefix tokens cached from the batch before.
    pub cached: u64,
    /// Tokens kept for the batch after.
    pub kept: u64,
    /// Samples that end in it.
    pub samples: u64,
}

impl LargestBatch {
    /// The larger of each figure.
    #[must_use]
    pub fn or(self, other: LargestBatch) -> Self {
        LargestBatch {
            tokens: self.tokens.max(other.tokens),
            cached: self.cached.max(other.cached),
            kept: self.kept.max(other.kept),
            samples: self.samples.max(other.samples),
        }
    }

    /// The figures of one batch, in which `n_samples` samples end.
    pub fn of(batch: &TokenBatch, n_samples: usize) -> Self {
        LargestBatch {
            tokens: batch.ids.len() as u64,
            cached: batch.n_cached as u64,
            kept: batch.keep.len() as u64,
            samples: n_samples as u64,
        }
    }
}

/// Columns of the activations of one token in the buffers of a forward pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkspaceColumns {
    /// The residual stream, its norm, and a layer's output.
    pub hidden: usize,
    /// Queries, and the output of attention.
    pub query: usize,
    /// Keys and values, side by side.
    pub key_value: usize,
    /// Gate times up, or the activated projection; 0 if every block has experts.
    pub gated: usize,
    /// The second norm of a parallel residual; 0 without one.
    pub parallel: usize,
    /// Those of blocks with experts, if there are any.
    pub experts: Option<ExpertColumns>,
}

/// Columns of the activations of one token in blocks with experts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExpertColumns {
    /// The logits of the router.
    pub router: usize,
    /// The inputs and outputs of all experts of a token, side by side.
    pub slots: usize,
    /// Gate times up of one expert, or the activated projection.
    pub gated: usize,
}

impl WorkspaceColumns {
    /// Those of a model of this shape.
    pub fn of(spec: &DecoderSpec) -> Self {
        WorkspaceColumns {
            hidden: spec.hidden_size,
            query: spec.query_width(),
            key_value: 2 * spec.kv_width(),
            gated: if spec.layers.iter().all(|layer| layer.experts) { 0 } else { spec.intermediate_size },
            parallel: if spec.parallel_residual { spec.hidden_size } else { 0 },
            experts: spec.experts.map(|experts| ExpertColumns {
                router: experts.n,
                slots: experts.rule.top_k * spec.hidden_size,
                gated: experts.intermediate_size,
            }),
        }
    }

    /// Columns of an MLP's activations, gate times up, or of all buffers of the experts.
    pub fn feed_forward(self) -> usize {
        self.gated.max(self.of_experts().iter().sum())
    }

    /// Columns of the buffers of experts. All tokens of a batch may choose one expert, whose input and output are `hidden` wide.
    fn of_experts(self) -> [usize; 5] {
        let hidden = self.hidden;
        self.experts.map_or([0; 5], |experts| [experts.router, experts.slots, hidden, experts.gated, hidden])
    }

    /// Columns of the buffers that hold all own tokens in every case: stream and norm, queries and attention's
    /// output, gate times up, the second norm, those of experts.
    fn of_own_tokens(self) -> impl Iterator<Item = usize> {
        let shared = [self.hidden, self.hidden, self.query, self.query, self.gated, self.parallel];
        shared.into_iter().chain(self.of_experts())
    }

    /// Columns of all buffers that grow with the tokens of a batch: the above, keys and values, the tokens left after
    /// pruning, and a layer's output with the cached tokens. Outputs on their way to the host are not among them.
    fn of_all(self) -> usize {
        self.of_own_tokens().sum::<usize>() + self.key_value + 2 * self.hidden
    }
}

/// Bytes of the embedding and of blocks `0..n_blocks`, stored as `dtype`; norms and biases are left out.
pub fn weight_bytes(spec: &DecoderSpec, n_blocks: usize, dtype: DType) -> u64 {
    let element = dtype.size() as u64;
    let blocks = (0..n_blocks).map(|layer| block_bytes(spec, layer, element));
    blocks.fold(embedding_bytes(spec, element), u64::saturating_add)
}

/// Bytes of block `layer` in elements of `element` bytes, all its experts included; norms and biases are left out.
pub fn block_bytes(spec: &DecoderSpec, layer: usize, element: u64) -> u64 {
    spec.linear_weights(layer).saturating_mul(element)
}

/// Bytes of the embedding table, and of learned positions, in elements of `element` bytes.
pub fn embedding_bytes(spec: &DecoderSpec, element: u64) -> u64 {
    let rows = spec.vocab_size.saturating_add(spec.embedding.learned_positions.unwrap_or(0));
    (rows as u64).saturating_mul(spec.hidden_size as u64).saturating_mul(element)
}

/// Bytes of the embedding on a GPU that reads it from a file, in elements of `element` bytes: the rows of `distinct_tokens`
/// tokens, and space for as many again.
pub fn resident_embedding_bytes(spec: &DecoderSpec, distinct_tokens: u64, element: u64) -> u64 {
    let row_bytes = (spec.hidden_size as u64).saturating_mul(element);
    distinct_tokens.saturating_mul(2).saturating_mul(row_bytes).min(embedding_bytes(spec, element))
}

/// Bytes of the weights of block `layer`, packed in elements of `element` bytes; `allocated` gives what a buffer of so many
/// bytes really takes.
pub fn packed_block_bytes(spec: &DecoderSpec, layer: usize, element: u64, allocated: impl Fn(u64) -> u64) -> u64 {
    let hidden = spec.hidden_size as u64;
    let (query, kv) = (spec.query_width() as u64, spec.kv_width() as u64);
    let packed = |out_features: u64, in_features: u64| {
        allocated(out_features.next_multiple_of(WEIGHT_PANEL) * in_features.next_multiple_of(WEIGHT_PANEL) * element)
    };
    let attention = packed(query + 2 * kv, hidden) + packed(hidden, query);
    // Norms stay in f32. Queries, keys and values are stacked, gate and up interleaved in one matrix.
    let norms = spec.norms_per_block() as u64 * hidden * size_of::<f32>() as u64;
    let mlp = |width: usize| packed(spec.mlp_inner_width(width) as u64, hidden) + packed(hidden, width as u64);
    let feed_forward = match spec.experts_of(layer) {
        None => mlp(spec.intermediate_size),
        Some(experts) => packed(experts.n as u64, hidden) + experts.n as u64 * mlp(experts.intermediate_size),
    };
    attention + feed_forward + norms
}

/// Bytes that one token of a batch takes on a device: the buffers of the forward pass, copies on their way to the host,
/// and tables of indices.
pub(super) fn token_bytes(spec: &DecoderSpec, dtype: DType) -> u64 {
    let columns = WorkspaceColumns::of(spec);
    // One more output than copies are pending: the one that is being pooled.
    let outputs = (MAX_PENDING_COPIES + 1) * columns.hidden;
    // Token ids, positions, pool groups and attention segments: 16 indices a token are more than enough.
    let tables = 16 * size_of::<u32>();
    ((columns.of_all() + outputs) * dtype.size() + tables) as u64
}

/// The tokens of a batch that fills a GPU: its buffers take about 0.9 GB, in whole multiples of 2,048 tokens.
pub fn filled_batch_tokens(spec: &DecoderSpec, dtype: DType) -> usize {
    let tokens = (FILLED_BATCH_BYTES / token_bytes(spec, dtype)) as usize;
    (tokens / FILLED_BATCH_STEP * FILLED_BATCH_STEP).max(FILLED_BATCH_STEP)
}

/// Bytes that cached prefixes can take: one whole sequence of `max_positions` tokens in each block.
pub(super) fn prefix_cache_bytes(spec: &DecoderSpec, dtype: DType, n_blocks: usize, max_positions: usize) -> u64 {
    let columns = WorkspaceColumns::of(spec);
    (n_blocks * max_positions * (columns.key_value + columns.hidden) * dtype.size()) as u64
}

/// Bytes of each buffer of a forward pass through `blocks` blocks that emits `layers` layers: buffers grow to the largest
/// batch and are kept. With `pooled`, vectors of samples are emitted and gathered, otherwise all tokens.
pub fn workspace_buffers(
    spec: &DecoderSpec,
    element: u64,
    largest: &LargestBatch,
    blocks: u64,
    layers: u64,
    pooled: bool,
) -> Vec<u64> {
    let columns = WorkspaceColumns::of(spec);
    let (hidden, key_value) = (columns.hidden as u64, columns.key_value as u64);
    let emitted = if pooled { largest.samples * hidden } else { largest.tokens * hidden };
    let mut elements: Vec<u64> = columns.of_own_tokens().map(|columns| largest.tokens * columns as u64).collect();
    elements.extend([(largest.tokens + largest.cached) * key_value, emitted]);
    // Tokens kept for the next batch: keys and values of each block, outputs of each layer.
    elements.extend((0..blocks).map(|_| largest.kept * key_value));
    elements.extend((0..layers).map(|_| largest.kept * hidden));
    if pooled {
        // The tokens left in the last layer, and the pooled vectors on the device.
        elements.extend([largest.tokens * hidden, emitted]);
        if largest.kept + largest.cached > 0 {
            // A layer's output with the cached tokens.
            elements.push((largest.tokens + largest.cached) * hidden);
        }
    }
    let results = if pooled { (largest.samples * layers * hidden * element).min(BATCH_RESULT_BYTES) } else { 0 };
    elements.into_iter().map(|elements| elements * element).chain([results]).collect()
}

/// Buffers of outputs between `streams` streams in host memory and the caller: those that wait, one that each stream fills, and
/// the one that the caller reads. A single stream has none.
pub fn stream_output_buffers(streams: u64) -> u64 {
    if streams > 1 { streams * (MAX_OUTPUTS_OF_STREAM as u64 + 1) + 1 } else { 0 }
}

/// About how many bytes the activations of a padded batch take, where only widths are known: residual stream, norm,
/// queries, keys, values and attention's output of at most `hidden` columns, and gate and up.
pub fn padded_batch_bytes(tokens: u64, hidden: u64, intermediate: u64, element: u64) -> u64 {
    let columns = hidden.saturating_mul(6).saturating_add(intermediate.saturating_mul(2));
    saturating_product(&[tokens, columns, element])
}

/// Bytes of one vector a sample and layer.
pub fn pooled_feature_bytes(samples: u64, layers: u64, hidden: u64, element: u64) -> u64 {
    saturating_product(&[samples, layers, hidden, element])
}

/// Bytes of one vector a sample, layer and position, padded to `longest` positions.
pub fn full_feature_bytes(samples: u64, longest: u64, layers: u64, hidden: u64, element: u64) -> u64 {
    saturating_product(&[samples, longest, layers, hidden, element])
}

/// Sizes may come from a file or a flag; a product too large to count fits no memory, so the largest number does.
fn saturating_product(factors: &[u64]) -> u64 {
    factors.iter().fold(1, |product, factor| product.saturating_mul(*factor))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> DecoderSpec {
        let text = r#"{"model_type": "llama", "vocab_size": 9, "hidden_size": 8, "intermediate_size": 12,
            "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 6}"#;
        DecoderSpec::parse(text, "test").unwrap()
    }

    #[test]
    fn token_bytes_cover_the_buffers_of_a_batch() {
        let tokens = 1000;
        let largest = LargestBatch { tokens, cached: 0, kept: 0, samples: 0 };
        let buffers: u64 = workspace_buffers(&spec(), 2, &largest, 3, 2, true).iter().sum();
        let counted = tokens * token_bytes(&spec(), DType::Bf16);
        assert!(buffers <= counted, "{buffers} bytes of buffers, {counted} counted");
        assert_eq!(token_bytes(&spec(), DType::Bf16), (7 * 8 + 2 * 24 + 24 + 12) * 2 + 64);
    }

    #[test]
    fn filled_batches_have_a_gigabyte_in_whole_tiles() {
        let published = |name: &str| {
            let preset = actbench_fixtures::presets::Preset::find(name).unwrap();
            DecoderSpec::parse(&preset.config_json(), name).unwrap()
        };
        let tokens = |name: &str| filled_batch_tokens(&published(name), DType::Bf16);
        assert_eq!([tokens("llama-3.2-1b"), tokens("llama-3.1-8b")], [16_384, 8_192]);
        for dtype in [DType::Bf16, DType::F32] {
            let tokens = filled_batch_tokens(&spec(), dtype) as u64;
            let bytes = tokens * token_bytes(&spec(), dtype);
            assert!(tokens.is_multiple_of(2048) && (0.8e9..=0.91e9).contains(&(bytes as f64)), "{dtype}: {bytes}");
        }
        let wide = DecoderSpec { hidden_size: 1 << 20, ..spec() };
        assert_eq!(filled_batch_tokens(&wide, DType::F32), 2048, "at least one row of tiles");
    }

    #[test]
    fn weights_are_counted_plain_and_packed() {
        // Projections: query and output 24 x 8, keys and values 12 x 8 each, three of 12 x 8.
        let block = 2 * 24 * 8 + 2 * 12 * 8 + 3 * 12 * 8;
        assert_eq!(weight_bytes(&spec(), 2, DType::F32), (2 * block + 9 * 8) * 4);
        assert_eq!([0, 3, 5].map(|tokens| resident_embedding_bytes(&spec(), tokens, 2)), [0, 2 * 3 * 8 * 2, 9 * 8 * 2]);
        assert_eq!(packed_block_bytes(&spec(), 0, 2, |bytes| bytes), 5 * 32 * 32 * 2 + 2 * 8 * 4);
        assert_eq!(prefix_cache_bytes(&spec(), DType::Bf16, 3, 10), 3 * 10 * (24 + 8) * 2);
    }

    #[test]
    fn experts_are_counted_where_they_are() {
        // Block 0 has an MLP of width 12, block 1 five experts of width 6, of which a token has two.
        let text = r#"{"model_type": "qwen3_moe", "vocab_size": 9, "hidden_size": 8, "intermediate_size": 12, "num_experts": 5,
            "moe_intermediate_size": 6, "num_experts_per_tok": 2, "decoder_sparse_step": 2, "num_hidden_layers": 2,
            "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 6}"#;
        let spec = DecoderSpec::parse(text, "test").unwrap();
        let attention = 2 * 24 * 8 + 2 * 12 * 8;
        let (dense, all, active) = (3 * 12 * 8, 5 * 8 + 5 * 3 * 6 * 8, 5 * 8 + 2 * 3 * 6 * 8);
        assert_eq!([0, 1].map(|layer| spec.linear_weights(layer)), [attention + dense, attention + all]);
        assert_eq!([0, 1].map(|layer| spec.linear_flops(layer)), [2 * (attention + dense), 2 * (attention + active)]);
        assert_eq!(weight_bytes(&spec, 2, DType::Bf16), 2 * (2 * attention + dense + all + 9 * 8));
        let packed = [0, 1].map(|layer| packed_block_bytes(&spec, layer, 2, |bytes| bytes));
        assert_eq!(packed, [5, 3 + 1 + 2 * 5].map(|panels| panels * 32 * 32 * 2 + 2 * 8 * 4));
        let columns = WorkspaceColumns::of(&spec);
        assert_eq!((columns.gated, columns.experts), (12, Some(ExpertColumns { router: 5, slots: 16, gated: 6 })));
        // The logits, two slots of a token, and input, gate and output of one expert.
        assert_eq!(columns.feed_forward(), 5 + 16 + 8 + 6 + 8);
        let largest = LargestBatch { tokens: 1000, cached: 0, kept: 0, samples: 0 };
        let buffers: u64 = workspace_buffers(&spec, 2, &largest, 2, 2, true).iter().sum();
        assert!(buffers <= 1000 * token_bytes(&spec, DType::Bf16), "{buffers}");
        let everywhere = text.replace("\"decoder_sparse_step\": 2, ", "");
        assert_eq!(WorkspaceColumns::of(&DecoderSpec::parse(&everywhere, "test").unwrap()).gated, 0);
    }

    #[test]
    fn sizes_too_large_to_count_saturate() {
        assert_eq!(full_feature_bytes(u64::MAX, 2, 1, 1, 1), u64::MAX);
        assert_eq!(padded_batch_bytes(u64::MAX, 2, 2, 2), u64::MAX);
        assert_eq!(padded_batch_bytes(80, 16, 32, 2), 80 * 160 * 2);
    }
}
