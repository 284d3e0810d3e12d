//! The fused projection of queries, keys and values in the emulator, against separate matmuls and rotations.

use actbench_kernels::cuda::emulator::{EmulatedBackend, Emulator, EmulatorOptions};
use actbench_kernels::cuda::{CudaBackend, KernelSet};
use actbench_kernels::{AttentionShape, DType, QkvPart};

use crate::common::*;
use crate::is_sanitized;
use crate::operations::{QkvCase, qkv, qkv_unfused};

const SETS: [KernelSet; 3] = [KernelSet::Plain, KernelSet::Mma, KernelSet::Fast];

/// Query heads, key/value heads, elements of a head and of its rotated part: whole heads and parts of them, odd numbers of heads,
/// heads over the ends of tiles, queries that do not end with a box of 64 columns, and none that rotates in every kernel.
const SHAPES: [(usize, usize, usize, usize); 12] = [
    (3, 1, 64, 64),
    (9, 3, 64, 64),
    (2, 1, 128, 128),
    (1, 1, 256, 256),
    (4, 2, 80, 32),
    (4, 1, 80, 80),
    (2, 1, 96, 96),
    (2, 2, 64, 16),
    (2, 1, 128, 32),
    (5, 1, 32, 32),
    (2, 1, 40, 24),
    (3, 3, 64, 0),
];

fn case((n_heads, n_kv_heads, head_dim, rotary_dim): (usize, usize, usize, usize), number: usize) -> QkvCase {
    let shape = AttentionShape { n_heads, n_kv_heads, head_dim };
    let dtype = [DType::Bf16, DType::F16][number % 2];
    QkvCase { shape, rotary_dim, biased: !number.is_multiple_of(3), dtype, inputs: [72, 40][number % 2] }
}

#[track_caller]
fn assert_near(got: &[Vec<u8>; 2], expected: &[Vec<u8>; 2], dtype: DType, what: &str) {
    for ((got, expected), name) in got.iter().zip(expected).zip(["queries", "keys and values"]) {
        let expected: Vec<f64> = dtype.to_f32_vec(expected).into_iter().map(f64::from).collect();
        // Separate launches round before the rotation, too.
        assert_close(&dtype.to_f32_vec(got), &expected, 3.0 * tolerance(dtype), &format!("{name}, {what}"));
    }
}

#[test]
fn plain_qkv_has_the_bits_of_cpu() {
    let cpu = fused_multiply_add_cpu();
    let backend = EmulatedBackend::emulated(EmulatorOptions::matrix()[0], KernelSet::Plain);
    for (number, shape) in SHAPES.into_iter().chain([(3, 1, 6, 4), (1, 1, 5, 2), (2, 1, 7, 0)]).enumerate() {
        for dtype in DTYPES {
            let case = QkvCase { dtype, inputs: 11, ..case(shape, number) };
            let expected = qkv_unfused(&cpu, case, 5);
            assert!(qkv(&backend, case, QkvPart::All, (0, 5)) == expected, "{case:?}");
            assert!(qkv(&cpu, case, QkvPart::All, (0, 5)) == expected, "cpu {case:?}");
        }
    }
}

#[test]
fn qkv_agrees_with_separate_launches_in_every_mode() {
    let modes = EmulatorOptions::matrix().into_iter().take(if is_sanitized() { 3 } else { usize::MAX });
    for (index, options) in modes.enumerate() {
        for (number, shape) in SHAPES.into_iter().enumerate().skip(index % 3).step_by(3) {
            let case = case(shape, index + number);
            for kernels in [KernelSet::Mma, KernelSet::Fast] {
                let backend = EmulatedBackend::emulated(options, kernels);
                let rows = [70, 131][(index + number) % 2];
                let expected = qkv_unfused(&backend, case, rows);
                let got = qkv(&backend, case, QkvPart::All, (0, rows));
                assert_near(&got, &expected, case.dtype, &format!("{kernels:?} {case:?} {options:?}"));
            }
        }
    }
}

/// The accumulators are equal, and both kernels rotate in the same order.
#[test]
fn wgmma_qkv_bits_equal_mma_bits() {
    let options = EmulatorOptions::matrix()[0];
    for (number, shape) in [(3, 1, 64, 64), (1, 2, 128, 32), (1, 1, 256, 256), (5, 1, 32, 32)].into_iter().enumerate() {
        let [mma, wgmma] = [KernelSet::Mma, KernelSet::Fast].map(|kernels| {
            qkv(&EmulatedBackend::emulated(options, kernels), case(shape, number), QkvPart::All, (0, 40))
        });
        assert!(mma == wgmma, "{shape:?}");
    }
}

#[test]
fn qkv_rotates_without_rounding_before() {
    // With angles of 90 degrees and so on a rotation alone is exact: in a sum of two products one rounding less shows.
    for kernels in [KernelSet::Mma, KernelSet::Fast] {
        let backend = EmulatedBackend::emulated(EmulatorOptions::matrix()[0], kernels);
        let case = case((3, 1, 64, 64), 0);
        let exact = QkvCase { dtype: DType::F32, ..case };
        let error = |found: &[Vec<u8>; 2]| -> f64 {
            let expected = qkv_exact(exact, case.dtype);
            let values = case.dtype.to_f32_vec(&found[0]);
            values.iter().zip(&expected).map(|(found, exact)| f64::from(found - exact).powi(2)).sum()
        };
        let fused = error(&qkv(&backend, case, QkvPart::All, (0, 40)));
        let unfused = error(&qkv_unfused(&backend, case, 40));
        assert!(fused < 0.75 * unfused, "{kernels:?}: {fused} {unfused}");
    }
}

/// Queries of `case` in f32 from inputs of `dtype`.
fn qkv_exact(case: QkvCase, dtype: DType) -> Vec<f32> {
    let QkvCase { shape, rotary_dim, inputs, .. } = case;
    let (half, width) = (rotary_dim / 2, shape.query_width());
    let (x, w) = (random(1, dtype, 40 * inputs), random(2, dtype, (width + 2 * shape.kv_width()) * inputs));
    let [cos, sin] = [4, 5].map(|seed| random(seed, DType::F32, 61 * half));
    let mut values = Vec::new();
    for row in 0..40 {
        let position = (row * 37 + 5) % 61;
        let dot = |column: usize| -> f32 { (0..inputs).map(|k| x[row * inputs + k] * w[column * inputs + k]).sum() };
        for column in 0..width {
            let (in_head, head) = (column % shape.head_dim, column - column % shape.head_dim);
            let angle = position * half + in_head % half;
            let (a, b) = (dot(head + in_head % half), dot(head + in_head % half + half));
            let (c, s) = (cos[angle], sin[angle]);
            values.push(if in_head < half { a * c - b * s } else { b * c + a * s });
        }
    }
    values
}

#[test]
fn qkv_parts_and_rows_alone_have_the_bits_of_the_whole() {
    let options = EmulatorOptions::matrix();
    for kernels in SETS {
        for (number, shape) in SHAPES.into_iter().enumerate() {
            let case = case(shape, number);
            let backend = EmulatedBackend::emulated(options[number % options.len()], kernels);
            let whole = qkv(&backend, case, QkvPart::All, (0, 67));
            for (from, to) in [(0, 67), (66, 67)] {
                let [query, nothing] = qkv(&backend, case, QkvPart::Query, (from, to));
                let [none, key_value] = qkv(&backend, case, QkvPart::KeyValue, (from, to));
                let all = qkv(&backend, case, QkvPart::All, (from, to));
                for (index, part) in [query, key_value].into_iter().enumerate() {
                    let row_bytes = whole[index].len() / 67;
                    let expected = &whole[index][from * row_bytes..to * row_bytes];
                    assert!(part == expected && all[index] == expected, "{kernels:?} {case:?} {from}..{to} {index}");
                }
                assert!(none.iter().chain(&nothing).all(|byte| *byte == 0xff), "{kernels:?} {case:?}");
            }
        }
    }
}

#[test]
fn qkv_bits_are_independent_of_the_grid() {
    let case = case((12, 3, 64, 64), 1);
    let [one, two, all] = [2, 4, 14].map(|multiprocessors| {
        let device = Emulator::new(EmulatorOptions::matrix()[0]).with_multiprocessors(multiprocessors);
        qkv(&CudaBackend::new(device, KernelSet::Fast), case, QkvPart::All, (0, 130))
    });
    assert!(one == two && two == all);
}

#[test]
fn qkv_rejects_other_shapes() {
    use actbench_kernels::{Backend, CpuBackend, QkvProjection, Rotation};
    let cpu = CpuBackend::new(1).unwrap();
    let shape = AttentionShape { n_heads: 2, n_kv_heads: 1, head_dim: 4 };
    let weight =
        |rows: usize| cpu.prepare_linear(&[host(DType::F32, &[rows, 3], &vec![0.5; rows * 3])], DType::F32).unwrap();
    let run = |weight_rows: usize, rotary_dim: usize, positions: &[u32], kv_columns: usize| {
        let x = upload(&cpu, DType::F32, 2, 3, &[1.0; 6]);
        let (cos, sin) = (vec![1.0; 8], vec![0.0; 8]);
        let rotation = Some(Rotation { rotary_dim, positions, cos: &cos, sin: &sin });
        let mut query = cpu.alloc(DType::F32, 2, 8).unwrap();
        let mut key_value = cpu.alloc(DType::F32, 2, kv_columns).unwrap();
        let projection = QkvProjection { shape, part: QkvPart::All, rotation };
        cpu.project_qkv(&x, None, &weight(weight_rows), None, &projection, &mut query, &mut key_value)
    };
    assert!(run(16, 4, &[0, 3], 8).is_ok());
    for (weight_rows, rotary_dim, positions, kv_columns) in [
        (15, 4, &[0, 3][..], 8),
        (16, 3, &[0, 3], 8),
        (16, 6, &[0, 3], 8),
        (16, 4, &[0], 8),
        (16, 4, &[0, 4], 8),
        (16, 4, &[0, 3], 7),
    ] {
        assert!(
            run(weight_rows, rotary_dim, positions, kv_columns).is_err(),
            "{weight_rows} {rotary_dim} {positions:?}"
        );
    }
}
