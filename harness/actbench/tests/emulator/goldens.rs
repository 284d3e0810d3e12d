//! Forward passes and pools on the emulated CUDA kernels, compared with transformers in float64 and the CPU backend.

use std::collections::BTreeSet;
use std::fs;

use crate::golden_support::{batch, load};
use actbench_activations::model::decoder::Decoder;
use actbench_activations::model::spec::DecoderSpec;
use actbench_activations::model::{LayerOutput, TokenBatch, run_batch};
use actbench_fixtures::family_golden::{FAMILY_GOLDENS, FamilyCase};
use actbench_fixtures::golden::{Golden, cases, compare};
use actbench_kernels::cpu::Isa;
use actbench_kernels::cuda::KernelSet;
use actbench_kernels::cuda::emulator::{EmulatedBackend, EmulatorOptions};
use actbench_kernels::{Backend, CpuBackend, DType, PoolGroups, PoolMethod};

const DTYPES: [DType; 3] = [DType::F32, DType::F16, DType::Bf16];

/// The CPU without its bf16 dot-product instructions, which accumulate in another order.
fn fused_multiply_add_cpu() -> CpuBackend {
    CpuBackend::with_isa(2, Isa::Avx512).unwrap()
}

/// The outputs of all layers, and those of the last layer pooled over each sequence.
struct Outputs {
    layers: Vec<Vec<u8>>,
    pooled: Vec<u8>,
}

/// The outputs of all layers of `model`.
fn layers<B: Backend>(model: &Decoder<B>, batch: &TokenBatch) -> Vec<Vec<u8>> {
    let all: Vec<usize> = (0..model.spec().n_layers).collect();
    let mut layers = Vec::new();
    let mut sink = |_: usize, bytes: &[u8]| {
        layers.push(bytes.to_vec());
        Ok(())
    };
    run_batch(model, batch, &all, LayerOutput::Tokens, &mut sink).unwrap();
    layers
}

fn run<B: Backend>(golden: &Golden, dtype: DType, method: PoolMethod, backend: B) -> Outputs {
    let model = load(golden, dtype, backend);
    let batch = batch(golden);
    let mut outputs = Outputs { layers: layers(&model, &batch), pooled: Vec::new() };
    let mut groups = PoolGroups::new();
    for segment in &batch.layout.segments {
        let first = segment.query_row as u32;
        groups.push(first..first + segment.len as u32);
    }
    let output = LayerOutput::Pooled { groups: &groups, last_layer_groups: None, method };
    let mut sink = |_: usize, bytes: &[u8]| {
        outputs.pooled = bytes.to_vec();
        Ok(())
    };
    run_batch(&model, &batch, &[golden.n_layers - 1], output, &mut sink).unwrap();
    outputs
}

/// Asserts that every layer is within the tolerance of its golden.
fn check(golden: &Golden, dtype: DType, layers: &[Vec<u8>], what: &str) {
    let tolerance = if dtype == DType::F32 { 1e-4 } else { 2e-2 };
    assert_eq!(layers.len(), golden.n_layers);
    for (layer, bytes) in layers.iter().enumerate() {
        let values = dtype.to_f32_vec(bytes);
        let mut rest = &values[..];
        for sequence in &golden.sequences {
            let (own, others) = rest.split_at(sequence.tokens.len() * golden.hidden_size);
            rest = others;
            if let Err(error) = compare(golden.layer(sequence, layer).unwrap(), own, tolerance) {
                panic!("{} {dtype} {what}, layer {layer}: {error}", golden.name);
            }
        }
        assert!(rest.is_empty());
    }
}

/// Options and pooling of run number `index`; over the goldens and types every option meets every pooling.
fn choice(index: usize) -> (EmulatorOptions, PoolMethod) {
    let matrix = EmulatorOptions::matrix();
    let options = EmulatorOptions { seed: index as u64, ..matrix[index % matrix.len()] };
    (options, PoolMethod::ALL[index % PoolMethod::ALL.len()])
}

/// The plain kernels on `golden` in run number `index`.
fn check_plain(golden: &Golden, dtype: DType, index: usize) {
    let name = &golden.name;
    let (options, method) = choice(index);
    let expected = run(golden, dtype, method, fused_multiply_add_cpu());
    let got = run(golden, dtype, method, EmulatedBackend::emulated(options, KernelSet::Plain));
    check(golden, dtype, &got.layers, "plain");
    assert!(got.layers == expected.layers, "{name} {dtype} {options:?}: layers differ from the CPU's");
    assert!(got.pooled == expected.pooled, "{name} {dtype} {options:?}: pools differ from the CPU's");
}

/// The fast kernels of `sets` on `golden` in run number `index`.
fn check_fast(golden: &Golden, dtype: DType, index: usize, sets: &[KernelSet]) {
    let name = &golden.name;
    let (options, method) = choice(index);
    let expected = run(golden, dtype, method, fused_multiply_add_cpu());
    let expected = dtype.to_f32_vec(&expected.pooled);
    for kernels in sets {
        let got = run(golden, dtype, method, EmulatedBackend::emulated(options, *kernels));
        check(golden, dtype, &got.layers, &format!("{kernels:?}"));
        if let Err(error) = compare(&expected, &dtype.to_f32_vec(&got.pooled), 2e-2) {
            panic!("{name} {dtype} {kernels:?} {options:?}, {method} pools: {error}");
        }
    }
}

#[test]
fn plain_kernels_match_goldens_and_cpu_bits() {
    for (index, name) in cases().unwrap().iter().enumerate() {
        let golden = Golden::load(name).unwrap();
        for (dtype_index, dtype) in DTYPES.into_iter().enumerate() {
            check_plain(&golden, dtype, 5 * index + dtype_index);
        }
    }
}

#[test]
fn fast_kernels_match_goldens() {
    for (index, name) in cases().unwrap().iter().enumerate() {
        let golden = Golden::load(name).unwrap();
        for (dtype_index, dtype) in DTYPES.into_iter().enumerate() {
            check_fast(&golden, dtype, 5 * index + dtype_index, &[KernelSet::Mma, KernelSet::Fast]);
        }
    }
}

/// The cases of all families that are computed, by number.
fn families() -> impl Iterator<Item = (usize, Golden)> {
    let computed = FAMILY_GOLDENS.into_iter().filter(FamilyCase::has_shareable_prefixes);
    computed.map(|case| case.load().unwrap()).enumerate()
}

/// All layers of a family's case. Its pools are those of every model, which the cases above check.
fn family_layers<B: Backend>(golden: &Golden, dtype: DType, backend: B) -> Vec<Vec<u8>> {
    layers(&load(golden, dtype, backend), &batch(golden))
}

#[test]
fn plain_kernels_match_families_and_cpu_bits() {
    // A family has cases in several types, so that each type in turn meets each family.
    for (index, golden) in families() {
        let (dtype, options) = (DTYPES[index % DTYPES.len()], choice(index).0);
        let got = family_layers(&golden, dtype, EmulatedBackend::emulated(options, KernelSet::Plain));
        check(&golden, dtype, &got, "plain");
        let expected = family_layers(&golden, dtype, fused_multiply_add_cpu());
        assert!(got == expected, "{} {dtype} {options:?}: layers differ from the CPU's", golden.name);
    }
}

/// The parts of a decoder that reach a kernel, each with whether the fast kernel takes the shape: rows of whole vectors of eight.
fn parts(golden: &Golden) -> Vec<String> {
    let text = fs::read_to_string(golden.directory.join("config.json")).unwrap();
    let spec = DecoderSpec::parse(&text, &golden.name).unwrap();
    let DecoderSpec { attention, mlp, norm, embedding, .. } = &spec;
    let heads = if spec.head_dim.is_multiple_of(8) { "fast" } else { "plain" };
    let rows = [spec.hidden_size, spec.intermediate_size, spec.query_width()];
    let rows = if rows.iter().all(|row| row.is_multiple_of(8)) { "fast" } else { "plain" };
    let has_window = spec.windows().iter().any(Option::is_some);
    let partly_rotated = spec.ropes.iter().any(|rope| rope.rotary_dim < spec.head_dim);
    let not_rotated = spec.layers.iter().any(|layer| layer.rope.is_none());
    vec![
        format!("{heads} attention, soft cap: {}", attention.soft_cap.is_some()),
        format!("{heads} attention, window: {has_window}"),
        format!("{heads} attention, scale by layer: {}", attention.scale_by_inverse_layer),
        format!("{heads} attention, one key/value head: {}", spec.n_kv_heads == 1),
        format!("{heads} heads, {:?} norm", attention.query_key_norm),
        format!("{heads} heads, rotation in part: {partly_rotated}, none: {not_rotated}"),
        format!("{rows} projections, biases: {} {}", attention.qkv_bias, attention.output_bias),
        format!("{rows} {mlp:?}"),
        format!("{rows} {:?} norms, {:?}", norm.kind, spec.norm_placement),
        format!("{rows} parallel residual: {}", spec.parallel_residual),
        format!("{rows} scaled embedding: {}", embedding.scale.is_some()),
        format!("{rows} learned positions: {}", embedding.learned_positions.is_some()),
        format!("{:?} projections, transposed: {}", spec.names.stacking, spec.names.transposed),
    ]
}

/// On the cases that add a part to those before; the plain kernels run on all.
#[test]
fn fast_kernels_match_families() {
    let mut seen = BTreeSet::new();
    let adds_a_part = |(_, golden): &(usize, Golden)| {
        let known = seen.len();
        seen.extend(parts(golden));
        seen.len() > known
    };
    let covering: Vec<(usize, Golden)> = families().filter(adds_a_part).collect();
    assert!((8..FAMILY_GOLDENS.len()).contains(&covering.len()), "{}", covering.len());
    for (number, (index, golden)) in covering.into_iter().enumerate() {
        let dtype = [DType::F16, DType::Bf16][number % 2];
        let kernels = [KernelSet::Mma, KernelSet::Fast][number / 2 % 2];
        let got = family_layers(&golden, dtype, EmulatedBackend::emulated(choice(index).0, kernels));
        check(&golden, dtype, &got, &format!("{kernels:?}"));
    }
}
