//! Every family of models: hidden states and rotary tables against transformers, and the same features in every mode.

use std::fs;
use std::sync::Arc;

use actbench_activations::eager;
use actbench_activations::model::decoder::{Decoder, LoadOptions};
use actbench_activations::model::spec::DecoderSpec;
use actbench_activations::model::weights::Weights;
use actbench_activations::plan::{Acts, Axis, Rules};
use actbench_activations::tokens::{TokenSequence, TokenSet};
use actbench_fixtures::family_golden::{FAMILY_GOLDENS, FamilyCase, rope_goldens};
use actbench_fixtures::golden::Golden;
use actbench_kernels::cpu::Isa;
use actbench_kernels::{CpuBackend, DType, PoolMethod};

use crate::golden_support::load;
use crate::goldens::check;

/// All cases that are computed.
fn computed() -> impl Iterator<Item = (FamilyCase, Golden)> {
    FAMILY_GOLDENS.into_iter().filter(FamilyCase::has_shareable_prefixes).map(|case| (case, case.load().unwrap()))
}

#[test]
fn f32_error_of_families_is_below_1e_4_on_every_isa() {
    for (_, golden) in computed() {
        for isa in Isa::ALL {
            check(&golden, DType::F32, isa, 1e-4);
        }
    }
}

#[test]
fn half_precision_error_of_families_is_small_on_every_isa() {
    for (_, golden) in computed() {
        for dtype in [DType::Bf16, DType::F16] {
            for isa in Isa::ALL {
                check(&golden, dtype, isa, 2e-2);
            }
        }
    }
}

/// The rows of a golden; about every second position is pooled.
fn tokens(golden: &Golden) -> TokenSet {
    let sequence = |tokens: &Vec<u32>| TokenSequence {
        ids: tokens.clone(),
        mask: (0..tokens.len()).map(|position| position % 3 != 1 || position + 1 == tokens.len()).collect(),
    };
    TokenSet { sequences: golden.sequences.iter().map(|sequence_of| sequence(&sequence_of.tokens)).collect() }
}

#[test]
fn eager_lazy_and_cached_features_of_families_are_equal() {
    for (_, golden) in computed() {
        let tokens = Arc::new(tokens(&golden));
        let layers: Vec<usize> = (0..golden.n_layers).collect();
        for dtype in [DType::F32, DType::Bf16] {
            let model = Arc::new(load(&golden, dtype, CpuBackend::new(2).unwrap()));
            let full = eager::extract_full(model.as_ref(), &tokens, &layers, 3, None).unwrap().tensor;
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("pooled.safetensors");
            for (rules, file) in [(Rules::all(), None), (Rules::none(), None), (Rules::all(), Some(path.as_path()))] {
                let plan = Acts::collect(model.clone(), tokens.clone(), &layers, 2).unwrap().with_rules(rules);
                let pooled = plan.pool(PoolMethod::Mean, Axis::Sequence).unwrap().cache(file).unwrap();
                for layer in &layers {
                    let lazy = pooled.select_layer(*layer).unwrap().realize().unwrap();
                    let eager = full.pool_layer(*layer, PoolMethod::Mean).unwrap();
                    let what = format!("{} {dtype} layer {layer}, file: {}", golden.name, file.is_some());
                    assert!(lazy.bytes() == eager.bytes(), "{what}");
                }
            }
        }
    }
}

#[test]
fn row_whose_length_decides_the_rotation_is_refused() {
    let case = FAMILY_GOLDENS.into_iter().find(|case| !case.has_shareable_prefixes()).unwrap();
    let golden = case.load().unwrap();
    let text = fs::read_to_string(golden.directory.join("config.json")).unwrap();
    let spec = DecoderSpec::parse(&text, &golden.name).unwrap();
    let (longest, _) = spec.longest_row().unwrap();
    let weights = Arc::new(Weights::open(&golden.directory, &spec).unwrap());
    let load = |max_positions: usize| {
        let options = LoadOptions { dtype: DType::F32, n_blocks: 1, max_positions };
        Decoder::load(CpuBackend::new(1).unwrap(), spec.clone(), weights.clone(), &options, &mut |_, _| ())
    };
    load(longest).unwrap();
    let error = load(longest + 1).err().unwrap().to_string();
    assert!(error.contains(&format!("takes at most {longest}")), "{error}");
}

#[test]
fn rotary_tables_are_those_of_transformers() {
    let mut compared = 0;
    for golden in rope_goldens().unwrap() {
        let text = serde_json::to_string(&golden.config).unwrap();
        let parsed = DecoderSpec::parse(&text, "rope.json");
        let Ok(spec) = parsed else { continue };
        assert!(golden.error.is_none(), "{text}: transformers fails with {:?}", golden.error);
        if spec.longest_row().is_some_and(|(longest, _)| golden.length > longest) {
            continue;
        }
        for table in &golden.tables {
            // The table of the first layer of the kind, or the only one.
            let slides = table.layer_type.as_deref() == Some("sliding_attention");
            let layer = match table.layer_type {
                Some(_) => spec.layers.iter().find(|layer| layer.window.is_some() == slides).unwrap(),
                None => &spec.layers[0],
            };
            let rope = &spec.ropes[layer.rope.unwrap_or_default()];
            let frequencies = rope.frequencies();
            assert_eq!(frequencies.len(), table.inv_freq.len(), "{text}");
            for (ours, theirs) in frequencies.iter().zip(&table.inv_freq) {
                // transformers computes in f32.
                let error = (f64::from(*ours) - theirs).abs() / theirs.abs().max(1e-30);
                assert!(error <= 2e-6, "{text}: {ours} and {theirs}");
            }
            let factor = f64::from(rope.attention_factor());
            assert!((factor - table.attention_scaling).abs() <= 1e-6 * table.attention_scaling, "{text}: {factor}");
            compared += 1;
        }
    }
    assert!(compared >= 40, "{compared} tables were compared");
}
