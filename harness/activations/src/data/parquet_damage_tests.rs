//! Damaged Parquet files: metadata and page headers that the crate `parquet` must not decode.

use std::sync::Arc;

use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::data_type::{BoolType, ByteArray, ByteArrayType};
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader, ParquetMetaDataWriter};
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterVersion};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use parquet::schema::types::ColumnPath;

use super::parquet_tests::{nested_parquet, text_parquet};
use super::tests::{contents, file, load_error, load_file};

/// A file with `metadata` and nothing else.
fn metadata_file(metadata: &[u8]) -> Vec<u8> {
    let length = u32::try_from(metadata.len()).unwrap().to_le_bytes();
    [b"PAR1", metadata, &length, b"PAR1"].concat()
}

fn metadata(bytes: &[u8]) -> ParquetMetaData {
    ParquetMetaDataReader::new().parse_and_finish(&bytes::Bytes::from(bytes.to_vec())).unwrap()
}

/// A file whose first page of `messages` starts with the header that `header` makes for the bytes of the column.
fn page_header_file(header: impl Fn(usize) -> Vec<u8>) -> Vec<u8> {
    let text = format!(r#"[{{"role": "assistant", "content": "{}"}}]"#, "a".repeat(20_000));
    let mut bytes = text_parquet(&[(&text, true), (&text, false)]);
    let (start, length) = metadata(&bytes).row_group(0).column(0).byte_range();
    let (start, length) = (usize::try_from(start).unwrap(), usize::try_from(length).unwrap());
    let header = header(length);
    bytes[start..start + header.len()].copy_from_slice(&header);
    bytes
}

/// A field 15 of metadata or of a page header, which the format does not have: 2^31 - 1 booleans in a list.
const BOOLEANS: [u8; 7] = [0xf9, 0xf1, 0xff, 0xff, 0xff, 0xff, 0x07];

/// Fields 15 that cost more work or memory than they have bytes, and the defects that the error names.
fn unbounded_fields() -> Vec<(Vec<u8>, &'static str)> {
    let chain = |head: u8, level: u8| [&[head][..], &[level; 10_000]].concat();
    vec![
        (BOOLEANS.to_vec(), "declares 2147483647 booleans in a list or map, which the format does not have"),
        (vec![0xfb, 0xff, 0xff, 0xff, 0xff, 0x07, 0x11], "declares 2147483647 booleans in a list or map"),
        (vec![0xfb, 0xff, 0xff, 0xff, 0xff, 0x07, 0x55], "declares 2147483647 entries in "),
        ([&[0xf9, 0x19][..], &BOOLEANS[1..]].concat(), "declares 2147483647 booleans in a list or map"),
        (chain(0xf9, 0x19), "has a value nested deeper than 64 levels"),
        (chain(0xfc, 0x1c), "has a value nested deeper than 64 levels"),
        (chain(0xf5, 0xff), "has a number of more than 10 bytes"),
        (vec![0xf8, 0xff, 0xff, 0xff, 0xff, 0x07], "declares a text of 2147483647 bytes in "),
    ]
}

#[test]
fn found_list_of_booleans_is_an_error() {
    insta::assert_snapshot!(load_error("d.parquet", include_bytes!("../../tests/data/boolean_list.parquet")), @"d.parquet: is damaged: its metadata declares 555893897 booleans in a list or map, which the format does not have; write the file again");
}

#[test]
fn unbounded_metadata_is_an_error() {
    for (field, defect) in unbounded_fields() {
        let error = load_error("d.parquet", metadata_file(&field));
        assert!(error.starts_with(&format!("d.parquet: is damaged: its metadata {defect}")), "{error}");
        assert!(error.ends_with("; write the file again"), "{error}");
    }
    // The version, declared as a text: the crate would read its length as the version, and its bytes as fields.
    let hidden = [&[0x18, 8][..], &BOOLEANS, &[0]].concat();
    insta::assert_snapshot!(load_error("d.parquet", metadata_file(&hidden)), @"d.parquet: is damaged: its metadata has a field 1 of another type than the format; write the file again");
}

#[test]
fn unbounded_page_header_is_an_error() {
    for (field, defect) in unbounded_fields() {
        let error = load_error("d.parquet", page_header_file(|_| field.clone()));
        let start = format!("d.parquet: is damaged: a page header of the column `messages` {defect}");
        assert!(error.starts_with(&start), "{error}");
        assert!(error.ends_with("; write the file again"), "{error}");
    }
}

/// A page header of 13 bytes with sizes from 2^14 on: the page type, and the bytes of the page.
fn sized_header(uncompressed: u32, compressed: usize) -> Vec<u8> {
    let number = |number: u32, bytes: u32| {
        let zigzag = u64::from(number) << 1;
        (0..bytes).map(move |index| ((zigzag >> (7 * index)) as u8 & 127) | (u8::from(index + 1 < bytes) << 7))
    };
    let mut header = vec![0x15, 0, 0x15];
    header.extend(number(uncompressed, 5));
    header.push(0x15);
    header.extend(number(u32::try_from(compressed).unwrap(), 3));
    header.push(0);
    header
}

#[test]
fn sizes_of_page_headers_are_checked() {
    let error = load_error("d.parquet", page_header_file(|length| sized_header((1 << 31) - 1, length - 13)));
    assert!(error.starts_with("d.parquet: has 2.00 GiB of data in a file of "), "{error}");
    insta::assert_snapshot!(load_error("d.parquet", page_header_file(|length| sized_header(1 << 20, length - 12))), @"d.parquet: is damaged: a page header of the column `messages` declares more bytes than the column has; write the file again");
    insta::assert_snapshot!(load_error("d.parquet", page_header_file(|_| vec![0])), @"d.parquet: is damaged: a page header of the column `messages` has a negative number of bytes or none; write the file again");
}

/// Runs of nulls have few bytes, whatever their length.
#[test]
fn numbers_of_values_are_checked() {
    let with_values = |rows: i64, values: i64| {
        let mut bytes = nested_parquet([0, 1], "assistant");
        let metadata = metadata(&bytes);
        let group = metadata.row_group(0).clone();
        let columns =
            group.columns().iter().map(|column| column.clone().into_builder().set_num_values(values).build().unwrap());
        let group =
            group.clone().into_builder().set_num_rows(rows).set_column_metadata(columns.collect()).build().unwrap();
        let changed = metadata.into_builder().set_row_groups(vec![group]).build();
        ParquetMetaDataWriter::new(&mut bytes, &changed).finish().unwrap();
        load_error("d.parquet", bytes)
    };
    let error = with_values(300, 30_000_000);
    assert!(error.starts_with("d.parquet: declares 90000000 values in a file of "), "{error}");
    assert!(error.ends_with(", over the limit of 67108864; if it is right, split it into smaller files"), "{error}");
    insta::assert_snapshot!(with_values(1, 1), @"d.parquet: is damaged: a page header of the column `messages.list.element.content` declares more values than the column has; write the file again");
}

/// A small file could otherwise have its pages decoded once for each of many row groups.
#[test]
fn columns_at_one_place_are_an_error() {
    let mut bytes = page_header_file(|_| Vec::new());
    let metadata = metadata(&bytes);
    let group = metadata.row_group(0).clone();
    let mut copies = metadata.into_builder();
    for _ in 0..3 {
        copies = copies.add_row_group(group.clone());
    }
    ParquetMetaDataWriter::new(&mut bytes, &copies.build()).finish().unwrap();
    insta::assert_snapshot!(load_error("d.parquet", bytes), @"d.parquet: is damaged: its metadata declares impossible sizes; write the file again");
}

/// The crate builds the schema by recursion, which 100,000 levels would end with a stack overflow.
#[test]
fn deep_schema_is_an_error() {
    let n = 100_000u32;
    // The version, the list of elements, and groups named `g` with one field each.
    let mut metadata = vec![0x15, 2, 0x19, 0xfc];
    metadata.extend([(n & 127) as u8 | 128, ((n >> 7) & 127) as u8 | 128, (n >> 14) as u8]);
    metadata.extend([0x35, 0, 0x18, 1, b'g', 0x15, 2, 0].repeat(n as usize - 1));
    metadata.extend([0x15, 0, 0x25, 0, 0x18, 1, b'g', 0, 0]);
    insta::assert_snapshot!(load_error("d.parquet", metadata_file(&metadata)), @"d.parquet: is damaged: its metadata declares columns nested deeper than 128 levels; write the file again");
}

#[test]
fn deepest_permitted_schema_is_read() {
    // The schema, `tools`, its list, its element, and the text count as levels.
    let groups = 128 - 5;
    let schema = format!(
        "message rows {{ required binary messages (UTF8); required boolean label; \
         required group tools (LIST) {{ repeated group list {{ required group element {{ {} \
         required binary name (UTF8); {} }} }} }} }}",
        "required group g { ".repeat(groups),
        "} ".repeat(groups),
    );
    let schema = Arc::new(parse_message_type(&schema).unwrap());
    let mut bytes = Vec::new();
    let mut writer = SerializedFileWriter::new(&mut bytes, schema, Arc::new(WriterProperties::new())).unwrap();
    let mut group = writer.next_row_group().unwrap();
    let messages = ByteArray::from(r#"[{"role": "assistant", "content": "A"}]"#);
    let mut column = group.next_column().unwrap().unwrap();
    column.typed::<ByteArrayType>().write_batch(&[messages.clone(), messages], None, None).unwrap();
    column.close().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    column.typed::<BoolType>().write_batch(&[true, false], None, None).unwrap();
    column.close().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    let names = [ByteArray::from("f"), ByteArray::from("g")];
    column.typed::<ByteArrayType>().write_batch(&names, Some(&[1, 1]), Some(&[0, 0])).unwrap();
    column.close().unwrap();
    group.close().unwrap();
    writer.close().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let data = load_file(&file(&directory, "d.parquet", bytes)).unwrap();
    let name = format!("/0{}/name", "/g".repeat(groups));
    assert_eq!(data.dialogues[0].template_values["tools"].pointer(&name).unwrap(), "f");
}

/// Files of every version, encoding and kind of statistics pass the checks.
#[test]
fn every_variant_of_the_writer_is_read() {
    let directory = tempfile::tempdir().unwrap();
    let texts: Vec<String> = (0..40)
        .map(|row| format!(r#"[{{"role": "assistant", "content": "{row}{}"}}]"#, "é".repeat(row * row)))
        .collect();
    let schema = "message rows { optional binary messages (UTF8); required boolean label; }";
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let variants = [
        (WriterVersion::PARQUET_1_0, Encoding::PLAIN, Compression::UNCOMPRESSED),
        (WriterVersion::PARQUET_1_0, Encoding::PLAIN, Compression::SNAPPY),
        (WriterVersion::PARQUET_2_0, Encoding::PLAIN, Compression::LZ4_RAW),
        (WriterVersion::PARQUET_2_0, Encoding::DELTA_BYTE_ARRAY, Compression::ZSTD(ZstdLevel::default())),
        (WriterVersion::PARQUET_2_0, Encoding::DELTA_LENGTH_BYTE_ARRAY, Compression::UNCOMPRESSED),
    ];
    for (version, encoding, compression) in variants {
        for statistics in [EnabledStatistics::None, EnabledStatistics::Chunk, EnabledStatistics::Page] {
            for dictionary in [false, true] {
                let properties = WriterProperties::builder()
                    .set_writer_version(version)
                    .set_column_encoding(ColumnPath::from("messages"), encoding)
                    .set_compression(compression)
                    .set_statistics_enabled(statistics)
                    .set_statistics_truncate_length(None)
                    .set_write_page_header_statistics(true)
                    .set_bloom_filter_enabled(true)
                    .set_dictionary_enabled(dictionary)
                    .set_data_page_size_limit(100)
                    .set_data_page_row_count_limit(3)
                    .set_write_batch_size(2)
                    .build();
                let mut bytes = Vec::new();
                let mut writer = SerializedFileWriter::new(&mut bytes, schema.clone(), Arc::new(properties)).unwrap();
                for half in texts.chunks(20) {
                    let mut group = writer.next_row_group().unwrap();
                    let values: Vec<ByteArray> = half.iter().map(|text| ByteArray::from(text.as_str())).collect();
                    let mut column = group.next_column().unwrap().unwrap();
                    column.typed::<ByteArrayType>().write_batch(&values, Some(&[1; 20]), None).unwrap();
                    column.close().unwrap();
                    let mut column = group.next_column().unwrap().unwrap();
                    let labels: Vec<bool> = half.iter().map(|text| text.len() % 4 == 0).collect();
                    column.typed::<BoolType>().write_batch(&labels, None, None).unwrap();
                    column.close().unwrap();
                    group.close().unwrap();
                }
                writer.close().unwrap();
                let data = load_file(&file(&directory, "d.parquet", bytes)).unwrap();
                for (row, dialogue) in data.dialogues.iter().enumerate() {
                    assert_eq!(
                        contents(dialogue)[0].1,
                        format!("{row}{}", "é".repeat(row * row)),
                        "{version:?} {encoding}"
                    );
                }
                assert_eq!(data.dialogues.len(), 40, "{version:?} {encoding} {compression}");
            }
        }
    }
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

/// A file found by fuzzing, at which the crate panics.
#[test]
fn found_negative_offset_is_an_error() {
    insta::assert_snapshot!(load_error("d.parquet", include_bytes!("../../tests/data/negative_offset.parquet")), @"d.parquet: is damaged: its metadata has a field 2 of another type than the format; write the file again");
}

#[test]
fn columns_outside_the_file_are_errors() {
    for (offset, length) in [(-1, 100), (100, -1), (i64::MAX, 4), (4, 4000), (4000, 4)] {
        let mut bytes = nested_parquet([0, 1], "assistant");
        let metadata = metadata(&bytes);
        let group = metadata.row_group(0).clone();
        let columns = group.columns().iter().map(|column| {
            let column = column.clone().into_builder().set_dictionary_page_offset(None);
            column.set_data_page_offset(offset).set_total_compressed_size(length).build().unwrap()
        });
        let group = group.clone().into_builder().set_column_metadata(columns.collect()).build().unwrap();
        let damaged = metadata.into_builder().set_row_groups(vec![group]).build();
        ParquetMetaDataWriter::new(&mut bytes, &damaged).finish().unwrap();
        let error = load_error("d.parquet", bytes);
        assert_eq!(error, "d.parquet: is damaged: its metadata declares impossible sizes; write the file again");
    }
}
