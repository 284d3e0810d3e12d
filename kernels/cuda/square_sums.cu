// Sums of squares of each 64 columns of a row, for an RMSNorm that is folded into the GEMMs that read the rows.
// Step 1, square_sums_TYPE: a pair of elements at a time.                                         not measured yet
//
// x is [rows, columns], squares f32 [rows, ceil(columns / 64)]. For a stream that no GEMM's epilogue has written: of the
// embedding, of the stage before, after experts or normed outputs.
// Launch: grid (rows), 128 threads: eight for each block of 64 columns. No shared memory, no pipeline.
// Determinism: the order of epilogue.cuh, so that the bits are those of linear_residual's epilogue. A row depends on itself
// alone.
#include "epilogue.cuh"

constexpr u32 BLOCK_THREADS = 8;
constexpr u32 HALF_COLUMNS = SQUARES_COLUMNS / 2;

template <class E>
DEVICE void square_sums(const E* x, u32 columns, float* squares) {
  const u32 blocks = square_blocks(columns);
  const E* row = x + static_cast<u64>(blockIdx.x) * columns;
  const u32 half = threadIdx.x / 4 % 2, pair = threadIdx.x % 4 * 2;
  // All lanes of a warp take part in its shuffles.
  for (u32 first = 0; first < blocks; first += blockDim.x / BLOCK_THREADS) {
    const u32 block = first + threadIdx.x / BLOCK_THREADS;
    float sum = 0.0f;
#pragma unroll
    for (u32 i = 0; i < HALF_COLUMNS / 4; i++) {
      const u32 column = block * SQUARES_COLUMNS + half * HALF_COLUMNS + i / 2 * 8 + pair + i % 2;
      const float value = column < columns ? to_float(row[column]) : 0.0f;
      sum = fmaf(value, value, sum);
    }
    sum = quad_sum(sum);
    sum += shfl_xor(sum, 4);
    if (threadIdx.x % BLOCK_THREADS == 0 && block < blocks) {
      squares[static_cast<u64>(blockIdx.x) * blocks + block] = sum;
    }
  }
}

#define SQUARE_SUMS_KERNEL(name, E)                                                                                \
  KERNEL __launch_bounds__(128) name(const E* __restrict__ x, u32 columns, float* __restrict__ squares) {          \
    square_sums<E>(x, columns, squares);                                                                           \
  }                                                                                                                \
  REGISTER_KERNEL(name);

SQUARE_SUMS_KERNEL(square_sums_bf16, bf16)
