// Weights to the run's storage type: out[first_row + row * row_step] = round(x[row]), with a check for finite values.
// Step 1, cast_FROM_TO: an element at a time.                                                not measured yet
// Step 2, cast_FROM_wide_TO: eight elements a thread, by accesses of 16 bytes.               not measured yet
//
// x is [rows, columns], out [_, columns]. A row_step of 2 interleaves the rows of a gate and an up projection.
// `notes[check]` starts at all ones and becomes four times the flat index of the first element of x that is not finite
// once rounded, plus 0 for a NaN, 1 for an infinity and 2 for a negative one; without `notes` nothing is checked.
// Step 2 needs rows of a multiple of eight elements.
// Launch: grid (rows), 256 threads. No shared memory, no pipeline. A block a row: no index needs a division.
// Determinism: elementwise; the minimum of an atomic does not depend on the order. Both steps have the same bits.
#include "math.cuh"

constexpr u32 CAST_ELEMENTS = 8;

template <class From, class To>
DEVICE void cast_row(const From* x, u64 columns, u64 first_row, u64 row_step, To* out, u64* notes, u64 check) {
  const u64 row = blockIdx.x;
  const From* from = x + row * columns;
  To* to = out + (first_row + row * row_step) * columns;
  for (u64 column = threadIdx.x; column < columns; column += blockDim.x) {
    const To rounded = from_float<To>(to_float(from[column]));
    if (notes) check_finite(rounded, row * columns + column, notes + check);
    to[column] = rounded;
  }
}

template <class From, class To>
DEVICE void cast_row_wide(const From* x, u64 columns, u64 first_row, u64 row_step, To* out, u64* notes, u64 check) {
  const u64 row = blockIdx.x;
  const From* from = x + row * columns;
  To* to = out + (first_row + row * row_step) * columns;
  for (u64 column = threadIdx.x * CAST_ELEMENTS; column < columns; column += blockDim.x * CAST_ELEMENTS) {
    float values[CAST_ELEMENTS];
#pragma unroll
    for (u32 i = 0; i < CAST_ELEMENTS; i += VEC<From>) {
      float loaded[VEC<From>];
      load_vec(from + column + i, loaded);
#pragma unroll
      for (u32 j = 0; j < VEC<From>; j++) values[i + j] = loaded[j];
    }
    if (notes) {
#pragma unroll
      for (u32 i = 0; i < CAST_ELEMENTS; i++) {
        check_finite(from_float<To>(values[i]), row * columns + column + i, notes + check);
      }
    }
#pragma unroll
    for (u32 i = 0; i < CAST_ELEMENTS; i += VEC<To>) {
      float stored[VEC<To>];
#pragma unroll
      for (u32 j = 0; j < VEC<To>; j++) stored[j] = values[i + j];
      store_vec(to + column + i, stored);
    }
  }
}

#define CAST_KERNEL(name, From, To, body)                                                                              \
  KERNEL __launch_bounds__(256) name(const From* __restrict__ x, u64 columns, u64 first_row, u64 row_step,             \
                                     To* __restrict__ out, u64* __restrict__ notes, u64 check) {                       \
    body<From, To>(x, columns, first_row, row_step, out, notes, check);                                                \
  }                                                                                                                    \
  REGISTER_KERNEL(name);

CAST_KERNEL(cast_f32_f32, float, float, cast_row)
CAST_KERNEL(cast_f32_f16, float, f16, cast_row)
CAST_KERNEL(cast_f32_bf16, float, bf16, cast_row)
CAST_KERNEL(cast_f32_wide_f32, float, float, cast_row_wide)
CAST_KERNEL(cast_f32_wide_f16, float, f16, cast_row_wide)
CAST_KERNEL(cast_f32_wide_bf16, float, bf16, cast_row_wide)
CAST_KERNEL(cast_f16_f32, f16, float, cast_row)
CAST_KERNEL(cast_f16_f16, f16, f16, cast_row)
CAST_KERNEL(cast_f16_bf16, f16, bf16, cast_row)
CAST_KERNEL(cast_f16_wide_f32, f16, float, cast_row_wide)
CAST_KERNEL(cast_f16_wide_f16, f16, f16, cast_row_wide)
CAST_KERNEL(cast_f16_wide_bf16, f16, bf16, cast_row_wide)
CAST_KERNEL(cast_bf16_f32, bf16, float, cast_row)
CAST_KERNEL(cast_bf16_f16, bf16, f16, cast_row)
CAST_KERNEL(cast_bf16_bf16, bf16, bf16, cast_row)
CAST_KERNEL(cast_bf16_wide_f32, bf16, float, cast_row_wide)
CAST_KERNEL(cast_bf16_wide_f16, bf16, f16, cast_row_wide)
CAST_KERNEL(cast_bf16_wide_bf16, bf16, bf16, cast_row_wide)
