//! Weights of files and synthetic weights, and errors of damaged files.

use std::fs;
use std::path::Path;

use proptest::prelude::*;
use safetensors::tensor::{Dtype, TensorView};
use tempfile::TempDir;

use super::*;
use crate::model::spec::DecoderSpec;

/// Opens the weights of a Llama.
fn open(dir: &Path) -> Result<Weights> {
    open_as("llama", dir)
}

/// Opens the weights of a small model of the family `model_type`.
fn open_as(model_type: &str, dir: &Path) -> Result<Weights> {
    let config = format!(
        r#"{{"model_type": "{model_type}", "vocab_size": 8, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1,
            "num_attention_heads": 1, "num_key_value_heads": 1}}"#
    );
    Weights::open(dir, &DecoderSpec::parse(&config, "config.json")?)
}

/// Writes a file with one tensor whose elements are all `value`.
fn write_filled(dir: &Path, name: &str, value: f32, shape: &[usize]) {
    let data = value.to_le_bytes().repeat(shape.iter().product());
    let view = TensorView::new(Dtype::F32, shape.to_vec(), &data).unwrap();
    fs::write(dir.join("model.safetensors"), safetensors::serialize([(name, view)], None).unwrap()).unwrap();
}

/// Writes a file with `tensors` of ones.
fn write(dir: &Path, file: &str, tensors: &[(&str, Dtype, &[usize])]) {
    let data: Vec<Vec<u8>> = tensors
        .iter()
        .map(|(_, dtype, shape)| match dtype {
            Dtype::F32 => 1.0f32.to_le_bytes().repeat(shape.iter().product()),
            Dtype::BF16 => 0x3f80u16.to_le_bytes().repeat(shape.iter().product()),
            other => vec![1; shape.iter().product::<usize>() * other.bitsize() / 8],
        })
        .collect();
    let views = tensors
        .iter()
        .zip(&data)
        .map(|((name, dtype, shape), data)| (name.to_string(), TensorView::new(*dtype, shape.to_vec(), data).unwrap()));
    fs::write(dir.join(file), safetensors::serialize(views, None).unwrap()).unwrap();
}

/// A safetensors file with a given header.
fn raw(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat()
}

/// The error of opening a directory with these bytes as its weights; its path replaced by `DIR`.
fn open_error(bytes: &[u8]) -> String {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("model.safetensors"), bytes).unwrap();
    open_error_in(dir.path())
}

fn open_error_in(dir: &Path) -> String {
    let error = open(dir).unwrap_err();
    assert_eq!(error.exit_code(), 2);
    error.to_string().replace(&dir.display().to_string(), "DIR")
}

#[test]
fn tensors_round_trip_and_survive_release() {
    let dir = TempDir::new().unwrap();
    write(dir.path(), "model.safetensors", &[("a", Dtype::BF16, &[2, 3]), ("b.weight", Dtype::F32, &[4])]);
    let weights = open(dir.path()).unwrap();
    assert_eq!(weights.names(), ["a", "b.weight"]);
    assert!(weights.contains("a") && !weights.contains("c"));
    let a = weights.tensor("a", &[2, 3]).unwrap();
    assert_eq!((a.dtype(), a.shape()), (DType::Bf16, &[2, 3][..]));
    weights.release(&a);
    assert_eq!(a.to_f32_vec(), [1.0; 6]);
    let b = weights.tensor("b.weight", &[4]).unwrap();
    drop(weights);
    assert_eq!(b.to_f32_vec(), [1.0; 4], "a tensor keeps its map alive");
}

#[test]
fn missing_tensor_error_names_nearest() {
    let dir = TempDir::new().unwrap();
    write(dir.path(), "model.safetensors", &[("model.norm.weight", Dtype::F32, &[4]), ("x", Dtype::F32, &[1])]);
    let error = open(dir.path()).unwrap().tensor("model.norms.weight", &[4]).unwrap_err().to_string();
    assert!(error.contains("no tensor 'model.norms.weight'; the nearest of its 2 tensors is 'model.norm.weight'"));
}

#[test]
fn wrong_shape_or_type_names_tensor_and_file() {
    let dir = TempDir::new().unwrap();
    write(dir.path(), "model.safetensors", &[("a", Dtype::F32, &[2, 3]), ("ids", Dtype::I64, &[2])]);
    let weights = open(dir.path()).unwrap();
    let error = weights.tensor("a", &[3, 2]).unwrap_err().to_string();
    assert!(error.contains("model.safetensors: tensor 'a' has shape [2, 3], config.json asks for [3, 2]"), "{error}");
    let error = weights.tensor("ids", &[2]).unwrap_err().to_string();
    assert!(error.contains("model.safetensors: tensor 'ids' is stored as I64; only F64, F32, F16 and BF16"), "{error}");
}

#[test]
fn shards_are_joined_and_bad_ones_refused() {
    let dir = TempDir::new().unwrap();
    let index = dir.path().join("model.safetensors.index.json");
    write(dir.path(), "one.safetensors", &[("a", Dtype::F32, &[2])]);
    write(dir.path(), "two.safetensors", &[("b", Dtype::F32, &[3])]);
    fs::write(&index, r#"{"metadata": {}, "weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}"#).unwrap();
    let weights = open(dir.path()).unwrap();
    assert_eq!(weights.tensor("b", &[3]).unwrap().to_f32_vec(), [1.0; 3]);

    fs::write(&index, r#"{"weight_map": {"a": "three.safetensors"}}"#).unwrap();
    let error = open_error_in(dir.path());
    assert!(error.contains("names the shard 'three.safetensors', which is not in the directory"), "{error}");
    for outside in
        ["../one.safetensors", "/etc/passwd", "sub/../../one.safetensors", "..", ".", "", "./one.safetensors"]
    {
        fs::write(&index, serde_json::json!({"weight_map": {"a": outside}}).to_string()).unwrap();
        let error = open_error_in(dir.path());
        assert!(error.contains("is not the path of a file in the index's directory"), "{outside}: {error}");
    }
}

/// transformers reads all tensors of the shards that the index names, and of a name in two shards the later one.
#[test]
fn index_names_shards_and_the_shards_have_the_tensors() {
    let dir = TempDir::new().unwrap();
    let index = dir.path().join("model.safetensors.index.json");
    fs::create_dir(dir.path().join("sub")).unwrap();
    write(dir.path(), "one.safetensors", &[("a", Dtype::F32, &[2]), ("unlisted", Dtype::F32, &[5])]);
    write(dir.path(), "sub/two.safetensors", &[("a", Dtype::F32, &[3])]);
    fs::write(&index, r#"{"weight_map": {"a": "one.safetensors", "absent": "sub/two.safetensors"}}"#).unwrap();
    let weights = open(dir.path()).unwrap();
    assert_eq!(weights.names(), ["a", "unlisted"]);
    assert_eq!(weights.tensor("a", &[3]).unwrap().to_f32_vec(), [1.0; 3]);
    assert_eq!(weights.tensor("unlisted", &[5]).unwrap().to_f32_vec(), [1.0; 5]);
    assert!(weights.tensor("absent", &[1]).unwrap_err().to_string().contains("no tensor 'absent'"));
}

/// The bits of `torch.tensor(values, dtype=torch.float64).to(...)` by torch 2.15.0. The first value is above the middle of two
/// bf16 and becomes the lower one, since it is in the middle after the rounding to f32.
#[test]
fn f64_is_rounded_as_torch_does() {
    const CASES: [(f64, u32, u16, u16); 10] = [
        (1.0039062500009095, 0x3f808000, 0x3f80, 0x3c04),
        (1.00390625, 0x3f808000, 0x3f80, 0x3c04),
        (1.0117187499995453, 0x3f818000, 0x3f82, 0x3c0c),
        (1.000488281264552, 0x3f801000, 0x3f80, 0x3c00),
        (-0.1, 0xbdcccccd, 0xbdcd, 0xae66),
        (3e-08, 0x3300d959, 0x3301, 0x0001),
        (65519.999999, 0x477ff000, 0x4780, 0x7c00),
        (1e-46, 0x00000000, 0x0000, 0x0000),
        (9.183549615799121e-41, 0x00010000, 0x0001, 0x0000),
        (-0.0, 0x80000000, 0x8000, 0x8000),
    ];
    let dir = TempDir::new().unwrap();
    let data: Vec<u8> = CASES.iter().flat_map(|(value, ..)| value.to_le_bytes()).collect();
    let view = TensorView::new(Dtype::F64, vec![CASES.len()], &data).unwrap();
    fs::write(dir.path().join("model.safetensors"), safetensors::serialize([("a", view)], None).unwrap()).unwrap();
    let weights = open(dir.path()).unwrap();
    let tensor = weights.tensor("a", &[CASES.len()]).unwrap();
    assert_eq!(tensor.dtype(), DType::F32);
    weights.release(&tensor);
    let values = tensor.to_f32_vec();
    for ((value, single, brain, half), found) in CASES.into_iter().zip(&values) {
        assert_eq!(found.to_bits(), single, "{value:e} in f32");
        assert_eq!(DType::Bf16.from_f32_slice(&[*found]), brain.to_ne_bytes(), "{value:e} in bf16");
        assert_eq!(DType::F16.from_f32_slice(&[*found]), half.to_ne_bytes(), "{value:e} in f16");
    }
}

#[test]
fn old_norm_name_is_read_where_transformers_agrees() {
    let dir = TempDir::new().unwrap();
    let norm = "model.layers.0.input_layernorm.weight";
    write(dir.path(), "model.safetensors", &[("layers.0.input_layernorm.gamma", Dtype::BF16, &[4])]);
    assert_eq!(open(dir.path()).unwrap().tensor(norm, &[4]).unwrap().to_f32_vec(), [1.0; 4]);
    write_filled(dir.path(), "model.layers.0.input_layernorm.gamma", 2.0, &[4]);
    let error = open(dir.path()).unwrap().tensor(norm, &[4]).unwrap_err().to_string();
    assert!(error.contains("no tensor 'model.layers.0.input_layernorm.weight'; transformers does not read 'model.layers.0.input_layernorm.gamma'"), "{error}");
}

/// A Gemma multiplies by 1 + w and transformers initializes w with zeros, so that ones would double every norm.
#[test]
fn old_norm_name_of_a_gemma_holds_zeros() {
    let dir = TempDir::new().unwrap();
    let norm = "model.layers.0.input_layernorm.weight";
    for model_type in ["gemma", "gemma2", "gemma3_text"] {
        write_filled(dir.path(), "layers.0.input_layernorm.gamma", 0.0, &[4]);
        assert_eq!(open_as(model_type, dir.path()).unwrap().tensor(norm, &[4]).unwrap().to_f32_vec(), [0.0; 4]);
        write_filled(dir.path(), "layers.0.input_layernorm.gamma", 1.0, &[4]);
        let error = open_as(model_type, dir.path()).unwrap().tensor(norm, &[4]).unwrap_err().to_string();
        assert!(error.contains("initialize the norm itself; rename it"), "{model_type}: {error}");
    }
}

#[test]
fn quantized_and_adapter_tensors_are_named() {
    let dir = TempDir::new().unwrap();
    let wanted = "model.layers.0.mlp.up_proj.weight";
    write(dir.path(), "model.safetensors", &[("model.layers.0.mlp.up_proj.qweight", Dtype::I32, &[4])]);
    let error = open(dir.path()).unwrap().tensor(wanted, &[4, 2]).unwrap_err().to_string();
    assert!(error.contains("its weights are quantized ('model.layers.0.mlp.up_proj.qweight')"), "{error}");
    let packed = [(wanted, Dtype::U8, &[4, 1][..]), ("model.layers.0.mlp.up_proj.weight.absmax", Dtype::F32, &[1])];
    write(dir.path(), "model.safetensors", &packed);
    let error = open(dir.path()).unwrap().tensor(wanted, &[4, 2]).unwrap_err().to_string();
    assert!(error.contains("asks for [4, 2]; its weights are quantized"), "{error}");
}

#[test]
fn git_lfs_pointers_are_named() {
    let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 17\n";
    let error = open_error(pointer);
    assert!(error.starts_with("DIR/model.safetensors: is a Git LFS pointer"), "{error}");
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("model.safetensors.index.json"), pointer).unwrap();
    let error = open_error_in(dir.path());
    assert!(error.starts_with("DIR/model.safetensors.index.json: is a Git LFS pointer"), "{error}");
}

#[test]
fn directory_without_weights_lists_expected_files() {
    let dir = TempDir::new().unwrap();
    insta::assert_snapshot!(open_error_in(dir.path()), @"DIR: no model.safetensors or model.safetensors.index.json in this directory");
    fs::write(dir.path().join("adapter_model.safetensors"), b"").unwrap();
    insta::assert_snapshot!(open_error_in(dir.path()), @"DIR: no model.safetensors or model.safetensors.index.json in this directory; 'adapter_model.safetensors' is of an adapter: name its base model by --model, and this directory by --adapter");
    fs::remove_file(dir.path().join("adapter_model.safetensors")).unwrap();
    fs::write(dir.path().join("pytorch_model.bin"), b"").unwrap();
    insta::assert_snapshot!(open_error_in(dir.path()), @"DIR: no model.safetensors or model.safetensors.index.json in this directory; pickled weights (.bin) are not read: save the model again as safetensors");
}

#[test]
fn truncated_and_hostile_files_are_refused_by_tensor() {
    insta::assert_snapshot!(open_error(b"GGUF"), @"DIR/model.safetensors: is 4 bytes long, too short for a safetensors file");
    insta::assert_snapshot!(open_error(&u64::MAX.to_le_bytes()), @"DIR/model.safetensors: claims a header of 18446744073709551615 bytes, but 0 bytes follow: not a safetensors file, or truncated");
    insta::assert_snapshot!(open_error(&[&1000u64.to_le_bytes()[..], b"{}"].concat()), @"DIR/model.safetensors: claims a header of 1000 bytes, but 2 bytes follow: not a safetensors file, or truncated");
    insta::assert_snapshot!(open_error(&raw("nonsense", b"")), @"DIR/model.safetensors: its safetensors header is not valid: expected ident at line 1 column 2");
    let entry = |dtype: &str, shape: &str, offsets: &str| {
        format!(r#""a":{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}"#)
    };
    let one = |dtype: &str, shape: &str, offsets: &str| raw(&format!("{{{}}}", entry(dtype, shape, offsets)), &[0; 8]);
    insta::assert_snapshot!(open_error(&one("F32", "[4]", "[0,16]")), @"DIR/model.safetensors: tensor 'a' lies at bytes 0 to 16 of 8 bytes of data: the file is truncated or corrupt");
    insta::assert_snapshot!(open_error(&one("F32", "[2]", "[8,0]")), @"DIR/model.safetensors: tensor 'a' lies at bytes 8 to 0 of 8 bytes of data: the file is truncated or corrupt");
    insta::assert_snapshot!(open_error(&one("F32", "[2]", "[0,18446744073709551615]")), @"DIR/model.safetensors: tensor 'a' lies at bytes 0 to 18446744073709551615 of 8 bytes of data: the file is truncated or corrupt");
    insta::assert_snapshot!(open_error(&one("F32", "[4294967296,4294967296]", "[0,8]")), @"DIR/model.safetensors: tensor 'a' of type F32 and shape [4294967296, 4294967296] does not match its 8 bytes");
    insta::assert_snapshot!(open_error(&one("F32", "[3]", "[0,8]")), @"DIR/model.safetensors: tensor 'a' of type F32 and shape [3] does not match its 8 bytes");
    insta::assert_snapshot!(open_error(&one("F31", "[2]", "[0,8]")), @"DIR/model.safetensors: tensor 'a': unknown variant `F31`, expected one of `BOOL`, `F4`, `F6_E2M3`, `F6_E3M2`, `U8`, `I8`, `F8_E5M2`, `F8_E4M3`, `F8_E8M0`, `F8_E4M3FNUZ`, `F8_E5M2FNUZ`, `I16`, `U16`, `F16`, `BF16`, `I32`, `U32`, `F32`, `C64`, `F64`, `I64`, `U64`");
    insta::assert_snapshot!(open_error(&one("F32", "[-2]", "[0,8]")), @"DIR/model.safetensors: tensor 'a': invalid value: integer `-2`, expected usize");
    insta::assert_snapshot!(open_error(&one("F32", "[1]", "[0,4]")), @"DIR/model.safetensors: not a valid safetensors file: bytes 4 to 8 of its data belong to no tensor");
    let a = entry("F32", "[2]", "[0,8]");
    insta::assert_snapshot!(open_error(&raw(&format!("{{{a},{a}}}"), &[0; 8])), @"DIR/model.safetensors: tensor 'a' is listed twice");
    let b = a.replace("\"a\"", "\"b\"");
    insta::assert_snapshot!(open_error(&raw(&format!("{{{a},{b}}}"), &[0; 8])), @"DIR/model.safetensors: tensors 'a' and 'b' overlap");
}

proptest! {
    #[test]
    fn damaged_files_never_panic(cut in 0usize..400, position in 0usize..400, byte: u8) {
        let dir = TempDir::new().unwrap();
        write(dir.path(), "model.safetensors", &[("a", Dtype::BF16, &[5, 3]), ("b", Dtype::F32, &[4])]);
        let path = dir.path().join("model.safetensors");
        let mut bytes = fs::read(&path).unwrap();
        let position = position % bytes.len();
        bytes[position] = byte;
        bytes.truncate(bytes.len().saturating_sub(cut));
        fs::write(&path, &bytes).unwrap();
        if let Ok(weights) = open(dir.path()) {
            let names: Vec<String> = weights.names().into_iter().map(str::to_owned).collect();
            for name in names {
                let shape = weights.shape(&name).unwrap().to_vec();
                let _ = weights.tensor(&name, &shape);
            }
        }
    }
}

#[test]
fn fingerprint_covers_bytes_and_names_not_threads() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("model.safetensors");
    write(dir.path(), "model.safetensors", &[("a", Dtype::BF16, &[5_000_000]), ("b", Dtype::F32, &[4])]);
    let fingerprint = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| open(dir.path()).unwrap().fingerprint().to_owned())
    };
    let original = fingerprint(1);
    assert_eq!(original, fingerprint(3));
    let mut bytes = fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&path, bytes).unwrap();
    assert_ne!(original, fingerprint(1));
    write(dir.path(), "model.safetensors", &[("a", Dtype::BF16, &[5_000_000]), ("c", Dtype::F32, &[4])]);
    assert_ne!(original, fingerprint(1));
}

#[test]
fn synthetic_weights_are_generated_on_demand() {
    let preset = Preset::find("tiny").unwrap();
    let spec = DecoderSpec::parse(&preset.config_json(), preset.name).unwrap();
    let weights = Weights::synthetic(preset, &spec, 3);
    let norm = weights.tensor("model.layers.0.input_layernorm.weight", &[192]).unwrap();
    assert_eq!(norm.dtype(), DType::Bf16);
    assert!(norm.to_f32_vec().iter().all(|value| (value - 1.0).abs() < 0.05));
    let error = weights.tensor("model.layers.0.input_layernorm.weight", &[191]).unwrap_err().to_string();
    insta::assert_snapshot!(error, @"synthetic:tiny: tensor 'model.layers.0.input_layernorm.weight' has shape [192], config.json asks for [191]");
    let error = weights.tensor("model.layers.8.mlp.up_proj.weight", &[512, 192]).unwrap_err().to_string();
    insta::assert_snapshot!(error, @"synthetic:tiny: no tensor 'model.layers.8.mlp.up_proj.weight'; the nearest of its 74 tensors is 'model.layers.0.mlp.up_proj.weight'");
    assert!(!weights.contains("lm_head.weight"));
    assert_ne!(weights.fingerprint(), Weights::synthetic(preset, &spec, 4).fingerprint());
    assert_eq!(weights.fingerprint(), Weights::synthetic(preset, &spec, 3).fingerprint());
}
