//! The rendered text and the masked text of dialogues with further keys, of templates that refuse or change messages, and
//! of contents that look like parts of the template. The texts are those of transformers 5.24.0.

use proptest::prelude::*;
use serde_json::{Map, Value, json};
use tokenizers::Tokenizer;

use crate::data::{ChatMessage, Dialogue, Role};

use super::tests::{CHATML, FORGETFUL, GEMMA, LLAMA2, LLAMA31, PLAIN, QWEN3, dialogue, parts, tokenizer_json};
use super::*;

use Role::{Assistant, System, User};

/// Writes no message without a content.
const SKIPS_EMPTY: &str = "{% for m in messages %}{% if m.content %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n\
                           {% endif %}{% endfor %}";
/// Changes the letters of questions.
const SHOUTS: &str = "{% for m in messages %}<|im_start|>{{ m.role }}\n\
                      {{ m.content|upper if m.role == 'user' else m.content }}<|im_end|>\n{% endfor %}";
/// Refuses a dialogue without a question, and so the first messages of dialogues that it accepts.
const NEEDS_QUESTION: &str = "{% if not messages|selectattr('role', 'equalto', 'user')|list %}\
                              {{ raise_exception('No user query') }}{% endif %}\
                              {% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}";
/// Cuts thoughts.
const CUTS: &str =
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content.split('</think>')[-1] }}<|im_end|>\n{% endfor %}";
/// Writes reasoning, calls, tools and results.
const CALLS: &str = "{% for t in tools or [] %}[{{ t.name }}]{% endfor %}{% for m in messages %}<|im_start|>{{ m.role }}\n\
                     {% if m.reasoning_content %}<think>{{ m.reasoning_content }}</think>{% endif %}{{ m.content or '' }}\
                     {% for c in m.tool_calls or [] %}<call>{{ c.function.name }} {{ c.function.arguments|tojson }}</call>\
                     {% endfor %}<|im_end|>\n{% endfor %}";

/// The text of the dialogue and its masked parts.
fn try_texts(template: &str, dialogue: &Dialogue, mask: MaskKind) -> Result<(String, Vec<String>), String> {
    let tokenizer = ChatTokenizer::from_parts(parts(template), DEFAULT_DATE).unwrap().with_mask(mask);
    let sequence = tokenizer.encode(dialogue).map_err(|error| error.to_string())?;
    let decoder: Tokenizer = tokenizer_json().parse().unwrap();
    let text = |ids: &[u32]| decoder.decode(ids, false).unwrap();
    let mut masked: Vec<Vec<u32>> = vec![];
    for (position, id) in sequence.ids.iter().enumerate().filter(|(position, _)| sequence.mask[*position]) {
        match masked.last_mut() {
            Some(run) if position > 0 && sequence.mask[position - 1] => run.push(*id),
            _ => masked.push(vec![*id]),
        }
    }
    Ok((text(&sequence.ids), masked.iter().map(|run| text(run)).collect()))
}

fn contents(template: &str, turns: &[(Role, &str)]) -> Vec<String> {
    try_texts(template, &dialogue(turns), MaskKind::Content).unwrap().1
}

fn turns(template: &str, turns: &[(Role, &str)]) -> Vec<String> {
    try_texts(template, &dialogue(turns), MaskKind::Assistant).unwrap().1
}

fn from_json(messages: Value, values: Value) -> Dialogue {
    let messages = messages.as_array().unwrap().iter();
    let messages = messages.map(|keys| ChatMessage::from_keys(keys.as_object().unwrap().clone()).unwrap());
    Dialogue { template_values: values.as_object().unwrap().clone(), ..Dialogue::new(messages.collect(), true) }
}

fn call(content: Option<&str>) -> Value {
    let mut message = json!({"role": "assistant", "content": content});
    message["tool_calls"] = json!([{"type": "function", "function": {"name": "f", "arguments": {"x": 1}}}]);
    message
}

#[test]
fn answer_like_a_part_of_a_marker_is_located() {
    for answer in ["d", "i", "e", "end", "B", "|", "im", "<|im_end|>", "user"] {
        assert_eq!(contents(SKIPS_EMPTY, &[(User, ""), (Assistant, answer)]), [answer], "{answer}");
        assert_eq!(contents(SHOUTS, &[(User, "why d"), (Assistant, answer)]), [answer], "{answer}");
        assert_eq!(contents(CUTS, &[(User, "q</think>d"), (Assistant, answer)]), [answer], "{answer}");
    }
}

#[test]
fn content_behind_a_cut_thought_is_located() {
    let thought = "<think>\nd\n</think>\n\nd";
    let asked = [(User, "q"), (Assistant, thought), (User, "r"), (Assistant, "i")];
    assert_eq!(contents(QWEN3, &asked), ["d", "i"]);
    assert_eq!(contents(FORGETFUL, &asked), ["\n\nd", "i"]);
    assert_eq!(contents(QWEN3, &asked[..2]), [thought]);
    let hidden = [(User, "q"), (Assistant, "<think>d</think>"), (User, "r"), (Assistant, "i")];
    assert_eq!(contents(FORGETFUL, &hidden), ["i"]);
    assert_eq!(
        try_texts(FORGETFUL, &dialogue(&hidden[..2]), MaskKind::Content).unwrap_err(),
        "test.jinja: the chat template writes no content of the assistant's messages, so there are no tokens to pool; \
         use --mask assistant"
    );
}

#[test]
fn dialogue_is_located_whose_begin_the_template_refuses() {
    let greeting = [(Assistant, "d"), (User, "u"), (Assistant, "b")];
    let expected = ["<|im_start|>assistant\nd<|im_end|>\n", "<|im_start|>assistant\nb<|im_end|>\n"];
    assert_eq!(turns(NEEDS_QUESTION, &greeting), expected);
    assert_eq!(contents(NEEDS_QUESTION, &greeting), ["d", "b"]);
    let instructed = [&[(System, "s")][..], &greeting].concat();
    assert_eq!(turns(NEEDS_QUESTION, &instructed), expected);
    assert_eq!(
        turns(NEEDS_QUESTION, &[(System, "s"), (Assistant, "a"), (Assistant, "b"), (User, "u")]),
        ["<|im_start|>assistant\na<|im_end|>\n<|im_start|>assistant\nb<|im_end|>\n"]
    );
}

#[test]
fn every_key_reaches_the_template() {
    let question = json!({"role": "user", "content": "2+2?"});
    let render = |messages: Value, values: Value, mask| try_texts(CALLS, &from_json(messages, values), mask).unwrap();
    let (text, masked) = render(
        json!([question, {"role": "assistant", "content": "4", "reasoning": "2+2"}]),
        json!({}),
        MaskKind::Content,
    );
    assert_eq!(text, "<|im_start|>user\n2+2?<|im_end|>\n<|im_start|>assistant\n<think>2+2</think>4<|im_end|>\n");
    assert_eq!(masked, ["4"]);
    for content in [None, Some("")] {
        let called =
            json!([question, call(content), {"role": "tool", "content": "d"}, {"role": "assistant", "content": "d"}]);
        let (text, masked) = render(called.clone(), json!({"tools": [{"name": "f"}]}), MaskKind::Assistant);
        assert_eq!(
            text,
            "[f]<|im_start|>user\n2+2?<|im_end|>\n<|im_start|>assistant\n<call>f {\"x\": 1}</call><|im_end|>\n\
             <|im_start|>tool\nd<|im_end|>\n<|im_start|>assistant\nd<|im_end|>\n"
        );
        assert_eq!(
            masked,
            ["<|im_start|>assistant\n<call>f {\"x\": 1}</call><|im_end|>\n", "<|im_start|>assistant\nd<|im_end|>\n"]
        );
        assert_eq!(render(called, json!({}), MaskKind::Content).1, ["d"]);
        let (_, masked) = render(json!([question, call(content)]), json!({}), MaskKind::Assistant);
        assert_eq!(masked, ["<|im_start|>assistant\n<call>f {\"x\": 1}</call><|im_end|>\n"]);
    }
}

#[test]
fn reasoning_is_passed_under_its_standard_name() {
    let message = |keys: Value| ChatMessage::from_keys(keys.as_object().unwrap().clone()).unwrap();
    let keys = |keys: Value| {
        message(keys).template_keys().iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(
        keys(json!({"role": "assistant", "content": null, "reasoning": "r", "tool_calls": null})),
        r#"thinking="r" role="assistant" reasoning="r" reasoning_content="r""#
    );
    assert_eq!(
        keys(json!({"reasoning_content": "r", "role": "assistant", "thinking": "t", "content": "c"})),
        r#"thinking="t" reasoning_content="r" role="assistant" content="c""#
    );
    assert_eq!(keys(json!({"content": "c", "name": "n", "role": "user"})), r#"content="c" name="n" role="user""#);
}

#[test]
fn role_is_rendered_or_refused_by_name() {
    let developer = Role::from_name("developer");
    let asked = [(developer, "d"), (User, "q"), (Assistant, "a")];
    let (text, _) = try_texts(CHATML, &dialogue(&asked), MaskKind::Assistant).unwrap();
    assert!(text.starts_with("<|im_start|>developer\nd<|im_end|>\n<|im_start|>user\nq"), "{text}");
    for template in [LLAMA2, PLAIN, QWEN3] {
        let tool = [(User, "q"), (Assistant, "a"), (Role::from_name("tool"), "t"), (Assistant, "b")];
        let error = try_texts(template, &dialogue(&tool), MaskKind::Assistant).unwrap_err();
        assert!(error.contains("message 3 of role `tool`") || error.contains("Roles must alternate"), "{error}");
    }
}

#[test]
fn changed_rows_are_counted() {
    let instructed = dialogue(&[(System, "s"), (User, "q"), (Assistant, "a")]);
    let repeated = dialogue(&[(User, "q"), (User, "r"), (Assistant, "a")]);
    let both = dialogue(&[(System, "s"), (User, "q"), (User, "r"), (Assistant, "a")]);
    let changes = |template: &str| {
        let tokenizer = ChatTokenizer::from_parts(parts(template), DEFAULT_DATE).unwrap();
        tokenizer.encode_rows(&[&instructed, &repeated, &both], |_| String::new()).unwrap().1
    };
    assert_eq!(changes(CHATML), TurnChanges::default());
    assert_eq!(changes(GEMMA), TurnChanges { joined: 2, refused_system: 2, omitted_system: 0 });
    assert_eq!(changes(PLAIN), TurnChanges { joined: 0, refused_system: 0, omitted_system: 2 });
}

#[test]
fn template_with_date_is_noted() {
    let note = |template: &str| ChatTokenizer::from_parts(parts(template), DEFAULT_DATE).unwrap().date_note();
    assert!(note(LLAMA31).unwrap().contains("26 Jul 2024 on every day"));
    assert_eq!(note(CHATML), None);
}

#[test]
fn turn_is_found_where_template_cuts_its_whole_content() {
    let cut = [(User, "</think>"), (Assistant, "</think>"), (User, "q"), (Assistant, "t</think>a")];
    assert_eq!(turns(CUTS, &cut), ["<|im_start|>assistant\n<|im_end|>\n", "<|im_start|>assistant\na<|im_end|>\n"]);
    assert_eq!(contents(CUTS, &cut), ["a"]);
}

/// The text of a dialogue and the byte ranges of the assistant's turns and contents, computed without the template.
fn expected(template: &str, turns: &[(Role, String)]) -> (String, Vec<[usize; 2]>, Vec<[usize; 2]>) {
    let (mut text, mut whole, mut inner) = (String::new(), vec![], vec![]);
    for (role, content) in turns {
        let content = match (template, role) {
            (SKIPS_EMPTY, _) if content.is_empty() => continue,
            (SHOUTS, User) => content.to_uppercase(),
            (CUTS, _) => content.rsplit("</think>").next().unwrap_or_default().to_owned(),
            _ => content.clone(),
        };
        let start = text.len();
        text += &format!("<|im_start|>{role}\n");
        let first = text.len();
        text += &content;
        if *role == Assistant {
            inner.push([first, text.len()]);
        }
        text += "<|im_end|>\n";
        if *role == Assistant {
            whole.push([start, text.len()]);
        }
    }
    (text, whole, inner)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn mask_equals_exact_layout(
        turns in prop::collection::vec(
            (prop::sample::select(vec![User, Assistant]),
             prop::collection::vec(prop::sample::select(vec!["d", "i", "end", "B", " ", "\n", "user", "ß", "</think>", "<|im_end|>"]), 0..5)),
            1..5,
        ),
    ) {
        let mut turns: Vec<(Role, String)> = turns.into_iter().map(|(role, parts)| (role, parts.concat())).collect();
        turns.push((User, "Q d".to_owned()));
        turns.push((Assistant, "end".to_owned()));
        let given: Vec<(Role, &str)> = turns.iter().map(|(role, content)| (role.clone(), content.as_str())).collect();
        let decoder: Tokenizer = tokenizer_json().parse().unwrap();
        for template in [SKIPS_EMPTY, SHOUTS, NEEDS_QUESTION, CUTS, CHATML] {
            let (text, whole, inner) = expected(template, &turns);
            let encoding = decoder.encode(text.as_str(), false).unwrap();
            for (mask, spans) in [(MaskKind::Assistant, whole), (MaskKind::Content, inner)] {
                let tokenizer = ChatTokenizer::from_parts(parts(template), DEFAULT_DATE).unwrap().with_mask(mask);
                let sequence = tokenizer.encode(&dialogue(&given)).unwrap();
                prop_assert_eq!(&sequence.ids[..], encoding.get_ids());
                let masked: Vec<bool> = encoding
                    .get_offsets()
                    .iter()
                    .map(|(start, end)| (*start..*end).any(|byte| spans.iter().any(|span| (span[0]..span[1]).contains(&byte))))
                    .collect();
                prop_assert_eq!(&sequence.mask, &masked, "{} {:?} {:?}", template, mask, &text);
            }
        }
    }
}

#[test]
fn row_with_tools_has_the_template_for_tools() {
    let mut parts = parts(CHATML);
    parts.tool_template = Some("{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}".to_owned());
    let tokenizer = ChatTokenizer::from_parts(parts, DEFAULT_DATE).unwrap();
    let decoder: Tokenizer = tokenizer_json().parse().unwrap();
    let text = |values: Value| {
        let messages = json!([{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]);
        let ids = tokenizer.encode(&from_json(messages, values)).unwrap().ids;
        decoder.decode(&ids, false).unwrap()
    };
    let plain = "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\na<|im_end|>\n";
    for (values, expected) in [
        (json!({}), plain),
        (json!({"tools": null}), plain),
        (json!({"tools": []}), "[user]q[assistant]a"),
        (json!({"tools": [{"name": "f"}]}), "[user]q[assistant]a"),
    ] {
        assert_eq!(text(values.clone()), expected, "{values}");
    }
}

#[test]
fn variables_of_a_row_reach_the_template() {
    let source = "{{ tools|length }}{{ documents[0].text }}{{ mood }}{{ eos_token }}{{ add_generation_prompt }}\
                  {% for m in messages %}<{{ m.content }}>{% endfor %}";
    let values = json!({"tools": [], "documents": [{"text": "t"}], "mood": "calm", "eos_token": "E"});
    let dialogue = from_json(json!([{"role": "assistant", "content": "a"}]), values);
    let (text, _) = try_texts(source, &dialogue, MaskKind::Assistant).unwrap();
    assert_eq!(text, "0tcalmEFalse<a>");
    assert_eq!(Dialogue::new(vec![], true).template_values, Map::new());
}

/// The formats of families whose templates are not those of a Llama, in other words than the published templates.
const FAMILIES: [(&str, &str); 5] = [
    ("phi3", include_str!("../../tests/templates/phi3.jinja")),
    ("phi4_mini", include_str!("../../tests/templates/phi4_mini.jinja")),
    ("olmo2", include_str!("../../tests/templates/olmo2.jinja")),
    ("gemma3", include_str!("../../tests/templates/gemma3.jinja")),
    ("smollm3", include_str!("../../tests/templates/smollm3.jinja")),
];

#[test]
fn families_have_exact_masks() {
    let asked = [(System, "Be brief."), (User, "Is it?"), (Assistant, "It is."), (User, "Why?"), (Assistant, "So.")];
    let masked = FAMILIES.map(|(name, template)| {
        assert_eq!(contents(template, &asked), ["It is.", "So."], "{name}");
        turns(template, &asked)
    });
    let expected = [
        ["<|assistant|>\nIt is.<|end|>\n", "<|assistant|>\nSo.<|end|>\n</s>"],
        ["<|assistant|>It is.<|end|>", "<|assistant|>So.<|end|></s>"],
        ["<|assistant|>\nIt is.</s>\n", "<|assistant|>\nSo.</s>"],
        ["<start_of_turn>model\nIt is.<end_of_turn>\n", "<start_of_turn>model\nSo.<end_of_turn>\n"],
        ["<|im_start|>assistant\nIt is.<|im_end|>\n", "<|im_start|>assistant\nSo.<|im_end|>\n"],
    ];
    assert_eq!(masked, expected);
}
