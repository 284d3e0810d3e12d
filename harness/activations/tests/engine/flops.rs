//! The operations that are counted for a batch, compared with a count of every matrix product in it.

use actbench_activations::model::spec::DecoderSpec;
use actbench_activations::plan::batches::{Batches, Batching};
use actbench_activations::plan::prefix::SharedPrefixes;
use actbench_activations::tokens::{TokenSequence, TokenSet};

fn config() -> DecoderSpec {
    let text = r#"{"model_type": "llama", "vocab_size": 9, "hidden_size": 8, "intermediate_size": 12,
        "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 6}"#;
    DecoderSpec::parse(text, "test").unwrap()
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

/// Counts one matrix product after another, token by token: `(position, whether the last block needs its query)`.
fn brute_force(tokens: &[(u64, bool)], n_blocks: usize) -> u64 {
    let (hidden, inner, query, kv) = (8, 12, 24, 12);
    let mut flops = 0;
    for block in 0..n_blocks {
        for (position, masked) in tokens {
            for outputs in [kv, kv] {
                flops += 2 * hidden * outputs;
            }
            if block + 1 == n_blocks && !masked {
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

/// `(position, masked)` of the tokens that `keep(sample, position)` selects.
fn selected(keep: impl Fn(usize, usize) -> bool) -> Vec<(u64, bool)> {
    let mut selected = Vec::new();
    for (sample, sequence) in tokens().sequences.iter().enumerate() {
        let kept = sequence.mask.iter().enumerate().filter(|(position, _)| keep(sample, *position));
        selected.extend(kept.map(|(position, masked)| (position as u64, *masked)));
    }
    selected
}

fn all_masked(tokens: &[(u64, bool)]) -> Vec<(u64, bool)> {
    tokens.iter().map(|token| (token.0, true)).collect()
}

#[test]
fn experts_of_token_alone_are_counted() {
    // Block 0 has an MLP of width 12, block 1 five experts of width 6, of which a token has two.
    let text = r#"{"model_type": "qwen3_moe", "vocab_size": 9, "hidden_size": 8, "intermediate_size": 12, "num_experts": 5,
        "moe_intermediate_size": 6, "num_experts_per_tok": 2, "decoder_sparse_step": 2, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 6}"#;
    let spec = DecoderSpec::parse(text, "test").unwrap();
    let samples = [0, 1, 2];
    let batching = Batching { max_samples: 2, max_tokens: 4, padded: false, masked_only: true };
    let of = |spec: &DecoderSpec, n_blocks| -> u64 {
        let alone = SharedPrefixes::none(&samples);
        Batches::new(&tokens(), &alone, batching).map(|scheduled| spec.flops(&scheduled.batch, n_blocks)).sum()
    };
    // Without experts the spec is that of the other test.
    assert_eq!(of(&spec, 1), of(&config(), 1));
    // All nine tokens come to the last block, and the four masked ones leave it.
    let masked = selected(|_, _| true).iter().filter(|token| token.1).count() as u64;
    let (dense, experts) = (2 * 3 * 8 * 12, 2 * (5 * 8 + 2 * 3 * 8 * 6));
    assert_eq!(of(&spec, 2) + masked * dense, of(&config(), 2) + masked * experts);
}

#[test]
fn counted_flops_match_brute_force() {
    let samples = [0, 1, 2];
    let packed = |masked_only| Batching { max_samples: 2, max_tokens: 4, padded: false, masked_only };
    let (alone, shared) = (SharedPrefixes::none(&samples), SharedPrefixes::of(&tokens(), &samples));
    for n_blocks in 0..=3 {
        let all = selected(|_, _| true);
        assert_eq!(counted(&alone, packed(true), n_blocks), brute_force(&all, n_blocks));
        assert_eq!(counted(&alone, packed(false), n_blocks), brute_force(&all_masked(&all), n_blocks));

        // The shared tokens 1, 2 are computed once; the second of them is masked in one of the two samples.
        let mut once = selected(|sample, position| sample != 0 || position == 2);
        assert_eq!(once.len(), 7);
        once.sort_unstable();
        assert_eq!(counted(&shared, packed(true), n_blocks), brute_force(&once, n_blocks));
        assert_eq!(counted(&shared, packed(false), n_blocks), brute_force(&all_masked(&once), n_blocks));

        // Padded in pairs: 5 + 5 tokens, then 1.
        let padded: Vec<(u64, bool)> = (0..5).chain(0..5).chain(0..1).map(|position| (position, true)).collect();
        let batching = Batching { max_samples: 2, max_tokens: usize::MAX, padded: true, masked_only: false };
        assert_eq!(counted(&alone, batching, n_blocks), brute_force(&padded, n_blocks));
    }
}
