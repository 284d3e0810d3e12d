//! Normalizations of rows and of heads. Values are widened to `f32`, and each result is rounded once.

use rayon::prelude::*;

use super::isa::{Isa, dispatch};
use super::math::{sum, sum_of_squared_differences, sum_of_squares};
use super::rows::TASK_ROWS;
use super::tensor::{CpuTensor, Element, with_element};

/// `out[i] = x[i] / sqrt(mean(x[i]^2) + eps) * scale`.
pub fn rms_norm(isa: Isa, x: &CpuTensor, scale: &[f32], eps: f32, out: &mut CpuTensor) {
    let dtype = x.dtype();
    for_row_chunks(x, out, |x, out| {
        with_element!(dtype, E => {
            rms_norm_rows::<E>(isa, bytemuck::cast_slice(x), scale, eps, bytemuck::cast_slice_mut(out));
        });
    });
}

/// `stream[i] = stream[i] + x[i] / sqrt(mean(x[i]^2) + eps) * scale`.
pub fn rms_norm_residual(isa: Isa, x: &CpuTensor, scale: &[f32], eps: f32, stream: &mut CpuTensor) {
    let dtype = x.dtype();
    for_row_chunks(x, stream, |x, stream| {
        with_element!(dtype, E => {
            rms_norm_rows_residual::<E>(isa, bytemuck::cast_slice(x), scale, eps, bytemuck::cast_slice_mut(stream));
        });
    });
}

/// [`rms_norm`] of each of the first `n_heads` groups of `scale.len()` columns of every row, in place.
pub fn rms_norm_heads(isa: Isa, x: &mut CpuTensor, n_heads: usize, scale: &[f32], eps: f32) {
    let (row_bytes, dtype, columns) = (x.row_bytes(), x.dtype(), x.columns());
    x.bytes_mut().par_chunks_mut((row_bytes * TASK_ROWS).max(1)).for_each(|rows| {
        with_element!(dtype, E => {
            rms_norm_heads_of_rows::<E>(isa, bytemuck::cast_slice_mut(rows), columns, n_heads, scale, eps);
        });
    });
}

/// `out[i] = (x[i] - mean(x[i])) / sqrt(variance(x[i]) + eps) * scale + bias`, with the biased variance.
pub fn layer_norm(isa: Isa, x: &CpuTensor, scale: &[f32], bias: &[f32], eps: f32, out: &mut CpuTensor) {
    let dtype = x.dtype();
    for_row_chunks(x, out, |x, out| {
        with_element!(dtype, E => {
            layer_norm_rows::<E>(isa, bytemuck::cast_slice(x), scale, bias, eps, bytemuck::cast_slice_mut(out));
        });
    });
}

/// Calls `write(rows of x, rows of out)` with the bytes of corresponding rows, in parallel.
fn for_row_chunks(x: &CpuTensor, out: &mut CpuTensor, write: impl Fn(&[u8], &mut [u8]) + Sync) {
    let chunk = (x.row_bytes() * TASK_ROWS).max(1);
    out.bytes_mut()[..x.bytes().len()]
        .par_chunks_mut(chunk)
        .zip(x.bytes().par_chunks(chunk))
        .for_each(|(out, x)| write(x, out));
}

dispatch!(fn rms_norm_rows<E: Element>(x: &[E], scale: &[f32], eps: f32, out: &mut [E]) = rms_norm_rows_body);

#[inline(always)]
fn rms_norm_rows_body<E: Element>(x: &[E], scale: &[f32], eps: f32, out: &mut [E]) {
    let columns = scale.len();
    let mut values = vec![0.0f32; columns];
    for (x, out) in x.chunks_exact(columns).zip(out.chunks_exact_mut(columns)) {
        widen(x, &mut values);
        let inverse = inverse_root_mean_square(&values, eps);
        for ((out, value), scale) in out.iter_mut().zip(&values).zip(scale) {
            *out = E::from_f32(value * inverse * scale);
        }
    }
}

dispatch!(
    fn rms_norm_rows_residual<E: Element>(x: &[E], scale: &[f32], eps: f32, stream: &mut [E]) =
        rms_norm_rows_residual_body
);

#[inline(always)]
fn rms_norm_rows_residual_body<E: Element>(x: &[E], scale: &[f32], eps: f32, stream: &mut [E]) {
    let columns = scale.len();
    let mut values = vec![0.0f32; columns];
    for (x, stream) in x.chunks_exact(columns).zip(stream.chunks_exact_mut(columns)) {
        widen(x, &mut values);
        let inverse = inverse_root_mean_square(&values, eps);
        for ((stream, value), scale) in stream.iter_mut().zip(&values).zip(scale) {
            *stream = E::from_f32(stream.to_f32() + value * inverse * scale);
        }
    }
}

dispatch!(fn rms_norm_heads_of_rows<E: Element>(
    rows: &mut [E],
    columns: usize,
    n_heads: usize,
    scale: &[f32],
    eps: f32,
) = rms_norm_heads_of_rows_body);

#[inline(always)]
fn rms_norm_heads_of_rows_body<E: Element>(rows: &mut [E], columns: usize, n_heads: usize, scale: &[f32], eps: f32) {
    let head_dim = scale.len();
    let mut values = vec![0.0f32; head_dim];
    for row in rows.chunks_exact_mut(columns) {
        for head in row[..n_heads * head_dim].chunks_exact_mut(head_dim) {
            widen(head, &mut values);
            let inverse = inverse_root_mean_square(&values, eps);
            for ((out, value), scale) in head.iter_mut().zip(&values).zip(scale) {
                *out = E::from_f32(value * inverse * scale);
            }
        }
    }
}

dispatch!(fn layer_norm_rows<E: Element>(
    x: &[E],
    scale: &[f32],
    bias: &[f32],
    eps: f32,
    out: &mut [E],
) = layer_norm_rows_body);

#[inline(always)]
fn layer_norm_rows_body<E: Element>(x: &[E], scale: &[f32], bias: &[f32], eps: f32, out: &mut [E]) {
    let columns = scale.len();
    let mut values = vec![0.0f32; columns];
    for (x, out) in x.chunks_exact(columns).zip(out.chunks_exact_mut(columns)) {
        widen(x, &mut values);
        // Two passes: the difference of the mean square and the squared mean would cancel where the mean is large.
        let mean = sum(&values) / columns as f32;
        let variance = sum_of_squared_differences(&values, mean) / columns as f32;
        let inverse = 1.0 / (variance + eps).sqrt();
        for (((out, value), scale), bias) in out.iter_mut().zip(&values).zip(scale).zip(bias) {
            *out = E::from_f32(((value - mean) * inverse).mul_add(*scale, *bias));
        }
    }
}

#[inline(always)]
fn widen<E: Element>(x: &[E], values: &mut [f32]) {
    for (value, x) in values.iter_mut().zip(x) {
        *value = x.to_f32();
    }
}

/// `1 / sqrt(mean(values^2) + eps)`.
#[inline(always)]
fn inverse_root_mean_square(values: &[f32], eps: f32) -> f32 {
    1.0 / (sum_of_squares(values) / values.len() as f32 + eps).sqrt()
}
