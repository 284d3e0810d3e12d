//! Imports of tiny models: tokenizers, all rejections, and that a failed import leaves no files.
//! `tests/imported_model.rs` opens imported models.

use std::path::{Path, PathBuf};

use proptest::prelude::*;
use tempfile::TempDir;
use tokenizers::Tokenizer;

use super::gguf::test_writer::{GgufWriter, floats, integers, strings, tiny_llama};
use super::gguf::{GgmlType, GgufValue};
use super::*;

fn import_into(gguf: &GgufWriter, dir: &Path) -> Result<PathBuf> {
    let out = dir.join("out");
    import_gguf(&gguf.write(dir, "model.gguf"), &out, false, &mut |_, _| {}).map(|_| out)
}

/// The error of importing a changed model, with its path replaced by `FILE`. The attempt must leave no files.
fn import_error(change: impl FnOnce(&mut GgufWriter) -> &mut GgufWriter) -> String {
    let dir = TempDir::new().unwrap();
    let mut gguf = tiny_llama();
    change(&mut gguf);
    let error = import_into(&gguf, dir.path()).unwrap_err();
    assert_eq!(error.exit_code(), 2, "{error}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "only the GGUF file is left");
    error.to_string().replace(&dir.path().join("model.gguf").display().to_string(), "FILE")
}

fn text(text: &str) -> GgufValue {
    GgufValue::String(text.to_owned())
}

/// The token ids of `text`, with special tokens matched in the text and none added.
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
fn unsupported_model_is_rejected_with_reason() {
    let set = |key: &'static str, value: GgufValue| import_error(move |gguf| gguf.set(key, value));
    insta::assert_snapshot!(set("general.architecture", text("mamba")), @"FILE: is a model of architecture 'mamba'; supported are: llama qwen2 qwen3 gemma gemma2 gemma3 phi3 gptneox gpt2");
    insta::assert_snapshot!(set("llama.expert_count", GgufValue::Unsigned(8)), @"FILE: is a mixture of experts, which is not supported");
    insta::assert_snapshot!(set("llama.attention.head_count", GgufValue::Unsigned(0)), @"FILE: has 0 query heads, which is not a multiple of 1 key/value heads");
    insta::assert_snapshot!(set("llama.attention.head_count", integers(&[2])), @"FILE: metadata 'llama.attention.head_count' is an array, expected an integer from 0 to 2^32");
    insta::assert_snapshot!(set("llama.rope.dimension_count", GgufValue::Unsigned(2)), @"FILE: applies rotary embedding to 2 of 4 elements of a head; only all, and an even number, are supported");
    insta::assert_snapshot!(set("llama.rope.scaling.type", text("yarn")), @"FILE: has rotary scaling of type 'yarn', which is not supported");
    insta::assert_snapshot!(set("llama.block_count", GgufValue::Unsigned(4_000_000_000)), @"FILE: declares 4000000000 blocks but has 11 tensors");
    insta::assert_snapshot!(set("llama.block_count", GgufValue::Unsigned(2)), @"FILE: has no tensor for 'model.layers.1.input_layernorm.weight'");
    insta::assert_snapshot!(set("llama.feed_forward_length", GgufValue::Unsigned(4)), @"FILE: tensor 'blk.0.ffn_gate.weight' has shape [3, 8], its metadata requires [4, 8]");
    insta::assert_snapshot!(set("tokenizer.ggml.bos_token_id", GgufValue::Unsigned(7)), @"FILE: metadata 'tokenizer.ggml.bos_token_id' is 7, but there are 7 tokens");
    insta::assert_snapshot!(import_error(|gguf| gguf.unset("llama.embedding_length")), @"FILE: has no metadata 'llama.embedding_length'");
    insta::assert_snapshot!(import_error(|gguf| gguf.tensor("rope_freqs.weight", &[2], &[3.0, 1.0])), @"FILE: has a tensor 'rope_freqs.weight' that does not follow the formula of Llama 3.1, the only supported one");
    insta::assert_snapshot!(import_error(|gguf| gguf.tensor("blk.0.ffn_gate_inp.weight", &[1], &[1.0])), @"FILE: has a tensor 'blk.0.ffn_gate_inp.weight', which is not part of a Llama model");
    insta::assert_snapshot!(import_error(|gguf| gguf.tensor("output_norm.weight", &[8], &[f32::NAN; 8])), @"FILE: tensor 'output_norm.weight' has weights that are not finite: the file is damaged");
}

#[test]
fn quantized_bias_is_rejected() {
    let error = import_error(|gguf| {
        gguf.tensors.push(("blk.0.attn_q.bias".to_owned(), vec![32], GgmlType::Q8_0, vec![0; 34]));
        gguf
    });
    insta::assert_snapshot!(error, @"FILE: tensor 'blk.0.attn_q.bias' is a bias stored as Q8_0, which is not supported");
}

#[test]
fn unsupported_or_inconsistent_tokenizer_is_rejected() {
    let set = |key: &'static str, value: GgufValue| import_error(move |gguf| gguf.set(key, value));
    insta::assert_snapshot!(set("tokenizer.ggml.model", text("bert")), @"FILE: has a tokenizer of kind 'bert'; supported are 'gpt2' (byte-level) and 'llama'");
    insta::assert_snapshot!(set("tokenizer.ggml.pre", text("tekken")), @"FILE: has the unknown pre-tokenizer 'tekken'; supported are: gpt-2 gpt2 smollm llama-bpe llama3 llama-v3 qwen2");
    insta::assert_snapshot!(set("tokenizer.ggml.merges", strings(&["ab"])), @r#"FILE: merge 0 is "ab", expected a pair"#);
    insta::assert_snapshot!(set("tokenizer.ggml.merges", strings(&["a x"])), @"FILE: has an invalid tokenizer: Token `x` out of vocabulary at line 1 column 866");
    insta::assert_snapshot!(set("tokenizer.ggml.tokens", strings(&["a", "b", "a"])), @r#"FILE: has the token "a" twice, with the ids 0 and 2"#);
    insta::assert_snapshot!(set("tokenizer.ggml.tokens", strings(&["1", "2", "3", "4", "5", "6", "7", "8"])), @"FILE: has 8 tokens but 7 embeddings");
    insta::assert_snapshot!(set("tokenizer.ggml.token_type", integers(&[1])), @"FILE: has 7 tokens and 1 token types");
    insta::assert_snapshot!(set("tokenizer.ggml.token_type", integers(&[9; 7])), @"FILE: metadata 'tokenizer.ggml.token_type' is an array, expected a list of token types");
    insta::assert_snapshot!(import_error(|gguf| gguf.unset("tokenizer.ggml.model")), @"FILE: has no metadata 'tokenizer.ggml.model' (a string)");
}

#[test]
fn pre_tokenizer_name_selects_split_rules() {
    // 'Ġ' is a space. The vocabulary has no token "11", so only the pre-tokenizer determines the tokens of "a 11".
    let smollm = tokenizer_of(|gguf| gguf);
    assert_eq!(ids(&smollm, "<|im|>ab 11<|end|>"), [1, 4, 6, 5, 5, 0]);
    // With merges across digits the pre-tokenizers differ: single digits, groups of three, all digits.
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
    // No merge forms the token "ab": only Llama 3 uses it.
    assert_eq!(ids(&with_digits("llama3"), "ab"), [5]);
    assert_eq!(ids(&with_digits("default"), "ab"), [4, 6]);
}

#[test]
fn bos_token_follows_file_or_tokenizer_default() {
    let first = |change: fn(&mut GgufWriter) -> &mut GgufWriter| {
        tokenizer_of(change).encode("a", true).unwrap().get_ids().to_vec()
    };
    assert_eq!(first(|gguf| gguf), [2]);
    assert_eq!(first(|gguf| gguf.set("tokenizer.ggml.add_bos_token", GgufValue::Bool(true))), [1, 2]);
    assert_eq!(first(|gguf| gguf.set("tokenizer.ggml.pre", text("llama-bpe"))), [1, 2]);
    let only_at_the_end = first(|gguf| {
        gguf.set("tokenizer.ggml.pre", text("llama-bpe"));
        gguf.set("tokenizer.ggml.add_bos_token", GgufValue::Bool(false));
        gguf.set("tokenizer.ggml.add_eos_token", GgufValue::Bool(true))
    });
    assert_eq!(only_at_the_end, [2, 0]);
}

#[test]
fn sentence_piece_joins_by_score_with_byte_fallback() {
    let sentence_piece = |change: fn(&mut GgufWriter) -> &mut GgufWriter| {
        tokenizer_of(move |gguf| {
            // "bc" has a higher score than "ab", so "abc" is a + bc. "é" has no piece and becomes its two bytes.
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
                .set("tokenizer.ggml.unknown_token_id", GgufValue::Unsigned(0))
                .set("tokenizer.ggml.eos_token_id", GgufValue::Unsigned(2))
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
    let bare = sentence_piece(|gguf| gguf.set("tokenizer.ggml.add_space_prefix", GgufValue::Bool(false)));
    assert_eq!(ids(&bare, "abc"), [6, 10]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    /// Importing an overwritten file gives a result or an error, never panics and never leaves a partial directory.
    #[test]
    fn damaged_files_never_panic(offset in 0usize..3000, bytes: [u8; 4]) {
        let dir = TempDir::new().unwrap();
        let mut file = tiny_llama().bytes();
        let offset = offset % (file.len() - 4);
        file[offset..offset + 4].copy_from_slice(&bytes);
        let path = dir.path().join("model.gguf");
        std::fs::write(&path, &file).unwrap();
        let out = dir.path().join("out");
        let imported = import_gguf(&path, &out, false, &mut |_, _| {});
        prop_assert_eq!(out.exists(), imported.is_ok());
        let entries = std::fs::read_dir(dir.path()).unwrap().count();
        prop_assert_eq!(entries, if imported.is_ok() { 2 } else { 1 });
    }
}
