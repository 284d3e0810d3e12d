//! The work that a profile counts compared with the work that a plan counts, and `actbench profile` itself.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::runner_support::Sandbox;
use actbench_activations::model::decoder::{Decoder, LoadOptions};
use actbench_activations::model::spec::DecoderSpec;
use actbench_activations::model::weights::Weights;
use actbench_activations::plan::{Acts, Axis, Rule, Rules};
use actbench_activations::tokens::{TokenSequence, TokenSet};
use actbench_fixtures::presets::Preset;
use actbench_kernels::{CpuBackend, DType, Profile, ProfiledBackend};
use serde_json::Value;

#[test]
fn profiled_work_equals_planned_work() {
    let preset = Preset::find("tiny").unwrap();
    let config = DecoderSpec::parse(&preset.config_json(), "tiny").unwrap();
    let options = LoadOptions { dtype: DType::Bf16, n_blocks: config.n_layers, max_positions: 64 };
    let weights = Arc::new(Weights::synthetic(preset, &config, 3));
    let profile = Profile::default();
    let backend = ProfiledBackend::new(CpuBackend::new(2).unwrap(), profile.clone());
    let timed = Decoder::load(backend, config.clone(), weights.clone(), &options, &mut |_, _| ()).unwrap();
    let plain = CpuBackend::new(2).unwrap();
    let plain = Decoder::load(plain, config, weights, &options, &mut |_, _| ()).unwrap();
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
        let entries = profile.take().operations();
        let flops: u64 = entries.values().map(|entry| entry.work.flops).sum();
        assert_eq!(flops, plan.stats().flops, "{rules}");
        assert!(entries.values().all(|entry| !entry.durations.is_empty()));
        let other =
            Acts::collect(plain.clone(), tokens.clone(), &[1, 3], 4).unwrap().mean_pool(Axis::Sequence).unwrap();
        assert_eq!(features.bytes(), other.realize().unwrap().bytes());
    }
}

#[test]
fn command_reports_every_operation() {
    let sandbox = Sandbox::new();
    let arguments = ["profile", "--samples", "20", "--methods", "eager,lazy-disk", "--tasks", "sweep", "--json", "-q"];
    let output = assert_cmd::Command::from_std(sandbox.command(&arguments)).assert().code(0).get_output().clone();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(report["ceiling_flops_per_s"].as_f64().unwrap() > 0.0);
    assert_eq!((&report["ceilings_sustained"], &report["ceiling_s"]), (&Value::from(false), &Value::from(0.3)));
    let phases = |of: &Value| -> Vec<String> { of["phases"].as_object().unwrap().keys().cloned().collect() };
    assert_eq!(phases(&report), ["start_s", "prepare_s"]);
    let cases = report["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 2);
    for case in cases {
        assert_eq!(phases(case), ["weights_s", "extract_s", "release_s", "probes_s"]);
        let operations = case["operations"].as_array().unwrap();
        let share: f64 = operations.iter().map(|operation| operation["share"].as_f64().unwrap()).sum();
        assert!(share > 0.0 && share <= 1.0, "{share}");
        for name in ["embed", "rms norm", "linear qkv + rope", "linear + residual", "linear + swiglu", "attention"] {
            assert!(operations.iter().any(|operation| operation["op"] == name), "no {name}");
        }
        // Eager downloads the activations and pools on the host.
        let pools = operations.iter().any(|operation| operation["op"] == "pool");
        assert_eq!(pools, case["method"] == "lazy-disk");
    }
    assert!(!sandbox.path("results.json").exists());
    assert_eq!(sandbox.leftovers(), [""; 0]);
}

/// The events of one track: `(start, end)` in nanoseconds, in the order of the file.
type Track = Vec<(u64, u64)>;

/// Every event lies within the event that is open when it starts; starts never decrease.
#[track_caller]
fn assert_nested(track: &Track) {
    let mut open: Vec<u64> = Vec::new();
    let mut last = 0;
    for (start, end) in track {
        assert!(*start >= last, "an event that starts at {start} follows one that starts at {last}");
        last = *start;
        while open.last().is_some_and(|outer| outer <= start) {
            open.pop();
        }
        assert!(
            open.last().is_none_or(|outer| end <= outer),
            "{start} to {end} crosses the end of the event around it"
        );
        open.push(*end);
    }
}

#[test]
fn trace_events_are_nested() {
    let sandbox = Sandbox::new();
    let arguments =
        ["profile", "--samples", "20", "--methods", "eager,lazy", "--tasks", "train", "-q", "--trace", "t.json"];
    assert_cmd::Command::from_std(sandbox.command(&arguments)).assert().code(0);
    let trace: Value = serde_json::from_slice(&std::fs::read(sandbox.path("t.json")).unwrap()).unwrap();
    let events = trace["traceEvents"].as_array().unwrap();
    let mut tracks: BTreeMap<(u64, u64), Track> = BTreeMap::new();
    let mut seen: BTreeMap<(u64, String), usize> = BTreeMap::new();
    let mut named = 0;
    for event in events {
        let process = event["pid"].as_u64().unwrap();
        if event["ph"] == "M" {
            named += 1;
            continue;
        }
        assert_eq!(event["ph"], "X", "{event}");
        let nanoseconds = |name: &str| (event[name].as_f64().unwrap() * 1e3).round() as u64;
        let (start, end) = (nanoseconds("ts"), nanoseconds("ts") + nanoseconds("dur"));
        tracks.entry((process, event["tid"].as_u64().unwrap())).or_default().push((start, end));
        *seen.entry((process, event["cat"].as_str().unwrap().to_owned())).or_default() += 1;
        if event["cat"] == "phase" {
            *seen.entry((process, event["name"].as_str().unwrap().to_owned())).or_default() += 1;
        }
        assert!(event["cat"] != "operation" || event["args"]["bytes"].is_u64(), "{event}");
    }
    assert!(named >= 4, "processes and threads have names");
    for process in [1, 2] {
        for phase in ["loading", "extracting", "training"] {
            assert_eq!(seen.get(&(process, phase.to_owned())), Some(&1), "{phase}");
        }
        let count = |category: &str| seen.get(&(process, category.to_owned())).copied().unwrap_or_default();
        assert!(count("batch") >= 2 && count("operation") > 10 * count("batch"), "{seen:?}");
    }
    tracks.values().for_each(assert_nested);
    // The check can fail: these tracks are not nested or not sorted.
    assert!(std::panic::catch_unwind(|| assert_nested(&vec![(0, 10), (5, 12)])).is_err());
    assert!(std::panic::catch_unwind(|| assert_nested(&vec![(5, 6), (0, 1)])).is_err());
}

#[test]
fn unwritable_trace_is_refused_before_work() {
    let sandbox = Sandbox::new();
    let arguments = ["profile", "--samples", "20", "-q", "--trace", "/nowhere/t.json"];
    let output = assert_cmd::Command::from_std(sandbox.command(&arguments)).assert().code(2).get_output().clone();
    assert!(String::from_utf8_lossy(&output.stderr).contains("/nowhere/t.json"));
}

#[test]
fn disturbed_machine_is_warned_about() {
    let sandbox = Sandbox::new();
    let warning = "warning: the machine disturbs measurements: ";
    let outputs = |more: &[&str]| {
        let arguments = [&["profile", "--samples", "20", "--methods", "lazy", "--tasks", "train"], more].concat();
        let output = assert_cmd::Command::from_std(sandbox.command(&arguments)).assert().code(0).get_output().clone();
        [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap())
    };
    let ([_, printed], [json, quiet]) = (outputs(&[]), outputs(&["--quiet", "--json"]));
    // The build of the tests is itself a disturbance, on every machine.
    let line =
        printed.lines().find(|line| line.starts_with(warning)).unwrap_or_else(|| panic!("no warning: {printed}"));
    assert_eq!(line.contains("debug build"), cfg!(debug_assertions), "{line}");
    assert!(printed.find(warning) < printed.find("measuring the peak rates"), "{printed}");
    assert!(!quiet.contains(warning), "{quiet}");
    // `--quiet` silences the line and not the report.
    let report: Value = serde_json::from_str(&json).unwrap();
    let kinds: Vec<&str> =
        report["warnings"].as_array().unwrap().iter().map(|it| it["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds.contains(&"debug_build"), cfg!(debug_assertions), "{kinds:?}");
    assert!(report["warnings"].as_array().unwrap().iter().all(|it| it["what"].is_string()), "{json}");
}
