//! Malformed files are rejected with name and position; dequantization is bit-identical to gguf-py.

use half::f16;
use proptest::prelude::*;
use tempfile::TempDir;

use super::test_writer::{GgufWriter, strings, tiny_llama};
use super::*;

/// The error of opening `bytes` as a file, with its path replaced by `FILE`.
fn open_error(bytes: &[u8]) -> String {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("model.gguf");
    std::fs::write(&path, bytes).unwrap();
    let error = GgufFile::open(&path).unwrap_err();
    assert_eq!(error.exit_code(), 2);
    error.to_string().replace(&path.display().to_string(), "FILE")
}

#[test]
fn written_file_is_read_back() {
    let dir = TempDir::new().unwrap();
    let gguf = GgufFile::open(&tiny_llama().write(dir.path(), "model.gguf")).unwrap();
    assert_eq!(gguf.string("general.architecture").unwrap(), "llama");
    assert_eq!(gguf.find("llama.block_count"), Some(&GgufValue::Unsigned(1)));
    assert_eq!(gguf.find("tokenizer.ggml.merges"), Some(&strings(&["a b"])));
    assert_eq!(gguf.find("llama.attention.layer_norm_rms_epsilon").unwrap().as_f64(), Some(1e-5));
    let down = gguf.find_tensor("blk.0.ffn_down.weight").unwrap();
    assert_eq!((down.shape.as_slice(), down.kind), (&[8, 3][..], GgmlType::F32));
    let mut values = [0.0; 24];
    down.kind.dequantize(gguf.blocks(down), &mut values);
    assert_eq!(values[..7], [0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 2.0]);
    let error = gguf.required("general.name", "a number", GgufValue::as_f64).unwrap_err().to_string();
    assert!(error.ends_with("metadata 'general.name' is a string, expected a number"), "{error}");
}

#[test]
fn malformed_container_is_rejected() {
    insta::assert_snapshot!(open_error(b""), @"FILE: is not a GGUF file: it does not start with 'GGUF' (at byte 0)");
    insta::assert_snapshot!(open_error(b"PK\x03\x04 not a model"), @"FILE: is not a GGUF file: it does not start with 'GGUF' (at byte 0)");
    let header = |version: u32, tensors: u64, metadata: u64| {
        [&b"GGUF"[..], &version.to_le_bytes(), &tensors.to_le_bytes(), &metadata.to_le_bytes()].concat()
    };
    insta::assert_snapshot!(open_error(&header(1, 0, 0)), @"FILE: is a GGUF file of version 1, which is obsolete; convert it again (at byte 8)");
    insta::assert_snapshot!(open_error(&header(3u32.swap_bytes(), 0, 0)), @"FILE: is a big-endian GGUF file; convert it again (at byte 8)");
    insta::assert_snapshot!(open_error(&header(4, 0, 0)), @"FILE: is a GGUF file of version 4; only versions 2 and 3 are supported (at byte 8)");
    insta::assert_snapshot!(open_error(&header(3, u64::MAX, 0)), @"FILE: the file is truncated or corrupt: 18446744073709551615 tensors, 0 bytes left (at byte 24)");
    insta::assert_snapshot!(open_error(&header(3, 0, u64::MAX)), @"FILE: the file is truncated or corrupt: the number of metadata entries is 18446744073709551615, 0 bytes are left (at byte 24)");
}

#[test]
fn malformed_metadata_is_rejected() {
    let entry = |kind: u32, value: &[u8]| {
        let head = [&b"GGUF"[..], &3u32.to_le_bytes(), &0u64.to_le_bytes(), &1u64.to_le_bytes()].concat();
        [&head, &1u64.to_le_bytes()[..], b"k", &kind.to_le_bytes(), value].concat()
    };
    insta::assert_snapshot!(open_error(&entry(13, b"xxxx")), @"FILE: metadata 'k' has the unknown type 13 (at byte 37)");
    insta::assert_snapshot!(open_error(&entry(4, b"xx")), @"FILE: the file is truncated: metadata 'k' needs 4 bytes, 2 are left (at byte 37)");
    insta::assert_snapshot!(open_error(&entry(7, b"\x02")), @"FILE: metadata 'k' is a boolean with the value 2 (at byte 38)");
    insta::assert_snapshot!(open_error(&entry(8, &u64::MAX.to_le_bytes())), @"FILE: the file is truncated: metadata 'k' needs 18446744073709551615 bytes, 0 are left (at byte 45)");
    insta::assert_snapshot!(open_error(&entry(8, &[&1u64.to_le_bytes()[..], b"\xff"].concat())), @"FILE: metadata 'k' is not UTF-8 text (at byte 45)");
    let array = |kind: u32, count: u64| [&kind.to_le_bytes()[..], &count.to_le_bytes()].concat();
    insta::assert_snapshot!(open_error(&entry(9, &array(4, 1 << 62))), @"FILE: the file is truncated or corrupt: the length of metadata 'k' is 4611686018427387904, 0 bytes are left (at byte 49)");
    insta::assert_snapshot!(open_error(&entry(9, &array(9, 1))), @"FILE: metadata 'k' is an array of arrays (at byte 41)");
    insta::assert_snapshot!(open_error(&entry(9, &array(99, 1))), @"FILE: metadata 'k' is an array of the unknown type 99 (at byte 41)");
    let twice = GgufWriter { metadata: vec![("k".to_owned(), GgufValue::Unsigned(1)); 2], ..GgufWriter::default() };
    insta::assert_snapshot!(open_error(&twice.bytes()), @"FILE: metadata 'k' is duplicated (at byte 66)");
    let mut alignment = GgufWriter::default();
    alignment.set("general.alignment", GgufValue::Unsigned(24));
    insta::assert_snapshot!(open_error(&alignment.bytes()), @"FILE: metadata 'general.alignment' is not a power of two (at byte 61)");
}

#[test]
fn malformed_tensor_is_rejected() {
    let single_tensor = |shape: &[usize], kind: GgmlType, blocks: usize| {
        let mut gguf = GgufWriter::default();
        gguf.tensors.push(("w".to_owned(), shape.to_vec(), kind, vec![0; blocks]));
        gguf
    };
    insta::assert_snapshot!(open_error(&single_tensor(&[2, 32], GgmlType::Q8_0, 67).bytes()), @"FILE: the file is truncated: tensor 'w' needs 68 bytes at offset 0 of the data, which starts at byte 96 of 163");
    insta::assert_snapshot!(open_error(&single_tensor(&[2, 33], GgmlType::Q8_0, 68).bytes()), @"FILE: tensor 'w' of shape [2, 33] cannot be stored as Q8_0");
    insta::assert_snapshot!(open_error(&single_tensor(&[usize::MAX, 4], GgmlType::F32, 68).bytes()), @"FILE: tensor 'w' of shape [18446744073709551615, 4] cannot be stored as F32");
    insta::assert_snapshot!(open_error(&single_tensor(&[2, 0], GgmlType::F32, 0).bytes()), @"FILE: tensor 'w' has an invalid extent (at byte 45)");
    insta::assert_snapshot!(open_error(&single_tensor(&[1, 1, 1, 1, 1], GgmlType::F32, 4).bytes()), @"FILE: tensor 'w' has 5 axes, expected 1 to 4 (at byte 37)");
    let mut twice = single_tensor(&[1], GgmlType::F32, 4);
    twice.tensors.push(twice.tensors[0].clone());
    insta::assert_snapshot!(open_error(&twice.bytes()), @"FILE: tensor 'w' is duplicated");
    let file = single_tensor(&[8], GgmlType::F32, 32).bytes();
    let kind_offset = 24 + 8 + 1 + 4 + 8;
    let patched = |offset: usize, bytes: &[u8]| {
        let mut file = file.clone();
        file[offset..offset + bytes.len()].copy_from_slice(bytes);
        file
    };
    insta::assert_snapshot!(open_error(&patched(kind_offset, &16u32.to_le_bytes())), @"FILE: tensor 'w' is stored as IQ2_XXS; supported are: F32 F16 BF16 Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q2_K Q3_K Q4_K Q5_K Q6_K IQ4_NL (at byte 49)");
    insta::assert_snapshot!(open_error(&patched(kind_offset, &4000u32.to_le_bytes())), @"FILE: tensor 'w' is stored as the unknown type 4000; supported are: F32 F16 BF16 Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q2_K Q3_K Q4_K Q5_K Q6_K IQ4_NL (at byte 49)");
    insta::assert_snapshot!(open_error(&patched(kind_offset + 4, &8u64.to_le_bytes())), @"FILE: tensor 'w' is at offset 8, not a multiple of 32 (at byte 57)");
    insta::assert_snapshot!(open_error(&patched(kind_offset + 4, &(u64::MAX - 31).to_le_bytes())), @"FILE: the file is truncated: tensor 'w' needs 32 bytes at offset 18446744073709551584 of the data, which starts at byte 64 of 96");
    let mut overlapping = single_tensor(&[8], GgmlType::F32, 32);
    overlapping.tensors.push(("v".to_owned(), vec![8], GgmlType::F32, vec![0; 32]));
    let mut file = overlapping.bytes();
    let second = kind_offset + 12 + 8 + 1 + 4 + 8 + 4;
    file[second..second + 8].copy_from_slice(&0u64.to_le_bytes());
    insta::assert_snapshot!(open_error(&file), @"FILE: tensors 'v' and 'w' overlap");
}

proptest! {
    /// Truncated and overwritten files give a result or an error, never a panic.
    #[test]
    fn damaged_files_never_panic(cut in 0usize..2000, offset in 0usize..2000, bytes: [u8; 4]) {
        let mut file = tiny_llama().bytes();
        let offset = offset % (file.len() - 4);
        file[offset..offset + 4].copy_from_slice(&bytes);
        file.truncate(file.len().saturating_sub(cut));
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("model.gguf");
        std::fs::write(&path, &file).unwrap();
        let _ = GgufFile::open(&path);
    }
}

/// Compares blocks with gguf-py's results, generated by `scripts/make_gguf_goldens.py`.
#[test]
fn dequantized_bits_match_gguf_py() {
    let golden = include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/gguf_blocks.safetensors"));
    let golden = safetensors::SafeTensors::deserialize(golden).unwrap();
    for kind in GgmlType::ALL {
        // The numbers of the plain types are extreme already.
        let scales = if kind.block_elements() > 1 { &["", ".extreme"][..] } else { &[""] };
        for scale in scales {
            let name = format!("{}{scale}", kind.name());
            let blocks = golden.tensor(&format!("{name}.blocks")).unwrap();
            let expected = golden.tensor(&format!("{name}.values")).unwrap();
            let mut values = vec![f32::NAN; expected.shape()[0]];
            kind.dequantize(blocks.data(), &mut values);
            let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
            assert!(bytes == expected.data(), "{name}");
        }
    }
}

#[test]
fn dequantized_blocks_match_hand_calculation() {
    let half = |value: f32| f16::from_f32(value).to_le_bytes();
    // Bytes 0x10, 0x32, ...: low nibbles 0 2 4 .., high nibbles 1 3 5 ...
    let nibbles: Vec<u8> = (0..16u8).map(|i| (2 * i % 16) | ((2 * i + 1) % 16) << 4).collect();
    let mut values = [0.0; 32];
    GgmlType::Q4_1.dequantize(&[&half(0.5)[..], &half(-1.0), &nibbles].concat(), &mut values);
    assert_eq!((values[0], values[1], values[7]), (-1.0, 0.0, 6.0));
    assert_eq!((values[16], values[17], values[23]), (-0.5, 0.5, 6.5));
    GgmlType::Q4_0.dequantize(&[&half(2.0)[..], &nibbles].concat(), &mut values);
    assert_eq!((values[0], values[1], values[16], values[31]), (-16.0, -12.0, -14.0, 14.0));
    // The first two of the table and its last.
    GgmlType::Iq4Nl.dequantize(&[&half(0.5)[..], &[0x10; 15], &[0xf0]].concat(), &mut values);
    assert_eq!((values[0], values[15], values[16], values[31]), (-63.5, -63.5, -52.0, 56.5));
    let bytes: Vec<u8> = (0..32).map(|i: i8| (i - 16) as u8).collect();
    GgmlType::Q8_0.dequantize(&[&half(0.25)[..], &bytes].concat(), &mut values);
    assert_eq!((values[0], values[16], values[31]), (-4.0, 0.0, 3.75));

    // Scales and minima of a Q4_K block: group 0 has scale 1 and minimum 2; group 5 has scale 0b11_0001 and minimum
    // 0b01_0010, split over byte 9 (low four bits of both) and bytes 1 and 5 (high two bits of each).
    let mut block = vec![0u8; 144];
    block[..2].copy_from_slice(&half(0.5));
    block[2..4].copy_from_slice(&half(0.25));
    (block[4], block[8]) = (1, 2);
    (block[4 + 1], block[4 + 5], block[4 + 9]) = (0b11 << 6, 0b01 << 6, 0x21);
    block[16] = 7; // element 0 of group 0
    block[16 + 2 * 32] = 3 << 4; // element 0 of group 5
    let mut values = [0.0; 256];
    GgmlType::Q4K.dequantize(&block, &mut values);
    assert_eq!(values[0], 0.5 * 7.0 - 0.25 * 2.0);
    assert_eq!(values[5 * 32], 0.5 * 49.0 * 3.0 - 0.25 * 18.0);
    assert_eq!(values[32], 0.0);

    // A Q6_K block: element 0 of the second half's third run (index 192) is 0b10_1001, its group's scale is -3.
    let mut block = vec![0u8; 210];
    block[64] = 0b1001 << 4;
    block[128 + 32] = 0b10 << 4;
    block[192 + 12] = -3i8 as u8;
    block[208..].copy_from_slice(&half(0.5));
    GgmlType::Q6K.dequantize(&block, &mut values);
    assert_eq!(values[192], 0.5 * -3.0 * (41.0 - 32.0));
    assert_eq!(values[193], 0.5 * -3.0 * -32.0);
    assert_eq!(values[0], 0.0);
}
