//! Models that are missing or broken: one line on standard error and exit status 2.

use crate::common_cli::{ModelDirectory, SMALL_RUN, lines, refusal, refused_model, refused_model_with, valid_rows};
use crate::runner_support::{Sandbox, stderr};
use half::bf16;
use insta::assert_snapshot;
use serde_json::json;

const Q_PROJ: &str = "model.layers.1.self_attn.q_proj.weight";

#[test]
fn undamaged_model_runs() {
    let sandbox = Sandbox::new();
    let directory = ModelDirectory::valid().write(&sandbox);
    let arguments = ["--repetitions", "1", "--quiet", "--model", directory.to_str().unwrap()];
    let output = sandbox.run(&arguments);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(sandbox.n_rows(), 4);
}

#[test]
fn missing_model_is_named() {
    let sandbox = Sandbox::new();
    let refused = |model: &str| refusal(&sandbox, &["--model", model]);
    assert_snapshot!(refused("./absent"), @"error: ./absent: no such model: give a directory, a .gguf file, a hub id like org/name, synthetic:<preset> or embedded");
    assert_snapshot!(refused(sandbox.path("absent/model").to_str().unwrap()), @"error: [DIR]/absent/model: no such model: give a directory, a .gguf file, a hub id like org/name, synthetic:<preset> or embedded");
    assert_snapshot!(refused("absent.gguf"), @"error: absent.gguf: no such model: give a directory, a .gguf file, a hub id like org/name, synthetic:<preset> or embedded");
    assert_snapshot!(refused("synthetic:absent"), @"error: unknown preset 'absent' for synthetic models; use one of tiny, gpt2, smollm2-135m, pythia-160m, gpt2-medium, smollm2-360m, qwen2.5-0.5b, qwen3-0.6b, gemma-3-1b, tinyllama-1.1b, llama-3.2-1b, pythia-1.4b, olmo-2-1b, qwen2.5-1.5b, smollm2-1.7b, qwen3-1.7b, gemma-2b, gemma-2-2b, smollm3-3b, llama-3.2-3b, phi-3-mini, phi-4-mini, gemma-3-4b, mistral-7b, qwen2.5-7b, llama-3.1-8b, qwen3-8b, gemma-2-9b, gemma-3-12b, qwen3-30b-a3b, mixtral-8x7b, llama-3.1-70b");
    assert_snapshot!(refused(""), @"error: --model: no such model: give a directory, a .gguf file, a hub id like org/name, synthetic:<preset> or embedded");
    assert_snapshot!(refused("some-owner/some-model"), @"error: some-owner/some-model: there is no local directory of that name, and the hub could not be reached ([REASON]): check the network");
    assert_snapshot!(refused(sandbox.path("temporary").to_str().unwrap()), @"error: [DIR]/temporary: has no config.json, so it is not a model directory");
}

#[test]
fn truncated_weight_file_is_named() {
    let refused = |damage: fn(&mut Vec<u8>)| refused_model(&ModelDirectory { damage, ..ModelDirectory::valid() });
    // Cut in the data, in the header, and in the header's length.
    assert_snapshot!(refused(|file| file.truncate(file.len() - 100)), @"error: [DIR]/model/model.safetensors: tensor 'model.layers.1.self_attn.v_proj.weight' lies at bytes 58240 to 58496 of 58428 bytes of data: the file is truncated or corrupt; download the model's weights again");
    assert_snapshot!(refused(|file| file.truncate(100)), @"error: [DIR]/model/model.safetensors: claims a header of 2000 bytes, but 92 bytes follow: not a safetensors file, or truncated; download the model's weights again");
    assert_snapshot!(refused(|file| file.truncate(5)), @"error: [DIR]/model/model.safetensors: is 5 bytes long, too short for a safetensors file; download the model's weights again");
    assert_snapshot!(refused(Vec::clear), @"error: [DIR]/model/model.safetensors: is 0 bytes long, too short for a safetensors file; download the model's weights again");
    // Flipped bytes of the header: its opening brace, and a byte that no text has.
    assert_snapshot!(refused(|file| file[8] ^= 0xff), @"error: [DIR]/model/model.safetensors: its safetensors header is not valid: expected value at line 1 column 1; download the model's weights again");
    assert_snapshot!(refused(|file| file[40] = 0xff), @"error: [DIR]/model/model.safetensors: its safetensors header is not valid: invalid unicode code point at line 1 column 33; download the model's weights again");
    // A header that claims more bytes than there are.
    assert_snapshot!(refused(|file| file[..8].copy_from_slice(&(1u64 << 20).to_le_bytes())), @"error: [DIR]/model/model.safetensors: claims a header of 1048576 bytes, but 60528 bytes follow: not a safetensors file, or truncated; download the model's weights again");
    assert_snapshot!(refused(|file| file[..8].copy_from_slice(&u64::MAX.to_le_bytes())), @"error: [DIR]/model/model.safetensors: claims a header of 18446744073709551615 bytes, but 60528 bytes follow: not a safetensors file, or truncated; download the model's weights again");
}

#[test]
fn tensor_past_end_of_file_is_named() {
    let refused = refused_model(&ModelDirectory {
        damage: |file| {
            // The header is followed by the data; a digit more in the last offset keeps the header's length.
            let length = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
            let header = String::from_utf8(file[8..8 + length].to_vec()).unwrap();
            let end = file.len() - 8 - length;
            let claimed = header.replacen(&format!(",{end}]"), &format!(",{}]", end + 16), 1);
            assert_eq!(claimed.len(), header.len());
            file[8..8 + length].copy_from_slice(claimed.as_bytes());
        },
        ..ModelDirectory::valid()
    });
    assert_snapshot!(refused, @"error: [DIR]/model/model.safetensors: tensor 'model.norm.weight' lies at bytes 58496 to 58544 of 58528 bytes of data: the file is truncated or corrupt; download the model's weights again");
}

#[test]
fn missing_or_misshapen_tensor_is_named() {
    let mut missing = ModelDirectory::valid();
    missing.tensors.remove(Q_PROJ);
    assert_snapshot!(refused_model(&missing), @"error: [DIR]/model: no tensor 'model.layers.1.self_attn.q_proj.weight'; the nearest of its 19 tensors is 'model.layers.0.self_attn.q_proj.weight'; config.json and the weights belong to different models or are incomplete: download both again");
    let mut other_shape = ModelDirectory::valid();
    other_shape.tensors.insert(Q_PROJ.to_owned(), (vec![8, 16], vec![bf16::ONE; 8 * 16]));
    assert_snapshot!(refused_model(&other_shape), @"error: [DIR]/model/model.safetensors: tensor 'model.layers.1.self_attn.q_proj.weight' has shape [8, 16], config.json asks for [16, 16]; config.json and the weights belong to different models or are incomplete: download both again");
    let mut none = ModelDirectory::valid();
    none.tensors.clear();
    assert_snapshot!(refused_model(&none), @"error: [DIR]/model: no tensor 'model.embed_tokens.weight'; it has no tensors; config.json and the weights belong to different models or are incomplete: download both again");
}

#[test]
fn tensor_past_deepest_layer_is_not_read() {
    let sandbox = Sandbox::new();
    let mut model = ModelDirectory::valid();
    model.tensors.remove(Q_PROJ);
    let directory = model.write(&sandbox);
    let shallow = ["--tasks", "train", "--layer", "0", "--samples", "10", "--repetitions", "1", "--warmup", "0"];
    let output = sandbox.output(&[&["run", "--model", directory.to_str().unwrap()], &shallow[..]].concat());
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
}

#[test]
fn nonfinite_weight_is_named() {
    let refused = |tensor: &str, value: bf16| {
        let mut model = ModelDirectory::valid();
        model.tensors.get_mut(tensor).unwrap().1[7] = value;
        refused_model(&model)
    };
    assert_snapshot!(refused(Q_PROJ, bf16::NAN), @"error: [DIR]/model/model.safetensors: tensor 'model.layers.1.self_attn.q_proj.weight': element 7 is NaN, but weights must be finite; download or convert the file again");
    assert_snapshot!(refused("model.layers.0.mlp.up_proj.weight", bf16::INFINITY), @"error: [DIR]/model/model.safetensors: tensor 'model.layers.0.mlp.up_proj.weight': element 7 is inf, but weights must be finite; download or convert the file again");
    assert_snapshot!(refused("model.layers.1.post_attention_layernorm.weight", bf16::NEG_INFINITY), @"error: [DIR]/model/model.safetensors: tensor 'model.layers.1.post_attention_layernorm.weight': element 7 is -inf, but weights must be finite; download or convert the file again");
    let mut embedding = ModelDirectory::valid();
    embedding.tensors.get_mut("model.embed_tokens.weight").unwrap().1.fill(bf16::NAN);
    assert_snapshot!(refused_model(&embedding), @"error: [DIR]/model/model.safetensors: tensor 'model.embed_tokens.weight': element 0 is NaN, but weights must be finite; download or convert the file again");
    let mut large = ModelDirectory::valid();
    large.tensors.get_mut(Q_PROJ).unwrap().1[3] = bf16::from_f32(1e6);
    assert_snapshot!(refused_model_with(&large, &[&SMALL_RUN[..], &["--dtype", "fp16"]].concat()), @"error: [DIR]/model/model.safetensors: tensor 'model.layers.1.self_attn.q_proj.weight': element 3 is 9.99424e5, too large for f16; pass --dtype bf16 or fp32");
}

#[test]
fn unsupported_configuration_is_named() {
    let refused = |change: fn(&mut serde_json::Value)| {
        let mut model = ModelDirectory::valid();
        change(&mut model.config);
        refused_model(&model)
    };
    assert_snapshot!(refused(|config| config["model_type"] = json!("mamba")), @"error: [DIR]/model/config.json: unknown architecture 'mamba' (layers without softmax attention): the supported values of 'model_type' are llama, mistral, mixtral, qwen2, qwen3, qwen3_moe, gemma, gemma2, gemma3, gemma3_text, phi3, olmo2, smollm3, gpt_neox, gpt2");
    assert_snapshot!(refused(|config| *config = json!({"architectures": ["BertModel"]})), @"error: [DIR]/model/config.json: unknown architecture 'BertModel': the supported values of 'model_type' are llama, mistral, mixtral, qwen2, qwen3, qwen3_moe, gemma, gemma2, gemma3, gemma3_text, phi3, olmo2, smollm3, gpt_neox, gpt2");
    assert_snapshot!(refused(|config| *config = json!("not an object")), @"error: [DIR]/model/config.json: unknown architecture none named: the supported values of 'model_type' are llama, mistral, mixtral, qwen2, qwen3, qwen3_moe, gemma, gemma2, gemma3, gemma3_text, phi3, olmo2, smollm3, gpt_neox, gpt2");
    assert_snapshot!(refused(|config| config["hidden_size"] = json!("sixteen")), @r#"error: [DIR]/model/config.json: hidden_size is "sixteen", expected a whole number"#);
    assert_snapshot!(refused(|config| config["hidden_size"] = json!(0)), @"error: [DIR]/model/config.json: hidden_size is 0, it must be between 1 and 16777216");
    assert_snapshot!(refused(|config| config["num_key_value_heads"] = json!(3)), @"error: [DIR]/model/config.json: 3 key/value heads do not divide 2 query heads");
    assert_snapshot!(refused(|config| { config.as_object_mut().unwrap().remove("vocab_size"); }), @"error: [DIR]/model/config.json: has no vocab_size; download the file again");
    assert_snapshot!(refused(|config| config["hidden_act"] = json!("relu")), @"error: [DIR]/model/config.json: hidden_act is 'relu', only 'silu' is supported");
}

#[test]
fn configuration_that_is_not_json_is_named() {
    let sandbox = Sandbox::new();
    let directory = ModelDirectory::valid().write(&sandbox);
    let refused = |text: &[u8]| {
        std::fs::write(directory.join("config.json"), text).unwrap();
        refusal(&sandbox, &["--model", directory.to_str().unwrap()])
    };
    assert_snapshot!(refused(b"{\"model_type\": \"llama\","), @"error: [DIR]/model/config.json: not valid JSON: EOF while parsing a value at line 1 column 23; download the file again");
    assert_snapshot!(refused(b""), @"error: [DIR]/model/config.json: not valid JSON: EOF while parsing a value at line 1 column 0; download the file again");
    assert_snapshot!(refused(b"\xff\xfe"), @"error: [DIR]/model/config.json: is not UTF-8; download the file again");
}

#[test]
fn layer_too_deep_names_model_depth() {
    let model = ModelDirectory::valid();
    assert_snapshot!(refused_model_with(&model, &["--tasks", "train", "--layer", "2"]), @"error: --layer 2 is too deep: the model has 2 layers; pass one of --layer 0 to 1");
    assert_snapshot!(refused_model_with(&model, &["--tasks", "sweep", "--sweep-layers", "3"]), @"error: --sweep-layers 3 is too deep: layer 2 is asked for and the model has 2 layers; pass --sweep-layers 2 or fewer");
}

/// A run prints the note about its device before it starts a case, and a plan that it measures.
#[test]
fn row_beyond_last_position_is_refused_first() {
    let sandbox = Sandbox::new();
    let gpt2 = json!({"model_type": "gpt2", "n_embd": 16, "n_head": 2, "n_layer": 2, "n_positions": 64});
    let model = ModelDirectory::of_config(gpt2).write(&sandbox);
    let mut rows = valid_rows();
    rows[2]["messages"][1]["content"] = json!("word ".repeat(100));
    std::fs::write(sandbox.path("rows.jsonl"), lines(&rows)).unwrap();
    let refused = |arguments: &[&str]| {
        let mut command = sandbox.command(arguments);
        let output = command.env("ACTBENCH_CUDA", "none").arg("--model").arg(&model).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", stderr(&output));
        stderr(&output).trim_end().to_owned()
    };
    let data = ["--samples", "20", "--dataset", "rows.jsonl"];
    for command in [&["run"][..], &["plan"], &["features", "--out", "out"], &["cache", "--out", "out"]] {
        let error = refused(&[command, &data].concat());
        let expected = "error: rows.jsonl:3: has 218 tokens, and this model takes at most 64, because it has no more \
                        positions; shorten the text";
        assert_eq!(error, expected, "{command:?}");
    }
    assert_snapshot!(refused(&["plan", "--seq-len", "65"]), @"error: --seq-len 65: a row has 65 tokens, and this model takes at most 64, because it has no more positions");
}

#[test]
fn missing_or_broken_tokenizer_is_named() {
    let refused = |tokenizer: Option<&str>| {
        refused_model(&ModelDirectory { tokenizer: tokenizer.map(str::to_owned), ..ModelDirectory::valid() })
    };
    assert_snapshot!(refused(None), @"error: [DIR]/model: has no tokenizer.json; provide a tokenizer in Hugging Face's fast format, as written by `save_pretrained` of a fast tokenizer");
    assert_snapshot!(refused(Some("{")), @"error: [DIR]/model: tokenizer.json is not a tokenizer (EOF while parsing an object at line 1 column 1); download the file again");
    assert_snapshot!(refused(Some("{\"model\": {\"type\": \"BPE\", \"vocab\": {}, \"merges\": []}}")), @"error: [DIR]/model: tokenizer.json has no `added_tokens`; download the file again");
    assert_snapshot!(refused(Some("{\"added_tokens\": [], \"model\": {\"type\": \"BPE\", \"vocab\": {}, \"merges\": [\"a b\"]}}")), @"error: [DIR]/model: tokenizer.json is not a tokenizer (Token `a` out of vocabulary at line 1 column 78); download the file again");
}

#[test]
fn tokenizer_of_another_model_is_named() {
    let mut model = ModelDirectory::valid();
    model.config["vocab_size"] = json!(300);
    model.tensors.insert("model.embed_tokens.weight".to_owned(), (vec![300, 16], vec![bf16::ONE; 300 * 16]));
    assert_snapshot!(refused_model(&model), @"error: [DIR]/model: tokenizer.json gives token 1328, but config.json has a vocabulary of 300: they belong to different models; use the model's own tokenizer");
}

#[test]
fn failing_template_is_named() {
    let refused = |source: &str| refused_model(&ModelDirectory::with_template(source));
    assert_snapshot!(refused("{{ raise_exception('Roles must\nalternate') }}"), @"error: [DIR]/model/tokenizer_config.json: dialogue 9: the chat template rejects the dialogue: Roles must alternate; change that row of the data set, or the chat template");
    assert_snapshot!(refused("{% for message in messages %}{{ message.content }"), @"error: [DIR]/model/tokenizer_config.json: the chat template fails: syntax error: unexpected '}' (line 1 of the template); fix the file or download it again");
    assert_snapshot!(refused("{{ messages[0].content | no_such_filter }}"), @"error: [DIR]/model/tokenizer_config.json: the chat template fails: syntax error: no filter named 'no_such_filter' (line 1 of the template); fix the file or download it again");
    assert_snapshot!(refused("{{ absent.attribute.of }}"), @"error: [DIR]/model/tokenizer_config.json: dialogue 9: the chat template fails: 'absent' is undefined (line 1 of the template); change that row of the data set, or the chat template");
    assert_snapshot!(refused("{% for i in range(100000) %}{% for j in range(100000) %}x{% endfor %}{% endfor %}"), @"error: [DIR]/model/tokenizer_config.json: dialogue 9: the chat template fails: it exceeds the work limit for one dialogue (line 1 of the template); change that row of the data set, or the chat template");
    assert_snapshot!(refused(""), @"error: [DIR]/model/tokenizer_config.json: dialogue 9: the chat template does not show where assistant messages are: it does not write message 2 exactly once; change that row of the data set, or the chat template");
    let mut none = ModelDirectory::valid();
    none.tokenizer_config.as_object_mut().unwrap().remove("chat_template");
    assert_snapshot!(refused_model(&none), @"error: [DIR]/model: has no chat template, neither in chat_template.jinja nor in tokenizer_config.json; use an instruction-tuned model or add its template");
}
