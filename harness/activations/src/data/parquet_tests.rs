//! Parquet files: layouts of lists by old and new writers, types of labels, and files that would exhaust memory.

use std::sync::Arc;

use parquet::basic::{Compression, ZstdLevel};
use parquet::data_type::{BoolType, ByteArray, ByteArrayType, Int64Type};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;

use super::tests::{contents, file, load_error, load_file};
use super::*;

const NESTED: &str = "message rows {
    optional group messages (LIST) { repeated group list { optional group element {
        optional binary content (UTF8); optional binary role (UTF8); } } }
    optional int64 label; }";

/// A file with the rows `[user Q, assistant A]` and `[assistant A]`, labeled as given.
pub(super) fn nested_parquet(labels: [i64; 2], role: &str) -> Vec<u8> {
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
pub(super) fn text_parquet(rows: &[(&str, bool)]) -> Vec<u8> {
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

/// Levels of the rows `[user Q, assistant A]`, `[assistant A]`: the definition level of a present text, and the texts.
fn list_parquet(messages: &str, defined: i16) -> Vec<u8> {
    let schema = format!("message rows {{ {messages} required int64 label; }}");
    let schema = Arc::new(parse_message_type(&schema).unwrap());
    let mut bytes = Vec::new();
    let mut writer = SerializedFileWriter::new(&mut bytes, schema, Arc::new(WriterProperties::new())).unwrap();
    let mut rows = writer.next_row_group().unwrap();
    for texts in [["user", "assistant", "assistant"], ["Q", "A", "B"]] {
        let texts: Vec<ByteArray> = texts.into_iter().map(ByteArray::from).collect();
        let mut column = rows.next_column().unwrap().unwrap();
        column.typed::<ByteArrayType>().write_batch(&texts, Some(&[defined; 3]), Some(&[0, 1, 0])).unwrap();
        column.close().unwrap();
    }
    let mut column = rows.next_column().unwrap().unwrap();
    column.typed::<Int64Type>().write_batch(&[0, 1], None, None).unwrap();
    column.close().unwrap();
    rows.close().unwrap();
    writer.close().unwrap();
    bytes
}

/// The layouts of the Parquet format (LogicalTypes.md, "Lists"), with those of Hive, Avro, Thrift and Spark.
#[test]
fn every_list_layout_is_read() {
    let directory = tempfile::tempdir().unwrap();
    let texts = "{ optional binary role (UTF8); optional binary content (UTF8); }";
    let required = "{ required binary role (UTF8); required binary content (UTF8); }";
    let layouts = [
        (format!("optional group messages (LIST) {{ repeated group list {{ optional group element {texts} }} }}"), 4),
        (
            format!("required group messages (LIST) {{ repeated group list {{ required group element {required} }} }}"),
            1,
        ),
        (
            format!(
                "optional group messages (LIST) {{ repeated group bag {{ optional group array_element {texts} }} }}"
            ),
            4,
        ),
        (format!("optional group messages (LIST) {{ repeated group array {texts} }}"), 3),
        (format!("required group messages (LIST) {{ repeated group array {required} }}"), 1),
        (format!("optional group messages (LIST) {{ repeated group messages_tuple {texts} }}"), 3),
        (format!("optional group messages (LIST) {{ repeated group anything {required} }}"), 2),
        (format!("repeated group messages {required}"), 1),
    ];
    for (messages, defined) in layouts {
        let data = load_file(&file(&directory, "a.parquet", list_parquet(&messages, defined))).expect(&messages);
        assert_eq!(contents(&data.dialogues[0]), [(Role::User, "Q"), (Role::Assistant, "A")], "{messages}");
        assert_eq!(contents(&data.dialogues[1]), [(Role::Assistant, "B")], "{messages}");
    }
}

/// A file with `n` rows of one text, and its size.
fn repeated_text(text: &str, n: usize, dictionary: bool) -> Vec<u8> {
    let schema = "message rows { required binary messages (UTF8); required boolean label; }";
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(1).unwrap()))
        .set_dictionary_enabled(dictionary)
        .set_statistics_enabled(parquet::file::properties::EnabledStatistics::None)
        .build();
    let mut bytes = Vec::new();
    let mut writer = SerializedFileWriter::new(&mut bytes, schema, Arc::new(properties)).unwrap();
    let mut group = writer.next_row_group().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    let texts = vec![ByteArray::from(text); n];
    column.typed::<ByteArrayType>().write_batch(&texts, None, None).unwrap();
    column.close().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    column.typed::<BoolType>().write_batch(&vec![true; n], None, None).unwrap();
    column.close().unwrap();
    group.close().unwrap();
    writer.close().unwrap();
    bytes
}

#[test]
fn small_file_of_much_data_is_rejected() {
    let error = load_error("d.parquet", repeated_text(&"a".repeat(15 << 20), 20, false));
    assert!(error.starts_with("d.parquet: has 300 MiB of data in a file of"), "{error}");
    insta::assert_snapshot!(load_error("d.parquet", repeated_text(&"a".repeat(17 << 20), 2, true)), @"d.parquet row 1: has more than 16 MiB of data, which no model reads; shorten or remove the row");
}

#[test]
fn duplicate_columns_are_rejected() {
    let schema = "message rows { required binary messages (UTF8); required int64 label; required int64 label; }";
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let mut bytes = Vec::new();
    SerializedFileWriter::new(&mut bytes, schema, Arc::new(WriterProperties::new())).unwrap().close().unwrap();
    insta::assert_snapshot!(load_error("d.parquet", bytes), @"d.parquet: has the column `label` twice; remove or rename one");
}

/// Rows as `datasets` yields them: each struct has every key of its column, with null for those that a row lacks, and the
/// template gets a null below a message. pyarrow 26.0.1 wrote the Parquet file, by `Table.from_pylist` of the lines.
#[test]
fn nested_tool_calls_equal_their_json_lines() {
    let load =
        |name: &str| load_file(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)).unwrap().dialogues;
    let (rows, lines) = (load("tool_calls.parquet"), load("tool_calls.jsonl"));
    // As text, because equal maps may have another order of keys.
    assert_eq!(format!("{rows:#?}"), format!("{lines:#?}"));
    let keys = |row: usize, message: usize| serde_json::to_string(rows[row].messages[message].keys()).unwrap();
    insta::assert_snapshot!(keys(0, 1), @r#"{"role":"assistant","tool_calls":[{"id":"call_weather","type":"function","function":{"name":"weather","arguments":{"city":"Bern","days":null,"codes":null,"zone":null}}}]}"#);
    insta::assert_snapshot!(keys(1, 1), @r#"{"role":"assistant","content":"","tool_calls":[{"id":"call_time","type":"function","function":{"name":"time","arguments":{"city":null,"days":2,"codes":[7,null],"zone":{"name":"CET"}}}}]}"#);
    insta::assert_snapshot!(keys(2, 0), @r#"{"role":"assistant","content":"Hello.","tool_calls":[null]}"#);
    insta::assert_snapshot!(rows[0].template_values["tools"][1], @r#"{"type":"function","function":{"name":"time","description":null,"parameters":null}}"#);
    insta::assert_snapshot!(rows[0].template_values["tools"][2], @r#"{"type":"retrieval","function":null}"#);
}
