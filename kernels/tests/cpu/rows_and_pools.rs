//! Norms, rotary positions, gathers and pooling against their definitions.

use crate::common::*;
use actbench_kernels::{Backend, CpuBackend, DType, PoolGroups, PoolMethod};

#[test]
fn rms_norm_equals_definition() {
    for backend in backends() {
        for dtype in DTYPES {
            for (rows, columns) in [(1, 1), (3, 17), (40, 64), (21, 100)] {
                let (x, scale) = (random(1, dtype, rows * columns), random(2, dtype, columns));
                let device_x = upload(&backend, dtype, rows, columns, &x);
                let device_scale = backend.prepare_vector(&[host(dtype, &[columns], &scale)], dtype).unwrap();
                let mut out = backend.alloc(dtype, rows, columns).unwrap();
                backend.rms_norm(&device_x, &device_scale, 1e-5, &mut out).unwrap();
                let expected: Vec<f64> = x
                    .chunks_exact(columns)
                    .flat_map(|row| {
                        let square: f64 = row.iter().map(|value| f64::from(*value).powi(2)).sum();
                        let inverse = 1.0 / (square / columns as f64 + 1e-5).sqrt();
                        row.iter()
                            .zip(&scale)
                            .map(move |(value, scale)| f64::from(*value) * inverse * f64::from(*scale))
                    })
                    .collect();
                assert_close(&values(&backend, &out), &expected, tolerance(dtype), &backend.describe());
            }
        }
    }
}

#[test]
fn rope_rotates_leading_heads_only() {
    let (head_dim, heads, columns) = (8, 2, 24);
    let positions = [0u32, 3, 7];
    let angle = |position: u32, pair: usize| f64::from(position) * 0.3 / (pair as f64 + 1.0);
    let table = |f: fn(f64) -> f64| -> Vec<f32> {
        (0..8u32).flat_map(|position| (0..4).map(move |pair| f(angle(position, pair)) as f32)).collect()
    };
    for backend in backends() {
        for dtype in DTYPES {
            let x = random(1, dtype, positions.len() * columns);
            let mut device_x = upload(&backend, dtype, positions.len(), columns, &x);
            let cos = backend.prepare_vector(&[host(DType::F32, &[32], &table(f64::cos))], DType::F32).unwrap();
            let sin = backend.prepare_vector(&[host(DType::F32, &[32], &table(f64::sin))], DType::F32).unwrap();
            backend.rope(&mut device_x, heads, head_dim, head_dim, &positions, &cos, &sin).unwrap();
            let mut expected: Vec<f64> = x.iter().map(|value| f64::from(*value)).collect();
            for (row, position) in positions.iter().enumerate() {
                for head in 0..heads {
                    for pair in 0..head_dim / 2 {
                        let first = row * columns + head * head_dim + pair;
                        let second = first + head_dim / 2;
                        let (a, b) = (f64::from(x[first]), f64::from(x[second]));
                        let (sin, cos) = angle(*position, pair).sin_cos();
                        expected[first] = a * cos - b * sin;
                        expected[second] = b * cos + a * sin;
                    }
                }
            }
            assert_close(&values(&backend, &device_x), &expected, tolerance(dtype), &backend.describe());
            assert!(backend.rope(&mut device_x, heads, head_dim, head_dim, &[8, 0, 0], &cos, &sin).is_err());
            assert!(backend.rope(&mut device_x, 4, head_dim, head_dim, &positions, &cos, &sin).is_err());
        }
    }
}

#[test]
fn pool_equals_definition_and_empty_group_zero() {
    let (rows, columns) = (9, 35);
    let lists: [&[u32]; 4] = [&[0, 1, 2], &[], &[8], &[3, 5, 7, 6]];
    let mut groups = PoolGroups::new();
    for list in lists {
        groups.push(list.iter().copied());
    }
    for backend in backends() {
        for dtype in DTYPES {
            let x = random(1, dtype, rows * columns);
            let device_x = upload(&backend, dtype, rows, columns, &x);
            let mut out = backend.alloc(dtype, lists.len(), columns).unwrap();
            for method in PoolMethod::ALL {
                backend.pool(&device_x, &groups, method, &mut out).unwrap();
                let expected: Vec<f64> = lists
                    .iter()
                    .flat_map(|list| {
                        let x = &x;
                        (0..columns).map(move |column| {
                            let mut picked = list.iter().map(|row| f64::from(x[*row as usize * columns + column]));
                            match method {
                                _ if list.is_empty() => 0.0,
                                PoolMethod::Mean => picked.sum::<f64>() / list.len() as f64,
                                PoolMethod::Sum => picked.sum(),
                                PoolMethod::Max => picked.fold(f64::NEG_INFINITY, f64::max),
                                PoolMethod::Last => picked.next_back().unwrap(),
                            }
                        })
                    })
                    .collect();
                let what = format!("{} {dtype} {method}", backend.describe());
                assert_close(&values(&backend, &out), &expected, tolerance(dtype), &what);
            }
        }
    }
}

#[test]
fn nan_propagates_through_every_pool() {
    let backend = CpuBackend::new(1).unwrap();
    let mut groups = PoolGroups::new();
    groups.push([0, 1, 2]);
    // The NaN comes from infinity minus infinity, because tables with NaN are rejected.
    let x = upload(&backend, DType::F32, 3, 1, &[1.0, 2.0, 3.0]);
    let huge = backend.prepare_linear(&[host(DType::F32, &[1, 1], &[f32::MAX])], DType::F32).unwrap();
    let negative = backend.prepare_linear(&[host(DType::F32, &[1, 1], &[-f32::MAX])], DType::F32).unwrap();
    let mut stream = upload(&backend, DType::F32, 3, 1, &[1.0, 2.0, 3.0]);
    backend.linear_residual(&x, &huge, None, &mut stream).unwrap();
    backend.linear_residual(&x, &negative, None, &mut stream).unwrap();
    assert!(values(&backend, &stream)[1].is_nan());
    let mut out = backend.alloc(DType::F32, 1, 1).unwrap();
    for method in PoolMethod::ALL {
        backend.pool(&stream, &groups, method, &mut out).unwrap();
        assert!(values(&backend, &out)[0].is_nan(), "{method}");
    }
}

#[test]
fn tokens_and_rows_out_of_range_are_errors() {
    let backend = CpuBackend::new(1).unwrap();
    let table = backend.prepare_embedding(&host(DType::Bf16, &[3, 4], &[0.5; 12]), DType::F32).unwrap();
    let mut out = backend.alloc(DType::F32, 2, 4).unwrap();
    backend.embed(&table, &[2, 0], 1.0, &mut out).unwrap();
    assert_eq!(values(&backend, &out), [0.5; 8]);
    assert!(backend.embed(&table, &[3, 0], 1.0, &mut out).unwrap_err().to_string().contains("vocabulary of 3"));
    let x = upload(&backend, DType::F32, 2, 4, &[1.0; 8]);
    assert!(backend.gather_rows(&x, &[0, 2], &mut out).is_err());
    assert!(backend.copy_rows(&x, 1, 2, &mut out, 0).is_err());
    let mut groups = PoolGroups::new();
    groups.push([2]);
    assert!(backend.pool(&x, &groups, PoolMethod::Sum, &mut out).is_err());
    let mut broken = vec![0.0; 4];
    broken[1] = f32::INFINITY;
    let table = backend.prepare_embedding(&host(DType::F32, &[1, 4], &broken), DType::F32).unwrap();
    assert!(backend.embed(&table, &[0], 1.0, &mut out).unwrap_err().to_string().contains("element 1 is inf"));
}
