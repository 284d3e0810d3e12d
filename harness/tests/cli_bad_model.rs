//! Models that are not there or are broken: one clear line on standard error and exit status 2.
#![allow(clippy::unwrap_used, clippy::panic)] // Helpers of tests may fail as tests do.

mod common_cli;
mod runner_support;

use common_cli::{ModelFolder, SMALL_RUN, refusal, refused_model, refused_model_with};
use half::bf16;
use insta::assert_snapshot;
use runner_support::{Sandbox, stderr};
use serde_json::json;

const Q_PROJ: &str = "model.layers.1.self_attn.q_proj.weight";

#[test]
fn the_model_that_the_others_break_runs() {
    let sandbox = Sandbox::new();
    let folder = ModelFolder::whole().write(&sandbox);
    let arguments = ["--repetitions", "1", "--sweep-layers", "2", "--quiet", "--model", folder.to_str().unwrap()];
    let output = sandbox.run(&arguments);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(sandbox.n_rows(), 4);
}

#[test]
fn a_model_that_is_not_there_is_named() {
    let sandbox = Sandbox::new();
    let refused = |model: &str| refusal(&sandbox, &["--model", model]);
    assert_snapshot!(refused("./absent"), @"");
    assert_snapshot!(refused(sandbox.path("absent/model").to_str().unwrap()), @"");
    assert_snapshot!(refused("absent.gguf"), @"");
    assert_snapshot!(refused("synthetic:absent"), @"");
    assert_snapshot!(refused(""), @"");
    assert_snapshot!(refused("some-owner/some-model"), @"");
    assert_snapshot!(refused(sandbox.path("temporary").to_str().unwrap()), @"");
}

#[test]
fn a_weight_file_that_is_not_whole_is_named() {
    let refused = |damage: fn(&mut Vec<u8>)| refused_model(&ModelFolder { damage, ..ModelFolder::whole() });
    // Cut in the data, in the header, and in the header's length.
    assert_snapshot!(refused(|file| file.truncate(file.len() - 100)), @"");
    assert_snapshot!(refused(|file| file.truncate(100)), @"");
    assert_snapshot!(refused(|file| file.truncate(5)), @"");
    assert_snapshot!(refused(Vec::clear), @"");
    // Flipped bytes of the header: its opening brace, and a byte that no text has.
    assert_snapshot!(refused(|file| file[8] ^= 0xff), @"");
    assert_snapshot!(refused(|file| file[40] = 0xff), @"");
    // A header that claims more bytes than there are.
    assert_snapshot!(refused(|file| file[..8].copy_from_slice(&(1u64 << 20).to_le_bytes())), @"");
    assert_snapshot!(refused(|file| file[..8].copy_from_slice(&u64::MAX.to_le_bytes())), @"");
}

#[test]
fn a_tensor_that_claims_more_than_the_file_holds_is_named() {
    let refused = refused_model(&ModelFolder {
        damage: |file| {
            // The header is followed by the data; a digit more in the last offset keeps the header's length.
            let length = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
            let header = String::from_utf8(file[8..8 + length].to_vec()).unwrap();
            let end = file.len() - 8 - length;
            let claimed = header.replacen(&format!(",{end}]"), &format!(",{}]", end + 16), 1);
            assert_eq!(claimed.len(), header.len());
            file[8..8 + length].copy_from_slice(claimed.as_bytes());
        },
        ..ModelFolder::whole()
    });
    assert_snapshot!(refused, @"");
}

#[test]
fn a_tensor_that_is_missing_or_of_another_shape_is_named() {
    let mut missing = ModelFolder::whole();
    missing.tensors.remove(Q_PROJ);
    assert_snapshot!(refused_model(&missing), @"");
    let mut other_shape = ModelFolder::whole();
    other_shape.tensors.insert(Q_PROJ.to_owned(), (vec![8, 16], vec![bf16::ONE; 8 * 16]));
    assert_snapshot!(refused_model(&other_shape), @"");
    let mut none = ModelFolder::whole();
    none.tensors.clear();
    assert_snapshot!(refused_model(&none), @"");
}

#[test]
fn a_tensor_past_the_deepest_layer_is_not_asked_for() {
    let sandbox = Sandbox::new();
    let mut model = ModelFolder::whole();
    model.tensors.remove(Q_PROJ);
    let folder = model.write(&sandbox);
    let shallow = ["--tasks", "train", "--layer", "0", "--samples", "10", "--repetitions", "1", "--warmup", "0"];
    let output = sandbox.output(&[&["run", "--model", folder.to_str().unwrap()], &shallow[..]].concat());
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
}

#[test]
fn weights_that_are_not_finite_are_named_though_a_child_finds_them() {
    let refused = |tensor: &str, value: bf16| {
        let mut model = ModelFolder::whole();
        model.tensors.get_mut(tensor).unwrap().1[7] = value;
        refused_model(&model)
    };
    assert_snapshot!(refused(Q_PROJ, bf16::NAN), @"");
    assert_snapshot!(refused("model.layers.0.mlp.up_proj.weight", bf16::INFINITY), @"");
    assert_snapshot!(refused("model.layers.1.post_attention_layernorm.weight", bf16::NEG_INFINITY), @"");
    let mut embedding = ModelFolder::whole();
    embedding.tensors.get_mut("model.embed_tokens.weight").unwrap().1.fill(bf16::NAN);
    assert_snapshot!(refused_model(&embedding), @"");
    let mut large = ModelFolder::whole();
    large.tensors.get_mut(Q_PROJ).unwrap().1[3] = bf16::from_f32(1e6);
    assert_snapshot!(refused_model_with(&large, &[&SMALL_RUN[..], &["--dtype", "fp16"]].concat()), @"");
}

#[test]
fn a_configuration_that_cannot_be_run_is_named() {
    let refused = |change: fn(&mut serde_json::Value)| {
        let mut model = ModelFolder::whole();
        change(&mut model.config);
        refused_model(&model)
    };
    assert_snapshot!(refused(|config| config["model_type"] = json!("mamba")), @"");
    assert_snapshot!(refused(|config| *config = json!({"architectures": ["GPT2LMHeadModel"]})), @"");
    assert_snapshot!(refused(|config| *config = json!("not an object")), @"");
    assert_snapshot!(refused(|config| config["hidden_size"] = json!("sixteen")), @"");
    assert_snapshot!(refused(|config| config["hidden_size"] = json!(0)), @"");
    assert_snapshot!(refused(|config| config["num_key_value_heads"] = json!(3)), @"");
    assert_snapshot!(refused(|config| { config.as_object_mut().unwrap().remove("vocab_size"); }), @"");
    assert_snapshot!(refused(|config| config["hidden_act"] = json!("relu")), @"");
}

#[test]
fn a_configuration_that_is_no_json_is_named() {
    let sandbox = Sandbox::new();
    let folder = ModelFolder::whole().write(&sandbox);
    let refused = |text: &[u8]| {
        std::fs::write(folder.join("config.json"), text).unwrap();
        refusal(&sandbox, &["--model", folder.to_str().unwrap()])
    };
    assert_snapshot!(refused(b"{\"model_type\": \"llama\","), @"");
    assert_snapshot!(refused(b""), @"");
    assert_snapshot!(refused(b"\xff\xfe"), @"");
}

#[test]
fn a_layer_too_deep_is_told_with_the_depth() {
    let model = ModelFolder::whole();
    assert_snapshot!(refused_model_with(&model, &["--tasks", "train", "--layer", "2"]), @"");
    assert_snapshot!(refused_model_with(&model, &["--tasks", "sweep", "--sweep-layers", "3"]), @"");
}

#[test]
fn a_tokenizer_that_is_missing_or_broken_is_named() {
    let refused = |tokenizer: Option<&str>| {
        refused_model(&ModelFolder { tokenizer: tokenizer.map(str::to_owned), ..ModelFolder::whole() })
    };
    assert_snapshot!(refused(None), @"");
    assert_snapshot!(refused(Some("{")), @"");
    assert_snapshot!(refused(Some("{\"model\": {\"type\": \"BPE\", \"vocab\": {}, \"merges\": [\"a b\"]}}")), @"");
}

#[test]
fn a_tokenizer_of_another_model_is_named() {
    let mut model = ModelFolder::whole();
    model.config["vocab_size"] = json!(300);
    model.tensors.insert("model.embed_tokens.weight".to_owned(), (vec![300, 16], vec![bf16::ONE; 300 * 16]));
    assert_snapshot!(refused_model(&model), @"");
}

#[test]
fn a_template_that_fails_is_named() {
    let refused = |source: &str| refused_model(&ModelFolder::with_template(source));
    assert_snapshot!(refused("{{ raise_exception('Roles must\nalternate') }}"), @"");
    assert_snapshot!(refused("{% for message in messages %}{{ message.content }"), @"");
    assert_snapshot!(refused("{{ messages[0].content | no_such_filter }}"), @"");
    assert_snapshot!(refused("{{ absent.attribute.of }}"), @"");
    assert_snapshot!(refused("{% for i in range(100000) %}{% for j in range(100000) %}x{% endfor %}{% endfor %}"), @"");
    assert_snapshot!(refused(""), @"");
    let mut none = ModelFolder::whole();
    none.tokenizer_config.as_object_mut().unwrap().remove("chat_template");
    assert_snapshot!(refused_model(&none), @"");
}
