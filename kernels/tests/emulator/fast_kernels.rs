//! The tensor-core CUDA kernels in the emulator, with every thread order and copy time, against the CPU backend, and
//! the independence of a row's bits from the other rows.

use actbench_kernels::cuda::emulator::{EmulatedBackend, Emulator, EmulatorOptions};
use actbench_kernels::cuda::{CudaBackend, KernelSet};
use actbench_kernels::{Activation, AttentionShape, Backend, DType, ScoreRule};
use proptest::prelude::*;

use crate::common::*;
use crate::is_sanitized;
use crate::operations::{self, MATMUL_KINDS, MatmulKind, matmul_kinds, score_rules};

const HALVES: [DType; 2] = [DType::F16, DType::Bf16];

/// The kernels for every device with tensor cores, and those for `sm_90`, which differ in matmuls and in attention with heads of 64
/// and 128 elements.
const FAST: [KernelSet; 2] = [KernelSet::Mma, KernelSet::Fast];

/// Every mode; with AddressSanitizer the first three, in which every shape and kind meets every type.
fn modes() -> impl Iterator<Item = (usize, EmulatorOptions)> {
    EmulatorOptions::matrix().into_iter().take(if is_sanitized() { 3 } else { usize::MAX }).enumerate()
}

fn fast(options: EmulatorOptions) -> EmulatedBackend {
    EmulatedBackend::emulated(options, KernelSet::Fast)
}

/// Asserts that `got` and `expected` differ by no more than two roundings of nearly equal `f32`.
#[track_caller]
fn assert_near(got: &[u8], expected: &[u8], dtype: DType, what: &str) {
    let expected: Vec<f64> = dtype.to_f32_vec(expected).into_iter().map(f64::from).collect();
    // Both results are rounded, and attention also rounds its weights.
    assert_close(&dtype.to_f32_vec(got), &expected, 2.0 * tolerance(dtype), what);
}

#[test]
fn matmul_agrees_with_cpu_in_every_mode() {
    let cpu = fused_multiply_add_cpu();
    // Tails in rows, outputs and inputs; more steps than stages; odd outputs where the kernel takes them; two tiles in both
    // dimensions.
    let mma = [(1, 8, 1), (130, 40, 131), (5, 232, 64), (64, 96, 130)];
    let wgmma = [(1, 8, 8), (130, 40, 264), (5, 392, 64), (300, 136, 136)];
    for (index, options) in modes() {
        for (kernels, shapes) in FAST.into_iter().zip([mma, wgmma]) {
            let backend = EmulatedBackend::emulated(options, kernels);
            for (number, (rows, inputs, outputs)) in shapes.into_iter().enumerate() {
                for (turn, kind) in matmul_kinds(index + number).into_iter().enumerate() {
                    // Dtype, bias and activation alternate, so that over all modes every shape and kind has each.
                    let (dtype, biased) = (HALVES[(index + turn) % 2], (index + number) % 2 == 0);
                    let what = format!("{kernels:?} {kind:?} {biased} {dtype} {rows} {inputs} {outputs} {options:?}");
                    let expected = operations::matmul(&cpu, kind, biased, dtype, (0, rows), inputs, outputs);
                    let got = operations::matmul(&backend, kind, biased, dtype, (0, rows), inputs, outputs);
                    assert_near(&got, &expected, dtype, &what);
                }
            }
        }
    }
}

/// The blocks of the `wgmma` kernels run in clusters and are ordered in raster groups of 16 row tiles.
#[test]
fn matmul_beyond_raster_group_agrees_with_cpu() {
    let (rows, inputs, outputs) = (2200, 8, 264);
    let cpu = fused_multiply_add_cpu();
    for (options, dtype) in EmulatorOptions::matrix().into_iter().step_by(4).zip([DType::F16, DType::Bf16, DType::F16])
    {
        let expected = operations::matmul(&cpu, MatmulKind::Linear, true, dtype, (0, rows), inputs, outputs);
        let got = operations::matmul(&fast(options), MatmulKind::Linear, true, dtype, (0, rows), inputs, outputs);
        assert_near(&got, &expected, dtype, &format!("{dtype} {options:?}"));
    }
}

/// Both accumulate in the order of the inputs, and the emulator rounds both in the same way, unlike a GPU.
#[test]
fn wgmma_bits_equal_mma_bits() {
    for (index, options) in EmulatorOptions::matrix().into_iter().enumerate().step_by(4) {
        for (turn, kind) in MATMUL_KINDS.into_iter().enumerate() {
            let dtype = HALVES[(index + turn) % 2];
            let [mma, wgmma] = FAST.map(|kernels| {
                let backend = EmulatedBackend::emulated(options, kernels);
                operations::matmul(&backend, kind, true, dtype, (0, 70), 328, 152)
            });
            assert!(mma == wgmma, "{kind:?} {dtype} {options:?}");
        }
    }
}

/// `silu(x gate) (x up)` for the rows of `x` in columns `gate` and `up`, `inputs` wide, by the gated GEMM.
fn gated_silu(backend: &EmulatedBackend, x: &[f32], inputs: usize, gate: &[f32], up: &[f32]) -> Vec<f32> {
    let (dtype, rows, outputs) = (DType::Bf16, x.len() / inputs, gate.len() / inputs);
    let [gate, up] = [gate, up].map(|values| host(dtype, &[outputs, inputs], values));
    let weights = backend.prepare_gated(&gate, &up, dtype).unwrap();
    let [mut device_x, mut out] = [inputs, outputs].map(|columns| backend.alloc(dtype, rows, columns).unwrap());
    backend.upload(&dtype.from_f32_slice(x), &mut device_x).unwrap();
    backend.linear_gated(&device_x, &weights, None, Activation::Silu, &mut out).unwrap();
    let mut bytes = vec![0; rows * outputs * dtype.size()];
    backend.download(&out, rows, &mut bytes).unwrap();
    dtype.to_f32_vec(&bytes)
}

#[test]
fn gated_silu_of_every_bf16_is_near_exact() {
    let bits = |exponents: std::ops::Range<u32>| exponents.start << 7..exponents.end << 7;
    let finite: Vec<f32> = bits(0..255).chain(bits(256..511)).map(|high| f32::from_bits(high << 16)).collect();
    // 480 gates for each row of an identity.
    let identity: Vec<f32> = (0..136 * 136).map(|i| if i / 136 == i % 136 { 1.0 } else { 0.0 }).collect();
    let gate: Vec<f32> = (0..480 * 136).map(|i| finite[i % 136 * 480 + i / 136]).collect();
    let first_column: Vec<f32> = (0..64).map(|i| if i % 8 == 0 { 1.0 } else { 0.0 }).collect();
    for kernels in FAST {
        let backend = EmulatedBackend::emulated(EmulatorOptions::matrix()[0], kernels);
        for (x, got) in finite.iter().zip(gated_silu(&backend, &identity, 136, &gate, &[1.0; 480 * 136])) {
            let exact = activated(Activation::Silu, f64::from(*x));
            // Half a unit in the last place of bf16; then the special function unit, whose exponent has the rounding of its
            // product with log2 e. The reciprocal of a power beyond 2^126 is flushed to 0.
            let half_unit = 2f64.powf(exact.abs().log2().floor().max(-126.0) - 8.0);
            let approximated = exact.abs() * (2.0 + f64::from(x.abs())) * 2f64.powi(-22);
            let flushed = if *x < -87.3 { exact.abs() } else { 0.0 };
            let error = (f64::from(got) - exact).abs();
            // Written so that NaN fails.
            assert!(error <= half_unit + approximated + flushed, "{kernels:?} silu({x}) is {got}, expected {exact}");
        }
        // Each times itself, in the eight columns of a row.
        let special = [f32::INFINITY, f32::NEG_INFINITY, f32::NAN, -88.0, 88.0, -1e38, -87.0, 0.0];
        let x: Vec<f32> = special.iter().flat_map(|value| [*value, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]).collect();
        let got = gated_silu(&backend, &x, 8, &first_column, &first_column);
        for got in (0..8).map(|column| (0..8).map(|row| got[row * 8 + column]).collect::<Vec<f32>>()) {
            assert_eq!([got[0], got[4], got[5], got[7]], [f32::INFINITY, 7744.0, 0.0, 0.0], "{kernels:?}");
            assert!(got[1].is_nan() && got[2].is_nan(), "{kernels:?} {got:?}");
            assert!((0.0..1e-34).contains(&got[3]) && (1.2e-34..1.3e-34).contains(&got[6]), "{kernels:?} {got:?}");
        }
    }
}

/// Of seven tiles, two clusters have four and three, one has all, and seven have one each.
#[test]
fn wgmma_bits_are_independent_of_the_grid() {
    for (index, options) in EmulatorOptions::matrix().into_iter().enumerate().step_by(4) {
        let dtype = HALVES[index % 2];
        for (kind, outputs) in [(MatmulKind::Residual, 1752), (MatmulKind::Gated(Activation::Silu), 880)] {
            let [one, two, all] = [2, 4, 14].map(|multiprocessors| {
                let device = Emulator::new(options).with_multiprocessors(multiprocessors);
                let backend = CudaBackend::new(device, KernelSet::Fast);
                operations::matmul(&backend, kind, true, dtype, (0, 130), 72, outputs)
            });
            assert!(one == two && two == all, "{kind:?} {options:?}");
            let expected = operations::matmul(&fused_multiply_add_cpu(), kind, true, dtype, (0, 130), 72, outputs);
            assert_near(&two, &expected, dtype, &format!("{kind:?} {options:?}"));
        }
    }
}

#[test]
fn attention_agrees_with_cpu_in_every_mode() {
    let cpu = fused_multiply_add_cpu();
    let shapes = [(4, 2, 16), (3, 1, 64), (2, 2, 80), (1, 1, 96), (2, 1, 128), (1, 1, 256)];
    for (index, options) in modes() {
        let backend = fast(options);
        for (number, (n_heads, n_kv_heads, head_dim)) in shapes.into_iter().enumerate() {
            let shape = AttentionShape { n_heads, n_kv_heads, head_dim };
            let dtype = HALVES[(index + number) % 2];
            let what = format!("{shape:?} {dtype} {options:?}");
            let scores = ScoreRule::of_head_dim(head_dim);
            let expected = operations::attention(&cpu, dtype, shape, scores, [65, 3]);
            assert_near(&operations::attention(&backend, dtype, shape, scores, [65, 3]), &expected, dtype, &what);
            let expected = operations::attention_of_node(&cpu, dtype, shape, scores, 140, 77);
            let got = operations::attention_of_node(&backend, dtype, shape, scores, 140, 77);
            assert_near(&got, &expected, dtype, &what);
        }
    }
}

#[test]
fn windows_and_soft_caps_agree_with_cpu_in_every_mode() {
    let cpu = fused_multiply_add_cpu();
    for (index, options) in modes() {
        let backend = fast(options);
        for (number, head_dim) in [24, 128, 256].into_iter().enumerate() {
            let shape = AttentionShape { n_heads: 2, n_kv_heads: 1, head_dim };
            let dtype = HALVES[(index + number) % 2];
            // Each rule with some of the modes and with every width.
            for scores in score_rules(head_dim).into_iter().skip((index + number) % 3).step_by(3) {
                let what = format!("{scores:?} {shape:?} {dtype} {options:?}");
                let expected = operations::attention(&cpu, dtype, shape, scores, [3, 150]);
                assert_near(&operations::attention(&backend, dtype, shape, scores, [3, 150]), &expected, dtype, &what);
                let expected = operations::attention_of_node(&cpu, dtype, shape, scores, 190, 130);
                let got = operations::attention_of_node(&backend, dtype, shape, scores, 190, 130);
                assert_near(&got, &expected, dtype, &what);
            }
        }
    }
}

#[test]
fn window_beyond_sequence_and_large_cap_change_little() {
    let shape = AttentionShape { n_heads: 1, n_kv_heads: 1, head_dim: 64 };
    let usual = ScoreRule::of_head_dim(64);
    let backend = fast(EmulatorOptions::matrix()[0]);
    let attention = |scores| operations::attention(&backend, DType::Bf16, shape, scores, [5, 141]);
    let expected = attention(usual);
    for window in [141, 142, usize::MAX] {
        assert!(attention(ScoreRule { window: Some(window), ..usual }) == expected, "{window}");
    }
    assert!(attention(ScoreRule { window: Some(140), ..usual }) != expected);
    // The tanh of small arguments is nearly the identity.
    assert_near(&attention(ScoreRule { soft_cap: Some(2000.0), ..usual }), &expected, DType::Bf16, "a cap of 2000");
    assert!(attention(ScoreRule { soft_cap: Some(2.0), ..usual }) != expected);
}

#[test]
fn row_bits_are_independent_of_other_rows() {
    for (index, options) in EmulatorOptions::matrix().into_iter().enumerate().step_by(4) {
        let dtype = HALVES[index % 2];
        for (kernels, kind) in FAST.into_iter().flat_map(|kernels| matmul_kinds(index).map(|kind| (kernels, kind))) {
            let backend = EmulatedBackend::emulated(options, kernels);
            let all = operations::matmul(&backend, kind, true, dtype, (0, 131), 72, 40);
            for (from, to) in [(0, 1), (127, 131), (64, 129)] {
                let part = operations::matmul(&backend, kind, true, dtype, (from, to), 72, 40);
                assert!(part == all[from * 40 * 2..to * 40 * 2], "{kernels:?} {kind:?} {dtype} {from}..{to}");
            }
        }
        let backend = fast(options);
        // With `mma`, with `wgmma`.
        let head_dim = [40, 64][index / 4 % 2];
        let shape = AttentionShape { n_heads: 2, n_kv_heads: 1, head_dim };
        let row_bytes = shape.query_width() * 2;
        for scores in score_rules(head_dim) {
            let whole = operations::attention_of_node(&backend, dtype, shape, scores, 140, 0);
            for from in [1, 63, 64, 100, 139] {
                let node = operations::attention_of_node(&backend, dtype, shape, scores, 140, from);
                assert!(node == whole[from * row_bytes..], "attention {dtype} {scores:?} from {from}");
            }
        }
    }
}

/// The tensor-core kernel takes the largest score before it scales.
#[test]
fn scales_that_are_not_positive_use_plain_attention() {
    let options = EmulatorOptions::matrix()[0];
    let plain = EmulatedBackend::emulated(options, KernelSet::Plain);
    let shape = AttentionShape { n_heads: 2, n_kv_heads: 1, head_dim: 16 };
    for (scale, soft_cap) in [(-0.2, None), (0.0, None), (-0.2, Some(1.5))] {
        let scores = ScoreRule { scale, window: None, soft_cap };
        let attention = |backend| operations::attention(backend, DType::Bf16, shape, scores, [4, 9]);
        assert!(attention(&fast(options)) == attention(&plain), "{scores:?}");
    }
}

#[test]
fn unsupported_shapes_use_plain_kernels() {
    let options = EmulatorOptions::matrix()[0];
    let plain = EmulatedBackend::emulated(options, KernelSet::Plain);
    for (dtype, inputs) in [(DType::F32, 16), (DType::Bf16, 12)] {
        let matmul = |backend| operations::matmul(backend, MatmulKind::Linear, false, dtype, (0, 3), inputs, 5);
        assert!(matmul(&fast(options)) == matmul(&plain), "{dtype} {inputs}");
        let shape = AttentionShape { n_heads: 1, n_kv_heads: 1, head_dim: inputs };
        let scores = ScoreRule::of_head_dim(inputs);
        let attention = |backend| operations::attention(backend, dtype, shape, scores, [4, 9]);
        assert!(attention(&fast(options)) == attention(&plain), "{dtype} {inputs}");
    }
}

/// Any thread order, copy time and seed.
fn any_mode() -> impl Strategy<Value = EmulatorOptions> {
    (prop::sample::select(EmulatorOptions::matrix()), any::<u64>())
        .prop_map(|(options, seed)| EmulatorOptions { seed, ..options })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn matmul_of_any_shape_agrees_with_cpu(
        options in any_mode(), kernels in prop::sample::select(FAST.to_vec()),
        kind in prop::sample::select(MATMUL_KINDS.to_vec()), biased in any::<bool>(),
        dtype in prop::sample::select(HALVES.to_vec()), rows in 1usize..150, chunks in 1usize..16,
        outputs in 1usize..150,
    ) {
        // The wgmma kernels take outputs of multiples of 8.
        let outputs = if kernels == KernelSet::Fast { outputs.next_multiple_of(8) } else { outputs };
        let inputs = 8 * chunks;
        let expected =
            operations::matmul(&fused_multiply_add_cpu(), kind, biased, dtype, (0, rows), inputs, outputs);
        let backend = EmulatedBackend::emulated(options, kernels);
        let got = operations::matmul(&backend, kind, biased, dtype, (0, rows), inputs, outputs);
        assert_near(&got, &expected, dtype, "matmul");
    }

    #[test]
    fn attention_of_any_shape_agrees_with_cpu(
        options in any_mode(), dtype in prop::sample::select(HALVES.to_vec()), kv_heads in 1usize..3,
        group in 1usize..4, chunks in 1usize..17, len in 2usize..150, from in any::<prop::sample::Index>(),
        window in prop::option::of(1usize..150), soft_cap in prop::option::of(0.5f32..60.0),
    ) {
        let shape = AttentionShape { n_heads: kv_heads * group, n_kv_heads: kv_heads, head_dim: 8 * chunks };
        let from = from.index(len);
        let scores = ScoreRule { window, soft_cap, ..ScoreRule::of_head_dim(shape.head_dim) };
        let expected = operations::attention_of_node(&fused_multiply_add_cpu(), dtype, shape, scores, len, from);
        let got = operations::attention_of_node(&fast(options), dtype, shape, scores, len, from);
        assert_near(&got, &expected, dtype, "attention");
        let whole = operations::attention_of_node(&fast(options), dtype, shape, scores, len, 0);
        prop_assert!(got == whole[from * shape.query_width() * 2..], "bits depend on the node");
    }
}
