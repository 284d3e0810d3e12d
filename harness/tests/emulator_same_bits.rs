//! On the emulated CUDA kernels too, a sample's features have the same bits however its rows are batched and shared.
#![cfg(feature = "emulator")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used)]

use std::sync::Arc;

use actbench::acts::batches::{Batches, Batching};
use actbench::acts::prefix::SharedPrefixes;
use actbench::model::config::ModelConfig;
use actbench::model::llama::{Llama, LoadOptions};
use actbench::model::weights::Weights;
use actbench::model::{ActivationModel, LayerOutput};
use actbench::tokens::{TokenSequence, TokenSet};
use actbench_fixtures::presets::Preset;
use actbench_kernels::cuda::KernelSet;
use actbench_kernels::cuda::emulator::{CopyTime, EmulatedBackend, EmulatorOptions, ThreadOrder};
use actbench_kernels::{DType, PoolMethod};

fn tiny(dtype: DType, kernels: KernelSet, order: ThreadOrder) -> Llama<EmulatedBackend> {
    let preset = Preset::find("tiny").unwrap();
    let config = ModelConfig::parse(&preset.config_json(), "tiny").unwrap();
    let weights = Arc::new(Weights::synthetic(preset, 7));
    let options = LoadOptions { dtype, n_blocks: 2, max_positions: 96 };
    let emulator = EmulatorOptions { order, copies: CopyTime::Mixed, seed: 3 };
    Llama::load(EmulatedBackend::emulated(emulator, kernels), config, weights, &options, &mut |_, _| ()).unwrap()
}

/// Pooled rows of both layers, `[sample][layer]`.
fn features(
    model: &dyn ActivationModel,
    tokens: &TokenSet,
    prefixes: &SharedPrefixes,
    batching: Batching,
) -> Vec<[Vec<u8>; 2]> {
    let mut features = vec![<[Vec<u8>; 2]>::default(); tokens.len()];
    for scheduled in Batches::new(tokens, prefixes, batching) {
        let output = LayerOutput::Pooled {
            groups: &scheduled.masked,
            deepest_groups: scheduled.masked_deepest.as_ref(),
            method: PoolMethod::Mean,
        };
        let mut sink = |layer: usize, bytes: &[u8]| {
            let row_bytes = bytes.len() / scheduled.samples.len();
            for (row, sample) in bytes.chunks_exact(row_bytes).zip(&scheduled.samples) {
                features[*sample][layer] = row.to_vec();
            }
            Ok(())
        };
        model.run(&scheduled.batch, &[0, 1], output, &mut sink).unwrap();
    }
    features
}

/// Sequences of a common stem; the longest crosses the 64 keys that the fast attention takes at once.
fn tokens() -> TokenSet {
    let stem: Vec<u32> = (0..59).map(|index| index * 7 % 64).collect();
    let tails: [&[u32]; 5] = [&[1, 2, 3], &[1, 2, 4, 5, 6, 7, 8, 9], &[1, 2, 4, 5], &[9], &[9, 9, 1, 1, 2, 3, 5]];
    let sequence = |(index, tail): (usize, &&[u32])| {
        let ids: Vec<u32> = stem.iter().skip(20 * (index / 4)).chain(*tail).copied().collect();
        let mask = (0..ids.len()).map(|position| position % 3 == 0 || position + 2 >= ids.len()).collect();
        TokenSequence { ids, mask }
    };
    TokenSet { sequences: tails.iter().enumerate().map(sequence).collect() }
}

#[test]
fn sharing_packing_and_restricting_change_no_bit() {
    let tokens = tokens();
    let all: Vec<usize> = (0..tokens.len()).collect();
    let reversed: Vec<usize> = all.iter().rev().copied().collect();
    let one = Batching { max_samples: 1, max_rows: 1, padded: false, masked_only: false };
    for kernels in [KernelSet::Plain, KernelSet::Mma, KernelSet::Fast] {
        for dtype in [DType::F32, DType::F16, DType::Bf16] {
            let expected =
                features(&tiny(dtype, kernels, ThreadOrder::Forward), &tokens, &SharedPrefixes::none(&all), one);
            let model = tiny(dtype, kernels, ThreadOrder::Random);
            for (prefixes, masked_only) in
                [(SharedPrefixes::none(&reversed), true), (SharedPrefixes::of(&tokens, &all), false)]
            {
                let batching = Batching { max_samples: 3, max_rows: 200, padded: false, masked_only };
                let got = features(&model, &tokens, &prefixes, batching);
                assert!(got == expected, "{kernels:?} {dtype} {batching:?}");
            }
        }
    }
}
