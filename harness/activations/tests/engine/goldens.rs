//! Every layer of every golden model against transformers in float64.

use std::fs;
use std::sync::Arc;

use crate::golden_support::{batch, load};
use actbench_activations::model::decoder::{Decoder, LoadOptions};
use actbench_activations::model::spec::DecoderSpec;
use actbench_activations::model::weights::Weights;
use actbench_activations::model::{LayerOutput, run_batch};
use actbench_fixtures::golden::{Golden, cases, compare};
use actbench_kernels::cpu::Isa;
use actbench_kernels::{CpuBackend, DType};

/// The largest error over the layers and sequences of a golden.
pub fn check(golden: &Golden, dtype: DType, isa: Isa, tolerance: f64) -> f64 {
    let n_layers = golden.n_layers;
    let model = load(golden, dtype, CpuBackend::with_isa(2, isa).unwrap());
    let layers: Vec<usize> = (0..n_layers).collect();
    let (mut worst, mut seen) = (0.0f64, 0);
    let mut sink = |layer: usize, bytes: &[u8]| {
        let values = dtype.to_f32_vec(bytes);
        let mut rest = &values[..];
        for (index, sequence) in golden.sequences.iter().enumerate() {
            let (own, others) = rest.split_at(sequence.tokens.len() * golden.hidden_size);
            rest = others;
            match compare(golden.layer(sequence, layer).unwrap(), own, tolerance) {
                Ok(error) => worst = worst.max(error),
                Err(error) => panic!("{} {dtype} {isa}, layer {layer}, sequence {index}: {error}", golden.name),
            }
        }
        assert!(rest.is_empty());
        seen += 1;
        Ok(())
    };
    run_batch(&model, &batch(golden), &layers, LayerOutput::Tokens, &mut sink).unwrap();
    assert_eq!(seen, n_layers);
    worst
}

#[test]
fn f32_error_is_below_1e_4_on_every_isa() {
    for name in cases().unwrap() {
        let golden = Golden::load(&name).unwrap();
        for isa in Isa::ALL {
            check(&golden, DType::F32, isa, 1e-4);
        }
    }
}

#[test]
fn half_precision_error_is_small_on_every_isa() {
    for name in cases().unwrap() {
        let golden = Golden::load(&name).unwrap();
        for dtype in [DType::Bf16, DType::F16] {
            for isa in Isa::ALL {
                check(&golden, dtype, isa, 2e-2);
            }
        }
    }
}

#[test]
fn wrong_rotary_base_is_detected() {
    let golden = Golden::load("gqa4-bf16-llama3-rope").unwrap();
    let text = fs::read_to_string(golden.directory.join("config.json")).unwrap();
    let config = DecoderSpec::parse(&text.replace("500000.0", "10000.0"), "changed").unwrap();
    let weights = Arc::new(Weights::open(&golden.directory, &config).unwrap());
    let options = LoadOptions { dtype: DType::F32, n_blocks: 1, max_positions: 256 };
    let model = Decoder::load(CpuBackend::new(1).unwrap(), config, weights, &options, &mut |_, _| ()).unwrap();
    let mut differs = false;
    let mut sink = |_: usize, bytes: &[u8]| {
        let values = DType::F32.to_f32_vec(bytes);
        let last = golden.sequences.last().unwrap();
        let expected = golden.layer(last, 0).unwrap();
        differs = compare(expected, &values[values.len() - expected.len()..], 1e-3).is_err();
        Ok(())
    };
    run_batch(&model, &batch(&golden), &[0], LayerOutput::Tokens, &mut sink).unwrap();
    assert!(differs, "the goldens do not depend on positions");
}
