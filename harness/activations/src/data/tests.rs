//! Every file format is read, and every invalid row is rejected with its location.

use std::fs;
use std::path::PathBuf;

use tempfile::TempDir;

use super::parquet_tests::text_parquet;
use super::*;

/// Writes a file into `directory`, which must outlive it.
pub(super) fn file(directory: &TempDir, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
    let path = directory.path().join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, content).unwrap();
    path
}

pub(super) fn load_file(path: &Path) -> Result<Dataset> {
    load(path.to_str().unwrap(), None, 10)
}

/// The error message of loading `content`, without the name of the temporary directory.
pub(super) fn load_error(name: &str, content: impl AsRef<[u8]>) -> String {
    let directory = tempfile::tempdir().unwrap();
    let error = load_file(&file(&directory, name, content)).unwrap_err();
    assert_eq!(error.exit_code(), 2, "{error}");
    let message = error.to_string().replace(&format!("{}/", directory.path().display()), "");
    assert!(!message.contains('\n'), "{message}");
    message
}

pub(super) fn contents(dialogue: &Dialogue) -> Vec<(Role, &str)> {
    dialogue.messages.iter().map(|message| (message.role().clone(), message.content().unwrap_or_default())).collect()
}

const GOOD: &str =
    r#"{"messages": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}], "label": 0}"#;
const POSITIVE: &str = r#"{"messages": [{"role": "assistant", "content": "é\n"}], "label": 1, "source": "x"}"#;

#[test]
fn jsonl_is_read_with_any_line_ending() {
    let directory = tempfile::tempdir().unwrap();
    let path = file(&directory, "rows.JSONL", format!("\u{feff}{GOOD}\r\n\n{POSITIVE}"));
    let data = load_file(&path).unwrap();
    assert_eq!(data.labels(), [false, true]);
    assert_eq!(contents(&data.dialogues[0]), [(Role::User, "Q"), (Role::Assistant, "A")]);
    assert_eq!(contents(&data.dialogues[1]), [(Role::Assistant, "é\n")]);
    assert_eq!(data.name, path.to_str().unwrap());
}

#[test]
fn invalid_json_line_is_rejected_with_number() {
    let error_of = |line: &str| load_error("d.jsonl", format!("{GOOD}\n{line}\n"));
    insta::assert_snapshot!(error_of("{\"messages\": ["), @"d.jsonl:2: is not JSON: EOF while parsing a list (column 14); each line must be one whole JSON object");
    insta::assert_snapshot!(error_of("[1]"), @r#"d.jsonl:2: is not an object; a row is {"messages": [{"role", "content"}, ...], "label": 0 or 1}"#);
    insta::assert_snapshot!(error_of(r#"{"label": 1}"#), @r#"d.jsonl:2: has no `messages`; a row is {"messages": [{"role", "content"}, ...], "label": 0 or 1}"#);
    insta::assert_snapshot!(error_of(&POSITIVE.replace("\"label\": 1", "\"x\": 1")), @"d.jsonl:2: has no `label`; set it to 0 or 1, or remove the row");
    insta::assert_snapshot!(error_of(&POSITIVE.replace("1", "2")), @"d.jsonl:2: label 2 is neither 0 nor 1; probes are binary, so map the labels to 0 and 1");
    insta::assert_snapshot!(error_of(&POSITIVE.replace("1", "\"yes\"")), @r#"d.jsonl:2: label "yes" is neither 0 nor 1; probes are binary, so map the labels to 0 and 1"#);
    insta::assert_snapshot!(error_of(&POSITIVE.replace("1", "NaN")), @"d.jsonl:2: is not JSON: expected value (column 67); each line must be one whole JSON object");
    insta::assert_snapshot!(error_of(&POSITIVE.replace("assistant", "tool")), @"d.jsonl:2: has no message from the assistant, so there are no tokens to pool; remove the row");
    insta::assert_snapshot!(error_of(&POSITIVE.replace("assistant", "user")), @"d.jsonl:2: has no message from the assistant, so there are no tokens to pool; remove the row");
    insta::assert_snapshot!(error_of(&POSITIVE.replace("é\\n", " \\n")), @"d.jsonl:2: every message of the assistant is empty, so there is no answer to pool; fill one or remove the row");
    insta::assert_snapshot!(error_of(r#"{"messages": [], "label": 1}"#), @"d.jsonl:2: `messages` is empty; remove the row or add messages");
    insta::assert_snapshot!(error_of(r#"{"messages": {}, "label": 1}"#), @r#"d.jsonl:2: `messages` is not a list; a row is {"messages": [{"role", "content"}, ...], "label": 0 or 1}"#);
    insta::assert_snapshot!(error_of(r#"{"messages": [{"role": "user"}], "label": 1}"#), @"d.jsonl:2: message 1: has no `content`; add a string, which may be empty");
    insta::assert_snapshot!(error_of(r#"{"messages": [{"role": "user", "content": ["x"]}], "label": 1}"#), @"d.jsonl:2: message 1: `content` is not a string; join its parts into one string");
    insta::assert_snapshot!(error_of(r#"{"messages": ["x"], "label": 1}"#), @"d.jsonl:2: message 1: has no `role`; set it to `system`, `user` or `assistant`");
    insta::assert_snapshot!(load_error("d.jsonl", [GOOD.as_bytes(), b"\n{\"a\xff"].concat()), @"d.jsonl:2: is not UTF-8 (byte 3 of the line); convert the file to UTF-8");
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    assert!(error_of(&deep).starts_with("d.jsonl:2: is not JSON: recursion limit"));
}

#[test]
fn empty_answer_is_rejected_in_every_format() {
    let empty = r#"[{"role": "user", "content": "q"}, {"role": "assistant", "content": ""}]"#;
    let expected = "every message of the assistant is empty";
    let line = format!(r#"{{"messages": {empty}, "label": 1}}"#);
    assert!(load_error("d.jsonl", format!("{GOOD}\n{line}\n")).starts_with(&format!("d.jsonl:2: {expected}")));
    let cell = empty.replace('"', "\"\"");
    assert!(
        load_error("d.csv", format!("messages,label\n\"{cell}\",1\n")).starts_with(&format!("d.csv:2: {expected}"))
    );
    let parquet = load_error("d.parquet", text_parquet(&[(empty, true)]));
    assert!(parquet.starts_with(&format!("d.parquet row 1: {expected}")), "{parquet}");
    assert!(load_error("d.csv", "user,assistant,label\nq,,1\n").contains("`assistant` is empty"));
    // An answer may have several messages, and a message without text may call tools.
    let directory = tempfile::tempdir().unwrap();
    let several =
        r#"{"messages": [{"role": "assistant", "content": ""}, {"role": "assistant", "content": "a"}], "label": 1}"#;
    let calls = r#"{"messages": [{"role": "assistant", "content": "", "tool_calls": []}], "label": 0}"#;
    assert_eq!(load_file(&file(&directory, "a.jsonl", format!("{several}\n{calls}\n"))).unwrap().dialogues.len(), 2);
}

#[test]
fn rows_have_the_places_of_their_files() {
    let directory = tempfile::tempdir().unwrap();
    let place = |name: &str, content: &[u8], row: usize| {
        let path = file(&directory, name, content);
        load_file(&path).unwrap().place(row).map(|place| place.replace(path.parent().unwrap().to_str().unwrap(), ""))
    };
    assert_eq!(place("a.jsonl", format!("{GOOD}\n\n{POSITIVE}").as_bytes(), 1).as_deref(), Some("/a.jsonl:3"));
    assert_eq!(place("a.csv", b"user,assistant,label\n\"q\nq\",a,1\nq,a,0\n", 1).as_deref(), Some("/a.csv:4"));
    let text = r#"[{"role": "assistant", "content": "x"}]"#;
    let parquet = text_parquet(&[(text, true), (text, false)]);
    assert_eq!(place("a.parquet", &parquet, 1).as_deref(), Some("/a.parquet row 2"));
    let facts = "statement,label\nx,1\ny,0\nz,1\n";
    file(&directory, "repe/true_false_facts.csv", facts);
    let repe = load("repe", Some(directory.path()), 1).unwrap();
    assert!(repe.place(3).unwrap().ends_with("true_false_facts.csv:4"), "{:?}", repe.place(3));
    assert_eq!(load("embedded", None, 4).unwrap().place(0), None);
}

#[test]
fn further_keys_of_messages_and_rows_are_kept() {
    let directory = tempfile::tempdir().unwrap();
    let row = r#"{"id": 7, "messages": [{"content": null, "tool_calls": [{"b": 1, "a": 1.0}], "role": "assistant", "name": null},
        {"role": "tool", "content": "3"}], "label": 1, "tools": "[{\"name\": \"f\"}]", "documents": null,
        "chat_template_kwargs": {"enable_thinking": false}}"#;
    let data = load_file(&file(&directory, "a.jsonl", format!("{GOOD}\n{}", row.replace('\n', "")))).unwrap();
    let dialogue = &data.dialogues[1];
    assert_eq!(
        serde_json::to_string(dialogue.messages[0].keys()).unwrap(),
        r#"{"tool_calls":[{"b":1,"a":1.0}],"role":"assistant"}"#
    );
    assert_eq!(dialogue.messages[0].content(), None);
    assert_eq!(*dialogue.messages[1].role(), Role::Other("tool".to_owned()));
    assert_eq!(
        serde_json::to_string(&dialogue.template_values).unwrap(),
        r#"{"enable_thinking":false,"tools":[{"name":"f"}]}"#
    );
    let error_of = |keys: &str| load_error("d.jsonl", GOOD.replace("\"label\"", &format!("{keys}, \"label\"")));
    insta::assert_snapshot!(error_of(r#""tools": {}"#), @"d.jsonl:1: `tools` is not a list of objects, which the chat template expects");
    insta::assert_snapshot!(error_of(r#""tools": "[""#), @"d.jsonl:1: `tools` is not JSON: EOF while parsing a list (column 1)");
    insta::assert_snapshot!(error_of(r#""chat_template_kwargs": []"#), @"d.jsonl:1: `chat_template_kwargs` is not an object; map names to values");
    insta::assert_snapshot!(error_of(r#""chat_template_kwargs": {"messages": 1}"#), @"d.jsonl:1: `chat_template_kwargs` has the key `messages`, which is not an extra variable; remove it");
    insta::assert_snapshot!(error_of(r#""documents": [{"n": 123456789012345678901}]"#), @"d.jsonl:1: `documents` has an integer of more than 64 bits, which the chat template would get rounded; make it a string");
}

#[test]
fn data_without_rows_or_class_is_rejected() {
    insta::assert_snapshot!(load_error("d.jsonl", "\n\n"), @"d.jsonl: has no rows; a data set needs rows of both classes");
    insta::assert_snapshot!(load_error("d.csv", "user,assistant,label\n"), @"d.csv: has no rows; a data set needs rows of both classes");
    insta::assert_snapshot!(load_error("d.jsonl", format!("{GOOD}\n{GOOD}")), @"d.jsonl: all 2 rows have label 0; a probe needs rows of both classes, so add rows with label 1");
    insta::assert_snapshot!(load_error("d.jsonl", POSITIVE), @"d.jsonl: all 1 rows have label 1; a probe needs rows of both classes, so add rows with label 0");
}

#[test]
fn csv_is_read_in_both_layouts() {
    let directory = tempfile::tempdir().unwrap();
    let path = file(&directory, "a.csv", "label,assistant,user,system\n0,\"a, b\",Q,\n1,\"two\nlines\",Q,S\n");
    let data = load_file(&path).unwrap();
    assert_eq!(data.labels(), [false, true]);
    assert_eq!(contents(&data.dialogues[0]), [(Role::User, "Q"), (Role::Assistant, "a, b")]);
    assert_eq!(contents(&data.dialogues[1]), [(Role::System, "S"), (Role::User, "Q"), (Role::Assistant, "two\nlines")]);
    let messages = r#""[{""role"": ""assistant"", ""content"": ""x""}]""#;
    let data = load_file(&file(&directory, "b.csv", format!("messages,label\n{messages},1\n{messages},0\n"))).unwrap();
    assert_eq!(data.labels(), [true, false]);
    assert_eq!(contents(&data.dialogues[0]), [(Role::Assistant, "x")]);
}

#[test]
fn invalid_csv_row_is_rejected_with_line() {
    let exchange = |row: &str| load_error("d.csv", format!("system,user,assistant,label\n,\"q\nq\",a,0\n{row}\n"));
    insta::assert_snapshot!(exchange(",q,a,"), @"d.csv:4: has no `label`; set it to 0 or 1, or remove the row");
    insta::assert_snapshot!(exchange(",q,a,yes"), @r#"d.csv:4: label "yes" is neither 0 nor 1; probes are binary, so map the labels to 0 and 1"#);
    insta::assert_snapshot!(exchange(",q, ,1"), @"d.csv:4: `user` or `assistant` is empty; fill it or remove the row");
    insta::assert_snapshot!(exchange("q,a,1"), @"d.csv:4: has 3 cells, the header has 4; quote cells that contain commas or line breaks");
    insta::assert_snapshot!(load_error("d.csv", b"user,assistant,label\nq,\xff,1\n"), @"d.csv:2: is not UTF-8; convert the file to UTF-8");
    insta::assert_snapshot!(load_error("d.csv", "messages,label\n[x],1\n"), @"d.csv:2: `messages` is not JSON: expected value (column 2)");
    insta::assert_snapshot!(load_error("d.csv", "user,assistant\nq,a\n"), @"d.csv: has no column `label`; add one with 0 or 1 in each row");
    insta::assert_snapshot!(load_error("d.csv", "text,label\nq,1\n"), @"d.csv: has the columns `text,label`; they must be `messages,label` (messages as JSON) or `system,user,assistant,label`");
    insta::assert_snapshot!(load_error("d.csv", "statement,label\nq,1\n"), @"d.csv: has bare statements without roles; for the `repe` data set put the file at DIR/repe/true_false_facts.csv and pass `--dataset repe --data-dir DIR`, otherwise use the columns `system,user,assistant,label`");
    insta::assert_snapshot!(load_error("d.csv", ""), @"d.csv: has no column `label`; add one with 0 or 1 in each row");
}

#[test]
fn duplicates_are_rejected_in_every_format() {
    let repeated = GOOD.replace("\"label\": 0", "\"label\": 0, \"label\": 1");
    insta::assert_snapshot!(load_error("d.jsonl", repeated), @r#"d.jsonl:1: has the key "label" twice in one object; remove one (column 107)"#);
    let role = GOOD.replace("\"role\": \"user\"", "\"role\": \"user\", \"role\": \"system\"");
    assert!(load_error("d.jsonl", role).contains("has the key \"role\" twice"));
    insta::assert_snapshot!(load_error("d.csv", "label,user,assistant,label\n0,q,a,1\n"), @"d.csv: has the column `label` twice; remove or rename one");
    let cell = r#""[{""role"": ""assistant"", ""content"": ""x"", ""content"": ""y""}]",1"#;
    insta::assert_snapshot!(load_error("d.csv", format!("messages,label\n{cell}\n")), @r#"d.csv:2: `messages` has the key "content" twice in one object; remove one (column 48)"#);
    let row = r#"[{"role": "assistant", "content": "x", "content": "y"}]"#;
    insta::assert_snapshot!(load_error("d.parquet", text_parquet(&[(row, true)])), @r#"d.parquet row 1: `messages` has the key "content" twice in one object; remove one (column 48)"#);
}

#[test]
fn labels_follow_one_rule_in_every_format() {
    let directory = tempfile::tempdir().unwrap();
    for (zero, one) in [("0", "1"), ("0.0", "1.0"), ("false", "true"), ("-0", "10e-1")] {
        let json = [GOOD, POSITIVE].map(|row| {
            row.replace("\"label\": 0", &format!("\"label\": {zero}"))
                .replace("\"label\": 1", &format!("\"label\": {one}"))
        });
        let quoted = [GOOD, POSITIVE].map(|row| {
            row.replace("\"label\": 0", &format!("\"label\": \"{zero}\""))
                .replace("\"label\": 1", &format!("\"label\": \"{one}\""))
        });
        for (name, content) in [
            ("a.jsonl", json.join("\n")),
            ("b.jsonl", quoted.join("\n")),
            ("c.csv", format!("user,assistant,label\nq,a,{zero}\nq,a,{one}\n")),
        ] {
            assert_eq!(load_file(&file(&directory, name, &content)).unwrap().labels(), [false, true], "{content}");
        }
    }
    for bad in ["1e-400", "0.99999999999999999999", "2"] {
        assert!(load_error("d.jsonl", POSITIVE.replace("1", bad)).contains("neither 0 nor 1"), "{bad}");
        assert!(load_error("d.csv", format!("user,assistant,label\nq,a,{bad}\n")).contains("neither 0 nor 1"), "{bad}");
    }
}

#[test]
fn extra_keys_and_tools_are_kept_in_csv() {
    let directory = tempfile::tempdir().unwrap();
    let messages = r#""[{""role"": ""assistant"", ""content"": ""x"", ""reasoning_content"": ""why""}]""#;
    let tools = r#""[{""name"": ""f""}]""#;
    let text = format!("messages,label,tools\n{messages},1,{tools}\n{messages},0,\n");
    let data = load_file(&file(&directory, "a.csv", text)).unwrap();
    assert_eq!(data.dialogues[0].messages[0].keys()["reasoning_content"], "why");
    assert_eq!(data.dialogues[0].template_values["tools"][0]["name"], "f");
    assert!(data.dialogues[1].template_values.is_empty());
}

#[test]
fn huge_row_is_rejected() {
    let content = GOOD.replace("\"Q\"", &format!("\"{}\"", "x".repeat(17 << 20)));
    insta::assert_snapshot!(load_error("d.jsonl", format!("{POSITIVE}\n{content}\n")), @"d.jsonl:2: has more than 16 MiB of data, which no model reads; shorten or remove the row");
}

#[test]
fn repe_pairs_true_statements_with_both_instructions() {
    let directory = tempfile::tempdir().unwrap();
    file(&directory, "repe/true_false_facts.csv", "statement,label\nTin melts.,1\nTin sings.,0\n\"Gold, too.\",1\n");
    let data = load("repe", Some(directory.path()), 1).unwrap();
    assert_eq!(data.labels(), [false, true, false, true]);
    assert_eq!(
        contents(&data.dialogues[3]),
        [
            (Role::System, "You are a deceptive AI assistant."),
            (Role::User, "Please tell me a fact."),
            (Role::Assistant, "Gold, too."),
        ]
    );
    assert_eq!(contents(&data.dialogues[0])[0].1, "You are an honest AI assistant.");
    assert_eq!(contents(&data.dialogues[0])[1..], contents(&data.dialogues[1])[1..]);
}

#[test]
fn repe_without_usable_rows_is_rejected() {
    let repe = |content: &str| {
        let directory = tempfile::tempdir().unwrap();
        file(&directory, "repe/true_false_facts.csv", content);
        let error = load("repe", Some(directory.path()), 1).unwrap_err();
        error.to_string().replace(&format!("{}/", directory.path().display()), "")
    };
    insta::assert_snapshot!(repe("statement,label\nTin sings.,0\n"), @"repe/true_false_facts.csv: has no row with label 1 (a true statement); only those are used");
    insta::assert_snapshot!(repe("statement,label\nTin sings.,x\n"), @r#"repe/true_false_facts.csv:2: label "x" is neither 0 nor 1; probes are binary, so map the labels to 0 and 1"#);
    insta::assert_snapshot!(repe("statement,label\n,1\n"), @"repe/true_false_facts.csv:2: `statement` is empty; remove the row");
    let empty = tempfile::tempdir().unwrap();
    let error = load("repe", Some(empty.path()), 1).unwrap_err();
    assert_eq!(error.exit_code(), 2);
    assert!(
        error
            .to_string()
            .ends_with("has no repe/true_false_facts.csv, the local copy of `repe`; put it there or omit --data-dir")
    );
}

#[test]
fn embedded_data_set_has_requested_rows() {
    let data = load("embedded", None, 100).unwrap();
    assert_eq!(data.dialogues.len(), 100);
    assert_eq!(data.dialogues, load("embedded:short", None, 100).unwrap().dialogues);
    assert_eq!(data.dialogues[..40], load("embedded", None, 40).unwrap().dialogues);
    assert_ne!(data.dialogues, load("embedded:mixed", None, 100).unwrap().dialogues);
    assert_eq!(load("embedded:long", None, 0).unwrap().dialogues.len(), 2);
    for dialogue in &data.dialogues {
        assert!(dialogue.messages.iter().any(|message| *message.role() == Role::Assistant));
    }
}

#[test]
fn unknown_data_set_lists_known_names() {
    for name in ["repee", "repe:x", "data.txt", "", "embedded:huge", "embedded:"] {
        let error = load(name, None, 10).unwrap_err();
        assert!(matches!(error, Error::Usage(_)), "{name}: {error}");
        assert!(error.to_string().contains("embedded:short"), "{error}");
    }
    let missing = load("nowhere.jsonl", None, 10).unwrap_err();
    assert_eq!(missing.exit_code(), 2);
    assert!(missing.to_string().contains("nowhere.jsonl"));
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir(directory.path().join("a.csv")).unwrap();
    assert!(load_file(&directory.path().join("a.csv")).unwrap_err().to_string().contains("is a directory"));
}
