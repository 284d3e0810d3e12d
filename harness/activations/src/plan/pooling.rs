//! Pooling in host memory, with the same bits as on a device.
//!
//! Elements widen to `f32`. A sum starts from the first vector and adds the others in the order given, then rounds
//! once; a mean divides that sum by the count. A maximum starts from the first vector and propagates NaN from either
//! side. The last vector is copied as it is. An empty group gives zeros.

use actbench_kernels::{DType, PoolMethod};
use rayon::prelude::*;

/// Buffers for one vector and one running result, reused between calls.
#[derive(Debug)]
pub struct Scratch {
    vector: Vec<f32>,
    running: Vec<f32>,
}

impl Scratch {
    /// Buffers for vectors of `hidden_size` elements.
    pub fn new(hidden_size: usize) -> Self {
        Scratch { vector: vec![0.0; hidden_size], running: vec![0.0; hidden_size] }
    }
}

/// Pools `vectors`, each `out.len()` bytes of `dtype`, into `out`. `scratch` must be of the same width.
pub fn pool_vectors<'a>(
    dtype: DType,
    method: PoolMethod,
    vectors: impl IntoIterator<Item = &'a [u8]>,
    scratch: &mut Scratch,
    out: &mut [u8],
) {
    let mut vectors = vectors.into_iter();
    let Some(first) = vectors.next() else {
        out.fill(0);
        return;
    };
    if method == PoolMethod::Last {
        out.copy_from_slice(vectors.last().unwrap_or(first));
        return;
    }
    let Scratch { vector, running } = scratch;
    dtype.widen(first, running);
    let mut count = 1u32;
    for bytes in vectors {
        dtype.widen(bytes, vector);
        count += 1;
        if method == PoolMethod::Max {
            for (largest, value) in running.iter_mut().zip(&*vector) {
                *largest = if *value > *largest || value.is_nan() { *value } else { *largest };
            }
        } else {
            running.iter_mut().zip(&*vector).for_each(|(sum, value)| *sum += value);
        }
    }
    if method == PoolMethod::Mean {
        // Exact for any count below 2^24, far beyond the longest sequence.
        let count = count as f32;
        running.iter_mut().for_each(|sum| *sum /= count);
    }
    dtype.narrow(running, out);
}

/// Groups that one thread pools at least, where their sizes are not known.
const MIN_GROUPS_PER_TASK: usize = 16;

/// Pools many groups: `out` is `[groups, hidden_size]`, and `group_vectors(group)` lists a group's vectors in order.
///
/// Groups are independent, so the number of threads does not change a bit.
pub fn pool_groups<'a, I: Iterator<Item = &'a [u8]>>(
    dtype: DType,
    method: PoolMethod,
    hidden_size: usize,
    group_vectors: impl Fn(usize) -> I + Sync,
    out: &mut [u8],
) {
    pool_groups_in_tasks(dtype, method, hidden_size, MIN_GROUPS_PER_TASK, group_vectors, out);
}

/// [`pool_groups`] with at least `min_groups` groups a thread.
pub(crate) fn pool_groups_in_tasks<'a, I: Iterator<Item = &'a [u8]>>(
    dtype: DType,
    method: PoolMethod,
    hidden_size: usize,
    min_groups: usize,
    group_vectors: impl Fn(usize) -> I + Sync,
    out: &mut [u8],
) {
    let vector_bytes = (hidden_size * dtype.size()).max(1);
    out.par_chunks_mut(vector_bytes).enumerate().with_min_len(min_groups).for_each_init(
        || Scratch::new(hidden_size),
        |scratch, (group, out)| {
            pool_vectors(dtype, method, group_vectors(group), scratch, out);
        },
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(dtype: DType, method: PoolMethod, vectors: &[[f32; 2]]) -> Vec<f32> {
        let vectors: Vec<Vec<u8>> = vectors.iter().map(|vector| dtype.from_f32_slice(vector)).collect();
        let mut out = vec![0xAA; 2 * dtype.size()];
        pool_vectors(dtype, method, vectors.iter().map(Vec::as_slice), &mut Scratch::new(2), &mut out);
        dtype.to_f32_vec(&out)
    }

    #[test]
    fn methods_pool_by_their_definition() {
        let vectors = [[1.0, -3.0], [4.0, -2.0], [-2.0, -8.0]];
        for dtype in [DType::F32, DType::F16, DType::Bf16] {
            assert_eq!(pool(dtype, PoolMethod::Sum, &vectors), [3.0, -13.0]);
            assert_eq!(pool(dtype, PoolMethod::Max, &vectors), [4.0, -2.0]);
            assert_eq!(pool(dtype, PoolMethod::Last, &vectors), [-2.0, -8.0]);
            for method in PoolMethod::ALL {
                assert_eq!(pool(dtype, method, &[]), [0.0, 0.0], "{method} of nothing");
                assert_eq!(pool(dtype, method, &vectors[1..2]), vectors[1], "{method} of one");
            }
        }
        assert_eq!(pool(DType::F32, PoolMethod::Mean, &vectors), [1.0, -13.0 / 3.0]);
    }

    #[test]
    fn sums_run_in_f32_and_round_once() {
        // In bf16 steps 256 + 1 stays 256; in f32 the ones add up before the only rounding.
        let vectors = [[256.0, 256.0], [1.0, 1.0], [1.0, 1.0]];
        assert_eq!(pool(DType::Bf16, PoolMethod::Sum, &vectors), [258.0, 258.0]);
        // The mean divides: 258 / 3, not 258 * (1 / 3).
        assert_eq!(pool(DType::F32, PoolMethod::Mean, &vectors), [258.0 / 3.0; 2]);
    }

    #[test]
    fn sums_run_in_the_order_given() {
        let vectors = [[1e8, 1.0], [1.0, 1e8], [-1e8, -1e8]];
        assert_eq!(pool(DType::F32, PoolMethod::Sum, &vectors), [0.0, 0.0]);
        assert_eq!(pool(DType::F32, PoolMethod::Sum, &[vectors[0], vectors[2], vectors[1]]), [1.0, 0.0]);
    }

    #[test]
    fn nan_propagates_from_any_position() {
        for vectors in [[[f32::NAN, 1.0], [1.0, f32::NAN]], [[1.0, f32::NAN], [f32::NAN, 1.0]]] {
            for method in [PoolMethod::Max, PoolMethod::Sum, PoolMethod::Mean] {
                assert!(pool(DType::F32, method, &vectors).iter().all(|value| value.is_nan()), "{method}");
            }
        }
    }
}
