//! Adapters written by the safetensors crate, opened for tiny models. All values are small multiples of a power of two, so that sums
//! are exact in f32 and compared for equality.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use actbench_kernels::{DType, HostTensor};
use proptest::prelude::*;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::super::tensor_shapes::tensor_shapes;
use super::*;

/// Shapes and values by name.
type Tensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

const QUERY: &str = "model.layers.1.self_attn.q_proj";
const UP: &str = "model.layers.0.mlp.up_proj";
const EMBEDDING: &str = "model.embed_tokens";

fn spec(more: &str) -> DecoderSpec {
    let text = format!(
        r#"{{"model_type": "llama", "vocab_size": 8, "hidden_size": 4, "intermediate_size": 6, "num_hidden_layers": 2,
            "num_attention_heads": 2, "num_key_value_heads": 1{more}}}"#
    );
    DecoderSpec::parse(&text, "config.json").unwrap()
}

/// Values that depend on `seed`, between -1 and 1.5.
fn values(seed: usize, shape: &[usize]) -> Vec<f32> {
    (0..shape.iter().product::<usize>()).map(|index| ((index * 7 + seed * 5) % 11) as f32 * 0.25 - 1.0).collect()
}

fn write_file(path: &Path, dtype: DType, tensors: &Tensors) {
    let bytes: Vec<Vec<u8>> = tensors.values().map(|(_, values)| dtype.from_f32_slice(values)).collect();
    let stored = if dtype == DType::F32 { Dtype::F32 } else { Dtype::BF16 };
    let views = tensors
        .iter()
        .zip(&bytes)
        .map(|((name, (shape, _)), bytes)| (name.clone(), TensorView::new(stored, shape.clone(), bytes).unwrap()));
    fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
}

/// A model and an adapter in two directories.
struct Pair {
    base: TempDir,
    adapter: TempDir,
    spec: DecoderSpec,
    base_tensors: Tensors,
    tensors: Tensors,
    config: Value,
}

impl Pair {
    /// A model of shape `spec` with an adapter of rank 2 and scale 2 that has no tensors.
    fn new(spec: DecoderSpec) -> Self {
        let shapes = tensor_shapes(&spec);
        let tensor = |(seed, (name, shape)): (usize, (String, Vec<usize>))| {
            let values = values(seed, &shape);
            (name, (shape, values))
        };
        let config = json!({"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": null, "bias": "none"});
        Pair {
            base: TempDir::new().unwrap(),
            adapter: TempDir::new().unwrap(),
            spec,
            base_tensors: shapes.into_iter().enumerate().map(tensor).collect(),
            tensors: Tensors::new(),
            config,
        }
    }

    /// Adds a tensor under PEFT's prefix.
    fn add(&mut self, name: &str, shape: &[usize]) {
        let seed = 20 + self.tensors.len();
        self.tensors.insert(format!("base_model.model.{name}"), (shape.to_vec(), values(seed, shape)));
    }

    /// Adds both factors of the projection `module`.
    fn add_factors(&mut self, module: &str, rank: usize, inputs: usize, outputs: usize) {
        self.add(&format!("{module}.lora_A.weight"), &[rank, inputs]);
        self.add(&format!("{module}.lora_B.weight"), &[outputs, rank]);
    }

    fn of(&self, name: &str) -> &[f32] {
        &self.tensors[&format!("base_model.model.{name}")].1
    }

    fn write(&self, dtype: DType) {
        write_file(&self.base.path().join("model.safetensors"), dtype, &self.base_tensors);
        write_file(&self.adapter.path().join("adapter_model.safetensors"), DType::F32, &self.tensors);
        fs::write(self.adapter.path().join("adapter_config.json"), self.config.to_string()).unwrap();
    }

    fn open_base(&self) -> Weights {
        Weights::open(self.base.path(), &self.spec).unwrap()
    }

    fn open(&self) -> Result<Weights> {
        self.write(DType::F32);
        let weights = self.open_base();
        let adapter = Adapter::open(self.adapter.path(), &self.spec, &weights)?;
        Ok(weights.with_adapter(adapter))
    }

    /// The error of opening, with the directory replaced by `DIR`.
    #[track_caller]
    fn refusal(&self) -> String {
        let error = self.open().unwrap_err();
        assert_eq!(error.exit_code(), 2);
        error.to_string().replace(&self.adapter.path().display().to_string(), "DIR")
    }

    fn tensor(&self, weights: &Weights, name: &str) -> HostTensor {
        weights.tensor(name, &self.base_tensors[name].0).unwrap()
    }

    /// The base model's `[outputs, inputs]` plus the scaled product of the factors of `module`.
    fn expected(
        &self,
        module: &str,
        factors: &str,
        rank: usize,
        inputs: usize,
        outputs: usize,
        scale: f64,
    ) -> Vec<f32> {
        let (a, b) = (self.of(&factors.replace('?', "A")), self.of(&factors.replace('?', "B")));
        let base = &self.base_tensors[&format!("{module}.weight")].1;
        let mut merged = Vec::new();
        for output in 0..outputs {
            for input in 0..inputs {
                let product = (0..rank).map(|k| f64::from(b[output * rank + k]) * f64::from(a[k * inputs + input]));
                merged.push((f64::from(base[output * inputs + input]) + scale * product.sum::<f64>()) as f32);
            }
        }
        merged
    }

    fn expected_projection(&self, module: &str, rank: usize, inputs: usize, outputs: usize, scale: f64) -> Vec<f32> {
        self.expected(module, &format!("{module}.lora_?.weight"), rank, inputs, outputs, scale)
    }
}

/// An adapter of one query projection.
fn query_pair() -> Pair {
    let mut pair = Pair::new(spec(""));
    pair.add_factors(QUERY, 2, 4, 4);
    pair
}

#[test]
fn adapters_of_single_experts_are_merged() {
    const EXPERT: &str = "model.layers.1.mlp.experts.2.up_proj";
    let text = r#"{"model_type": "qwen3_moe", "vocab_size": 8, "hidden_size": 4, "intermediate_size": 6, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 2, "num_experts": 3, "num_experts_per_tok": 2,
        "moe_intermediate_size": 6}"#;
    let mut pair = Pair::new(DecoderSpec::parse(text, "config.json").unwrap());
    pair.add_factors(EXPERT, 2, 4, 6);
    let weights = pair.open().unwrap();
    let merged = pair.tensor(&weights, &format!("{EXPERT}.weight"));
    assert_eq!(merged.to_f32_vec(), pair.expected_projection(EXPERT, 2, 4, 6, 2.0));
    let other = "model.layers.1.mlp.experts.1.up_proj.weight";
    assert_eq!(pair.tensor(&weights, other).to_f32_vec(), pair.base_tensors[other].1);
    // The factors of all experts in one tensor.
    pair.config["target_parameters"] = json!(["mlp.experts.gate_up_proj"]);
    assert!(pair.refusal().contains("target_parameters"), "{}", pair.refusal());
}

/// `values` of `[rows, columns]` as `[columns, rows]`.
fn transposed(values: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    (0..columns).flat_map(|column| (0..rows).map(move |row| values[row * columns + column])).collect()
}

#[test]
fn merged_weight_is_base_plus_scaled_product() {
    let mut pair = query_pair();
    pair.add_factors(UP, 2, 4, 6);
    let weights = pair.open().unwrap();
    for (module, outputs) in [(QUERY, 4), (UP, 6)] {
        let name = format!("{module}.weight");
        let merged = pair.tensor(&weights, &name);
        assert_eq!((merged.dtype(), merged.shape()), (DType::F32, &[outputs, 4][..]));
        assert_eq!(merged.to_f32_vec(), pair.expected_projection(module, 2, 4, outputs, 2.0), "{module}");
        assert_ne!(merged.to_f32_vec(), pair.base_tensors[&name].1);
    }
    for (name, (_, base)) in &pair.base_tensors {
        if ![QUERY, UP].contains(&name.trim_end_matches(".weight")) {
            assert_eq!(&pair.tensor(&weights, name).to_f32_vec(), base, "{name} is not adapted");
        }
    }
}

#[test]
fn merged_weight_of_a_bf16_model_is_not_rounded() {
    let mut pair = query_pair();
    pair.config["lora_alpha"] = json!(0.0078125);
    pair.write(DType::Bf16);
    let weights = pair.open_base();
    let adapter = Adapter::open(pair.adapter.path(), &pair.spec, &weights).unwrap();
    let merged = pair.tensor(&weights.with_adapter(adapter), &format!("{QUERY}.weight"));
    assert_eq!(merged.dtype(), DType::F32);
    let expected = pair.expected_projection(QUERY, 2, 4, 4, 0.00390625);
    assert_eq!(merged.to_f32_vec(), expected);
    let rounded = DType::Bf16.to_f32_vec(&DType::Bf16.from_f32_slice(&expected));
    assert_ne!(rounded, expected, "the values do not show a rounding");
}

#[test]
fn scale_and_rank_of_a_module_follow_its_patterns() {
    let mut pair = Pair::new(spec(""));
    pair.config = json!({
        "peft_type": "LORA", "r": 4, "lora_alpha": 2, "use_rslora": true,
        "rank_pattern": {"q_proj": 1}, "alpha_pattern": {"layers.1.self_attn.q_proj": 8}
    });
    pair.add_factors(QUERY, 1, 4, 4);
    pair.add_factors(UP, 4, 4, 6);
    let weights = pair.open().unwrap();
    let query = pair.tensor(&weights, &format!("{QUERY}.weight")).to_f32_vec();
    assert_eq!(query, pair.expected_projection(QUERY, 1, 4, 4, 8.0));
    let up = pair.tensor(&weights, &format!("{UP}.weight")).to_f32_vec();
    assert_eq!(up, pair.expected_projection(UP, 4, 4, 6, 1.0), "2 by the root of 4");
}

#[test]
fn stored_columns_get_the_transposed_product() {
    let mut spec = spec("");
    spec.names.transposed = true;
    let mut pair = Pair::new(spec);
    pair.config["fan_in_fan_out"] = json!(true);
    pair.add_factors(UP, 2, 4, 6);
    let name = format!("{UP}.weight");
    assert_eq!(pair.base_tensors[&name].0, [4, 6], "in_features first");
    let weights = pair.open().unwrap();
    let merged = pair.tensor(&weights, &name);
    // The reference computes [outputs, inputs].
    let rows_first = transposed(&pair.base_tensors[&name].1, 4, 6);
    pair.base_tensors.insert(name, (vec![6, 4], rows_first));
    assert_eq!(transposed(&merged.to_f32_vec(), 4, 6), pair.expected_projection(UP, 2, 4, 6, 2.0));
}

#[test]
fn embedding_gets_the_transposed_product() {
    for tied_by_head in [false, true] {
        let mut pair = Pair::new(spec(if tied_by_head { r#", "tie_word_embeddings": true"# } else { "" }));
        pair.add(&format!("{EMBEDDING}.lora_embedding_A"), &[2, 8]);
        pair.add(&format!("{EMBEDDING}.lora_embedding_B"), &[4, 2]);
        // An adapted head does not change the embedding, also where both are one tensor of the file.
        pair.add_factors("lm_head", 2, 4, 8);
        let table = pair.base_tensors[&format!("{EMBEDDING}.weight")].clone();
        let columns_first = transposed(&table.1, 8, 4);
        let mut name = format!("{EMBEDDING}.weight");
        if tied_by_head {
            pair.base_tensors.remove(&name);
            name = "lm_head.weight".to_owned();
            pair.base_tensors.insert(name.clone(), table);
        }
        let merged = pair.tensor(&pair.open().unwrap(), &name).to_f32_vec();
        pair.base_tensors.insert(format!("{EMBEDDING}.weight"), (vec![4, 8], columns_first));
        let expected = pair.expected(EMBEDDING, &format!("{EMBEDDING}.lora_embedding_?"), 2, 8, 4, 2.0);
        assert_eq!(transposed(&merged, 8, 4), expected, "tied by the head: {tied_by_head}");
    }
}

#[test]
fn saved_modules_and_biases_replace_those_of_the_base() {
    let mut pair = Pair::new(spec(r#", "attention_bias": true"#));
    pair.config["modules_to_save"] = json!(["embed_tokens", "input_layernorm", "lm_head"]);
    pair.config["bias"] = json!("all");
    pair.add("model.embed_tokens.weight", &[8, 4]);
    pair.add("model.layers.0.input_layernorm.weight", &[4]);
    pair.add("lm_head.weight", &[8, 4]);
    pair.add(&format!("{QUERY}.base_layer.bias"), &[4]);
    // transformers takes a bias that the files lack for zero; the adapter has it.
    pair.base_tensors.remove(&format!("{QUERY}.bias"));
    let weights = pair.open().unwrap();
    for (name, stored, shape) in [
        ("model.embed_tokens.weight", "model.embed_tokens.weight".to_owned(), &[8, 4][..]),
        ("model.layers.0.input_layernorm.weight", "model.layers.0.input_layernorm.weight".to_owned(), &[4]),
        ("model.layers.1.self_attn.q_proj.bias", format!("{QUERY}.base_layer.bias"), &[4]),
    ] {
        assert!(weights.contains(name));
        assert_eq!(weights.tensor(name, shape).unwrap().to_f32_vec(), pair.of(&stored), "{name}");
    }
    let kept = "model.layers.1.input_layernorm.weight";
    assert_eq!(pair.tensor(&weights, kept).to_f32_vec(), pair.base_tensors[kept].1);
    assert!(weights.origin("model.embed_tokens.weight").ends_with("adapter_model.safetensors"));
}

#[test]
fn replaced_embedding_is_the_base_of_its_update() {
    let mut pair = Pair::new(spec(""));
    pair.add(&format!("{EMBEDDING}.base_layer.weight"), &[8, 4]);
    pair.add(&format!("{EMBEDDING}.lora_embedding_A"), &[2, 8]);
    pair.add(&format!("{EMBEDDING}.lora_embedding_B"), &[4, 2]);
    let name = format!("{EMBEDDING}.weight");
    let merged = pair.tensor(&pair.open().unwrap(), &name).to_f32_vec();
    let columns_first = transposed(pair.of(&format!("{EMBEDDING}.base_layer.weight")), 8, 4);
    pair.base_tensors.insert(name, (vec![4, 8], columns_first));
    let expected = pair.expected(EMBEDDING, &format!("{EMBEDDING}.lora_embedding_?"), 2, 8, 4, 2.0);
    assert_eq!(transposed(&merged, 8, 4), expected);
}

#[test]
fn adapter_of_the_base_model_class_has_names_without_prefix() {
    let mut pair = Pair::new(spec(""));
    pair.config["target_modules"] = json!(["q_proj"]);
    for layer in 0..2 {
        pair.add_factors(&format!("layers.{layer}.self_attn.q_proj"), 2, 4, 4);
    }
    let weights = pair.open().unwrap();
    let merged = pair.tensor(&weights, &format!("{QUERY}.weight")).to_f32_vec();
    let factors = "layers.1.self_attn.q_proj.lora_?.weight";
    assert_eq!(merged, pair.expected(QUERY, factors, 2, 4, 4, 2.0));
}

#[test]
fn adapter_of_the_head_alone_changes_nothing_with_a_warning() {
    let mut pair = Pair::new(spec(""));
    pair.add_factors("lm_head", 2, 4, 8);
    let weights = pair.open().unwrap();
    let warnings = weights.adapter().unwrap().warnings();
    assert!(warnings[0].contains("changes no tensor that activations depend on"), "{warnings:?}");
    assert!(!weights.adapter().unwrap().changes("lm_head.weight"));
}

#[test]
fn tensors_that_do_not_fit_are_refused_by_name() {
    let mut pair = query_pair();
    pair.add_factors("model.layers.0.self_attn.c_attn", 2, 4, 4);
    insta::assert_snapshot!(pair.refusal(), @"DIR/adapter_model.safetensors: has tensors of 'model.layers.0.self_attn.c_attn', which a llama of this config.json does not have");
    let mut pair = query_pair();
    pair.add_factors("model.layers.2.self_attn.q_proj", 2, 4, 4);
    insta::assert_snapshot!(pair.refusal(), @"DIR/adapter_model.safetensors: has tensors of 'model.layers.2.self_attn.q_proj', but the model has 2 blocks: the adapter is of another model");
    let mut pair = Pair::new(spec(""));
    pair.add_factors(QUERY, 3, 4, 4);
    insta::assert_snapshot!(pair.refusal(), @"DIR/adapter_model.safetensors: tensors 'base_model.model.model.layers.1.self_attn.q_proj.lora_A.weight' [3, 4] and 'base_model.model.model.layers.1.self_attn.q_proj.lora_B.weight' [4, 3] are not of the rank 2 that adapter_config.json has for 'model.layers.1.self_attn.q_proj'");
    let mut pair = Pair::new(spec(""));
    pair.add_factors(QUERY, 2, 4, 6);
    insta::assert_snapshot!(pair.refusal(), @"DIR/adapter_model.safetensors: 'base_model.model.model.layers.1.self_attn.q_proj.lora_A.weight' [2, 4] and 'base_model.model.model.layers.1.self_attn.q_proj.lora_B.weight' [6, 2] change a tensor of shape [6, 4], but 'model.layers.1.self_attn.q_proj.weight' has [4, 4]: the adapter is of another model");
    let mut pair = query_pair();
    pair.tensors.remove(&format!("base_model.model.{QUERY}.lora_B.weight"));
    insta::assert_snapshot!(pair.refusal(), @"DIR/adapter_model.safetensors: 'model.layers.1.self_attn.q_proj' needs two factors of one kind and has 'base_model.model.model.layers.1.self_attn.q_proj.lora_A.weight'; save the adapter again");
    let mut pair = query_pair();
    pair.add(&format!("{QUERY}.lora_A.other.weight"), &[2, 4]);
    assert!(pair.refusal().contains("have the same place in the model"));
    let mut pair = query_pair();
    pair.add_factors("layers.1.self_attn.q_proj", 2, 4, 4);
    assert!(pair.refusal().contains("under two names"));
    let mut pair = Pair::new(spec(""));
    pair.add_factors(EMBEDDING, 2, 4, 8);
    assert!(
        pair.refusal().contains("has the form of the factor of a projection, but 'model.embed_tokens' is an embedding")
    );
    let mut pair = Pair::new(spec(""));
    pair.add_factors("transformer.h.0.attn.c_attn", 2, 4, 4);
    assert!(pair.refusal().contains("none of its tensors belongs to a block of this model"));
    let mut pair = query_pair();
    pair.add("model.embed_tokens.weight", &[9, 4]);
    assert!(pair.refusal().contains("has shape [9, 4], the model's 'model.embed_tokens.weight' has [8, 4]"));
    assert!(Pair::new(spec("")).refusal().contains("has no tensors"));
}

#[test]
fn tensors_and_targets_of_the_configuration_must_agree() {
    let mut pair = query_pair();
    pair.config["target_modules"] = json!(["v_proj"]);
    insta::assert_snapshot!(pair.refusal(), @"DIR/adapter_model.safetensors: tensor 'base_model.model.model.layers.1.self_attn.q_proj.lora_A.weight' is not of a target of adapter_config.json");
    pair.config["target_modules"] = json!(["q_proj"]);
    insta::assert_snapshot!(pair.refusal(), @"DIR/adapter_model.safetensors: has no factors for 'model.layers.0.self_attn.q_proj', which is a target of adapter_config.json; download the adapter again");
    pair.config["layers_to_transform"] = json!([1]);
    pair.open().unwrap();
    // A name of another family selects nothing here, as in PEFT.
    pair.config["target_modules"] = json!(["q_proj", "query_key_value"]);
    pair.open().unwrap();
    pair.config["target_modules"] = json!(["q_proj", "model.embed_tokens"]);
    assert!(pair.refusal().contains("has no factors for 'model.embed_tokens'"));
    pair.config["modules_to_save"] = json!(["embed_tokens"]);
    pair.open().unwrap();
    pair.add("model.layers.0.mlp.down_proj.weight", &[4, 6]);
    assert!(pair.refusal().contains("that modules_to_save of adapter_config.json does not name"));
    let mut pair = query_pair();
    pair.add(&format!("{QUERY}.bias"), &[4]);
    assert!(pair.refusal().contains("has no trained biases"));
    pair.config["bias"] = json!("lora_only");
    assert!(pair.refusal().contains("'model.layers.1.self_attn.q_proj.bias', which a llama"));
}

#[test]
fn factor_that_is_not_finite_is_refused_when_merged() {
    let mut pair = query_pair();
    pair.tensors.get_mut(&format!("base_model.model.{QUERY}.lora_B.weight")).unwrap().1[3] = f32::NAN;
    let weights = pair.open().unwrap();
    let error = weights.tensor(&format!("{QUERY}.weight"), &[4, 4]).unwrap_err().to_string();
    assert!(error.contains("lora_B.weight': element 3 is NaN, but an adapter must be finite"), "{error}");
}

#[test]
fn scale_that_is_not_finite_is_refused() {
    let mut pair = query_pair();
    pair.config["lora_alpha"] = json!(1e300);
    assert!(pair.refusal().contains("the scale of 'model.layers.1.self_attn.q_proj' by adapter_config.json is inf"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn damaged_adapters_never_panic(in_config: bool, cut in 0usize..400, position in 0usize..2000, byte: u8) {
        let mut pair = query_pair();
        pair.config["target_modules"] = json!(["q_proj"]);
        pair.config["layers_to_transform"] = json!([1]);
        let weights = pair.open().unwrap();
        drop(weights);
        let name = if in_config { "adapter_config.json" } else { "adapter_model.safetensors" };
        let path = pair.adapter.path().join(name);
        let mut bytes = fs::read(&path).unwrap();
        let position = position % bytes.len();
        bytes[position] = byte;
        // Most files keep their length, so that their contents are read.
        bytes.truncate(bytes.len() - cut.saturating_sub(300));
        fs::write(&path, &bytes).unwrap();
        let weights = pair.open_base();
        if let Ok(adapter) = Adapter::open(pair.adapter.path(), &pair.spec, &weights) {
            let _ = weights.with_adapter(adapter).tensor(&format!("{QUERY}.weight"), &[4, 4]);
        }
    }
}

#[test]
fn fingerprint_depends_on_both_files_of_the_adapter() {
    let mut pair = query_pair();
    let fingerprint = |pair: &Pair| pair.open().unwrap().fingerprint().to_owned();
    let first = fingerprint(&pair);
    assert_eq!(first, fingerprint(&pair));
    assert_ne!(first, pair.open_base().fingerprint(), "the base model alone");
    pair.config["lora_alpha"] = json!(8);
    let other_scale = fingerprint(&pair);
    assert_ne!(first, other_scale);
    pair.tensors.get_mut(&format!("base_model.model.{QUERY}.lora_B.weight")).unwrap().1[0] += 1.0;
    assert_ne!(other_scale, fingerprint(&pair));
}

#[test]
fn directories_without_a_readable_adapter_are_refused_with_advice() {
    let pair = query_pair();
    pair.write(DType::F32);
    let weights = pair.open_base();
    let refusal = |dir: &Path| {
        let error = Adapter::open(dir, &pair.spec, &weights).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        error.to_string().replace(&dir.display().to_string(), "DIR")
    };
    insta::assert_snapshot!(refusal(&pair.adapter.path().join("missing")), @"DIR: no such directory: --adapter takes the directory of an adapter of PEFT");
    insta::assert_snapshot!(refusal(pair.base.path()), @"DIR: has no adapter_config.json, so it does not contain an adapter of PEFT");
    let dir = TempDir::new().unwrap();
    let put = |name: &str, bytes: &[u8]| fs::write(dir.path().join(name), bytes).unwrap();
    put("adapter_config.json", pair.config.to_string().as_bytes());
    insta::assert_snapshot!(refusal(dir.path()), @"DIR: has no adapter_model.safetensors");
    put("adapter_model.bin", b"pickle");
    insta::assert_snapshot!(refusal(dir.path()), @"DIR: has adapter_model.bin and no adapter_model.safetensors; pickled weights are not read: save the adapter again with PEFT (save_pretrained with safe_serialization=True)");
    let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 17\n";
    put("adapter_model.safetensors", pointer);
    assert!(refusal(dir.path()).starts_with("DIR/adapter_model.safetensors: is a Git LFS pointer"));
    put("adapter_model.safetensors", b"GGUF");
    assert!(refusal(dir.path()).contains("too short for a safetensors file"));
    put("adapter_config.json", pointer);
    assert!(refusal(dir.path()).starts_with("DIR/adapter_config.json: is a Git LFS pointer"));
    let ids = 1i64.to_le_bytes();
    let view = TensorView::new(Dtype::I64, vec![1], &ids).unwrap();
    put("adapter_model.safetensors", &safetensors::serialize([("base_model.model.a.weight", view)], None).unwrap());
    put("adapter_config.json", b"[]");
    assert!(refusal(dir.path()).contains("is stored as I64; only F32, F16 and BF16"));
    put("adapter_model.safetensors", &fs::read(pair.adapter.path().join("adapter_model.safetensors")).unwrap());
    assert!(refusal(dir.path()).contains("not the configuration of an adapter"));
}
