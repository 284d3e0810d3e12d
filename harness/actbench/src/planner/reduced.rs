//! The reduced shape and batch on which rates are measured: the kernels and the data type of the job, and less work.
//!
//! A block of an 8B model takes seconds to generate and its batches take seconds each. Most of its time is in GEMMs whose weights
//! exceed a core's own caches, and their rate hardly depends on the size as long as they do.

use actbench_activations::model::spec::{AttentionSpec, DecoderSpec, ExpertsSpec, MlpSpec};

/// Measured blocks: in a core's own caches each replaces the weights of the other, as in the complete model.
pub const BLOCKS: usize = 2;
/// Maximum number of weights in the MLP of a measured block: 64 MiB in bf16, more than a core's own caches hold.
const MAX_MLP_WEIGHTS: usize = 32 << 20;
/// The MLP's width stays a multiple of this, which divides evenly among threads, panels and tiles of the GEMM kernels.
const WIDTH_STEP: usize = 256;
/// Rows of a multiple of so many bf16 are read through a copy, because their lines would share few sets of the cache. A narrower
/// MLP keeps that property of the model's.
const CONFLICTING_WIDTH: usize = 4096;
/// Aimed-at number of floating-point operations of a measured batch: a fraction of a second on a processor core.
const BATCH_FLOPS: f64 = 2e11;
/// Minimum number of tokens of a measured batch, if the job's batches have as many: GEMM is slower with few rows.
const MIN_TOKENS: usize = 512;

/// The model that is measured: `model` with [`BLOCKS`] blocks, a small vocabulary and an MLP that is at most as wide.
pub fn model(model: &DecoderSpec, vocab_size: usize) -> DecoderSpec {
    // Gate, up and down projections.
    let widest = MAX_MLP_WEIGHTS / (3 * model.hidden_size.max(1));
    DecoderSpec {
        vocab_size,
        n_layers: BLOCKS,
        intermediate_size: width(model.intermediate_size, widest),
        attention: AttentionSpec { qkv_bias: false, output_bias: false, ..model.attention },
        mlp: MlpSpec { bias: false, ..model.mlp },
        experts: model.experts.map(|experts| reduced_experts(experts, widest)),
        layers: model.layers.iter().copied().cycle().take(BLOCKS).collect(),
        ..model.clone()
    }
}

/// Fewer experts, at least those of a token, which are narrower if they are still too many weights. Each has more rows than in
/// the model, so that the rate is an upper bound.
fn reduced_experts(experts: ExpertsSpec, widest: usize) -> ExpertsSpec {
    let top_k = experts.rule.top_k;
    let n = (widest / experts.intermediate_size.max(1)).clamp(top_k, experts.n);
    ExpertsSpec { n, intermediate_size: width(experts.intermediate_size, widest / n), ..experts }
}

/// A width of at most about `widest` for the MLP of width `own`.
fn width(own: usize, widest: usize) -> usize {
    if own <= widest {
        return own;
    }
    if own.is_multiple_of(CONFLICTING_WIDTH) && widest >= CONFLICTING_WIDTH {
        return widest / CONFLICTING_WIDTH * CONFLICTING_WIDTH;
    }
    let width = (widest / WIDTH_STEP * WIDTH_STEP).max(WIDTH_STEP);
    if width.is_multiple_of(CONFLICTING_WIDTH) { width - WIDTH_STEP } else { width }
}

/// The number of sequences in a measured batch. `batch_size` and `longest` are those of the job, and `weights` is the number of
/// weights in the measured blocks.
pub fn batch_size(batch_size: usize, longest: usize, weights: usize) -> usize {
    // A multiplication and an addition per weight and token.
    let tokens = (BATCH_FLOPS / (2 * weights.max(1)) as f64) as usize;
    tokens.max(MIN_TOKENS).div_ceil(longest.max(1)).min(batch_size).max(1)
}

#[cfg(test)]
mod tests {
    use actbench_kernels::RouteRule;

    use super::*;

    fn shape(hidden: usize, intermediate: usize) -> DecoderSpec {
        let text = format!(
            r#"{{"model_type": "llama", "vocab_size": 900, "hidden_size": {hidden}, "intermediate_size": {intermediate},
            "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2}}"#
        );
        DecoderSpec::parse(&text, "test").unwrap()
    }

    #[test]
    fn only_a_wide_mlp_is_reduced() {
        let small = model(&shape(576, 1536), 256);
        assert_eq!((small.intermediate_size, small.n_layers, small.vocab_size), (1536, BLOCKS, 256));
        let large = model(&shape(4096, 14336), 256);
        assert_eq!((large.hidden_size, large.intermediate_size), (4096, 2560));
        assert!(3 * large.hidden_size * large.intermediate_size <= MAX_MLP_WEIGHTS);
        assert_eq!(model(&shape(65_536, 200_000), 256).intermediate_size, WIDTH_STEP);
    }

    #[test]
    fn many_or_wide_experts_are_reduced() {
        let rule = |top_k| RouteRule { top_k, renormalize: true, rounded: false };
        let experts = |n, top_k, intermediate_size| ExpertsSpec { n, intermediate_size, rule: rule(top_k) };
        assert_eq!(reduced_experts(experts(5, 2, 64), 5461), experts(5, 2, 64));
        // Those of Qwen3-30B-A3B and of Mixtral 8x7B.
        assert_eq!(reduced_experts(experts(128, 8, 768), 5461), experts(8, 8, 512));
        assert_eq!(reduced_experts(experts(8, 2, 14_336), 2730), experts(2, 2, 1280));
    }

    #[test]
    fn narrower_mlp_has_the_kind_of_stride_of_the_model() {
        // Those of Llama-3.2-1B and of Llama-3.1-8B, and one whose limit is a multiple.
        assert_eq!(width(8192, 5461), 4096);
        assert_eq!(width(14_336, 2730), 2560);
        assert_eq!(width(9000, 4100), 3840);
        assert_eq!(width(8192, 4000), 3840);
        assert_eq!((width(1536, 5461), width(300, 100)), (1536, WIDTH_STEP));
    }

    #[test]
    fn batch_has_at_most_the_jobs_sequences() {
        assert_eq!(batch_size(32, 256, 7_080_000), 32);
        assert_eq!(batch_size(32, 256, 146_800_000), 3);
        assert_eq!(batch_size(32, 256, 2_000_000_000), 2);
        assert_eq!(batch_size(4, 100_000, 146_800_000), 1);
        assert_eq!(batch_size(1, 8, 1), 1);
    }
}
