//! Seeded tensors and comparisons that fail for NaN.
#![allow(dead_code)]

use actbench_kernels::cpu::{CpuTensor, Isa};
use actbench_kernels::{Activation, Backend, CpuBackend, DType, HostTensor};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

pub const DTYPES: [DType; 3] = [DType::F32, DType::F16, DType::Bf16];

/// The instruction sets of this machine.
pub fn instruction_sets() -> Vec<Isa> {
    Isa::ALL.into_iter().filter(|isa| *isa <= Isa::detect()).collect()
}

/// A backend for each instruction set of this machine, with one and with three threads.
pub fn backends() -> Vec<CpuBackend> {
    instruction_sets()
        .into_iter()
        .flat_map(|isa| [1, 3].map(|threads| CpuBackend::with_isa(threads, isa).unwrap()))
        .collect()
}

/// The CPU backend without bf16 instructions, which accumulate in an order of their own: the plain CUDA kernels must
/// have its bits.
pub fn fused_multiply_add_cpu() -> CpuBackend {
    CpuBackend::with_isa(2, Isa::Avx512).unwrap()
}

/// Values in -1..1, rounded to `dtype`, so that a reference has the inputs of the kernel.
pub fn random(seed: u64, dtype: DType, len: usize) -> Vec<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let values: Vec<f32> = (0..len).map(|_| rng.random_range(-1.0f32..1.0)).collect();
    dtype.to_f32_vec(&dtype.from_f32_slice(&values))
}

pub fn host(dtype: DType, shape: &[usize], values: &[f32]) -> HostTensor {
    HostTensor::from_f32(dtype, shape.to_vec(), values).unwrap()
}

/// A device tensor of `values`, through the embedding of an identity sequence of tokens.
pub fn upload<B: Backend>(backend: &B, dtype: DType, rows: usize, columns: usize, values: &[f32]) -> B::Tensor {
    let table = backend.prepare_embedding(&host(dtype, &[rows, columns], values), dtype).unwrap();
    let mut tensor = backend.alloc(dtype, rows, columns).unwrap();
    let tokens: Vec<u32> = (0..rows as u32).collect();
    backend.embed(&table, &tokens, 1.0, &mut tensor).unwrap();
    tensor
}

/// A tensor in which every element is NaN, so that an element that an operation does not write is visible.
pub fn filled_with_nan<B: Backend>(backend: &B, dtype: DType, rows: usize, columns: usize) -> B::Tensor {
    let mut tensor = backend.alloc(dtype, rows, columns).unwrap();
    // All ones are a NaN in each of the three types.
    backend.upload(&vec![0xff; rows * columns * dtype.size()], &mut tensor).unwrap();
    tensor
}

pub fn values(backend: &CpuBackend, tensor: &CpuTensor) -> Vec<f32> {
    tensor.dtype().to_f32_vec(&bytes(backend, tensor))
}

pub fn bytes(backend: &CpuBackend, tensor: &CpuTensor) -> Vec<u8> {
    let mut bytes = vec![0; tensor.rows() * tensor.row_bytes()];
    backend.download(tensor, tensor.rows(), &mut bytes).unwrap();
    bytes
}

/// An activation by its definition. `erf` is a series of positive terms (Abramowitz and Stegun 1964, 7.1.6).
pub fn activated(activation: Activation, x: f64) -> f64 {
    match activation {
        Activation::Silu => x / (1.0 + (-x).exp()),
        Activation::Gelu => {
            let z = x * std::f64::consts::FRAC_1_SQRT_2;
            let (mut term, mut sum) = (z, z);
            for n in 1..200 {
                term *= 2.0 * z * z / f64::from(2 * n + 1);
                sum += term;
            }
            x / 2.0 * (1.0 + std::f64::consts::FRAC_2_SQRT_PI * (-z * z).exp() * sum)
        }
        Activation::GeluTanh => {
            x / 2.0 * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3))).tanh())
        }
    }
}

/// The name of the arithmetic of attention: that of the backend in bf16, and a common one in the other types.
pub fn attention_arithmetic(backend: &CpuBackend, dtype: DType) -> String {
    if dtype == DType::Bf16 { backend.kernel_id() } else { "fused multiply-adds".to_owned() }
}

/// The tolerance of attention. In bf16 instruction sets with dot products of pairs also round the weights.
pub fn attention_tolerance(dtype: DType) -> f64 {
    if dtype == DType::Bf16 { 8e-3 } else { tolerance(dtype) }
}

/// Half a unit in the last place of a value near 1, and some more for the order of `f32` accumulation.
pub fn tolerance(dtype: DType) -> f64 {
    match dtype {
        DType::F32 => 3e-6,
        DType::F16 => 6e-4,
        DType::Bf16 => 5e-3,
    }
}

#[track_caller]
pub fn assert_close(got: &[f32], expected: &[f64], tolerance: f64, what: &str) {
    assert_eq!(got.len(), expected.len(), "{what}: lengths");
    let scale = expected.iter().fold(0.0f64, |scale, value| scale.max(value.abs())).max(1e-30);
    for (index, (got, expected)) in got.iter().zip(expected).enumerate() {
        let error = (f64::from(*got) - expected).abs() / scale;
        // Written so that NaN fails.
        assert!(error <= tolerance, "{what}: element {index} is {got}, expected {expected}");
    }
}
