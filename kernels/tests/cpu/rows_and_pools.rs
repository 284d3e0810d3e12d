//! Rotary positions, gathers and pooling against their definitions.

use crate::common::*;
use actbench_kernels::{Backend, CpuBackend, DType, PoolGroups, PoolMethod};

/// `f(angle)` of 8 positions and `pairs` pairs of columns.
fn angles(backend: &CpuBackend, pairs: usize, f: fn(f64) -> f64) -> Vec<f32> {
    let table: Vec<f32> =
        (0..8u32).flat_map(|position| (0..pairs).map(move |pair| f(angle(position, pair)) as f32)).collect();
    backend.prepare_vector(&[host(DType::F32, &[table.len()], &table)], DType::F32).unwrap()
}

fn angle(position: u32, pair: usize) -> f64 {
    f64::from(position) * 0.3 / (pair as f64 + 1.0)
}

#[test]
fn rope_rotates_leading_columns_of_leading_heads() {
    let (heads, columns) = (2, 24);
    let positions = [0u32, 3, 7];
    // Whole heads, a part of them, and a part of heads of an odd width.
    for (head_dim, rotary_dim) in [(8, 8), (8, 2), (8, 6), (11, 4)] {
        let pairs = rotary_dim / 2;
        for backend in backends() {
            for dtype in DTYPES {
                let x = random(1, dtype, positions.len() * columns);
                let mut device_x = upload(&backend, dtype, positions.len(), columns, &x);
                let (cos, sin) = (angles(&backend, pairs, f64::cos), angles(&backend, pairs, f64::sin));
                backend.rope(&mut device_x, heads, head_dim, rotary_dim, &positions, &cos, &sin).unwrap();
                let mut expected: Vec<f64> = x.iter().map(|value| f64::from(*value)).collect();
                for (row, position) in positions.iter().enumerate() {
                    for head in 0..heads {
                        for pair in 0..pairs {
                            let first = row * columns + head * head_dim + pair;
                            let second = first + pairs;
                            let (a, b) = (f64::from(x[first]), f64::from(x[second]));
                            let (sin, cos) = angle(*position, pair).sin_cos();
                            expected[first] = a * cos - b * sin;
                            expected[second] = b * cos + a * sin;
                        }
                    }
                }
                let what = format!("{} {dtype} {rotary_dim} of {head_dim}", backend.describe());
                let got = values(&backend, &device_x);
                assert_close(&got, &expected, tolerance(dtype), &what);
                for (index, (got, x)) in got.iter().zip(&x).enumerate() {
                    let column = index % columns;
                    if column >= heads * head_dim || column % head_dim >= rotary_dim {
                        assert_eq!(got.to_bits(), x.to_bits(), "{what}: element {index} is not rotated");
                    }
                }
            }
        }
    }
}

#[test]
fn wrong_rotations_are_errors() {
    let backend = CpuBackend::new(1).unwrap();
    let mut x = upload(&backend, DType::F32, 3, 24, &random(1, DType::F32, 72));
    let (cos, sin) = (angles(&backend, 4, f64::cos), angles(&backend, 4, f64::sin));
    let mut attempt = |n_heads, head_dim, rotary_dim, positions: &[u32]| {
        backend.rope(&mut x, n_heads, head_dim, rotary_dim, positions, &cos, &sin).map_err(|error| error.to_string())
    };
    assert_eq!(attempt(2, 8, 8, &[0, 3, 7]), Ok(()));
    assert!(attempt(2, 8, 8, &[8, 0, 0]).unwrap_err().contains("where 36 are needed"));
    // Fewer rotated columns need fewer angles.
    assert_eq!(attempt(2, 8, 6, &[8, 0, 0]), Ok(()));
    assert!(attempt(4, 8, 8, &[0, 3, 7]).unwrap_err().contains("4 heads of 8"));
    assert!(attempt(2, 8, 8, &[0; 4]).unwrap_err().contains("4 positions"));
    for rotary_dim in [0, 3, 10] {
        let error = attempt(2, 8, rotary_dim, &[0, 3, 7]).unwrap_err();
        assert!(error.contains(&format!("{rotary_dim} rotated columns of heads of 8")), "{error}");
    }
    assert!(attempt(0, 0, 0, &[0]).is_err());
    assert!(attempt(usize::MAX, 8, 8, &[0]).is_err());
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
fn rows_out_of_range_are_errors() {
    let backend = CpuBackend::new(1).unwrap();
    let mut out = backend.alloc(DType::F32, 2, 4).unwrap();
    let x = upload(&backend, DType::F32, 2, 4, &[1.0; 8]);
    assert!(backend.gather_rows(&x, &[0, 2], &mut out).is_err());
    assert!(backend.copy_rows(&x, 1, 2, &mut out, 0).is_err());
    let mut groups = PoolGroups::new();
    groups.push([2]);
    assert!(backend.pool(&x, &groups, PoolMethod::Sum, &mut out).is_err());
}
