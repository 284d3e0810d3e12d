//! Files without keys, and with keys that change the computation: what is inferred, with its warning, and what is
//! rejected.

use std::path::Path;

use tempfile::TempDir;
use tokenizers::Tokenizer;

use super::gguf::GgufValue;
use super::gguf::test_writer::{GgufWriter, floats, integers, strings, tiny_llama};
use super::*;

/// The tokenizer and the warnings of an imported model.
fn import(gguf: &GgufWriter) -> (Tokenizer, Vec<String>) {
    let dir = TempDir::new().unwrap();
    let out = dir.path().join("out");
    let summary = import_gguf(&gguf.write(dir.path(), "model.gguf"), &out, false, &mut |_, _| {}).unwrap();
    let written = std::fs::read_to_string(out.join(WARNINGS_FILE)).unwrap_or_default();
    assert_eq!(written.lines().collect::<Vec<_>>(), summary.warnings);
    (Tokenizer::from_file(out.join("tokenizer.json")).unwrap(), summary.warnings)
}

fn error(change: impl FnOnce(&mut GgufWriter)) -> String {
    let mut gguf = tiny_llama();
    change(&mut gguf);
    let dir = TempDir::new().unwrap();
    let path = gguf.write(dir.path(), "model.gguf");
    let error = import_gguf(&path, &dir.path().join("out"), false, &mut |_, _| {}).unwrap_err();
    assert_eq!(error.exit_code(), 2);
    error.to_string().replace(&path.display().to_string(), "FILE")
}

fn text(text: &str) -> GgufValue {
    GgufValue::String(text.to_owned())
}

fn ids(tokenizer: &Tokenizer, text: &str) -> Vec<u32> {
    tokenizer.encode(text, false).unwrap().get_ids().to_vec()
}

/// A byte-level model with `tokens` and `merges`, without a pre-tokenizer's name.
fn nameless(tokens: &[&str], merges: &[&str]) -> GgufWriter {
    let mut gguf = tiny_llama();
    gguf.unset("tokenizer.ggml.pre")
        .unset("tokenizer.ggml.bos_token_id")
        .unset("tokenizer.ggml.eos_token_id")
        .set("tokenizer.ggml.tokens", strings(tokens))
        .set("tokenizer.ggml.token_type", integers(&vec![1; tokens.len()]))
        .set("tokenizer.ggml.merges", strings(merges))
        .tensor("token_embd.weight", &[tokens.len(), 8], &vec![0.0; tokens.len() * 8]);
    gguf
}

#[test]
fn pre_tokenizer_is_inferred_from_vocabulary() {
    let digits = ["1", "11", "111", "1111"];
    let digit_merges = ["1 1", "11 11", "11 1"];
    // An apostrophe joined with capitals is one piece for Llama 3 only.
    let tokens = [&digits[..], &["'", "L", "'L", "'LL"]].concat();
    let merges = [&digit_merges[..], &["' L", "'L L"]].concat();
    for name in [None, Some("default")] {
        let mut gguf = nameless(&tokens, &merges);
        if let Some(name) = name {
            gguf.set("tokenizer.ggml.pre", text(name));
        }
        let (tokenizer, warnings) = import(&gguf);
        assert_eq!(ids(&tokenizer, "1111'LL"), [2, 0, 7], "{name:?}");
        insta::allow_duplicates! { insta::assert_snapshot!(warnings.join("|"), @"does not name its pre-tokenizer (tokenizer.ggml.pre); 'llama-bpe' is assumed, because the vocabulary joins punctuation with letters or line breaks. If that is wrong, so are the tokens: set the key in the file (gguf-new-metadata --pre-tokenizer), or convert the model again"); }
    }
    // Llama 3's BOS token, without other evidence.
    let (tokenizer, warnings) = import(&nameless(&[&digits[..], &["<|begin_of_text|>"]].concat(), &digit_merges));
    assert_eq!(ids(&tokenizer, "1111"), [2, 0]);
    assert!(
        warnings.iter().any(|warning| warning.contains("'llama-bpe' is assumed, because the vocabulary has Llama 3's"))
    );
    // A space joined with digits is one piece for GPT-2 only, and so is nothing at all.
    for more in [&["\u{120}", "\u{120}1"][..], &["a"]] {
        let merges = if more.len() == 2 { [&digit_merges[..], &["\u{120} 1"]].concat() } else { digit_merges.to_vec() };
        let (tokenizer, warnings) = import(&nameless(&[&digits[..], more].concat(), &merges));
        assert_eq!(ids(&tokenizer, "1111"), [3]);
        assert!(warnings[0].contains("'gpt-2' is assumed"), "{warnings:?}");
    }
}

#[test]
fn large_vocabulary_without_numbers_has_single_digits() {
    let letters: Vec<String> = (0..12_000)
        .map(|i| {
            format!(
                "w{}",
                i.to_string().replace(|c: char| c.is_ascii_digit(), "x") + &"y".repeat(i % 97) + &"z".repeat(i / 97)
            )
        })
        .collect();
    let mut tokens: Vec<&str> = letters.iter().map(String::as_str).collect();
    tokens.sort_unstable();
    tokens.dedup();
    assert!(tokens.len() > 10_000);
    for (joined, parts, expected) in [(".get", ". get", "'qwen2'"), ("\u{10a}\u{120}", "\u{10a} \u{120}", "'smollm'")] {
        let (left, right) = parts.split_once(' ').unwrap();
        let tokens = [&tokens[..], &[left, right, joined]].concat();
        let (_, warnings) = import(&nameless(&tokens, &[parts]));
        assert!(warnings[0].contains(expected), "{warnings:?}");
    }
}

#[test]
fn unmarked_control_tokens_are_inferred() {
    let template = text("{% for m in messages %}[X]{{ m.content }}{% endfor %}");
    let tokens = ["a", "b", "ab", "<|im|>", "<s>", "[X]", "<b>", "<", ">", "eot"];
    let merges = ["a b", "< b", "<b >"];
    let tokens = [&tokens[..], &["<b"]].concat();
    let change = |types: Option<GgufValue>| {
        let mut gguf = nameless(&tokens, &merges);
        gguf.set("tokenizer.ggml.pre", text("gpt-2")).set("tokenizer.chat_template", template.clone());
        match types {
            Some(types) => gguf.set("tokenizer.ggml.token_type", types),
            None => gguf.unset("tokenizer.ggml.token_type"),
        };
        gguf.set("tokenizer.ggml.eot_token_id", GgufValue::Unsigned(9));
        import(&gguf)
    };
    for types in [None, Some(integers(&[1; 11])), Some(integers(&[5; 11]))] {
        let (tokenizer, warnings) = change(types);
        assert_eq!(ids(&tokenizer, "<|im|>ab<s>[X]eot"), [3, 2, 4, 5, 9]);
        // Merges form "<b>": it is a piece of text.
        assert_eq!(ids(&tokenizer, "<b>"), [7, 1, 8]);
        insta::allow_duplicates! { insta::assert_snapshot!(warnings.join("|"), @"does not mark <|im|> <s> [X] eot as control tokens (tokenizer.ggml.token_type); they are taken as such, so that each is one token"); }
    }
}

#[test]
fn sentence_piece_without_types_has_bytes_and_markers() {
    let bytes: Vec<String> = (0..256).map(|byte| format!("<0x{byte:02X}>")).collect();
    let mut tokens = vec!["<unk>", "<s>", "</s>"];
    tokens.extend(bytes.iter().map(String::as_str));
    tokens.extend(["\u{2581}", "a"]);
    let mut gguf = nameless(&tokens, &[]);
    gguf.unset("tokenizer.ggml.token_type")
        .set("tokenizer.ggml.model", text("llama"))
        .set("tokenizer.ggml.scores", floats(&vec![0.0; tokens.len()]))
        .set("tokenizer.ggml.eos_token_id", GgufValue::Unsigned(2));
    let (tokenizer, _) = import(&gguf);
    assert_eq!(ids(&tokenizer, "<s>é</s>"), [1, 259, 3 + 0xc3, 3 + 0xa9, 2]);
}

#[test]
fn ids_of_absent_tokens_are_none() {
    let none = [
        GgufValue::Unsigned(u32::MAX.into()),
        GgufValue::Unsigned(u64::MAX),
        GgufValue::Unsigned(u16::MAX.into()),
        GgufValue::Unsigned(u8::MAX.into()),
        GgufValue::Signed(-1),
    ];
    for value in none {
        for key in ["bos", "eos", "padding", "unknown", "eot", "seperator"] {
            let mut gguf = tiny_llama();
            gguf.set(&format!("tokenizer.ggml.{key}_token_id"), value.clone());
            assert!(import(&gguf).1.is_empty(), "{key} {value:?}");
        }
    }
    insta::assert_snapshot!(error(|gguf| { gguf.set("tokenizer.ggml.padding_token_id", GgufValue::Signed(-2)); }), @"FILE: metadata 'tokenizer.ggml.padding_token_id' is -2, but there are 7 tokens");
    insta::assert_snapshot!(error(|gguf| { gguf.set("tokenizer.ggml.padding_token_id", GgufValue::Float32(1.0)); }), @"FILE: metadata 'tokenizer.ggml.padding_token_id' is a float, expected a token id");
}

#[test]
fn part_or_other_kind_of_file_is_rejected() {
    let part = |index: u64| {
        error(|gguf| {
            gguf.set("split.no", GgufValue::Unsigned(index))
                .set("split.count", GgufValue::Unsigned(2))
                .unset("general.architecture");
        })
    };
    insta::assert_snapshot!(part(0), @"FILE: is part 1 of 2 of a split model; merge the parts with `llama-gguf-split --merge FIRST-PART MERGED.gguf` and import the merged file");
    assert!(part(1).contains("is part 2 of 2"));
    insta::assert_snapshot!(error(|gguf| { gguf.set("general.type", text("adapter")); }), @"FILE: is of the type 'adapter' (general.type), not a model; merge it into its base model and import the result");
    insta::assert_snapshot!(error(|gguf| { gguf.set("general.type", text("mmproj")); }), @"FILE: is of the type 'mmproj' (general.type), not a model; import the file of the language model");
    let mut gguf = tiny_llama();
    gguf.set("split.count", GgufValue::Unsigned(1)).set("general.type", text("model"));
    assert!(import(&gguf).1.is_empty());
}

#[test]
fn metadata_that_changes_the_computation_is_rejected() {
    insta::assert_snapshot!(error(|gguf| { gguf.set("llama.attention.scale", GgufValue::Float32(0.25)); }), @"FILE: has 'llama.attention.scale' = 0.25, which changes the model's computation and is not supported");
    let active = [
        ("residual_scale", GgufValue::Float32(0.5)),
        ("embedding_scale", GgufValue::Float32(12.0)),
        ("attention.causal", GgufValue::Bool(false)),
        ("attention.sliding_window", GgufValue::Unsigned(63)),
        ("attention.clamp_kqv", GgufValue::Float32(8.0)),
        ("attn_logit_softcapping", GgufValue::Float32(50.0)),
        ("use_parallel_residual", GgufValue::Bool(true)),
        ("rope.scaling.attn_factor", GgufValue::Float32(1.5)),
        ("rope.dimension_sections", integers(&[1, 1, 0, 0])),
        ("nextn_predict_layers", text("?")),
    ];
    for (key, value) in active {
        let error = error(|gguf| {
            gguf.set(&format!("llama.{key}"), value);
        });
        assert!(error.contains(&format!("has 'llama.{key}' = ")), "{error}");
    }
    // Values without effect; the head has 4 elements, so the scale is the default.
    let mut gguf = tiny_llama();
    for (key, value) in [
        ("attention.scale", GgufValue::Float32(0.5)),
        ("residual_scale", GgufValue::Float32(1.0)),
        ("attention.causal", GgufValue::Bool(true)),
        ("attention.sliding_window", GgufValue::Unsigned(64)),
        ("expert_count", GgufValue::Unsigned(0)),
        ("expert_used_count", GgufValue::Unsigned(0)),
        ("logit_scale", GgufValue::Float32(0.1)),
        ("vocab_size", GgufValue::Unsigned(7)),
    ] {
        gguf.set(&format!("llama.{key}"), value);
    }
    assert!(import(&gguf).1.is_empty());
    gguf.set("llama.attention.novelty", GgufValue::Float32(0.1)).set("llama.other", text("x"));
    insta::assert_snapshot!(import(&gguf).1.join("|"), @"has metadata that the import does not know and leaves out: llama.attention.novelty, llama.other; if it changes the model's computation, the features are wrong");
}

#[test]
fn warnings_of_directory_without_file_are_none() {
    repeat_warnings(Path::new("model.gguf"), TempDir::new().unwrap().path());
}
