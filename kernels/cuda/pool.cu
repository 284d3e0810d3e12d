// Pooling: the rows of each group to one row, by sum, mean, maximum or the last row, in the listed order.
// Step 1, pool_TYPE: one column a thread.                 H100, 1024 groups of 4096 bf16 columns: 1717 GB/s (59 % of a copy)
// Step 2, pool_wide_TYPE: 16 bytes of columns a thread.   H100, 1024 groups of 4096 bf16 columns: 2583 GB/s (89 % of a copy)
// Step 3, pool_wide_TYPE: eight rows are loaded before the first is added. Predicted for an H100, 8 groups of 256 rows of
//         2048 bf16 columns: 15 us instead of 74. Not measured.
//
// x is [_, columns], out [groups, columns]; offsets[g]..offsets[g + 1] are group g's entries in `rows`. An empty group
// gives zeros. A NaN stays a NaN under every method. Steps 2 and 3 need rows of a multiple of 16 bytes.
// Launch: grid (groups, ceil(columns / (128 * columns a thread))), 128 threads. No shared memory, no pipeline.
// Determinism: each column is one chain in the listed order; all steps have the bits of the CPU backend.
// Measured: docs/measurements/gpu/kernels.txt, NVIDIA H100 80GB HBM3 (SXM).
#include "math.cuh"

enum Method : u32 { MEAN, MAX, LAST, SUM };

// Rows that a thread of `pool_wide` has in flight. One row after the other, a group takes the latency of the memory for
// each of its rows.
constexpr u32 ROWS_IN_FLIGHT = 8;

template <class E>
DEVICE void pool(const E* x, const u32* offsets, const u32* rows, u32 columns, u32 method, E* out) {
  const u32 column = blockIdx.y * blockDim.x + threadIdx.x;
  if (column >= columns) return;
  const u32 begin = offsets[blockIdx.x], end = offsets[blockIdx.x + 1];
  E* pooled = out + static_cast<u64>(blockIdx.x) * columns + column;
  if (begin == end) {
    *pooled = from_float<E>(0.0f);
    return;
  }
  if (method == LAST) {
    *pooled = x[static_cast<u64>(rows[end - 1]) * columns + column];
    return;
  }
  float value = to_float(x[static_cast<u64>(rows[begin]) * columns + column]);
  for (u32 entry = begin + 1; entry < end; entry++) {
    const float other = to_float(x[static_cast<u64>(rows[entry]) * columns + column]);
    if (method == MAX) {
      value = other > value || other != other ? other : value;
    } else {
      value += other;
    }
  }
  *pooled = from_float<E>(method == MEAN ? value / static_cast<float>(end - begin) : value);
}

template <class E>
DEVICE void pool_wide(const E* x, const u32* offsets, const u32* rows, u32 columns, u32 method, E* out) {
  const u32 column = (blockIdx.y * blockDim.x + threadIdx.x) * VEC<E>;
  if (column >= columns) return;
  const u32 begin = offsets[blockIdx.x], end = offsets[blockIdx.x + 1];
  E* pooled = out + static_cast<u64>(blockIdx.x) * columns + column;
  const E* from = x + column;
  if (method == LAST && begin < end) {
    const E* last = from + static_cast<u64>(rows[end - 1]) * columns;
    *reinterpret_cast<uint4*>(pooled) = *reinterpret_cast<const uint4*>(last);
    return;
  }
  float values[VEC<E>], others[VEC<E>];
#pragma unroll
  for (u32 i = 0; i < VEC<E>; i++) values[i] = 0.0f;
  if (begin < end) load_vec(from + static_cast<u64>(rows[begin]) * columns, values);
  for (u32 first = begin + 1; first < end; first += ROWS_IN_FLIGHT) {
    uint4 loaded[ROWS_IN_FLIGHT];
#pragma unroll
    for (u32 j = 0; j < ROWS_IN_FLIGHT; j++) {
      // The last row again beyond the end: a load under a condition would not be issued with the others.
      const u32 entry = first + j < end ? first + j : end - 1;
      loaded[j] = *reinterpret_cast<const uint4*>(from + static_cast<u64>(rows[entry]) * columns);
    }
#pragma unroll
    for (u32 j = 0; j < ROWS_IN_FLIGHT; j++) {
      if (first + j >= end) break;
      unpack_vec<E>(loaded[j], others);
#pragma unroll
      for (u32 i = 0; i < VEC<E>; i++) {
        if (method == MAX) {
          values[i] = others[i] > values[i] || others[i] != others[i] ? others[i] : values[i];
        } else {
          values[i] += others[i];
        }
      }
    }
  }
  if (method == MEAN && begin < end) {
#pragma unroll
    for (u32 i = 0; i < VEC<E>; i++) values[i] = values[i] / static_cast<float>(end - begin);
  }
  store_vec(pooled, values);
}

#define POOL_KERNEL(name, E, body)                                                                                 \
  KERNEL __launch_bounds__(128) name(const E* __restrict__ x, const u32* __restrict__ offsets,                     \
                                     const u32* __restrict__ rows, u32 columns, u32 method, E* __restrict__ out) { \
    body<E>(x, offsets, rows, columns, method, out);                                                               \
  }                                                                                                                \
  REGISTER_KERNEL(name);

POOL_KERNEL(pool_f32, float, pool)
POOL_KERNEL(pool_f16, f16, pool)
POOL_KERNEL(pool_bf16, bf16, pool)
POOL_KERNEL(pool_wide_f32, float, pool_wide)
POOL_KERNEL(pool_wide_f16, f16, pool_wide)
POOL_KERNEL(pool_wide_bf16, bf16, pool_wide)
