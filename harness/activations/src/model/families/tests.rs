//! Spellings of a Llama's `config.json`, its errors and its warnings. `published` and `refused` have the other families.

mod published;
mod refused;

use super::super::rope_spec::RopeScaling;
use super::super::spec::LayerSpec;
use super::*;

const BASE: &str = r#""model_type": "llama", "vocab_size": 100, "hidden_size": 48, "intermediate_size": 96,
    "num_hidden_layers": 3, "num_attention_heads": 6, "rms_norm_eps": 1e-5"#;

fn parse(more: &str) -> Result<DecoderSpec> {
    let comma = if more.is_empty() { "" } else { "," };
    DecoderSpec::parse(&format!("{{{BASE}{comma}{more}}}"), "config.json")
}

fn parse_error(more: &str) -> String {
    parse(more).unwrap_err().to_string()
}

#[test]
fn missing_entries_default_as_in_transformers() {
    let config = parse("").unwrap();
    assert_eq!((config.n_kv_heads, config.head_dim, config.ropes[0].theta), (6, 8, 10_000.0));
    assert_eq!(config.ropes[0].scaling, RopeScaling::Default);
    assert!(!config.attention.qkv_bias && !config.attention.output_bias && !config.mlp.bias);
    assert_eq!((config.family, config.layers.len(), config.tie_word_embeddings), ("llama", 3, false));
    assert!(config.layers.iter().all(|layer| *layer == LayerSpec { window: None, rope: Some(0), experts: false }));
}

#[test]
fn rope_scaling_spellings_are_equivalent() {
    let inner = r#""factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64"#;
    let old = parse(&format!(
        r#""rope_theta": 500000.0, "rope_scaling": {{"type": "llama3", "rope_type": "llama3", {inner}}}"#
    ))
    .unwrap();
    let new =
        parse(&format!(r#""rope_parameters": {{"rope_theta": 500000.0, "rope_type": "llama3", {inner}}}"#)).unwrap();
    assert_eq!(old, new);
    assert_eq!(old.ropes[0].theta, 500_000.0);
    assert!(matches!(old.ropes[0].scaling, RopeScaling::Llama3 { factor, .. } if factor == 8.0));
    let linear = parse(r#""rope_scaling": {"type": "linear", "factor": 2.0}"#).unwrap();
    assert_eq!(linear.ropes[0].frequencies()[0], 0.5);
}

#[test]
fn impossible_configuration_is_refused_with_reason() {
    assert!(parse_error(r#""model_type": "mamba""#).contains("unknown architecture 'mamba'"));
    assert!(parse_error(r#""num_key_value_heads": 4"#).contains("do not divide"));
    assert!(parse_error(r#""num_hidden_layers": 0"#).contains("num_hidden_layers is 0"));
    assert!(parse_error(r#""head_dim": 7"#).contains("head_dim is 7"));
    assert!(parse_error(r#""hidden_act": "gelu""#).contains("gelu"));
    assert!(parse_error(r#""rope_scaling": {"rope_type": "ntk", "factor": 2.0}"#).contains("'ntk' is unknown"));
    assert!(parse_error(r#""rope_scaling": {"rope_type": "linear"}"#).contains("no factor"));
    assert!(parse_error(r#""vocab_size": 99999999999"#).contains("vocab_size"));
    let broken = DecoderSpec::parse("{", "x/config.json").unwrap_err().to_string();
    assert!(broken.starts_with("x/config.json: not valid JSON"), "{broken}");
    let missing = DecoderSpec::parse(r#"{"model_type": "llama"}"#, "c").unwrap_err().to_string();
    assert!(missing.contains("has no num_attention_heads"), "{missing}");
}

/// The warnings of a configuration with the keys `more`.
fn warnings(more: &str) -> Vec<String> {
    read(&format!("{{{BASE},{more}}}"), "config.json").unwrap().1
}

/// The records of transformers 5.24 in `scripts/make_rope_goldens.py`: its frequencies, or that it fails.
#[test]
fn rope_spellings_agree_with_transformers() {
    /// Refusals of settings that transformers computes: fractions of a head that it ignores, and entries that it does not read.
    const REFUSED_HERE: [&str; 2] = ["partial_rotary_factor", "entries by layer type"];
    let (mut equal, mut refused) = (0, 0);
    for line in include_str!("../../../tests/data/rope_goldens.jsonl").lines() {
        let golden: Value = serde_json::from_str(line).unwrap();
        let mut config = serde_json::json!({"model_type": "llama", "vocab_size": 32, "hidden_size": 16,
            "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2});
        config.as_object_mut().unwrap().extend(golden["config"].as_object().unwrap().clone());
        let parsed = DecoderSpec::parse(&config.to_string(), "config.json");
        let Some(frequencies) = golden["frequencies"].as_array() else {
            assert!(parsed.is_err(), "transformers fails: {line}");
            refused += 1;
            continue;
        };
        match parsed {
            Ok(config) => {
                let found = config.ropes[0].frequencies();
                assert_eq!(found.len(), frequencies.len(), "{line}");
                for (found, expected) in found.iter().zip(frequencies) {
                    let expected = expected.as_f64().unwrap();
                    let error = (f64::from(*found) - expected).abs();
                    assert!(error <= 2e-6 * expected, "{found} for {expected}: {line}");
                }
                equal += 1;
            }
            Err(error) => {
                let message = error.to_string();
                assert!(REFUSED_HERE.iter().any(|reason| message.contains(reason)), "{message}: {line}");
            }
        }
    }
    assert!(equal > 100 && refused > 50, "{equal} equal, {refused} refused");
}

#[test]
fn unused_rope_keys_are_warnings() {
    insta::assert_snapshot!(warnings(r#""rope_theta": 10000.0, "rope_parameters": {"rope_type": "default", "rope_theta": 500000}"#).join("|"), @"the outer rope_theta 10000.0 is not used, because rope_parameters has 500000");
    insta::assert_snapshot!(warnings(r#""rope_parameters": {"rope_type": "default"}, "rope_scaling": {"type": "linear", "factor": 2}"#).join("|"), @"rope_parameters is not used, because rope_scaling is given too");
    insta::assert_snapshot!(warnings(r#""rope_scaling": {"factor": 8.0}"#).join("|"), @"rope_scaling has the type 'default', because it names no type, which does not use its 'factor'");
    insta::assert_snapshot!(warnings(r#""rope_parameters": {"full_attention": {"rope_type": "linear", "factor": 2.0}}"#).join("|"), @"the entries of rope_parameters by layer type ('full_attention') are not used: a Llama has one rope for all layers");
    insta::assert_snapshot!(warnings(r#""rope_scaling": {"rope_type": "default", "type": "mrope"}"#).join("|"), @"the type 'mrope' of rope_scaling is not used, because its rope_type is 'default'");
    insta::assert_snapshot!(warnings(r#""qkv_bias": true"#).join("|"), @"a Llama ignores qkv_bias true (biases of projections): check that the model is a Llama");
    let silent = r#""rope_theta": 500000.0, "rope_scaling": {"type": "llama3", "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
        "high_freq_factor": 4.0, "original_max_position_embeddings": 64}, "rope_parameters": null, "pretraining_tp": 1"#;
    assert_eq!(warnings(silent), [""; 0]);
}

#[test]
fn presets_have_no_warnings() {
    for preset in actbench_fixtures::presets::PRESETS {
        assert_eq!(read(&preset.config_json(), preset.name).unwrap().1, [""; 0], "{}", preset.name);
    }
}

#[test]
fn numbers_that_json_lacks_matter_only_where_they_are_used() {
    assert_eq!(
        parse(r#""initializer_range": NaN, "x": [Infinity, -Infinity], "y": 1e999"#).unwrap(),
        parse("").unwrap()
    );
    let refused = |more: &str| parse_error(more);
    insta::assert_snapshot!(refused(r#""rms_norm_eps": NaN"#), @"config.json: rms_norm_eps is NaN, it must be between 0 and 1");
    insta::assert_snapshot!(refused(r#""rope_theta": Infinity"#), @"config.json: rope_theta is inf, it must be positive");
    insta::assert_snapshot!(refused(r#""rope_theta": {"__float__": "-Infinity"}"#), @"config.json: rope_theta is -inf, it must be positive");
    insta::assert_snapshot!(refused(r#""hidden_size": NaN"#), @"config.json: hidden_size is NaN, expected a whole number");
    insta::assert_snapshot!(refused(r#""rope_scaling": {"type": "linear", "factor": NaN}"#), @"config.json: factor of rope_scaling is NaN, it must be positive");
}

#[test]
fn impossible_entries_are_refused_by_name() {
    let refused = |more: &str| parse_error(more);
    insta::assert_snapshot!(refused(r#""max_position_embeddings": 0"#), @"config.json: max_position_embeddings is 0, it must be between 1 and 1099511627776");
    insta::assert_snapshot!(refused(r#""max_position_embeddings": -4"#), @"config.json: max_position_embeddings is -4, expected a whole number");
    insta::assert_snapshot!(refused(r#""max_position_embeddings": null"#), @"config.json: max_position_embeddings is null, expected a whole number");
    insta::assert_snapshot!(refused(r#""max_position_embeddings": 99999999999999"#), @"config.json: max_position_embeddings is 99999999999999, it must be between 1 and 1099511627776");
    insta::assert_snapshot!(refused(r#""attention_bias": null"#), @"config.json: attention_bias is null, expected true or false");
    insta::assert_snapshot!(refused(r#""rope_scaling": {"rope_type": null, "type": "linear", "factor": 2.0}"#), @"config.json: rope_scaling has the rope_type null, expected the name of a type");
    insta::assert_snapshot!(refused(r#""rope_scaling": "linear""#), @r#"config.json: rope_scaling is "linear", expected an object"#);
    insta::assert_snapshot!(refused(r#""is_causal": false"#), @"config.json: is_causal is false: attention in both directions is not supported");
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 17\n";
    let error = DecoderSpec::parse(pointer, "m/config.json").unwrap_err().to_string();
    assert!(error.starts_with("m/config.json: is a Git LFS pointer"), "{error}");
}
