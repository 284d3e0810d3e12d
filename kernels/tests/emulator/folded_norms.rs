//! RMSNorm folded into the tensor-core GEMMs: the bits of the sums of squares, the values against a norm and a matmul in `f64`, and
//! the independence of a row's bits from other rows, the grid and the way to its sums.

use actbench_kernels::cuda::emulator::{EmulatedBackend, Emulator, EmulatorOptions};
use actbench_kernels::cuda::{CudaBackend, KernelSet};
use actbench_kernels::{
    Activation, AttentionShape, Backend, CpuBackend, DType, FoldedNorm, KernelError, QkvPart, QkvProjection, Rotation,
    square_blocks,
};

use crate::common::*;
use crate::operations::{self, MatmulKind};

const BF16: DType = DType::Bf16;
const EPS: f32 = 1e-5;

/// The kernels for every device with tensor cores, and those for `sm_90`.
const FAST: [KernelSet; 2] = [KernelSet::Mma, KernelSet::Fast];

/// Some of the modes: all orders of threads and times of copies.
fn modes() -> impl Iterator<Item = EmulatorOptions> {
    EmulatorOptions::matrix().into_iter().step_by(4)
}

fn download<B: Backend>(backend: &B, tensor: &B::Tensor, dtype: DType, rows: usize, columns: usize) -> Vec<f32> {
    let mut bytes = vec![0; rows * columns * dtype.size()];
    backend.download(tensor, rows, &mut bytes).unwrap();
    dtype.to_f32_vec(&bytes)
}

/// The sums of squares of `row` in the documented order, one scalar after the other.
fn square_sums(row: &[f32]) -> Vec<f32> {
    let half = |half: &[f32]| {
        let lane = |lane: usize| {
            let columns = (0..4).flat_map(|j| [8 * j + 2 * lane, 8 * j + 2 * lane + 1]);
            columns.filter_map(|column| half.get(column)).fold(0.0f32, |sum, value| value.mul_add(*value, sum))
        };
        (lane(0) + lane(1)) + (lane(2) + lane(3))
    };
    row.chunks(64).map(|block| half(&block[..block.len().min(32)]) + half(block.get(32..).unwrap_or(&[]))).collect()
}

fn all_square_sums(stream: &[f32], columns: usize) -> Vec<f32> {
    stream.chunks(columns).flat_map(square_sums).collect()
}

/// The stream and its sums of squares of [`operations::residual_squares`], as values.
fn residual<B: Backend>(backend: &B, rows: (usize, usize), inputs: usize, columns: usize) -> (Vec<f32>, Vec<f32>) {
    let (stream, squares) = operations::residual_squares(backend, BF16, rows, inputs, columns);
    (BF16.to_f32_vec(&stream), DType::F32.to_f32_vec(&squares))
}

#[test]
fn residual_squares_have_the_bits_of_a_scalar_loop() {
    // Shorter last blocks and halves, two tiles in both dimensions; 131 columns and 12 inputs are for other kernels.
    for (index, options) in modes().enumerate() {
        for kernels in FAST {
            let backend = EmulatedBackend::emulated(options, kernels);
            for (rows, inputs, columns) in [(131, 72, 328), (3, 8, 48), (5, 40, 131), (4, 12, 200)] {
                // The first mode has every shape, the others the first.
                if index > 0 && rows != 131 {
                    continue;
                }
                let (stream, squares) = residual(&backend, (0, rows), inputs, columns);
                let what = format!("{kernels:?} {rows} {inputs} {columns} {options:?}");
                assert!(squares == all_square_sums(&stream, columns), "{what}");
                let without =
                    operations::matmul(&backend, MatmulKind::Residual, true, BF16, (0, rows), inputs, columns);
                assert!(stream == BF16.to_f32_vec(&without), "the stream of {what}");
            }
        }
    }
}

#[test]
fn square_sums_have_the_bits_of_a_scalar_loop() {
    let backend = EmulatedBackend::emulated(EmulatorOptions::matrix()[1], KernelSet::Mma);
    for columns in [1, 31, 48, 64, 131, 1100] {
        let x = random(5, BF16, 3 * columns);
        let device_x = upload(&backend, BF16, 3, columns, &x);
        let mut squares = filled_with_nan(&backend, DType::F32, 3, square_blocks(columns));
        backend.square_sums(&device_x, &mut squares).unwrap();
        let squares = download(&backend, &squares, DType::F32, 3, square_blocks(columns));
        assert!(squares == all_square_sums(&x, columns), "{columns}");
    }
}

/// A projection of a folded norm: with gated weights, or one with an activation or without.
#[derive(Clone, Copy, Debug)]
struct Projection {
    gated: bool,
    activation: Option<Activation>,
    biased: bool,
}

const PROJECTIONS: [Projection; 3] = [
    Projection { gated: false, activation: None, biased: true },
    Projection { gated: true, activation: Some(Activation::Silu), biased: false },
    Projection { gated: false, activation: Some(Activation::Gelu), biased: true },
];

/// The rows have magnitudes from 1 to 16, so that a factor of another row is visible.
fn stream(rows: usize, inputs: usize) -> Vec<f32> {
    let values = random(1, BF16, rows * inputs);
    values.iter().enumerate().map(|(index, value)| value * (1 << (index / inputs % 5)) as f32).collect()
}

/// The values of rows `from..to` of a projection of `norm(stream)`, computed alone.
fn project<B: Backend>(
    backend: &B,
    projection: Projection,
    (from, to): (usize, usize),
    inputs: usize,
    outputs: usize,
) -> Vec<f32> {
    let rows = to - from;
    let x = upload(backend, BF16, rows, inputs, &stream(to, inputs)[from * inputs..]);
    let matrix = |seed| host(BF16, &[outputs, inputs], &random(seed, BF16, outputs * inputs));
    let biases = if projection.gated { 2 * outputs } else { outputs };
    let bias = backend.prepare_vector(&[host(BF16, &[biases], &random(3, BF16, biases))], BF16).unwrap();
    let scale = backend.prepare_vector(&[host(BF16, &[inputs], &random(4, BF16, inputs))], BF16).unwrap();
    let mut weight = if projection.gated {
        backend.prepare_gated(&matrix(2), &matrix(5), BF16).unwrap()
    } else {
        backend.prepare_linear(&[matrix(2)], BF16).unwrap()
    };
    let mut out = filled_with_nan(backend, BF16, rows, outputs);
    let bias = projection.biased.then_some(&bias);
    backend.fold_norm(&mut weight, &scale).unwrap();
    backend.verify_weights().unwrap();
    let mut squares = filled_with_nan(backend, DType::F32, rows, square_blocks(inputs));
    backend.square_sums(&x, &mut squares).unwrap();
    let norm = FoldedNorm { squares: &squares, eps: EPS };
    backend.linear_normed(&x, norm, &weight, bias, projection.activation, &mut out).unwrap();
    download(backend, &out, BF16, rows, outputs)
}

/// The same in `f64` with weights that are rounded as the device rounds them.
fn expected(projection: Projection, rows: usize, inputs: usize, outputs: usize) -> Vec<f64> {
    let scale = random(4, BF16, inputs);
    let folded = |seed| {
        let products: Vec<f32> =
            random(seed, BF16, outputs * inputs).iter().enumerate().map(|(i, w)| w * scale[i % inputs]).collect();
        BF16.to_f32_vec(&BF16.from_f32_slice(&products))
    };
    let (first, second) = (folded(2), folded(5));
    let bias = random(3, BF16, 2 * outputs);
    let bias = |column: usize| if projection.biased { f64::from(bias[column]) } else { 0.0 };
    let dot = |x: &[f32], w: &[f32]| x.iter().zip(w).map(|(x, w)| f64::from(*x) * f64::from(*w)).sum::<f64>();
    let mut results = Vec::new();
    for row in stream(rows, inputs).chunks(inputs) {
        let inverse = 1.0 / (dot(row, row) / inputs as f64 + f64::from(EPS)).sqrt();
        for column in 0..outputs {
            let of = |weights: &[f32]| inverse * dot(row, &weights[column * inputs..(column + 1) * inputs]);
            let value = of(&first) + bias(column);
            let value = projection.activation.map_or(value, |activation| activated(activation, value));
            results.push(if projection.gated { value * of(&second) } else { value });
        }
    }
    results
}

#[test]
fn folded_norm_is_norm_and_projection_in_every_mode() {
    for (index, options) in EmulatorOptions::matrix().into_iter().enumerate() {
        for (kernels, outputs) in FAST.into_iter().zip([131, 264]) {
            let backend = EmulatedBackend::emulated(options, kernels);
            let projection = PROJECTIONS[index % 3];
            let got = project(&backend, projection, (0, 130), 136, outputs);
            let what = format!("{kernels:?} {projection:?} {options:?}");
            assert_close(&got, &expected(projection, 130, 136, outputs), tolerance(BF16), &what);
        }
    }
}

#[test]
fn folded_bits_are_independent_of_rows_grid_and_kernel() {
    for (options, projection) in modes().zip(PROJECTIONS) {
        let whole = FAST.map(|kernels| {
            let backend = EmulatedBackend::emulated(options, kernels);
            let whole = project(&backend, projection, (0, 131), 72, 40);
            for (from, to) in [(0, 1), (127, 131), (64, 129)] {
                let part = project(&backend, projection, (from, to), 72, 40);
                assert!(part == whole[from * 40..to * 40], "{kernels:?} {projection:?} {from}..{to}");
            }
            let all = residual(&backend, (0, 131), 72, 136).1;
            let part = residual(&backend, (67, 130), 72, 136).1;
            assert!(part == all[67 * 3..130 * 3], "{kernels:?} squares");
            whole
        });
        assert!(whole[0] == whole[1], "{projection:?}");
        // Of seven tiles, two clusters have four and three, and one has all.
        let outputs = if projection.gated { 880 } else { 1752 };
        let [one, two] = [2, 4].map(|multiprocessors| {
            let device = Emulator::new(options).with_multiprocessors(multiprocessors);
            let backend = CudaBackend::new(device, KernelSet::Fast);
            let squares = residual(&backend, (0, 130), 8, 1752).1;
            (project(&backend, projection, (0, 130), 72, outputs), squares)
        });
        assert!(one == two, "{projection:?} {options:?}");
        assert_close(&two.0, &expected(projection, 130, 72, outputs), tolerance(BF16), "seven tiles");
    }
}

/// Without a rotation the bits are those of a matmul; with one, a rounding is left out.
#[test]
fn queries_keys_and_values_of_a_folded_norm_are_scaled() {
    let (rows, inputs) = (67, 72);
    let shape = AttentionShape { n_heads: 3, n_kv_heads: 1, head_dim: 64 };
    let (query_width, kv_width) = (shape.query_width(), 2 * shape.kv_width());
    let outputs = query_width + kv_width;
    let positions: Vec<u32> = (0..rows as u32).map(|row| row * 7 % 31).collect();
    for (options, kernels) in modes().zip(FAST.into_iter().cycle()) {
        let backend = EmulatedBackend::emulated(options, kernels);
        let x = upload(&backend, BF16, rows, inputs, &stream(rows, inputs));
        let mut squares = filled_with_nan(&backend, DType::F32, rows, square_blocks(inputs));
        backend.square_sums(&x, &mut squares).unwrap();
        let norm = || FoldedNorm { squares: &squares, eps: EPS };
        let weights = host(BF16, &[outputs, inputs], &random(2, BF16, outputs * inputs));
        let weight = backend.prepare_linear(std::slice::from_ref(&weights), BF16).unwrap();
        let vector = |seed, dtype, len: usize| {
            backend.prepare_vector(&[host(dtype, &[len], &random(seed, dtype, len))], dtype).unwrap()
        };
        let (bias, cos, sin) =
            (vector(3, BF16, outputs), vector(4, DType::F32, 31 * 32), vector(5, DType::F32, 31 * 32));
        let project = |part, rotation| {
            let mut query = filled_with_nan(&backend, BF16, rows, query_width);
            let mut key_value = filled_with_nan(&backend, BF16, rows, kv_width);
            let projection = QkvProjection { shape, part, rotation };
            backend
                .project_qkv(&x, Some(norm()), &weight, Some(&bias), &projection, &mut query, &mut key_value)
                .unwrap();
            [(query, query_width), (key_value, kv_width)]
                .map(|(out, width)| download(&backend, &out, BF16, rows, width))
        };
        let by_matmul = |first: usize, heads: usize, width: usize, rotates: bool| {
            let part = backend.prepare_linear(&[weights.rows(first..first + width).unwrap()], BF16).unwrap();
            let bias = &random(3, BF16, outputs)[first..first + width];
            let bias = backend.prepare_vector(&[host(BF16, &[width], bias)], BF16).unwrap();
            let mut out = filled_with_nan(&backend, BF16, rows, width);
            backend.linear_normed(&x, norm(), &part, Some(&bias), None, &mut out).unwrap();
            if rotates {
                backend.rope(&mut out, heads, 64, 64, &positions, &cos, &sin).unwrap();
            }
            download(&backend, &out, BF16, rows, width)
        };
        let rotation = || Some(Rotation { rotary_dim: 64, positions: &positions, cos: &cos, sin: &sin });
        let expected = |rotates| [by_matmul(0, 3, query_width, rotates), by_matmul(query_width, 1, kv_width, rotates)];
        assert!(project(QkvPart::All, None) == expected(false), "{kernels:?} {options:?}");
        let whole = project(QkvPart::All, rotation());
        for (got, expected) in whole.iter().zip(expected(true)) {
            let expected: Vec<f64> = expected.into_iter().map(f64::from).collect();
            assert_close(got, &expected, 2.0 * tolerance(BF16), &format!("{kernels:?} {options:?}"));
        }
        assert!(project(QkvPart::Query, rotation())[0] == whole[0], "{kernels:?} queries alone");
        assert!(project(QkvPart::KeyValue, rotation())[1] == whole[1], "{kernels:?} keys and values alone");
    }
}

#[test]
fn norms_fold_for_bf16_on_tensor_cores_alone() {
    let [plain, mma] = [KernelSet::Plain, KernelSet::Mma]
        .map(|kernels| EmulatedBackend::emulated(EmulatorOptions::matrix()[0], kernels));
    assert!(mma.folds_norms(BF16, 64) && mma.folds_norms(BF16, 8));
    let others = [(DType::F16, 64), (DType::F32, 64), (BF16, 12), (BF16, 0)];
    assert!(others.iter().all(|(dtype, width)| !mma.folds_norms(*dtype, *width)));
    assert!(!plain.folds_norms(BF16, 64));
    assert!(!CpuBackend::new(1).unwrap().folds_norms(BF16, 64));
}

#[test]
fn folded_norms_refuse_what_they_cannot_compute() {
    let backend = EmulatedBackend::emulated(EmulatorOptions::matrix()[0], KernelSet::Mma);
    let vector = |len: usize, value| backend.prepare_vector(&[host(BF16, &[len], &vec![value; len])], BF16).unwrap();
    let weight = |inputs: usize, value: f32| {
        backend.prepare_linear(&[host(BF16, &[2, inputs], &vec![value; 2 * inputs])], BF16).unwrap()
    };
    let shape_error = |result: Result<(), KernelError>| matches!(result, Err(KernelError::Shape { .. }));
    assert!(shape_error(backend.fold_norm(&mut weight(8, 1.0), &vector(16, 1.0))));
    assert!(shape_error(backend.fold_norm(&mut weight(12, 1.0), &vector(12, 1.0))));
    let mut out = backend.alloc(BF16, 1, 2).unwrap();
    let mut project = |inputs: usize, squares_dtype: DType, blocks: usize| {
        let x = upload(&backend, BF16, 1, inputs, &vec![1.0; inputs]);
        let squares = backend.alloc(squares_dtype, 1, blocks).unwrap();
        let norm = FoldedNorm { squares: &squares, eps: EPS };
        backend.linear_normed(&x, norm, &weight(inputs, 1.0), None, None, &mut out)
    };
    assert!(project(8, DType::F32, 1).is_ok());
    assert!(shape_error(project(8, DType::F32, 2)) && shape_error(project(12, DType::F32, 1)));
    assert!(matches!(project(8, BF16, 1), Err(KernelError::DType { .. })));
    // The product exceeds bf16.
    backend.fold_norm(&mut weight(8, 1e30), &vector(8, 1e30)).unwrap();
    assert!(matches!(backend.verify_weights(), Err(KernelError::NotFinite { op: "fold norm", index: 0, .. })));
}
