//! A golden model with an adapter has the activations of the model whose merged weights are on disk.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use actbench_activations::model::adapter::Adapter;
use actbench_activations::model::decoder::{Decoder, LoadOptions};
use actbench_activations::model::spec::DecoderSpec;
use actbench_activations::model::weights::Weights;
use actbench_activations::model::{ActivationModel, LayerOutput, run_batch};
use actbench_fixtures::golden::Golden;
use actbench_kernels::{CpuBackend, DType};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use tempfile::TempDir;

use crate::golden_support::batch;

/// A golden whose weights are one file of f32.
const GOLDEN: &str = "gqa2-f32-large-eps";

const CONFIG: &str = r#"{"peft_type": "LORA", "r": 2, "lora_alpha": 1, "target_modules": ["q_proj", "down_proj", "embed_tokens"],
    "base_model_name_or_path": "org/golden", "task_type": "CAUSAL_LM"}"#;

/// Shapes and values by name.
type Tensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

/// Multiples of 1/16, so that products of factors are exact and a merged weight is rounded once.
fn factor(seed: usize, rows: usize, columns: usize) -> (Vec<usize>, Vec<f32>) {
    let values = (0..rows * columns).map(|index| ((index * 7 + seed * 5) % 11) as f32 * 0.0625 - 0.3125).collect();
    (vec![rows, columns], values)
}

/// The product of `[outputs, 2]` and `[2, inputs]` by the scale 1/2.
fn product(b: &[f32], a: &[f32], outputs: usize, inputs: usize) -> Vec<f32> {
    let element = |output: usize, input: usize| b[2 * output] * a[input] + b[2 * output + 1] * a[inputs + input];
    (0..outputs * inputs).map(|index| 0.5 * element(index / inputs, index % inputs)).collect()
}

fn read(path: &Path) -> Tensors {
    let bytes = fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let tensor = |(name, view): (String, TensorView<'_>)| {
        assert_eq!(view.dtype(), Dtype::F32, "{name}");
        (name, (view.shape().to_vec(), DType::F32.to_f32_vec(view.data())))
    };
    file.tensors().into_iter().map(tensor).collect()
}

fn write(path: &Path, tensors: &Tensors) {
    let bytes: Vec<Vec<u8>> = tensors.values().map(|(_, values)| DType::F32.from_f32_slice(values)).collect();
    let views = tensors
        .iter()
        .zip(&bytes)
        .map(|((name, (shape, _)), bytes)| (name.clone(), TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap()));
    fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
}

/// Writes an adapter of the embedding and of two projections of each block, and returns the merged weights.
fn write_adapter(directory: &Path, base: &Tensors, n_layers: usize) -> Tensors {
    let (mut adapter, mut merged) = (Tensors::new(), base.clone());
    let mut add = |change: &[f32], name: &str| {
        let (_, values) = merged.get_mut(name).unwrap();
        for (value, change) in values.iter_mut().zip(change) {
            *value += change;
        }
    };
    let blocks = (0..n_layers)
        .flat_map(|layer| ["self_attn.q_proj", "mlp.down_proj"].map(|module| format!("model.layers.{layer}.{module}")));
    for (seed, module) in blocks.enumerate() {
        let name = format!("{module}.weight");
        let [outputs, inputs] = base[&name].0[..] else { panic!("{name} is not a matrix") };
        let (a, b) = (factor(seed, 2, inputs), factor(seed + 1, outputs, 2));
        add(&product(&b.1, &a.1, outputs, inputs), &name);
        adapter.insert(format!("base_model.model.{module}.lora_A.weight"), a);
        adapter.insert(format!("base_model.model.{module}.lora_B.weight"), b);
    }
    let name = "model.embed_tokens.weight";
    let [rows, width] = base[name].0[..] else { panic!("{name} is not a matrix") };
    let (a, b) = (factor(8, 2, rows), factor(9, width, 2));
    let by_column = product(&b.1, &a.1, width, rows);
    let by_row: Vec<f32> = (0..rows * width).map(|index| by_column[index % width * rows + index / width]).collect();
    add(&by_row, name);
    adapter.insert("base_model.model.model.embed_tokens.lora_embedding_A".to_owned(), a);
    adapter.insert("base_model.model.model.embed_tokens.lora_embedding_B".to_owned(), b);
    write(&directory.join("adapter_model.safetensors"), &adapter);
    fs::write(directory.join("adapter_config.json"), CONFIG).unwrap();
    merged
}

/// The fingerprint of the model, and the bytes of all layers.
fn activations(golden: &Golden, spec: &DecoderSpec, weights: Weights, dtype: DType) -> (String, Vec<Vec<u8>>) {
    let options = LoadOptions { dtype, n_blocks: golden.n_layers, max_positions: 256 };
    let backend = CpuBackend::new(2).unwrap();
    let model = Decoder::load(backend, spec.clone(), Arc::new(weights), &options, &mut |_, _| ()).unwrap();
    let layers: Vec<usize> = (0..golden.n_layers).collect();
    let mut outputs = Vec::new();
    let mut sink = |_: usize, bytes: &[u8]| {
        outputs.push(bytes.to_vec());
        Ok(())
    };
    run_batch(&model, &batch(golden), &layers, LayerOutput::Tokens, &mut sink).unwrap();
    assert_eq!(outputs.len(), golden.n_layers);
    (model.fingerprint().to_owned(), outputs)
}

#[test]
fn adapter_gives_activations_of_merged_weights() {
    let golden = Golden::load(GOLDEN).unwrap();
    let text = fs::read_to_string(golden.directory.join("config.json")).unwrap();
    let spec = DecoderSpec::parse(&text, GOLDEN).unwrap();
    let (adapter_directory, merged_directory) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let base = read(&golden.directory.join("model.safetensors"));
    let merged = write_adapter(adapter_directory.path(), &base, golden.n_layers);
    write(&merged_directory.path().join("model.safetensors"), &merged);
    for dtype in [DType::F32, DType::Bf16] {
        let open = |directory: &Path| Weights::open(directory, &spec).unwrap();
        let weights = open(&golden.directory);
        let adapter = Adapter::open(adapter_directory.path(), &spec, &weights).unwrap();
        assert_eq!(adapter.base_model(), Some("org/golden"));
        let (adapted_print, adapted) = activations(&golden, &spec, weights.with_adapter(adapter), dtype);
        let (plain_print, plain) = activations(&golden, &spec, open(&golden.directory), dtype);
        let (_, expected) = activations(&golden, &spec, open(merged_directory.path()), dtype);
        assert_ne!(adapted, plain, "{dtype}: the adapter changes nothing");
        assert!(adapted == expected, "{dtype}: the merged weights give other activations");
        assert_ne!(adapted_print, plain_print, "{dtype}");
    }
}
