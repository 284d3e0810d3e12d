//! One truth on a real forward pass: lazy, lazy through a file and eager give the same feature bytes, for any batch
//! size, number of threads and choice of optimiser rules.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::sync::Arc;

use actbench::acts::{Acts, Axis, Rule, Rules, digest};
use actbench::eager;
use actbench::model::config::ModelConfig;
use actbench::model::llama::{Llama, LoadOptions};
use actbench::model::weights::Weights;
use actbench::tokens::{TokenSequence, TokenSet};
use actbench_fixtures::presets::Preset;
use actbench_kernels::{CpuBackend, DType, PoolMethod};
use proptest::prelude::*;

const LAYERS: [usize; 2] = [2, 0];

fn tiny(dtype: DType, threads: usize) -> Arc<Llama<CpuBackend>> {
    let preset = Preset::find("tiny").unwrap();
    let config = ModelConfig::parse(&preset.config_json(), "tiny").unwrap();
    // All blocks, so that the rule `depth` can be switched off.
    let options = LoadOptions { dtype, n_blocks: config.n_layers, max_positions: 64 };
    let weights = Arc::new(Weights::synthetic(preset, 7));
    Arc::new(Llama::load(CpuBackend::new(threads).unwrap(), config, weights, &options, &mut |_, _| ()).unwrap())
}

fn arbitrary_tokens() -> impl Strategy<Value = TokenSet> {
    let stem = prop::collection::vec(0u32..4096, 0..16);
    let tails = prop::collection::vec(prop::collection::vec((0u32..3, any::<bool>()), 1..10), 1..10);
    (stem, tails).prop_map(|(stem, tails)| TokenSet {
        sequences: tails
            .into_iter()
            .map(|tail| TokenSequence {
                ids: stem.iter().copied().chain(tail.iter().map(|pair| pair.0)).collect(),
                mask: stem.iter().map(|id| id % 2 == 0).chain(tail.iter().map(|pair| pair.1)).collect(),
            })
            .collect(),
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn lazy_lazy_through_a_file_and_eager_give_the_same_bytes(
        tokens in arbitrary_tokens(), dtype in prop::sample::select(vec![DType::F32, DType::F16, DType::Bf16]),
        method in prop::sample::select(PoolMethod::ALL.to_vec()), batches in (1usize..9, 1usize..9), threads in 1usize..4,
        off in prop::sample::subsequence(Rule::ALL.to_vec(), 0..=Rule::ALL.len()),
    ) {
        let model = tiny(dtype, threads);
        let tokens = Arc::new(tokens);
        let rules = off.into_iter().fold(Rules::all(), Rules::without);
        let plan = Acts::collect(model.clone(), tokens.clone(), &LAYERS, batches.0).unwrap();
        let plan = plan.with_rules(rules).pool(method, Axis::Sequence).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let in_memory = plan.cache(None).unwrap();
        let on_disk = plan.cache(Some(&folder.path().join("pooled.safetensors"))).unwrap();
        let alone = tiny(dtype, 1);
        let full = eager::extract_full(alone.as_ref(), &tokens, &LAYERS, batches.1, None).unwrap().tensor;
        for layer in LAYERS {
            let expected = digest(&full.pool_layer(layer, method).unwrap());
            for copy in [&in_memory, &on_disk] {
                prop_assert_eq!(&digest(&copy.select_layer(layer).unwrap().realize().unwrap()), &expected);
            }
            let one = eager::extract_layer_pooled(alone.as_ref(), &tokens, layer, batches.1, method, None).unwrap();
            prop_assert_eq!(&digest(&one.tensor), &expected);
        }
        if rules == Rules::all() {
            let stats = plan.stats();
            prop_assert!(stats.tokens_computed <= stats.tokens_total);
        }
    }
}
