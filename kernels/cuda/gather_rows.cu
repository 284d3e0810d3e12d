// Rows picked by number: out[to + i] = x[rows[i]], or x[from + i] where `rows` is null.
//
// x is [_, columns], out [_, columns], rows u32. The embedding is this kernel over the table of tokens.
// Launch: one block of 128 threads a row of out.
// Version 1, plain: an element at a time. Version 2, wide: 16 bytes at a time, of any type; `columns` counts those.
#include "prelude.cuh"

template <class E>
DEVICE void gather(const E* x, const u32* rows, u64 from, u32 columns, E* out, u64 to) {
  const u64 row = rows ? rows[blockIdx.x] : from + blockIdx.x;
  for (u32 column = threadIdx.x; column < columns; column += blockDim.x) {
    out[(to + blockIdx.x) * columns + column] = x[row * columns + column];
  }
}

#define GATHER_KERNEL(name, E)                                                                                    \
  KERNEL __launch_bounds__(128) name(const E* x, const u32* rows, u64 from, u32 columns, E* out, u64 to) {         \
    gather<E>(x, rows, from, columns, out, to);                                                                   \
  }                                                                                                               \
  REGISTER_KERNEL(name);

GATHER_KERNEL(gather_rows_f32, float)
GATHER_KERNEL(gather_rows_f16, f16)
GATHER_KERNEL(gather_rows_bf16, bf16)
GATHER_KERNEL(gather_rows_wide, uint4)
