// Gathered rows: out[to + i] = x[rows[i]], or x[from + i] where `rows` is null. The embedding is this kernel.
// Step 1, gather_rows_TYPE: an element at a time.                H100, 4096 x 4096 bf16: 1573 GB/s (54 % of a copy)
// Step 2, gather_rows_wide: 16 bytes at a time, of any type.     H100, 4096 x 4096 bf16: 2580 GB/s (89 % of a copy)
//
// x is [_, columns], out [_, columns], rows u32. In step 2 `columns` counts units of 16 bytes.
// Launch: grid (rows of out), 128 threads. No shared memory, no pipeline.
// Determinism: a copy.
// Measured: docs/measurements/gpu/kernels.txt, NVIDIA H100 80GB HBM3 (SXM).
#include "types.cuh"

template <class E>
DEVICE void gather(const E* x, const u32* rows, u64 from, u32 columns, E* out, u64 to) {
  const u64 row = rows ? rows[blockIdx.x] : from + blockIdx.x;
  for (u32 column = threadIdx.x; column < columns; column += blockDim.x) {
    out[(to + blockIdx.x) * columns + column] = x[row * columns + column];
  }
}

#define GATHER_KERNEL(name, E)                                                                                     \
  KERNEL __launch_bounds__(128) name(const E* __restrict__ x, const u32* __restrict__ rows, u64 from, u32 columns, \
                                     E* __restrict__ out, u64 to) {                                                \
    gather<E>(x, rows, from, columns, out, to);                                                                    \
  }                                                                                                                \
  REGISTER_KERNEL(name);

GATHER_KERNEL(gather_rows_f32, float)
GATHER_KERNEL(gather_rows_f16, f16)
GATHER_KERNEL(gather_rows_bf16, bf16)
GATHER_KERNEL(gather_rows_wide, uint4)
