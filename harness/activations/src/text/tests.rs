//! Tokens and masks of real chat templates: the exact tokens of headers and closings, and all errors.

use std::fs;
use std::path::Path;

use actbench_fixtures::tokenizer::TOKENIZER_JSON;
use chrono::NaiveDate;
use serde_json::{Value, json};
use tokenizers::Tokenizer;

use crate::data::{ChatMessage, Dialogue, Role, load};

use super::*;

pub(super) const CHATML: &str = include_str!("../../tests/templates/chatml.jinja");
const CHATML_DEFAULT_SYSTEM: &str = include_str!("../../tests/templates/chatml_default_system.jinja");
const CHATML_JOINED: &str = include_str!("../../tests/templates/chatml_joined.jinja");
pub(super) const LLAMA2: &str = include_str!("../../tests/templates/llama2.jinja");
const LLAMA3: &str = include_str!("../../tests/templates/llama3.jinja");
pub(super) const LLAMA31: &str = include_str!("../../tests/templates/llama31.jinja");
pub(super) const GEMMA: &str = include_str!("../../tests/templates/gemma.jinja");
pub(super) const QWEN3: &str = include_str!("../../tests/templates/qwen3.jinja");
const MISTRAL: &str = include_str!("../../tests/templates/mistral.jinja");
pub(super) const PLAIN: &str = include_str!("../../tests/templates/plain.jinja");
pub(super) const FORGETFUL: &str = include_str!("../../tests/templates/forgetful.jinja");

/// The special tokens of all templates.
const ADDED: [&str; 13] = [
    "<|begin_of_text|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
    "<start_of_turn>",
    "<end_of_turn>",
    "<think>",
    "</think>",
    "[INST]",
    "[/INST]",
    "<s>",
    "</s>",
    "<|assistant|>",
];

/// The bundled vocabulary plus the special tokens of other families.
pub(super) fn tokenizer_json() -> String {
    let mut tokenizer: Value = serde_json::from_str(TOKENIZER_JSON).unwrap();
    let first = tokenizer["model"]["vocab"].as_object().unwrap().len();
    let added = tokenizer["added_tokens"].as_array_mut().unwrap();
    for (position, content) in ADDED.iter().enumerate() {
        added.push(json!({
            "id": first + position, "content": content, "special": true,
            "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
        }));
    }
    tokenizer.to_string()
}

pub(super) fn parts(template: &str) -> TokenizerParts {
    let (bos, eos) = match template {
        LLAMA3 | LLAMA31 => ("<|begin_of_text|>", "<|eot_id|>"),
        _ => ("<s>", "</s>"),
    };
    TokenizerParts {
        name: "test".to_owned(),
        tokenizer_json: tokenizer_json().into_bytes(),
        chat_template: template.to_owned(),
        tool_template: None,
        template_origin: "test.jinja".to_owned(),
        special: SpecialTokens::new(vec![
            ("bos_token".to_owned(), bos.to_owned()),
            ("eos_token".to_owned(), eos.to_owned()),
        ]),
        added_tokens: Vec::new(),
        split_special_tokens: false,
        fill_token: None,
    }
}

fn tokenizer(template: &str) -> ChatTokenizer {
    ChatTokenizer::from_parts(parts(template), DEFAULT_DATE).unwrap()
}

pub(super) fn dialogue(turns: &[(Role, &str)]) -> Dialogue {
    Dialogue::new(turns.iter().map(|(role, content)| ChatMessage::new(role.clone(), *content)).collect(), true)
}

/// The tokens of the dialogue; brackets enclose runs of masked tokens.
fn try_show(template: &str, turns: &[(Role, &str)]) -> Result<String, String> {
    let sequence = tokenizer(template).encode(&dialogue(turns)).map_err(|error| error.to_string())?;
    let decoder: Tokenizer = tokenizer_json().parse().unwrap();
    assert_eq!(sequence.ids.len(), sequence.mask.len());
    let mut shown = String::new();
    let mut inside = false;
    for (id, masked) in sequence.ids.iter().zip(&sequence.mask) {
        if *masked != inside {
            shown.push_str(if *masked { " ⟦" } else { " ⟧" });
            inside = *masked;
        }
        let token = decoder.id_to_token(*id).unwrap().replace('Ġ', "_").replace('Ċ', "⏎");
        shown.push(' ');
        shown.push_str(&token);
    }
    Ok(if inside { shown + " ⟧" } else { shown }.trim().to_owned())
}

fn show(template: &str, turns: &[(Role, &str)]) -> String {
    try_show(template, turns).unwrap()
}

use Role::{Assistant, System, User};

const ASKED: [(Role, &str); 2] = [(User, "Is it true?"), (Assistant, "It is true.")];
const INSTRUCTED: [(Role, &str); 3] = [(System, "Answer."), (User, "Is it true?"), (Assistant, "It is true.")];
const TWICE: [(Role, &str); 4] = [(User, "Is it?"), (Assistant, "It is."), (User, "Is it?"), (Assistant, "It is.")];

#[test]
fn chatml_mask_has_three_header_two_closing_tokens() {
    insta::assert_snapshot!(show(CHATML, &INSTRUCTED), @"<|im_start|> system ⏎ A ns wer . <|im_end|> ⏎ <|im_start|> user ⏎ Is _it _true ? <|im_end|> ⏎ ⟦ <|im_start|> assistant ⏎ It _is _true . <|im_end|> ⏎ ⟧");
    insta::assert_snapshot!(show(CHATML, &TWICE), @"<|im_start|> user ⏎ Is _it ? <|im_end|> ⏎ ⟦ <|im_start|> assistant ⏎ It _is . <|im_end|> ⏎ ⟧ <|im_start|> user ⏎ Is _it ? <|im_end|> ⏎ ⟦ <|im_start|> assistant ⏎ It _is . <|im_end|> ⏎ ⟧");
    insta::assert_snapshot!(show(CHATML_DEFAULT_SYSTEM, &ASKED), @"<|im_start|> system ⏎ You _are _a _helpful _clerk . <|im_end|> ⏎ <|im_start|> user ⏎ Is _it _true ? <|im_end|> ⏎ ⟦ <|im_start|> assistant ⏎ It _is _true . <|im_end|> ⏎ ⟧");
}

#[test]
fn separator_belongs_to_earlier_message() {
    insta::assert_snapshot!(show(CHATML_JOINED, &TWICE), @"<|im_start|> user ⏎ Is _it ? <|im_end|> ⏎ ⟦ <|im_start|> assistant ⏎ It _is . <|im_end|> ⏎ ⟧ <|im_start|> user ⏎ Is _it ? <|im_end|> ⏎ ⟦ <|im_start|> assistant ⏎ It _is . <|im_end|> </s> ⟧");
}

#[test]
fn llama3_mask_has_four_header_one_closing_tokens() {
    insta::assert_snapshot!(show(LLAMA3, &ASKED), @"<|begin_of_text|> <|start_header_id|> user <|end_header_id|> ⏎⏎ Is _it _true ? <|eot_id|> ⟦ <|start_header_id|> assistant <|end_header_id|> ⏎⏎ It _is _true . <|eot_id|> ⟧");
    insta::assert_snapshot!(show(LLAMA3, &[(System, " s "), (User, " q "), (Assistant, " a\n\n"), (User, "q")]), @"<|begin_of_text|> <|start_header_id|> system <|end_header_id|> ⏎⏎ s <|eot_id|> <|start_header_id|> user <|end_header_id|> ⏎⏎ q <|eot_id|> ⟦ <|start_header_id|> assistant <|end_header_id|> ⏎⏎ a <|eot_id|> ⟧ <|start_header_id|> user <|end_header_id|> ⏎⏎ q <|eot_id|>");
    insta::assert_snapshot!(show(LLAMA31, &INSTRUCTED), @"<|begin_of_text|> <|start_header_id|> system <|end_header_id|> ⏎⏎ K n ow led ge _ ends : _D e ce mber _ 2 0 2 3 ⏎ T o d ay : _ 2 6 _J u l _ 2 0 2 4 ⏎⏎ A ns wer . <|eot_id|> <|start_header_id|> user <|end_header_id|> ⏎⏎ Is _it _true ? <|eot_id|> ⟦ <|start_header_id|> assistant <|end_header_id|> ⏎⏎ It _is _true . <|eot_id|> ⟧");
}

#[test]
fn gemma_mask_is_exact_without_system_role() {
    insta::assert_snapshot!(show(GEMMA, &TWICE), @"<s> <start_of_turn> user ⏎ Is _it ? <end_of_turn> ⏎ ⟦ <start_of_turn> model ⏎ It _is . <end_of_turn> ⏎ ⟧ <start_of_turn> user ⏎ Is _it ? <end_of_turn> ⏎ ⟦ <start_of_turn> model ⏎ It _is . <end_of_turn> ⏎ ⟧");
    insta::assert_snapshot!(show(GEMMA, &INSTRUCTED), @"<s> <start_of_turn> user ⏎ A ns wer . ⏎⏎ Is _it _true ? <end_of_turn> ⏎ ⟦ <start_of_turn> model ⏎ It _is _true . <end_of_turn> ⏎ ⟧");
}

#[test]
fn qwen3_mask_includes_empty_thinking_section() {
    insta::assert_snapshot!(show(QWEN3, &INSTRUCTED), @"<|im_start|> system ⏎ A ns wer . <|im_end|> ⏎ <|im_start|> user ⏎ Is _it _true ? <|im_end|> ⏎ ⟦ <|im_start|> assistant ⏎ <think> ⏎⏎ </think> ⏎⏎ It _is _true . <|im_end|> ⏎ ⟧");
    insta::assert_snapshot!(show(QWEN3, &TWICE), @"<|im_start|> user ⏎ Is _it ? <|im_end|> ⏎ ⟦ <|im_start|> assistant ⏎ It _is . <|im_end|> ⏎ ⟧ <|im_start|> user ⏎ Is _it ? <|im_end|> ⏎ ⟦ <|im_start|> assistant ⏎ <think> ⏎⏎ </think> ⏎⏎ It _is . <|im_end|> ⏎ ⟧");
}

#[test]
fn mistral_mask_follows_moved_system_text() {
    insta::assert_snapshot!(show(MISTRAL, &INSTRUCTED), @"<s> [INST] _A ns wer . ⏎⏎ Is _it _true ? [/INST] ⟦ _It _is _true . </s> ⟧");
    insta::assert_snapshot!(show(MISTRAL, &[(System, "s"), (User, "q"), (Assistant, "a"), (User, "r"), (Assistant, "b")]), @"<s> [INST] _ q [/INST] ⟦ _a </s> ⟧ [INST] _s ⏎⏎ r [/INST] ⟦ _b </s> ⟧");
    insta::assert_snapshot!(show(LLAMA2, &[(System, "s"), (User, "q"), (Assistant, "a"), (User, "r"), (Assistant, "b")]), @"<s> [INST] _ < < S Y S > > ⏎ s ⏎ < < / S Y S > > ⏎⏎ q _ [/INST] ⟦ _a _ </s> ⟧ <s> [INST] _r _ [/INST] ⟦ _b _ </s> ⟧");
}

#[test]
fn plain_template_without_special_tokens_works() {
    insta::assert_snapshot!(show(PLAIN, &TWICE), @"# # # _Qu est i on : ⏎ Is _it ? ⏎⏎ ⟦ # # # _A ns wer : ⏎ It _is . </s> ⏎⏎ ⟧ # # # _Qu est i on : ⏎ Is _it ? ⏎⏎ ⟦ # # # _A ns wer : ⏎ It _is . </s> ⏎⏎ ⟧");
    insta::assert_snapshot!(show(PLAIN, &INSTRUCTED), @"# # # _Qu est i on : ⏎ A ns wer . ⏎⏎ Is _it _true ? ⏎⏎ ⟦ # # # _A ns wer : ⏎ It _is _true . </s> ⏎⏎ ⟧");
}

#[test]
fn leading_assistant_message_excludes_preamble() {
    let greeting = [(Assistant, "It is."), (User, "Is it?"), (Assistant, "It is.")];
    insta::assert_snapshot!(show(LLAMA3, &greeting), @"<|begin_of_text|> ⟦ <|start_header_id|> assistant <|end_header_id|> ⏎⏎ It _is . <|eot_id|> ⟧ <|start_header_id|> user <|end_header_id|> ⏎⏎ Is _it ? <|eot_id|> ⟦ <|start_header_id|> assistant <|end_header_id|> ⏎⏎ It _is . <|eot_id|> ⟧");
    insta::assert_snapshot!(show(CHATML_DEFAULT_SYSTEM, &greeting), @"<|im_start|> system ⏎ You _are _a _helpful _clerk . <|im_end|> ⏎ ⟦ <|im_start|> assistant ⏎ It _is . <|im_end|> ⏎ ⟧ <|im_start|> user ⏎ Is _it ? <|im_end|> ⏎ ⟦ <|im_start|> assistant ⏎ It _is . <|im_end|> ⏎ ⟧");
    insta::assert_snapshot!(show(QWEN3, &greeting[..1]), @"⟦ <|im_start|> assistant ⏎ It _is . <|im_end|> ⏎ ⟧");
}

#[test]
fn adjacent_messages_of_role_are_turns_unless_refused() {
    let split = [(User, "Is it"), (User, "true?"), (Assistant, "It"), (Assistant, "is true.")];
    insta::assert_snapshot!(show(CHATML, &split), @"<|im_start|> user ⏎ Is _it <|im_end|> ⏎ <|im_start|> user ⏎ true ? <|im_end|> ⏎ ⟦ <|im_start|> assistant ⏎ It <|im_end|> ⏎ <|im_start|> assistant ⏎ is _true . <|im_end|> ⏎ ⟧");
    for template in [GEMMA, MISTRAL] {
        assert_eq!(show(template, &split), show(template, &ASKED));
    }
}

#[test]
fn mask_is_correct_for_arbitrary_contents() {
    for template in [CHATML, LLAMA3, LLAMA31, GEMMA, QWEN3, MISTRAL, LLAMA2, PLAIN, CHATML_JOINED] {
        let plain = tokenizer(template);
        for content in [
            "x",
            " x",
            "x ",
            "\n\nx\n",
            "{{ x }} {% if %}",
            "<|im_end|>\n<|im_start|>assistant\n",
            "### Answer:\nx",
            "<|eot_id|>",
            "日本語 é 👩‍👩‍👧 \u{202e}",
            "\u{f8f0}0\u{f8f1}",
            "\u{f8f0}",
            "\u{0}\u{1c}",
            "[/INST] x</s>",
            "Is it?",
        ] {
            // The answer repeats the question, so a search for the content could find the wrong one.
            let sequence = plain.encode(&dialogue(&[(User, content), (Assistant, content), (User, content)])).unwrap();
            let masked = sequence.masked_positions().count();
            let reference = plain.encode(&dialogue(&[(User, "x"), (Assistant, content), (User, "x")])).unwrap();
            assert_eq!(masked, reference.masked_positions().count(), "{content:?} in {template}");
            let positions: Vec<usize> = sequence.masked_positions().collect();
            assert_eq!(positions[masked - 1] - positions[0] + 1, masked, "{content:?} is in pieces");
        }
    }
}

#[test]
fn empty_answer_masks_header_and_closing() {
    insta::assert_snapshot!(show(CHATML, &[(User, "Is it?"), (Assistant, "")]), @"<|im_start|> user ⏎ Is _it ? <|im_end|> ⏎ ⟦ <|im_start|> assistant ⏎ <|im_end|> ⏎ ⟧");
    insta::assert_snapshot!(show(LLAMA3, &[(User, ""), (Assistant, " "), (User, "")]), @"<|begin_of_text|> <|start_header_id|> user <|end_header_id|> ⏎⏎ <|eot_id|> ⟦ <|start_header_id|> assistant <|end_header_id|> ⏎⏎ <|eot_id|> ⟧ <|start_header_id|> user <|end_header_id|> ⏎⏎ <|eot_id|>");
    insta::assert_snapshot!(try_show(FORGETFUL, &[(User, "Is it?"), (Assistant, "")]).unwrap_err(), @"test.jinja: the chat template writes nothing for the assistant's messages, so there are no tokens to pool");
}

#[test]
fn changed_contents_are_located_by_surroundings() {
    let thought = "<think>\nIt is.\n</think>\n\nIt is.";
    insta::assert_snapshot!(show(QWEN3, &[(User, "Is it?"), (Assistant, thought)]), @"<|im_start|> user ⏎ Is _it ? <|im_end|> ⏎ ⟦ <|im_start|> assistant ⏎ <think> ⏎ It _is . ⏎ </think> ⏎⏎ It _is . <|im_end|> ⏎ ⟧");
    insta::assert_snapshot!(show(QWEN3, &[(User, "Is it?"), (Assistant, thought), (User, " q "), (Assistant, thought)]), @"<|im_start|> user ⏎ Is _it ? <|im_end|> ⏎ ⟦ <|im_start|> assistant ⏎ It _is . <|im_end|> ⏎ ⟧ <|im_start|> user ⏎ _ q _ <|im_end|> ⏎ ⟦ <|im_start|> assistant ⏎ <think> ⏎ It _is . ⏎ </think> ⏎⏎ It _is . <|im_end|> ⏎ ⟧");
    insta::assert_snapshot!(show(FORGETFUL, &[(User, "q"), (Assistant, thought), (User, "r"), (Assistant, "a")]), @"<s> < | user | > q ⟦ <|assistant|> ⏎⏎ It _is . </s> ⟧ < | user | > r ⟦ <|assistant|> a </s> ⟧");
    insta::assert_snapshot!(show(FORGETFUL, &[(User, "q"), (Assistant, ""), (User, "r"), (Assistant, "a")]), @"<s> < | user | > q < | user | > r ⟦ <|assistant|> a </s> ⟧");
    insta::assert_snapshot!(show("{% for m in messages %}{{ m.content|upper }}.{% endfor %}", &TWICE), @"I S _I T ? . ⟦ I T _I S . . ⟧ I S _I T ? . ⟦ I T _I S . . ⟧");
}

#[test]
fn template_rejection_names_template_file() {
    insta::assert_snapshot!(try_show(GEMMA, &[(User, "q"), (Assistant, "a"), (System, "s"), (Assistant, "b")]).unwrap_err(), @"test.jinja: the chat template rejects the dialogue: Roles must go user/assistant/user/assistant/...");
    insta::assert_snapshot!(try_show(MISTRAL, &[(Assistant, "a"), (User, "q")]).unwrap_err(), @"test.jinja: the chat template rejects the dialogue: After the optional system message, roles must go user/assistant/user/assistant/...");
    insta::assert_snapshot!(try_show("{{ messages[0].content }}", &ASKED).unwrap_err(), @"test.jinja: the chat template does not show where assistant messages are: it does not write message 2 exactly once");
    insta::assert_snapshot!(try_show("{% for m in messages %}{{ m.content }}{{ m.content }}{% endfor %}", &ASKED).unwrap_err(), @"test.jinja: the chat template does not show where assistant messages are: it does not write message 2 exactly once");
    insta::assert_snapshot!(try_show("", &ASKED).unwrap_err(), @"test.jinja: the chat template does not show where assistant messages are: it does not write message 2 exactly once");
    insta::assert_snapshot!(try_show("{% for m in messages if m.role != 'system' %}{{ m.content }}{% endfor %}", &[(System, "s"), (Assistant, "a")]).unwrap_err(), @"test.jinja: the chat template omits the system message, and no user message follows that could include it");
    let error = tokenizer(GEMMA).encode_all(&[dialogue(&ASKED), dialogue(&[(Assistant, "a")])]).unwrap_err();
    assert_eq!(error.exit_code(), 2);
    insta::assert_snapshot!(error, @"test.jinja: dialogue 2: the chat template rejects the dialogue: Roles must go user/assistant/user/assistant/...");
}

#[test]
fn date_changes_tokens_and_fingerprint() {
    let other = ChatTokenizer::from_parts(parts(LLAMA31), NaiveDate::from_ymd_opt(2025, 1, 2).unwrap()).unwrap();
    let usual = tokenizer(LLAMA31);
    assert_ne!(other.encode(&dialogue(&ASKED)).unwrap(), usual.encode(&dialogue(&ASKED)).unwrap());
    assert_ne!(other.fingerprint(), usual.fingerprint());
    assert_eq!(usual.fingerprint(), tokenizer(LLAMA31).fingerprint());
    assert_ne!(usual.fingerprint(), tokenizer(LLAMA3).fingerprint());
}

#[test]
fn encode_all_equals_encode_of_each() {
    let bundled = ChatTokenizer::bundled().unwrap();
    let data = load("embedded", None, 300).unwrap();
    let set = bundled.encode_all(&data.dialogues).unwrap();
    assert_eq!(set.len(), 300);
    for (sequence, dialogue) in set.sequences.iter().zip(&data.dialogues).step_by(37) {
        assert_eq!(sequence, &bundled.encode(dialogue).unwrap());
        assert!(sequence.ids.iter().all(|id| (*id as usize) < bundled.vocab_size()));
        let answers = dialogue.messages.iter().filter(|message| *message.role() == Assistant).count();
        assert!(sequence.masked_positions().count() > 5 * answers);
    }
    assert_eq!(bundled.encode_all(&[]).unwrap().len(), 0);
}

#[test]
fn bundled_tokenizer_encodes_any_text() {
    let bundled = ChatTokenizer::bundled().unwrap();
    let odd: String = (0..0x3000).filter_map(char::from_u32).chain("🦀\u{10ffff}".chars()).collect();
    bundled.encode(&dialogue(&[(User, &odd), (Assistant, &odd)])).unwrap();
    insta::assert_snapshot!(bundled.describe(), @"bundled (1447 tokens, template from bundled tokenizer_config.json)");
    for (profile, from, to) in [("short", 50, 70), ("medium", 130, 170), ("long", 550, 650)] {
        let data = load(&format!("embedded:{profile}"), None, 200).unwrap();
        let mean = bundled.encode_all(&data.dialogues).unwrap().n_tokens() / 200;
        assert!((from..to).contains(&mean), "{profile}: {mean}");
    }
}

fn tokenizer_dir(files: &[(&str, &str)]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (name, content) in files {
        fs::write(directory.path().join(name), content).unwrap();
    }
    directory
}

fn from_dir(files: &[(&str, &str)]) -> Result<ChatTokenizer, String> {
    let directory = tokenizer_dir(files);
    ChatTokenizer::from_dir(directory.path()).map_err(|error| {
        assert_eq!(error.exit_code(), 2);
        error.to_string().replace(&directory.path().display().to_string(), "DIR")
    })
}

#[test]
fn tokenizer_directory_is_read_in_all_forms() {
    let expected = tokenizer(LLAMA3).encode(&dialogue(&ASKED)).unwrap();
    let json = tokenizer_json();
    let text = json!({"chat_template": LLAMA3, "bos_token": "<|begin_of_text|>"}).to_string();
    let named = json!({
        "chat_template": [{"name": "tool_use", "template": "x"}, {"name": "default", "template": LLAMA3}],
        "bos_token": {"__type": "AddedToken", "content": "<|begin_of_text|>", "lstrip": false}, "eos_token": null,
    });
    let map = r#"{"bos_token": {"content": "<|begin_of_text|>"}}"#;
    for files in [
        [("tokenizer_config.json", text.as_str()), ("special_tokens_map.json", "{}")],
        [("tokenizer_config.json", &named.to_string()), ("special_tokens_map.json", "{}")],
        [("chat_template.jinja", LLAMA3), ("special_tokens_map.json", map)],
    ] {
        let read = from_dir(&[&files[..], &[("tokenizer.json", json.as_str())]].concat()).unwrap();
        assert_eq!(read.encode(&dialogue(&ASKED)).unwrap(), expected);
    }
    // The separate file takes precedence over the entry in the configuration.
    let both = [("tokenizer.json", json.as_str()), ("chat_template.jinja", CHATML), ("tokenizer_config.json", &text)];
    assert_eq!(
        from_dir(&both).unwrap().encode(&dialogue(&ASKED)).unwrap().ids,
        tokenizer(CHATML).encode(&dialogue(&ASKED)).unwrap().ids
    );
}

#[test]
fn invalid_tokenizer_directory_is_rejected_with_reason() {
    let json = tokenizer_json();
    let with_config =
        |config: &str| from_dir(&[("tokenizer.json", &json), ("tokenizer_config.json", config)]).unwrap_err();
    insta::assert_snapshot!(from_dir(&[]).unwrap_err(), @"DIR: has no tokenizer.json; provide a tokenizer in Hugging Face's fast format, as written by `save_pretrained` of a fast tokenizer");
    insta::assert_snapshot!(ChatTokenizer::from_dir(Path::new("no/such")).unwrap_err(), @"no/such: is not a directory; provide a tokenizer in Hugging Face's fast format, as written by `save_pretrained` of a fast tokenizer");
    insta::assert_snapshot!(from_dir(&[("tokenizer.json", "{}"), ("chat_template.jinja", CHATML)]).unwrap_err(), @"DIR: tokenizer.json has no `added_tokens`; download the file again");
    insta::assert_snapshot!(from_dir(&[("tokenizer.json", r#"{"added_tokens": []}"#), ("chat_template.jinja", CHATML)]).unwrap_err(), @"DIR: tokenizer.json is not a tokenizer (Model missing. at line 1 column 20); download the file again");
    insta::assert_snapshot!(from_dir(&[("tokenizer.json", &json)]).unwrap_err(), @"DIR: has no chat template, neither in chat_template.jinja nor in tokenizer_config.json; use an instruction-tuned model or add its template");
    insta::assert_snapshot!(with_config("[]"), @"DIR/tokenizer_config.json: is not a JSON object; download the file again");
    insta::assert_snapshot!(with_config("{"), @"DIR/tokenizer_config.json: is not JSON (EOF while parsing an object at line 1 column 1); download the file again");
    insta::assert_snapshot!(with_config(r#"{"chat_template": 1}"#), @"DIR/tokenizer_config.json: `chat_template` must be a string or a list of {name, template}");
    insta::assert_snapshot!(with_config(r#"{"chat_template": [{"name": "a", "template": ""}, {"name": "b", "template": ""}]}"#), @"DIR/tokenizer_config.json: has chat templates (a, b) and none is named `default`; copy the one to use to chat_template.jinja");
    insta::assert_snapshot!(with_config(r#"{"chat_template": "{% if %}"}"#), @"DIR/tokenizer_config.json: the chat template fails: syntax error: expected an expression, found '%}' (line 1 of the template); fix the file or download it again");
}

#[test]
fn class_is_read_next_to_numbers_that_json_lacks() {
    let json = tokenizer_json();
    let model = r#"{"initializer_range": NaN, "tokenizer_class": "BertTokenizer"}"#;
    let files = [("tokenizer.json", json.as_str()), ("chat_template.jinja", CHATML), ("config.json", model)];
    let error = from_dir(&files).unwrap_err();
    assert!(error.contains("the tokenizer class `BertTokenizer`"), "{error}");
}

#[test]
fn truncation_padding_and_post_processing_are_ignored() {
    let mut tokenizer: Value = serde_json::from_str(&tokenizer_json()).unwrap();
    tokenizer["truncation"] = json!({"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0});
    tokenizer["padding"] = json!({
        "strategy": {"Fixed": 99}, "direction": "Right", "pad_to_multiple_of": null,
        "pad_id": 0, "pad_type_id": 0, "pad_token": "<|endoftext|>",
    });
    tokenizer["post_processor"] =
        json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true});
    let changed = TokenizerParts { tokenizer_json: tokenizer.to_string().into_bytes(), ..parts(MISTRAL) };
    let turns = dialogue(&[(User, "Is it?"), (Assistant, "   "), (User, " ")]);
    assert_eq!(
        ChatTokenizer::from_parts(changed, DEFAULT_DATE).unwrap().encode(&turns).unwrap(),
        self::tokenizer(MISTRAL).encode(&turns).unwrap()
    );
}
