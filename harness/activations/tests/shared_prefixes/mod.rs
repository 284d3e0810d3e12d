//! Sequences of common stems and a small model over any backend: what the ways to a sample's features are compared on.

#![allow(dead_code)] // Each test file is a crate of its own and uses a part of this.
#![allow(clippy::unwrap_used)] // Helpers of tests may fail as tests do.

use std::sync::Arc;

use actbench_activations::model::decoder::{Decoder, LoadOptions};
use actbench_activations::model::spec::DecoderSpec;
use actbench_activations::model::weights::Weights;
use actbench_activations::model::{ActivationModel, LayerVectors, ModelStep, StepOutput, run_steps};
use actbench_activations::plan::batches::{Batches, Batching};
use actbench_activations::plan::needed_tokens::NeededTokens;
use actbench_activations::plan::prefix::SharedPrefixes;
use actbench_activations::tokens::{TokenSequence, TokenSet};
use actbench_fixtures::presets::Preset;
use actbench_kernels::{Backend, DType, PoolMethod};

/// The first blocks of the smallest preset.
pub fn tiny_over<B: Backend>(backend: B, dtype: DType, n_blocks: usize) -> Decoder<B> {
    let preset = Preset::find("tiny").unwrap();
    let config = DecoderSpec::parse(&preset.config_json(), "tiny").unwrap();
    let weights = Arc::new(Weights::synthetic(preset, &config, 7));
    let options = LoadOptions { dtype, n_blocks, max_positions: 96 };
    Decoder::load(backend, config, weights, &options, &mut |_, _| ()).unwrap()
}

/// Features of `layers`, pooled by `method`, `[sample][layer]`.
pub fn features<'a>(
    model: &dyn ActivationModel,
    layers: &[usize],
    tokens: impl Into<NeededTokens<'a>>,
    prefixes: &SharedPrefixes,
    batching: Batching,
    method: PoolMethod,
) -> Vec<Vec<Vec<u8>>> {
    let mut features = vec![vec![Vec::new(); layers.len()]; prefixes.visits().len()];
    let mut batches = Batches::new(tokens, prefixes, batching);
    let mut samples = Vec::new();
    let mut next = |_: usize| {
        let scheduled = batches.next()?;
        samples.push(scheduled.samples);
        let (groups, last_layer_groups) = (scheduled.masked, scheduled.masked_last_layer);
        let output = StepOutput::Pooled { groups, last_layer_groups, method };
        Some(ModelStep { id: samples.len() as u64 - 1, batch: scheduled.batch, output })
    };
    let mut outputs = Vec::new();
    let mut sink = |mut vectors: LayerVectors<'_>| {
        outputs.push((vectors.step as usize, vectors.layer, vectors.bytes.wait()?.to_vec()));
        Ok(())
    };
    run_steps(model.session(layers).unwrap().as_mut(), &mut next, &mut sink).unwrap();
    for (step, layer, bytes) in outputs {
        let position = layers.iter().position(|known| *known == layer).unwrap();
        let vector_bytes = bytes.len() / samples[step].len();
        for (vector, sample) in bytes.chunks_exact(vector_bytes).zip(&samples[step]) {
            features[*sample][position] = vector.to_vec();
        }
    }
    features
}

/// Sequences of a common stem; the longest crosses the 64 keys of one step of the fast attention kernels.
pub fn tokens() -> TokenSet {
    let stem: Vec<u32> = (0..59).map(|index| index * 7 % 64).collect();
    let tails: [&[u32]; 5] = [&[1, 2, 3], &[1, 2, 4, 5, 6, 7, 8, 9], &[1, 2, 4, 5], &[9], &[9, 9, 1, 1, 2, 3, 5]];
    let sequence = |(index, tail): (usize, &&[u32])| {
        let ids: Vec<u32> = stem.iter().skip(20 * (index / 4)).chain(*tail).copied().collect();
        let mask = (0..ids.len()).map(|position| position % 3 == 0 || position + 2 >= ids.len()).collect();
        TokenSequence { ids, mask }
    };
    TokenSet { sequences: tails.iter().enumerate().map(sequence).collect() }
}
