// Weights to the run's storage type: out[first_row + row * row_step] = round(x[row]), with a check for finite values.
// Step 1 of 1: one element a thread; weights are converted once.        not measured
//
// x is [rows, columns], out [_, columns]. A row_step of 2 interleaves the rows of a gate and an up projection.
// `first_bad` starts at all ones and becomes the flat index of the first element of x that is not finite once rounded.
// Launch: grid ceil(rows * columns / 256), 256 threads. No shared memory, no pipeline.
// Determinism: elementwise; the minimum of an atomic does not depend on the order.
#include "ptx.cuh"

template <class From, class To>
DEVICE void cast_rows(const From* x, u64 rows, u64 columns, u64 first_row, u64 row_step, To* out, u64* first_bad) {
  const u64 index = static_cast<u64>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (index >= rows * columns) return;
  const To rounded = from_float<To>(to_float(x[index]));
  const u32 exponent = 0x7f800000u;
  if ((float_to_bits(to_float(rounded)) & exponent) == exponent) atomic_min(first_bad, index);
  out[(first_row + index / columns * row_step) * columns + index % columns] = rounded;
}

#define CAST_KERNEL(name, From, To)                                                                                  \
  KERNEL __launch_bounds__(256) name(const From* __restrict__ x, u64 rows, u64 columns, u64 first_row, u64 row_step, \
                                     To* __restrict__ out, u64* __restrict__ first_bad) {                            \
    cast_rows<From, To>(x, rows, columns, first_row, row_step, out, first_bad);                                      \
  }                                                                                                                  \
  REGISTER_KERNEL(name);

CAST_KERNEL(cast_f32_f32, float, float)
CAST_KERNEL(cast_f32_f16, float, f16)
CAST_KERNEL(cast_f32_bf16, float, bf16)
CAST_KERNEL(cast_f16_f32, f16, float)
CAST_KERNEL(cast_f16_f16, f16, f16)
CAST_KERNEL(cast_f16_bf16, f16, bf16)
CAST_KERNEL(cast_bf16_f32, bf16, float)
CAST_KERNEL(cast_bf16_f16, bf16, f16)
CAST_KERNEL(cast_bf16_bf16, bf16, bf16)
