//! What a profile counts against what a plan counts, and `actbench profile` itself.
#![allow(clippy::unwrap_used)]

mod runner_support;

use std::sync::Arc;

use actbench::acts::{Acts, Axis, Rule, Rules};
use actbench::model::config::ModelConfig;
use actbench::model::llama::{Llama, LoadOptions};
use actbench::model::weights::Weights;
use actbench::tokens::{TokenSequence, TokenSet};
use actbench_fixtures::presets::Preset;
use actbench_kernels::{CpuBackend, DType, Profile, Profiled};
use runner_support::Sandbox;
use serde_json::Value;

#[test]
fn operations_do_the_work_that_the_plan_counts_and_change_no_bit() {
    let preset = Preset::find("tiny").unwrap();
    let config = ModelConfig::parse(&preset.config_json(), "tiny").unwrap();
    let options = LoadOptions { dtype: DType::Bf16, n_blocks: config.n_layers, max_positions: 64 };
    let weights = Arc::new(Weights::synthetic(preset, 3));
    let profile = Profile::default();
    let backend = Profiled::new(CpuBackend::new(2).unwrap(), profile.clone());
    let timed = Llama::load(backend, config.clone(), weights.clone(), &options, &mut |_, _| ()).unwrap();
    let plain = CpuBackend::new(2).unwrap();
    let plain = Llama::load(plain, config, weights, &options, &mut |_, _| ()).unwrap();
    let (timed, plain) = (Arc::new(timed), Arc::new(plain));
    let sequence = |sample: u32| TokenSequence {
        ids: (0..20 + sample).map(|position| if position < 12 { position } else { position * sample }).collect(),
        mask: (0..20 + sample).map(|position| position % 3 == 0).collect(),
    };
    let tokens = Arc::new(TokenSet { sequences: (0..9).map(sequence).collect() });
    for rules in [Rules::all(), Rules::none(), Rules::all().without(Rule::Prefix), Rules::all().without(Rule::Mask)] {
        let plan = Acts::collect(timed.clone(), tokens.clone(), &[1, 3], 4).unwrap().with_rules(rules);
        let plan = plan.mean_pool(Axis::Sequence).unwrap();
        profile.take();
        let features = plan.realize().unwrap();
        let entries = profile.take();
        let flops: u64 = entries.values().map(|entry| entry.work.flops).sum();
        assert_eq!(flops, plan.stats().flops, "{rules}");
        assert!(entries.values().all(|entry| !entry.durations.is_empty()));
        let other =
            Acts::collect(plain.clone(), tokens.clone(), &[1, 3], 4).unwrap().mean_pool(Axis::Sequence).unwrap();
        assert_eq!(features.bytes(), other.realize().unwrap().bytes());
    }
}

#[test]
fn the_command_tells_of_every_operation_of_every_case() {
    let sandbox = Sandbox::new();
    let arguments = ["profile", "--samples", "20", "--methods", "eager,lazy-disk", "--tasks", "sweep", "--json", "-q"];
    let output = assert_cmd::Command::from_std(sandbox.command(&arguments)).assert().code(0).get_output().clone();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(report["ceiling_flops_per_s"].as_f64().unwrap() > 0.0);
    let cases = report["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 2);
    for case in cases {
        let operations = case["operations"].as_array().unwrap();
        let share: f64 = operations.iter().map(|operation| operation["share"].as_f64().unwrap()).sum();
        assert!(share > 0.0 && share <= 1.0, "{share}");
        for name in ["embed", "rms norm", "linear", "linear + residual", "linear + swiglu", "rope", "attention"] {
            assert!(operations.iter().any(|operation| operation["op"] == name), "no {name}");
        }
        // Eager brings rows to the host and pools there.
        let pools = operations.iter().any(|operation| operation["op"] == "pool");
        assert_eq!(pools, case["method"] == "lazy-disk");
    }
    assert!(!sandbox.path("results.json").exists());
    assert_eq!(sandbox.leftovers(), [""; 0]);
}
