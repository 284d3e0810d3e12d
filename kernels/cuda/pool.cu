// Rows of a group to one row: sum, mean, maximum or the last, in the listed order.
//
// x is [_, columns], out [groups, columns]; offsets[g]..offsets[g + 1] are group g's entries in `rows`. A group of none
// is zeros. A NaN stays a NaN under every method. Launch: grid (groups, ceil(columns / 128)), 128 threads, one a
// column.
#include "prelude.cuh"

enum Method : u32 { MEAN, MAX, LAST, SUM };

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

#define POOL_KERNEL(name, E)                                                                              \
  KERNEL __launch_bounds__(128)                                                                           \
      name(const E* x, const u32* offsets, const u32* rows, u32 columns, u32 method, E* out) {            \
    pool<E>(x, offsets, rows, columns, method, out);                                                      \
  }                                                                                                       \
  REGISTER_KERNEL(name);

POOL_KERNEL(pool_f32, float)
POOL_KERNEL(pool_f16, f16)
POOL_KERNEL(pool_bf16, bf16)
