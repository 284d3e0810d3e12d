// Weighted sums of the experts' results: out[i] = out[i] + weights[i][0] * x[rows[i][0]] + ... over `per_row` rows.
// Step 1, add_weighted_rows_TYPE: an element at a time.                                           not measured yet
// Step 2, add_weighted_rows_wide_TYPE: 16 bytes a thread.                                         not measured yet
//
// x is [_, columns], rows u32 and weights f32 are [rows of out, per_row], out is [_, columns]. Products are summed and added
// to out in f32 and rounded once. Step 2 needs rows of a multiple of 16 bytes.
// Launch: grid (rows of out), 128 threads. No shared memory, no pipeline.
// Determinism: each element is one chain of fused multiply-adds from 0 in the listed order, and one addition; both steps
// have the bits of the CPU backend. A row depends on its own rows of x alone.
#include "types.cuh"

template <class E>
DEVICE void add_weighted_rows(const E* x, const u32* rows, const float* weights, u32 per_row, u32 columns, E* out) {
  const u32* own_rows = rows + static_cast<u64>(blockIdx.x) * per_row;
  const float* own_weights = weights + static_cast<u64>(blockIdx.x) * per_row;
  E* out_row = out + static_cast<u64>(blockIdx.x) * columns;
  for (u32 column = threadIdx.x; column < columns; column += blockDim.x) {
    float sum = 0.0f;
    for (u32 entry = 0; entry < per_row; entry++) {
      sum = fmaf(to_float(x[static_cast<u64>(own_rows[entry]) * columns + column]), own_weights[entry], sum);
    }
    out_row[column] = from_float<E>(to_float(out_row[column]) + sum);
  }
}

template <class E>
DEVICE void add_weighted_rows_wide(const E* x, const u32* rows, const float* weights, u32 per_row, u32 columns,
                                   E* out) {
  const u32* own_rows = rows + static_cast<u64>(blockIdx.x) * per_row;
  const float* own_weights = weights + static_cast<u64>(blockIdx.x) * per_row;
  E* out_row = out + static_cast<u64>(blockIdx.x) * columns;
  for (u32 column = threadIdx.x * VEC<E>; column < columns; column += blockDim.x * VEC<E>) {
    float sums[VEC<E>], values[VEC<E>];
#pragma unroll
    for (u32 i = 0; i < VEC<E>; i++) sums[i] = 0.0f;
    for (u32 entry = 0; entry < per_row; entry++) {
      const float weight = own_weights[entry];
      load_vec(x + static_cast<u64>(own_rows[entry]) * columns + column, values);
#pragma unroll
      for (u32 i = 0; i < VEC<E>; i++) sums[i] = fmaf(values[i], weight, sums[i]);
    }
    load_vec(out_row + column, values);
#pragma unroll
    for (u32 i = 0; i < VEC<E>; i++) values[i] = values[i] + sums[i];
    store_vec(out_row + column, values);
  }
}

#define ADD_WEIGHTED_ROWS_KERNEL(name, E, body)                                                                  \
  KERNEL __launch_bounds__(128)                                                                                  \
      name(const E* __restrict__ x, const u32* __restrict__ rows, const float* __restrict__ weights, u32 per_row, \
           u32 columns, E* __restrict__ out) {                                                                   \
    body<E>(x, rows, weights, per_row, columns, out);                                                            \
  }                                                                                                              \
  REGISTER_KERNEL(name);

ADD_WEIGHTED_ROWS_KERNEL(add_weighted_rows_f32, float, add_weighted_rows)
ADD_WEIGHTED_ROWS_KERNEL(add_weighted_rows_f16, f16, add_weighted_rows)
ADD_WEIGHTED_ROWS_KERNEL(add_weighted_rows_bf16, bf16, add_weighted_rows)
ADD_WEIGHTED_ROWS_KERNEL(add_weighted_rows_wide_f32, float, add_weighted_rows_wide)
ADD_WEIGHTED_ROWS_KERNEL(add_weighted_rows_wide_f16, f16, add_weighted_rows_wide)
ADD_WEIGHTED_ROWS_KERNEL(add_weighted_rows_wide_bf16, bf16, add_weighted_rows_wide)
