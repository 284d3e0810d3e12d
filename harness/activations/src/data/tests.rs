//! Every file format is read, and every invalid row is rejected with its location.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use parquet::data_type::{BoolType, ByteArray, ByteArrayType, Int64Type};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use tempfile::TempDir;

use super::*;

/// Writes a file into `directory`, which must outlive it.
fn file(directory: &TempDir, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
    let path = directory.path().join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, content).unwrap();
    path
}

fn load_file(path: &Path) -> Result<Dataset> {
    load(path.to_str().unwrap(), None, 10)
}

/// The error message of loading `content`, without the name of the temporary directory.
fn load_error(name: &str, content: impl AsRef<[u8]>) -> String {
    let directory = tempfile::tempdir().unwrap();
    let error = load_file(&file(&directory, name, content)).unwrap_err();
    assert_eq!(error.exit_code(), 2, "{error}");
    let message = error.to_string().replace(&format!("{}/", directory.path().display()), "");
    assert!(!message.contains('\n'), "{message}");
    message
}

fn contents(dialogue: &Dialogue) -> Vec<(Role, &str)> {
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

const NESTED: &str = "message rows {
    optional group messages (LIST) { repeated group list { optional group element {
        optional binary content (UTF8); optional binary role (UTF8); } } }
    optional int64 label; }";

/// A file with the rows `[user Q, assistant A]` and `[assistant A]`, labeled as given.
fn nested_parquet(labels: [i64; 2], role: &str) -> Vec<u8> {
    let schema = Arc::new(parse_message_type(NESTED).unwrap());
    let mut bytes = Vec::new();
    let mut writer = SerializedFileWriter::new(&mut bytes, schema, Arc::new(WriterProperties::new())).unwrap();
    let mut rows = writer.next_row_group().unwrap();
    // Definition level 4: list, element and text are present. Repetition level 1: the value continues the row.
    for texts in [["Q", "A", "A"], ["user", role, role]] {
        let texts: Vec<ByteArray> = texts.into_iter().map(ByteArray::from).collect();
        let mut column = rows.next_column().unwrap().unwrap();
        column.typed::<ByteArrayType>().write_batch(&texts, Some(&[4, 4, 4]), Some(&[0, 1, 0])).unwrap();
        column.close().unwrap();
    }
    let mut column = rows.next_column().unwrap().unwrap();
    column.typed::<Int64Type>().write_batch(&labels, Some(&[1, 1]), None).unwrap();
    column.close().unwrap();
    rows.close().unwrap();
    writer.close().unwrap();
    bytes
}

/// A file with one column of JSON text and a boolean label.
fn text_parquet(rows: &[(&str, bool)]) -> Vec<u8> {
    let schema = "message rows { required binary messages (UTF8); required boolean label; }";
    let mut bytes = Vec::new();
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let mut writer = SerializedFileWriter::new(&mut bytes, schema, Arc::new(WriterProperties::new())).unwrap();
    let mut group = writer.next_row_group().unwrap();
    let texts: Vec<ByteArray> = rows.iter().map(|row| ByteArray::from(row.0)).collect();
    let labels: Vec<bool> = rows.iter().map(|row| row.1).collect();
    let mut column = group.next_column().unwrap().unwrap();
    column.typed::<ByteArrayType>().write_batch(&texts, None, None).unwrap();
    column.close().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    column.typed::<BoolType>().write_batch(&labels, None, None).unwrap();
    column.close().unwrap();
    group.close().unwrap();
    writer.close().unwrap();
    bytes
}

#[test]
fn parquet_is_read_in_both_layouts() {
    let directory = tempfile::tempdir().unwrap();
    let data = load_file(&file(&directory, "a.parquet", nested_parquet([0, 1], "assistant"))).unwrap();
    assert_eq!(data.labels(), [false, true]);
    assert_eq!(contents(&data.dialogues[0]), [(Role::User, "Q"), (Role::Assistant, "A")]);
    assert_eq!(contents(&data.dialogues[1]), [(Role::Assistant, "A")]);
    let messages = r#"[{"role": "assistant", "content": "x"}]"#;
    let data = load_file(&file(&directory, "b.parquet", text_parquet(&[(messages, true), (messages, false)]))).unwrap();
    assert_eq!(data.labels(), [true, false]);
}

#[test]
fn invalid_parquet_is_rejected_with_row() {
    insta::assert_snapshot!(load_error("d.parquet", nested_parquet([0, 3], "assistant")), @"d.parquet row 2: label 3 is neither 0 nor 1; probes are binary, so map the labels to 0 and 1");
    insta::assert_snapshot!(load_error("d.parquet", nested_parquet([0, 1], "bot")), @"d.parquet row 1: has no message from the assistant, so there are no tokens to pool; remove the row");
    insta::assert_snapshot!(load_error("d.parquet", text_parquet(&[("[]", true)])), @"d.parquet row 1: `messages` is empty; remove the row or add messages");
    assert!(load_error("d.parquet", "not Parquet at all").starts_with("d.parquet: is not a readable Parquet file"));
    assert!(load_error("d.parquet", "").starts_with("d.parquet: is not a readable Parquet file"));
    let schema = Arc::new(parse_message_type("message rows { required int32 other; }").unwrap());
    let mut bytes = Vec::new();
    SerializedFileWriter::new(&mut bytes, schema, Arc::new(WriterProperties::new())).unwrap().close().unwrap();
    insta::assert_snapshot!(load_error("d.parquet", bytes), @"d.parquet: has the columns `other`; it must have `messages` and `label`");
}

#[test]
fn damaged_parquet_never_panics() {
    let directory = tempfile::tempdir().unwrap();
    let good = nested_parquet([0, 1], "assistant");
    for position in 0..good.len() {
        for flip in [0x01, 0x80, 0xff] {
            let mut damaged = good.clone();
            damaged[position] ^= flip;
            // A result or an error: only a panic would fail this test.
            let _ = load_file(&file(&directory, "d.parquet", &damaged));
        }
    }
    for length in 0..good.len() {
        assert!(load_file(&file(&directory, "d.parquet", &good[..length])).is_err());
    }
}
