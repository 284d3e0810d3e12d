//! Whole imports of tiny models: what is written, what is refused, and that nothing is left behind.

use std::path::{Path, PathBuf};

use actbench_kernels::DType;
use proptest::prelude::*;
use tempfile::TempDir;
use tokenizers::Tokenizer;

use super::gguf::test_writer::{GgufWriter, floats, integers, strings, tiny_llama};
use super::gguf::{TensorType, Value};
use super::*;
use crate::model::weights::Weights;

fn import_into(gguf: &GgufWriter, dir: &Path) -> Result<PathBuf> {
    let out = dir.join("out");
    import_gguf(&gguf.write(dir, "model.gguf"), &out, false, &mut |_, _| {}).map(|_| out)
}

/// The error of importing a model, its path replaced by `FILE`; nothing may be left of the attempt.
fn refusal(change: impl FnOnce(&mut GgufWriter) -> &mut GgufWriter) -> String {
    let dir = TempDir::new().unwrap();
    let mut gguf = tiny_llama();
    change(&mut gguf);
    let error = import_into(&gguf, dir.path()).unwrap_err();
    assert_eq!(error.exit_code(), 2, "{error}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "only the GGUF file is left");
    error.to_string().replace(&dir.path().join("model.gguf").display().to_string(), "FILE")
}

fn text(text: &str) -> Value {
    Value::String(text.to_owned())
}

/// Ids of `text` in the tokenizer of a model, special tokens found in the text and none added.
fn ids(tokenizer: &Tokenizer, text: &str) -> Vec<u32> {
    tokenizer.encode(text, false).unwrap().get_ids().to_vec()
}

fn tokenizer_of(change: impl FnOnce(&mut GgufWriter) -> &mut GgufWriter) -> Tokenizer {
    let dir = TempDir::new().unwrap();
    let mut gguf = tiny_llama();
    change(&mut gguf);
    let out = import_into(&gguf, dir.path()).unwrap();
    Tokenizer::from_file(out.join("tokenizer.json")).unwrap()
}

#[test]
fn a_model_becomes_a_folder_with_its_rows_in_order() {
    let dir = TempDir::new().unwrap();
    let file = tiny_llama().write(dir.path(), "model.gguf");
    let out = dir.path().join("out");
    let mut steps = Vec::new();
    let summary = import_gguf(&file, &out, false, &mut |done, total| steps.push((done, total))).unwrap();
    assert_eq!(summary.name.as_deref(), Some("A tiny Llama"));
    assert_eq!((summary.n_tensors, steps.len()), (11, 12));
    assert_eq!(summary.n_parameters, 7 * 8 + 8 * 8 * 2 + 2 * 4 * 8 + 3 * 3 * 8 + 3 * 8);
    insta::assert_snapshot!(std::fs::read_to_string(out.join("config.json")).unwrap(), @r#"
{
  "architectures": [
    "LlamaForCausalLM"
  ],
  "model_type": "llama",
  "vocab_size": 7,
  "hidden_size": 8,
  "intermediate_size": 3,
  "num_hidden_layers": 1,
  "num_attention_heads": 2,
  "num_key_value_heads": 1,
  "head_dim": 4,
  "hidden_act": "silu",
  "max_position_embeddings": 64,
  "rms_norm_eps": 0.00001,
  "rope_theta": 10000.0,
  "rope_scaling": null,
  "tie_word_embeddings": true,
  "attention_bias": false,
  "mlp_bias": false,
  "bos_token_id": 1,
  "eos_token_id": 0,
  "pad_token_id": null,
  "torch_dtype": "bfloat16"
}
"#);
    insta::assert_snapshot!(std::fs::read_to_string(out.join("tokenizer_config.json")).unwrap(), @r#"
{
  "tokenizer_class": "PreTrainedTokenizerFast",
  "model_max_length": 64,
  "clean_up_tokenization_spaces": false,
  "add_bos_token": false,
  "add_eos_token": false,
  "bos_token": "<|im|>",
  "eos_token": "<|end|>",
  "unk_token": null,
  "pad_token": null,
  "chat_template": "{{ messages }}"
}
"#);
    let weights = Weights::open(&out).unwrap();
    let first_column = |name: &str, shape: &[usize]| -> Vec<f32> {
        let tensor = weights.tensor(name, shape).unwrap();
        assert_eq!(tensor.dtype(), DType::Bf16);
        tensor.to_f32_vec().into_iter().step_by(shape[1]).collect()
    };
    assert_eq!(first_column("model.layers.0.self_attn.q_proj.weight", &[8, 8]), [0., 2., 1., 3., 4., 6., 5., 7.]);
    assert_eq!(first_column("model.layers.0.self_attn.k_proj.weight", &[4, 8]), [0., 2., 1., 3.]);
    assert_eq!(first_column("model.layers.0.self_attn.v_proj.weight", &[4, 8]), [0., 1., 2., 3.]);
    assert_eq!(first_column("model.layers.0.mlp.down_proj.weight", &[8, 3]), [0., 1., 2., 3., 4., 5., 6., 7.]);

    let error = import_gguf(&file, &out, false, &mut |_, _| {}).unwrap_err();
    assert!(error.to_string().ends_with("use --force to replace the model in it"), "{error}");
    import_gguf(&file, &out, true, &mut |_, _| {}).unwrap();
    assert_eq!(std::fs::read_dir(&out).unwrap().count(), 4);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2, "the GGUF file and the model");
}

#[test]
fn biases_and_a_head_of_its_own_are_taken_along() {
    let dir = TempDir::new().unwrap();
    let mut gguf = tiny_llama();
    gguf.tensor("output.weight", &[7, 8], &[0.5; 56]);
    for (name, width) in [("attn_q", 8), ("attn_k", 4), ("attn_v", 4), ("attn_output", 8)] {
        let values: Vec<f32> = (0..width).map(|i| i as f32).collect();
        gguf.tensor(&format!("blk.0.{name}.bias"), &[width], &values);
    }
    let out = import_into(&gguf, dir.path()).unwrap();
    let config: serde_json::Value = serde_json::from_slice(&std::fs::read(out.join("config.json")).unwrap()).unwrap();
    assert_eq!(config["attention_bias"], true);
    assert_eq!(config["tie_word_embeddings"], false);
    let weights = Weights::open(&out).unwrap();
    let bias = weights.tensor("model.layers.0.self_attn.q_proj.bias", &[8]).unwrap();
    assert_eq!(bias.to_f32_vec(), [0., 2., 1., 3., 4., 6., 5., 7.]);
    assert!(weights.contains("lm_head.weight"));
}

#[test]
fn models_that_are_not_llamas_of_the_known_form_are_refused() {
    let set = |key: &'static str, value: Value| refusal(move |gguf| gguf.set(key, value));
    insta::assert_snapshot!(set("general.architecture", text("mamba")), @"FILE: is a model of architecture 'mamba'; only 'llama' can be imported");
    insta::assert_snapshot!(set("llama.expert_count", Value::Unsigned(8)), @"FILE: is a mixture of experts, which cannot be imported");
    insta::assert_snapshot!(set("llama.attention.head_count", Value::Unsigned(0)), @"FILE: has 0 query heads, which 1 key/value heads cannot share");
    insta::assert_snapshot!(set("llama.attention.head_count", integers(&[2])), @"FILE: metadata 'llama.attention.head_count' is an array, expected an integer from 0 to 2^32");
    insta::assert_snapshot!(set("llama.rope.dimension_count", Value::Unsigned(2)), @"FILE: rotates 2 of 4 elements of a head; only all, and evenly many, can be");
    insta::assert_snapshot!(set("llama.rope.scaling.type", text("yarn")), @"FILE: stretches its positions by 'yarn', which cannot be imported");
    insta::assert_snapshot!(set("llama.block_count", Value::Unsigned(4_000_000_000)), @"FILE: claims 4000000000 blocks and has 11 tensors");
    insta::assert_snapshot!(set("llama.block_count", Value::Unsigned(2)), @"FILE: has no tensor for 'model.layers.1.input_layernorm.weight'");
    insta::assert_snapshot!(set("llama.feed_forward_length", Value::Unsigned(4)), @"FILE: tensor 'blk.0.ffn_gate.weight' has shape [3, 8], its metadata asks for [4, 8]");
    insta::assert_snapshot!(set("tokenizer.ggml.bos_token_id", Value::Unsigned(7)), @"FILE: metadata 'tokenizer.ggml.bos_token_id' is 7, the vocabulary has 7 tokens");
    insta::assert_snapshot!(refusal(|gguf| gguf.unset("llama.embedding_length")), @"FILE: has no metadata 'llama.embedding_length'");
    insta::assert_snapshot!(refusal(|gguf| gguf.tensor("rope_freqs.weight", &[2], &[3.0, 1.0])), @"FILE: its tensor 'rope_freqs.weight' is not of the form of Llama 3.1, the only one known");
    insta::assert_snapshot!(refusal(|gguf| gguf.tensor("blk.0.ffn_gate_inp.weight", &[1], &[1.0])), @"FILE: has a tensor 'blk.0.ffn_gate_inp.weight', which no Llama model has");
    insta::assert_snapshot!(refusal(|gguf| gguf.tensor("output_norm.weight", &[8], &[f32::NAN; 8])), @"FILE: tensor 'output_norm.weight' has weights that are not finite in bfloat16: the file is damaged");
    insta::assert_snapshot!(refusal(|gguf| gguf.tensor("output_norm.weight", &[8], &[3.4e38; 8])), @"FILE: tensor 'output_norm.weight' has weights that are not finite in bfloat16: the file is damaged");
}

#[test]
fn quantised_biases_are_refused_rather_than_cut_up() {
    let error = refusal(|gguf| {
        gguf.tensors.push(("blk.0.attn_q.bias".to_owned(), vec![32], TensorType::Q8_0, vec![0; 34]));
        gguf
    });
    insta::assert_snapshot!(error, @"FILE: tensor 'blk.0.attn_q.bias' is a bias stored as Q8_0");
}

#[test]
fn tokenizers_that_are_not_known_or_contradict_themselves_are_refused() {
    let set = |key: &'static str, value: Value| refusal(move |gguf| gguf.set(key, value));
    insta::assert_snapshot!(set("tokenizer.ggml.model", text("bert")), @"FILE: has a tokenizer of kind 'bert'; known are 'gpt2' (byte-level) and 'llama'");
    insta::assert_snapshot!(set("tokenizer.ggml.pre", text("tekken")), @"FILE: cuts text before tokenizing by the unknown rules 'tekken'; known are: default gpt-2 gpt2 smollm llama-bpe llama3 llama-v3 qwen2");
    insta::assert_snapshot!(set("tokenizer.ggml.merges", strings(&["ab"])), @r#"FILE: merge 0 is "ab", expected a pair"#);
    insta::assert_snapshot!(set("tokenizer.ggml.merges", strings(&["a x"])), @"FILE: has a tokenizer that does not work: Token `x` out of vocabulary at line 1 column 866");
    insta::assert_snapshot!(set("tokenizer.ggml.tokens", strings(&["a", "b", "a"])), @r#"FILE: has the token "a" twice, as 0 and as 2"#);
    insta::assert_snapshot!(set("tokenizer.ggml.tokens", strings(&["1", "2", "3", "4", "5", "6", "7", "8"])), @"FILE: has 8 tokens and embeddings for 7");
    insta::assert_snapshot!(set("tokenizer.ggml.token_type", integers(&[1])), @"FILE: has 7 tokens and 1 token types");
    insta::assert_snapshot!(set("tokenizer.ggml.token_type", integers(&[9; 7])), @"FILE: metadata 'tokenizer.ggml.token_type' is an array, expected a list of token types");
    insta::assert_snapshot!(refusal(|gguf| gguf.unset("tokenizer.ggml.model")), @"FILE: has no metadata 'tokenizer.ggml.model' (a string)");
}

#[test]
fn byte_level_tokenizers_cut_text_as_their_name_says() {
    // 'Ġ' is a space; the vocabulary has no token "11", so only cutting decides what "a 11" becomes.
    let smollm = tokenizer_of(|gguf| gguf);
    assert_eq!(ids(&smollm, "<|im|>ab 11<|end|>"), [1, 4, 6, 5, 5, 0]);
    // With a merge across digits, the ways differ: one by one, groups of three, all at once.
    let with_digits = |pre: &'static str| {
        tokenizer_of(move |gguf| {
            gguf.set("tokenizer.ggml.pre", text(pre));
            gguf.set("tokenizer.ggml.tokens", strings(&["1", "11", "111", "1111", "a", "ab", "b"]));
            gguf.set("tokenizer.ggml.token_type", integers(&[1; 7]));
            gguf.set("tokenizer.ggml.merges", strings(&["1 1", "11 11", "11 1"]));
            gguf.unset("tokenizer.ggml.bos_token_id").unset("tokenizer.ggml.eos_token_id")
        })
    };
    assert_eq!(ids(&with_digits("smollm"), "1111"), [0, 0, 0, 0]);
    assert_eq!(ids(&with_digits("qwen2"), "1111"), [0, 0, 0, 0]);
    assert_eq!(ids(&with_digits("llama-bpe"), "1111"), [2, 0]);
    assert_eq!(ids(&with_digits("gpt-2"), "1111"), [3]);
    // "ab" is a token that no merge reaches: only Llama 3 takes it.
    assert_eq!(ids(&with_digits("llama3"), "ab"), [5]);
    assert_eq!(ids(&with_digits("default"), "ab"), [4, 6]);
}

#[test]
fn an_opening_token_is_added_when_the_file_or_the_custom_of_the_kind_says_so() {
    let first = |change: fn(&mut GgufWriter) -> &mut GgufWriter| {
        tokenizer_of(change).encode("a", true).unwrap().get_ids().to_vec()
    };
    assert_eq!(first(|gguf| gguf), [2]);
    assert_eq!(first(|gguf| gguf.set("tokenizer.ggml.add_bos_token", Value::Bool(true))), [1, 2]);
    assert_eq!(first(|gguf| gguf.set("tokenizer.ggml.pre", text("llama-bpe"))), [1, 2]);
    let only_at_the_end = first(|gguf| {
        gguf.set("tokenizer.ggml.pre", text("llama-bpe"));
        gguf.set("tokenizer.ggml.add_bos_token", Value::Bool(false));
        gguf.set("tokenizer.ggml.add_eos_token", Value::Bool(true))
    });
    assert_eq!(only_at_the_end, [2, 0]);
}

#[test]
fn sentence_piece_joins_by_score_and_falls_back_to_bytes() {
    let sentence_piece = |change: fn(&mut GgufWriter) -> &mut GgufWriter| {
        tokenizer_of(move |gguf| {
            // "bc" scores above "ab", so "abc" is a + bc; "é" has no piece and is spelled as its two bytes.
            let tokens = [
                "<unk>",
                "<s>",
                "</s>",
                "<0xC3>",
                "<0xA9>",
                "\u{2581}",
                "a",
                "b",
                "c",
                "ab",
                "bc",
                "\u{2581}a",
                "<tool>",
            ];
            gguf.set("tokenizer.ggml.model", text("llama"))
                .set("tokenizer.ggml.tokens", strings(&tokens))
                .set("tokenizer.ggml.token_type", integers(&[2, 3, 3, 6, 6, 1, 1, 1, 1, 1, 1, 1, 4]))
                .set("tokenizer.ggml.scores", floats(&[0., 0., 0., 0., 0., -9., -9., -9., -9., -2., -1., -3., 0.]))
                .set("tokenizer.ggml.unknown_token_id", Value::Unsigned(0))
                .set("tokenizer.ggml.eos_token_id", Value::Unsigned(2))
                .tensor("token_embd.weight", &[13, 8], &[0.0; 13 * 8]);
            change(gguf)
        })
    };
    let tokenizer = sentence_piece(|gguf| gguf);
    assert_eq!(ids(&tokenizer, "abc"), [11, 10]);
    assert_eq!(ids(&tokenizer, "b ab"), [5, 7, 5, 9]);
    assert_eq!(ids(&tokenizer, "é"), [5, 3, 4]);
    assert_eq!(ids(&tokenizer, "x"), [5, 0], "no bytes for x, so unknown");
    assert_eq!(ids(&tokenizer, "<s>a<tool>a</s>"), [1, 11, 12, 11, 2]);
    assert_eq!(tokenizer.encode("a", true).unwrap().get_ids(), [1, 11]);
    assert_eq!(tokenizer.decode(&[11, 10, 5, 7, 3, 4], true).unwrap(), "abc bé");
    let bare = sentence_piece(|gguf| gguf.set("tokenizer.ggml.add_space_prefix", Value::Bool(false)));
    assert_eq!(ids(&bare, "abc"), [6, 10]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    /// Whatever is overwritten, importing answers, never panics and never leaves half a folder.
    #[test]
    fn damaged_files_never_panic(at in 0usize..3000, bytes: [u8; 4]) {
        let dir = TempDir::new().unwrap();
        let mut file = tiny_llama().bytes();
        let at = at % (file.len() - 4);
        file[at..at + 4].copy_from_slice(&bytes);
        let path = dir.path().join("model.gguf");
        std::fs::write(&path, &file).unwrap();
        let out = dir.path().join("out");
        let imported = import_gguf(&path, &out, false, &mut |_, _| {});
        prop_assert_eq!(out.exists(), imported.is_ok());
        let entries = std::fs::read_dir(dir.path()).unwrap().count();
        prop_assert_eq!(entries, if imported.is_ok() { 2 } else { 1 });
    }
}
