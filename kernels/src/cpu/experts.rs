//! Mixtures of experts: the choice of experts from the router's logits, and weighted sums of rows.

use rayon::prelude::*;

use super::isa::{Isa, dispatch};
use super::math::{exp, sum};
use super::rows::TASK_ROWS;
use super::tensor::{CpuTensor, Element, with_element};
use crate::error::KernelError;
use crate::routes::{RouteRule, Routes, WeightedRows};

/// The experts of each row of `logits`, `[rows, experts]`.
///
/// # Errors
/// None for a rule that was checked.
pub fn route(isa: Isa, logits: &CpuTensor, rule: RouteRule) -> Result<Routes, KernelError> {
    let (n_experts, dtype, chunk) = (logits.columns(), logits.dtype(), TASK_ROWS * rule.top_k);
    let mut experts = vec![0u32; logits.rows() * rule.top_k];
    let mut weights = vec![0.0f32; logits.rows() * rule.top_k];
    logits
        .bytes()
        .par_chunks(TASK_ROWS * logits.row_bytes())
        .zip(experts.par_chunks_mut(chunk).zip(weights.par_chunks_mut(chunk)))
        .for_each(|(logits, (experts, weights))| {
            with_element!(dtype, E => {
                route_rows::<E>(isa, bytemuck::cast_slice(logits), n_experts, rule, experts, weights);
            });
        });
    Routes::new(rule.top_k, n_experts, experts, weights)
}

dispatch!(fn route_rows<E: Element>(
    logits: &[E],
    n_experts: usize,
    rule: RouteRule,
    experts: &mut [u32],
    weights: &mut [f32],
) = route_rows_body);

#[inline(always)]
fn route_rows_body<E: Element>(
    logits: &[E],
    n_experts: usize,
    rule: RouteRule,
    experts: &mut [u32],
    weights: &mut [f32],
) {
    let mut probabilities = vec![0.0f32; n_experts];
    let rows = experts.chunks_exact_mut(rule.top_k).zip(weights.chunks_exact_mut(rule.top_k));
    for (logits, (experts, weights)) in logits.chunks_exact(n_experts).zip(rows) {
        softmax(logits, &mut probabilities);
        choose(&probabilities, experts);
        for (weight, expert) in weights.iter_mut().zip(&*experts) {
            *weight = probabilities[*expert as usize];
        }
        if rule.renormalize {
            let total = weights.iter().fold(0.0, |total, weight| total + weight);
            weights.iter_mut().for_each(|weight| *weight /= total);
        }
        if rule.rounded {
            weights.iter_mut().for_each(|weight| *weight = E::from_f32(*weight).to_f32());
        }
    }
}

/// `e^(logit - largest)` by their sum. One NaN makes all NaN.
#[inline(always)]
fn softmax<E: Element>(logits: &[E], probabilities: &mut [f32]) {
    let mut largest = f32::NEG_INFINITY;
    for (probability, logit) in probabilities.iter_mut().zip(logits) {
        *probability = logit.to_f32();
        largest = if *probability > largest || probability.is_nan() { *probability } else { largest };
    }
    for probability in probabilities.iter_mut() {
        *probability = exp(*probability - largest);
    }
    let total = sum(probabilities);
    for probability in probabilities.iter_mut() {
        *probability /= total;
    }
}

/// The experts with the largest probabilities, by increasing index; of equal ones the first, and of NaN too.
#[inline(always)]
fn choose(probabilities: &[f32], chosen: &mut [u32]) {
    // The chosen ones so far, the largest first.
    for (expert, probability) in probabilities.iter().enumerate() {
        let mut place = expert.min(chosen.len());
        while place > 0 && *probability > probabilities[chosen[place - 1] as usize] {
            place -= 1;
        }
        if place < chosen.len() {
            chosen.copy_within(place..expert.min(chosen.len() - 1), place + 1);
            chosen[place] = expert as u32;
        }
    }
    chosen.sort_unstable();
}

/// `stream[i] = stream[i] + sum of weight * x[row]` over the rows of result `i`.
pub fn add_weighted_rows(isa: Isa, x: &CpuTensor, sums: WeightedRows<'_>, stream: &mut CpuTensor) {
    let (row_bytes, columns, chunk) = (x.row_bytes(), x.columns(), TASK_ROWS * sums.per_row);
    with_element!(x.dtype(), E => {
        let source: &[E] = bytemuck::cast_slice(x.bytes());
        stream.bytes_mut()[..sums.n_results() * row_bytes]
            .par_chunks_mut((TASK_ROWS * row_bytes).max(1))
            .zip(sums.rows.par_chunks(chunk).zip(sums.weights.par_chunks(chunk)))
            .for_each(|(stream, (rows, weights))| {
                let sums = WeightedRows { rows, weights, ..sums };
                add_sums::<E>(isa, source, columns, sums, bytemuck::cast_slice_mut(stream));
            });
    });
}

dispatch!(fn add_sums<E: Element>(
    x: &[E],
    columns: usize,
    sums: WeightedRows<'_>,
    stream: &mut [E],
) = add_sums_body);

#[inline(always)]
fn add_sums_body<E: Element>(x: &[E], columns: usize, sums: WeightedRows<'_>, stream: &mut [E]) {
    let mut values = vec![0.0f32; columns];
    let choices = sums.rows.chunks_exact(sums.per_row).zip(sums.weights.chunks_exact(sums.per_row));
    for (stream, (rows, weights)) in stream.chunks_exact_mut(columns).zip(choices) {
        values.fill(0.0);
        for (row, weight) in rows.iter().zip(weights) {
            let row = &x[*row as usize * columns..(*row as usize + 1) * columns];
            for (value, x) in values.iter_mut().zip(row) {
                *value = x.to_f32().mul_add(*weight, *value);
            }
        }
        for (stream, value) in stream.iter_mut().zip(&values) {
            *stream = E::from_f32(stream.to_f32() + value);
        }
    }
}
