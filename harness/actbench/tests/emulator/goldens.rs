//! Forward passes and pools on the emulated CUDA kernels, compared with transformers in float64 and the CPU backend.

use crate::golden_support::{batch, load};
use actbench_activations::model::{LayerOutput, run_batch};
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

fn run<B: Backend>(golden: &Golden, dtype: DType, method: PoolMethod, backend: B) -> Outputs {
    let model = load(golden, dtype, backend);
    let batch = batch(golden);
    let all: Vec<usize> = (0..golden.n_layers).collect();
    let mut outputs = Outputs { layers: Vec::new(), pooled: Vec::new() };
    let mut sink = |_: usize, bytes: &[u8]| {
        outputs.layers.push(bytes.to_vec());
        Ok(())
    };
    run_batch(&model, &batch, &all, LayerOutput::Tokens, &mut sink).unwrap();
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
fn check(golden: &Golden, dtype: DType, outputs: &Outputs, what: &str) {
    let tolerance = if dtype == DType::F32 { 1e-4 } else { 2e-2 };
    assert_eq!(outputs.layers.len(), golden.n_layers);
    for (layer, bytes) in outputs.layers.iter().enumerate() {
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
    check(golden, dtype, &got, "plain");
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
        check(golden, dtype, &got, &format!("{kernels:?}"));
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

#[test]
fn plain_kernels_match_families_and_cpu_bits() {
    // A family has cases in several types, so that each type in turn meets each family.
    for (index, golden) in families() {
        check_plain(&golden, DTYPES[index % DTYPES.len()], index);
    }
}

#[test]
fn fast_kernels_match_families() {
    for (index, golden) in families() {
        let dtype = [DType::F16, DType::Bf16][index % 2];
        let sets = [KernelSet::Mma, KernelSet::Fast];
        check_fast(&golden, dtype, index, &sets[index / 2 % 2..][..1]);
    }
}
