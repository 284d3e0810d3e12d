//! Tokenizer directories compared with the ids of transformers 5.24: `scripts/make_tokenizer_cases.py` writes them.

use std::fs;
use std::path::Path;

use serde_json::{Map, Value};

use crate::data::{ChatMessage, Dialogue, Role};

use super::ChatTokenizer;

const CASES: &str = include_str!("../../tests/data/tokenizer_cases.json");

fn write(directory: &Path, name: &str, content: &Value) {
    fs::write(directory.join(name), content.to_string()).unwrap();
}

/// Writes the files of a case, as `write_directory` of the script.
fn write_directory(directory: &Path, case: &Map<String, Value>, bases: &Value) {
    let mut tokenizer = bases[case["base"].as_str().unwrap()].clone();
    for (key, value) in case.get("changes").and_then(Value::as_object).into_iter().flatten() {
        tokenizer[key] = value.clone();
    }
    write(directory, "tokenizer.json", &tokenizer);
    let mut model = serde_json::json!({"model_type": "llama"});
    for (key, value) in case.get("model").and_then(Value::as_object).into_iter().flatten() {
        model[key] = value.clone();
    }
    write(directory, "config.json", &model);
    write(directory, "tokenizer_config.json", &case["config"]);
    for name in ["special_tokens_map", "added_tokens"] {
        if let Some(content) = case.get(name) {
            write(directory, &format!("{name}.json"), content);
        }
    }
    if let Some(template) = case.get("template") {
        fs::write(directory.join("chat_template.jinja"), template.as_str().unwrap()).unwrap();
    }
    for (name, source) in case.get("templates").and_then(Value::as_object).into_iter().flatten() {
        fs::create_dir_all(directory.join("additional_chat_templates")).unwrap();
        let path = directory.join("additional_chat_templates").join(format!("{name}.jinja"));
        fs::write(path, source.as_str().unwrap()).unwrap();
    }
}

fn dialogue(messages: &Value) -> Dialogue {
    let message = |message: &Value| {
        let role = if message["role"] == "user" { Role::User } else { Role::Assistant };
        ChatMessage::new(role, message["content"].as_str().unwrap())
    };
    Dialogue::new(messages.as_array().unwrap().iter().map(message).collect(), true)
}

#[test]
fn ids_equal_those_of_transformers() {
    let file: Value = serde_json::from_str(CASES).unwrap();
    let cases = file["cases"].as_array().unwrap();
    let dialogues: Vec<Dialogue> = file["dialogues"].as_array().unwrap().iter().map(dialogue).collect();
    let mut wrong = Vec::new();
    let mut rejected = 0;
    for case in cases {
        let case = case.as_object().unwrap();
        let name = case["name"].as_str().unwrap();
        let directory = tempfile::tempdir().unwrap();
        write_directory(directory.path(), case, &file["bases"]);
        let encode = || -> crate::Result<Value> {
            let tokenizer = ChatTokenizer::from_dir(directory.path())?;
            let ids: crate::Result<Vec<Value>> =
                dialogues.iter().map(|dialogue| Ok(tokenizer.encode(dialogue)?.ids.into())).collect();
            Ok(ids?.into())
        };
        match encode() {
            Ok(ids) if ids == case["ids"] => {}
            Ok(ids) => wrong.push(format!("{name}: {ids} instead of {}", case["ids"])),
            Err(error) if case["ids"].is_null() && error.exit_code() == 2 => rejected += 1,
            Err(error) => wrong.push(format!("{name}: {error}")),
        }
    }
    assert!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    // Transformers fails on a few cases only; otherwise the comparison would be empty.
    assert!(cases.len() > 200 && rejected < cases.len() / 10, "{rejected} of {}", cases.len());
}
