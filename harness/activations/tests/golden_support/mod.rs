//! Helpers for tests on golden models.

use std::fs;
use std::sync::Arc;

use actbench_activations::model::TokenBatch;
use actbench_activations::model::decoder::{Decoder, LoadOptions};
use actbench_activations::model::spec::DecoderSpec;
use actbench_activations::model::weights::Weights;
use actbench_fixtures::golden::Golden;
use actbench_kernels::{Backend, DType};

/// All blocks of a golden model on `backend`.
pub fn load<B: Backend>(golden: &Golden, dtype: DType, backend: B) -> Decoder<B> {
    let text = fs::read_to_string(golden.directory.join("config.json")).unwrap();
    let spec = DecoderSpec::parse(&text, &golden.name).unwrap();
    assert_eq!(spec.n_layers, golden.n_layers);
    let weights = Arc::new(Weights::open(&golden.directory, &spec).unwrap());
    let longest = golden.sequences.iter().map(|sequence| sequence.tokens.len()).max().unwrap();
    let options = LoadOptions { dtype, n_blocks: golden.n_layers, max_positions: longest };
    Decoder::load(backend, spec, weights, &options, &mut |_, _| ()).unwrap()
}

/// All sequences of a golden as one ragged batch.
pub fn batch(golden: &Golden) -> TokenBatch {
    TokenBatch::of_sequences(golden.sequences.iter().map(|sequence| &sequence.tokens[..]))
}
