//! Data sets that are missing or invalid: one line on standard error and exit status 2.

use std::sync::Arc;

use crate::common_cli::{lines, refusal, refused_data, valid_rows};
use crate::runner_support::Sandbox;
use insta::assert_snapshot;
use parquet::data_type::{BoolType, ByteArray, ByteArrayType};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use serde_json::{Value, json};

#[test]
fn missing_dataset_is_named() {
    let sandbox = Sandbox::new();
    let refused = |dataset: &str| refusal(&sandbox, &["--dataset", dataset]);
    assert_snapshot!(refused(sandbox.path("absent.jsonl").to_str().unwrap()), @"error: [DIR]/absent.jsonl: no such file; check the path of the data set");
    assert_snapshot!(refused("absent.csv"), @"error: absent.csv: no such file; check the path of the data set");
    assert_snapshot!(refused("absent.parquet"), @"error: absent.parquet: no such file; check the path of the data set");
    assert_snapshot!(refused("absent"), @"error: unknown data set `absent`; use one of embedded, embedded:short, embedded:medium, embedded:long, embedded:mixed, repe or the path of a .jsonl, .csv or .parquet file");
    assert_snapshot!(refused("embedded:endless"), @"error: unknown data set `embedded:endless`; the embedded ones are embedded:short, embedded:medium, embedded:long, embedded:mixed");
    assert_snapshot!(refused("rows.txt"), @"error: unknown data set `rows.txt`; use one of embedded, embedded:short, embedded:medium, embedded:long, embedded:mixed, repe or the path of a .jsonl, .csv or .parquet file");
    assert_snapshot!(refused("repe"), @"error: repe: cannot be downloaded from the hub (serteal/deception-repe: the hub could not be reached ([REASON]): check the network); pass `--data-dir DIR` with a copy at DIR/repe/true_false_facts.csv");
    assert_snapshot!(refusal(&sandbox, &["--dataset", "repe", "--data-dir", "absent"]), @"error: absent: has no repe/true_false_facts.csv, the local copy of `repe`; put it there or omit --data-dir");
}

#[test]
fn directory_in_place_of_file_is_named() {
    let sandbox = Sandbox::new();
    let refused = |name: &str| {
        std::fs::create_dir(sandbox.path(name)).unwrap();
        let error = refusal(&sandbox, &["--dataset", sandbox.path(name).to_str().unwrap()]);
        std::fs::remove_dir(sandbox.path(name)).unwrap();
        error
    };
    assert_snapshot!(refused("rows.jsonl"), @"error: [DIR]/rows.jsonl: is a directory; give the path of a file in it");
    assert_snapshot!(refused("rows"), @"error: unknown data set `[DIR]/rows`; use one of embedded, embedded:short, embedded:medium, embedded:long, embedded:mixed, repe or the path of a .jsonl, .csv or .parquet file");
}

#[test]
#[cfg(unix)]
fn unreadable_directory_is_named() {
    use std::os::unix::fs::PermissionsExt;
    let sandbox = Sandbox::new();
    let directory = sandbox.path("closed.jsonl");
    std::fs::create_dir(&directory).unwrap();
    let allow = |mode| std::fs::set_permissions(&directory, std::fs::Permissions::from_mode(mode)).unwrap();
    allow(0o000);
    let error = refusal(&sandbox, &["--dataset", directory.to_str().unwrap()]);
    allow(0o700);
    assert_snapshot!(error, @"error: [DIR]/closed.jsonl: is a directory; give the path of a file in it");
}

/// The error for valid rows of which the fourth is changed.
#[track_caller]
fn refused_row(change: impl FnOnce(&mut Value)) -> String {
    let mut rows = valid_rows();
    change(&mut rows[3]);
    refused_data("rows.jsonl", lines(&rows))
}

#[test]
fn invalid_row_is_named_by_line() {
    assert_snapshot!(refused_row(|row| { row.as_object_mut().unwrap().remove("label"); }), @"error: [DIR]/rows.jsonl:4: has no `label`; set it to 0 or 1, or remove the row");
    assert_snapshot!(refused_row(|row| row["label"] = Value::Null), @"error: [DIR]/rows.jsonl:4: has no `label`; set it to 0 or 1, or remove the row");
    assert_snapshot!(refused_row(|row| row["label"] = json!(2)), @"error: [DIR]/rows.jsonl:4: label 2 is neither 0 nor 1; probes are binary, so map the labels to 0 and 1");
    assert_snapshot!(refused_row(|row| row["label"] = json!("yes")), @r#"error: [DIR]/rows.jsonl:4: label "yes" is neither 0 nor 1; probes are binary, so map the labels to 0 and 1"#);
    assert_snapshot!(refused_row(|row| row["messages"][0]["role"] = json!(5)), @"error: [DIR]/rows.jsonl:4: message 1: has no `role`; set it to `system`, `user` or `assistant`");
    assert_snapshot!(refused_row(|row| row["messages"] = json!([])), @"error: [DIR]/rows.jsonl:4: `messages` is empty; remove the row or add messages");
    assert_snapshot!(refused_row(|row| row["messages"][1]["content"] = json!(["a", "b"])), @"error: [DIR]/rows.jsonl:4: message 2: `content` is not a string; join its parts into one string");
    assert_snapshot!(refused_row(|row| *row = json!([1, 2])), @r#"error: [DIR]/rows.jsonl:4: is not an object; a row is {"messages": [{"role", "content"}, ...], "label": 0 or 1}"#);
}

#[test]
fn rows_of_one_class_are_refused() {
    let mut rows = valid_rows();
    for row in &mut rows {
        row["label"] = json!(1);
    }
    assert_snapshot!(refused_data("rows.jsonl", lines(&rows)), @"error: [DIR]/rows.jsonl: all 20 rows have label 1; a probe needs rows of both classes, so add rows with label 0");
}

#[test]
fn side_without_a_class_is_refused() {
    let sandbox = Sandbox::new();
    assert_snapshot!(refusal(&sandbox, &["--samples", "2"]), @"error: the training split would have 1 rows of class 0 and 0 of class 1 (2 rows drawn, 1 and 1 per class, --train-frac 0.8); it needs both classes, so increase --samples or change --train-frac");
    assert_snapshot!(refusal(&sandbox, &["--samples", "10", "--train-frac", "0.01"]), @"error: the training split would have 0 rows of class 0 and 0 of class 1 (10 rows drawn, 5 and 5 per class, --train-frac 0.01); it needs both classes, so increase --samples or change --train-frac");
}

#[test]
fn empty_files_are_refused() {
    assert_snapshot!(refused_data("rows.jsonl", ""), @"error: [DIR]/rows.jsonl: has no rows; a data set needs rows of both classes");
    assert_snapshot!(refused_data("blank.jsonl", "\n \n"), @"error: [DIR]/blank.jsonl: has no rows; a data set needs rows of both classes");
    assert_snapshot!(refused_data("rows.csv", ""), @"error: [DIR]/rows.csv: has no column `label`; add one with 0 or 1 in each row");
    assert_snapshot!(refused_data("header.csv", "messages,label\n"), @"error: [DIR]/header.csv: has no rows; a data set needs rows of both classes");
    assert_snapshot!(refused_data("rows.parquet", ""), @"error: [DIR]/rows.parquet: is not a readable Parquet file: EOF: Parquet file too small. Size is 0 but need 8");
}

#[test]
fn file_that_contradicts_its_extension_is_refused() {
    assert_snapshot!(refused_data("rows.jsonl", "{\"messages\": [\n"), @"error: [DIR]/rows.jsonl:1: is not JSON: EOF while parsing a list (column 14); each line must be one whole JSON object");
    assert_snapshot!(refused_data("latin.jsonl", b"\xe4\n"), @"error: [DIR]/latin.jsonl:1: is not UTF-8 (byte 0 of the line); convert the file to UTF-8");
    assert_snapshot!(refused_data("rows.csv", "user,assistant,label\nA,B\n"), @"error: [DIR]/rows.csv:2: has 2 cells, the header has 3; quote cells that contain commas or line breaks");
    assert_snapshot!(refused_data("columns.csv", "text,label\nA,1\n"), @"error: [DIR]/columns.csv: has the columns `text,label`; they must be `messages,label` (messages as JSON) or `system,user,assistant,label`");
    assert_snapshot!(refused_data("rows.parquet", "PAR1 this is no Parquet at all PAR1"), @"error: [DIR]/rows.parquet: is not a readable Parquet file: EOF: Parquet file too small. Size is 35 but need 543976553");
}

/// A small valid Parquet file.
fn parquet() -> Vec<u8> {
    let schema = "message rows { required binary messages (UTF8); required boolean label; }";
    let mut bytes = Vec::new();
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let mut writer = SerializedFileWriter::new(&mut bytes, schema, Arc::new(WriterProperties::new())).unwrap();
    let mut group = writer.next_row_group().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    let text = ByteArray::from(valid_rows()[0]["messages"].to_string().as_str());
    column.typed::<ByteArrayType>().write_batch(&[text.clone(), text], None, None).unwrap();
    column.close().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    column.typed::<BoolType>().write_batch(&[false, true], None, None).unwrap();
    column.close().unwrap();
    group.close().unwrap();
    writer.close().unwrap();
    bytes
}

#[test]
fn damaged_parquet_file_is_refused() {
    let mut damaged = parquet();
    // The header of the first page, which begins after the magic number.
    damaged[4] = 0;
    assert_snapshot!(refused_data("rows.parquet", damaged), @"error: [DIR]/rows.parquet: is damaged: a page header of the column `messages` has a negative number of bytes or none; write the file again");
}
