// GEMM out[M,N] = x[M,K] . w[N,K]^T with the epilogues of linear.cu, f16/bf16 in, f32 accumulate. sm_80 and later.
// Step 2: mma.sync, ldmatrix, cp.async.        H100, M = 4096, bf16: 299 (linear), 247 (gated), 286 (residual) TFLOP/s
//   (step 1 linear.cu: naive, 0.5 TFLOP/s;  step 3 linear_wgmma.cu: TMA + WGMMA, 705 to 766 TFLOP/s)
//
// CTA tile   BM 128 x BN 128 x BK 32, STAGES 3            smem 48 KiB dynamic, 256 threads
//   8 warps, 2 (M) x 4 (N), 64 x 32 of acc each: per BK 2 x 4 x 4 mma m16n8k16. Every warp copies and multiplies.
//   A row of a tile is 64 bytes: four chunks of 16 bytes, XOR-swizzled by the row.
//
//   step        0        1        2        3
//   cp.async    2 ->s2   3 ->s0   4 ->s1   5 ->s2         two steps ahead; steps 0 and 1 are copied before the loop
//   mma         0 of s0  1 of s1  2 of s2  3 of s0        wait_group<1>, one __syncthreads a step
//
// K must be a multiple of 8, so that rows begin at multiples of 16 bytes. Tiles are zero-filled beyond M, N and K.
// Queries and keys: the rows of w in a tile are in the order of `paired_column`, so that the rotary embedding needs no exchange
// between threads.
// Launch: grid (ceil(N / 128), ceil(M / 128)), where N of linear_qkv_mma is end - first, 256 threads,
// STAGES * (BM + BN) * BK * 2 bytes of dynamic shared memory.
// With `squares`, RESIDUAL writes the sums of squares of the rows that it stores, and the others scale rows by them: see
// epilogue.cuh. Both pass through the memory of the stages, when all warps have read them.
// Determinism: K is accumulated in order in steps of 16; a row's bits do not depend on M or on its position.
// Measured: docs/measurements/gpu/kernels.txt, NVIDIA H100 80GB HBM3 (SXM), shapes of an 8B model, SiLU in
// linear_gated_mma; the other activations are not measured yet.
#include "epilogue.cuh"

constexpr u32 BM = 128, BN = 128, BK = 32;
constexpr u32 STAGES = 3;
constexpr u32 THREADS = 256;
constexpr u32 CHUNK = 8;  // elements in 16 bytes
constexpr u32 ROW_CHUNKS = BK / CHUNK;
constexpr u32 STAGE_ELEMENTS = (BM + BN) * BK;
// Columns of a warp, half of a block of a sum of squares.
constexpr u32 WARP_N = 32;
static_assert(2 * WARP_N == SQUARES_COLUMNS, "a warp has the halves of sums of squares");

// The offset of chunk `chunk` of row `row` in a tile, in elements: an XOR swizzle against bank conflicts of ldmatrix.
DEVICE u32 chunk_at(u32 row, u32 chunk) { return row * BK + (chunk ^ (row / 2 % ROW_CHUNKS)) * CHUNK; }

// The column of the GEMM at place `n`, for which the pairs of a rotation are put together: of the rotated columns of a head,
// eight of the first half have places 16 i to 16 i + 7, and their partners in the second half places 16 i + 8 to 16 i + 15. A
// warp's accumulators then hold both columns of a pair in one thread. Needs multiples of 16 of head_dim and rotary_dim.
DEVICE u32 paired_column(const Qkv& qkv, u32 n) {
  const u32 in_head = n < qkv.rotated ? n % qkv.head_dim : qkv.rotary_dim;
  if (in_head >= qkv.rotary_dim) return n;
  return n - in_head + in_head / 16 * 8 + in_head % 8 + in_head / 8 % 2 * (qkv.rotary_dim / 2);
}

// Starts the copy of rows `first` to `first + BM - 1` of `matrix` at columns `k` to `k + BK - 1`.
template <class E>
DEVICE void load_tile(E* tile, const E* matrix, u32 n_rows, u32 K, u32 first, u32 k) {
#pragma unroll
  for (u32 part = 0; part < BM * ROW_CHUNKS / THREADS; part++) {
    const u32 index = part * THREADS + threadIdx.x;
    const u32 row = index / ROW_CHUNKS, chunk = index % ROW_CHUNKS;
    const u32 column = k + chunk * CHUNK;
    const bool inside = first + row < n_rows && column < K;
    const E* source = inside ? matrix + static_cast<u64>(first + row) * K + column : matrix;
    cp_async_16(tile + chunk_at(row, chunk), source, inside ? 16 : 0);
  }
}

// The same with row `rows[part]` of `matrix` for each part of a thread; zeros for `n_rows` and more.
template <class E>
DEVICE void load_rows(E* tile, const E* matrix, const u32 (&rows)[BM * ROW_CHUNKS / THREADS], u32 n_rows, u32 K, u32 k) {
#pragma unroll
  for (u32 part = 0; part < BM * ROW_CHUNKS / THREADS; part++) {
    const u32 index = part * THREADS + threadIdx.x;
    const u32 row = index / ROW_CHUNKS, chunk = index % ROW_CHUNKS;
    const u32 source_k = k + chunk * CHUNK;
    const bool inside = rows[part] < n_rows && source_k < K;
    const E* source = inside ? matrix + static_cast<u64>(rows[part]) * K + source_k : matrix;
    cp_async_16(tile + chunk_at(row, chunk), source, inside ? 16 : 0);
  }
}

// acc += x_tile w_tile^T for the 64 x 32 part of a warp.
template <class E>
DEVICE void mma_tile(const E* x_tile, const E* w_tile, u32 warp_m, u32 warp_n, float (&acc)[4][4][4]) {
  const u32 lane = threadIdx.x % 32;
#pragma unroll
  for (u32 step = 0; step < BK / 16; step++) {
    u32 a[4][4], b[2][4];
#pragma unroll
    for (u32 i = 0; i < 4; i++) {
      ldmatrix_x4<false>(a[i], x_tile + chunk_at(warp_m + i * 16 + lane % 16, step * 2 + lane / 16));
    }
#pragma unroll
    for (u32 j = 0; j < 2; j++) {
      const u32 row = warp_n + j * 16 + lane % 8 + lane / 16 * 8;
      ldmatrix_x4<false>(b[j], w_tile + chunk_at(row, step * 2 + lane / 8 % 2));
    }
#pragma unroll
    for (u32 i = 0; i < 4; i++) {
#pragma unroll
      for (u32 j = 0; j < 4; j++) mma_m16n8k16<E>(acc[i][j], a[i], b[j / 2][j % 2 * 2], b[j / 2][j % 2 * 2 + 1]);
    }
  }
}

// Stores the 64 x 32 part of a warp, whose accumulators begin at `first_row` and `first_column` in this thread. With `sums`, which
// begins at the first row of this thread, RESIDUAL notes the sum of squares of the 32 columns of each row.
template <class E, Epilogue EPILOGUE, bool OTHER>
DEVICE void store_tile(const float (&acc)[4][4][4], const float* bias, u32 M, u32 first_row, u32 first_column,
                       u32 out_features, u32 activation, E* out, float* sums) {
#pragma unroll
  for (u32 i = 0; i < 4; i++) {
#pragma unroll
    for (u32 half = 0; half < 2; half++) {
      const u32 row = first_row + i * 16 + half * 8;
      float sum = 0.0f;
#pragma unroll
      for (u32 j = 0; row < M && j < 4; j++) {
        store_pair<E, EPILOGUE, OTHER>(acc[i][j][half * 2], acc[i][j][half * 2 + 1], bias, row, first_column + j * 8,
                                       out_features, activation, out, sum);
      }
      if (EPILOGUE != RESIDUAL || !sums) continue;
      sum = quad_sum(sum);
      if (threadIdx.x % 4 == 0) sums[(i * 16 + half * 8) * (BN / WARP_N)] = sum;
    }
  }
}

// Scales the rows of a tile, whose accumulators begin at row `own_row` of it in this thread. Overwrites `scales`, one a row.
DEVICE void scale_rows(float (&acc)[4][4][4], const float* squares, float eps, u32 M, u32 K, u32 block_m, u32 own_row,
                       float* scales) {
  const u32 row = block_m + threadIdx.x;
  __syncthreads();
  if (threadIdx.x < BM) scales[threadIdx.x] = row < M ? row_scale(squares, row, K, eps) : 0.0f;
  __syncthreads();
#pragma unroll
  for (u32 i = 0; i < 4; i++) {
#pragma unroll
    for (u32 half = 0; half < 2; half++) {
      const float scale = scales[own_row + i * 16 + half * 8];
#pragma unroll
      for (u32 j = 0; j < 4; j++) {
        acc[i][j][half * 2] *= scale;
        acc[i][j][half * 2 + 1] *= scale;
      }
    }
  }
}

// Adds the halves of the sums of squares of a tile, two neighbors of `halves`, and stores them.
DEVICE void store_squares(const float* halves, float* squares, u32 M, u32 out_features, u32 block_m, u32 block_n) {
  constexpr u32 BLOCKS = BN / SQUARES_COLUMNS;
  static_assert(THREADS == BM * BLOCKS, "a thread stores one sum");
  __syncthreads();
  const u32 row = block_m + threadIdx.x / BLOCKS, block = block_n / SQUARES_COLUMNS + threadIdx.x % BLOCKS;
  const u32 blocks = square_blocks(out_features);
  if (row >= M || block >= blocks) return;
  squares[static_cast<u64>(row) * blocks + block] = halves[threadIdx.x * 2] + halves[threadIdx.x * 2 + 1];
}

template <class E>
DEVICE void store_qkv_element(float value, const Qkv& qkv, u64 row, u32 column, E* query, E* key_value) {
  if (column >= qkv.end) return;
  E* stored = column < qkv.query_width ? query + row * qkv.query_width + column
                                       : key_value + row * qkv.kv_width + (column - qkv.query_width);
  *stored = from_float<E>(value);
}

// Rotates and stores the 64 x 32 part of a warp, whose accumulators begin at `first_row` and place `first_n` in this thread.
template <class E>
DEVICE void store_qkv(const float (&acc)[4][4][4], const float* bias, const Qkv& qkv, u32 M, u32 first_row, u32 first_n,
                      E* query, E* key_value) {
  const u32 half_dim = qkv.rotary_dim / 2;
#pragma unroll
  for (u32 j = 0; j < 4; j += 2) {
    const u32 n = first_n + j * 8;
    const u32 column = paired_column(qkv, n), partner = paired_column(qkv, n + 8);
    const u32 in_head = n < qkv.rotated ? column % qkv.head_dim : qkv.rotary_dim;
#pragma unroll
    for (u32 i = 0; i < 4; i++) {
#pragma unroll
      for (u32 half = 0; half < 2; half++) {
        const u32 row = first_row + i * 16 + half * 8;
#pragma unroll
        for (u32 e = 0; row < M && e < 2; e++) {
          float first = acc[i][j][half * 2 + e], second = acc[i][j + 1][half * 2 + e];
          if (bias && column + e < qkv.end) first += bias[column + e];
          if (bias && partner + e < qkv.end) second += bias[partner + e];
          if (in_head < half_dim) {
            const u64 angle = static_cast<u64>(qkv.positions[row]) * half_dim + in_head + e;
            rotate_pair(first, second, qkv.cos[angle], qkv.sin[angle]);
          }
          store_qkv_element(first, qkv, row, column + e, query, key_value);
          store_qkv_element(second, qkv, row, partner + e, query, key_value);
        }
      }
    }
  }
}

template <class E, Epilogue EPILOGUE>
DEVICE void linear_mma(const E* x, const E* w, const float* bias, u32 M, u32 K, u32 out_features, u32 activation,
                       const Qkv& qkv, E* out, E* key_value, float* squares, float eps) {
  DYNAMIC_SHARED(E, tiles);
  const u32 N = EPILOGUE == GATED ? 2 * out_features : out_features;
  const u32 block_m = blockIdx.y * BM, block_n = (EPILOGUE == QKV ? qkv.first : 0) + blockIdx.x * BN;
  const u32 warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const u32 warp_m = warp / 4 * 64, warp_n = warp % 4 * 32;
  const u32 k_steps = (K + BK - 1) / BK;
  // The rows of w that this thread copies, found once: they take divisions.
  u32 rows[BM * ROW_CHUNKS / THREADS];
#pragma unroll
  for (u32 part = 0; EPILOGUE == QKV && part < BM * ROW_CHUNKS / THREADS; part++) {
    const u32 n = block_n + (part * THREADS + threadIdx.x) / ROW_CHUNKS;
    rows[part] = n < qkv.end ? paired_column(qkv, n) : N;
  }

  // One cp.async group a step, empty beyond the last step, so that the number of groups to wait for is a constant.
  auto load_stage = [&](u32 step) {
    if (step < k_steps) {
      E* stage = tiles + step % STAGES * STAGE_ELEMENTS;
      load_tile(stage, x, M, K, block_m, step * BK);
      if (EPILOGUE == QKV) {
        load_rows(stage + BM * BK, w, rows, N, K, step * BK);
      } else {
        load_tile(stage + BM * BK, w, N, K, block_n, step * BK);
      }
    }
    cp_async_commit_group();
  };

  float acc[4][4][4] = {};
#pragma unroll
  for (u32 step = 0; step < STAGES - 1; step++) load_stage(step);
  for (u32 step = 0; step < k_steps; step++) {
    cp_async_wait_group<STAGES - 2>();
    // All threads' copies of this step are complete, and no warp reads the stage of the previous step any more.
    __syncthreads();
    load_stage(step + STAGES - 1);
    const E* stage = tiles + step % STAGES * STAGE_ELEMENTS;
    mma_tile(stage, stage + BM * BK, warp_m, warp_n, acc);
  }

  const u32 own_row = warp_m + lane / 4, row = block_m + own_row, column = block_n + warp_n + lane % 4 * 2;
  float* reused = reinterpret_cast<float*>(tiles);
  float* sums = nullptr;
  if (EPILOGUE == RESIDUAL && squares) {
    // No warp reads the stages any more.
    __syncthreads();
    sums = reused + own_row * (BN / WARP_N) + warp_n / WARP_N;
  }
  if (EPILOGUE != RESIDUAL && squares) scale_rows(acc, squares, eps, M, K, block_m, own_row, reused);
  if (EPILOGUE == QKV) {
    store_qkv(acc, bias, qkv, M, row, column, out, key_value);
  } else if (is_usual<EPILOGUE>(activation)) {
    store_tile<E, EPILOGUE, false>(acc, bias, M, row, column, out_features, activation, out, sums);
  } else {
    store_tile<E, EPILOGUE, true>(acc, bias, M, row, column, out_features, activation, out, sums);
  }
  if (EPILOGUE == RESIDUAL && squares) store_squares(reused, squares, M, out_features, block_m, block_n);
}

#define LINEAR_MMA_KERNEL(name, E, EPILOGUE)                                                                           \
  KERNEL __launch_bounds__(256) name(const E* __restrict__ x, const E* __restrict__ w, const float* __restrict__ bias, \
                                     u32 M, u32 K, u32 out_features, u32 activation, E* __restrict__ out,              \
                                     float* __restrict__ squares, float eps) {                                         \
    linear_mma<E, EPILOGUE>(x, w, bias, M, K, out_features, activation, Qkv{}, out, out, squares, eps);                \
  }                                                                                                                    \
  REGISTER_KERNEL(name);

LINEAR_MMA_KERNEL(linear_mma_f16, f16, STORE)
LINEAR_MMA_KERNEL(linear_mma_bf16, bf16, STORE)
LINEAR_MMA_KERNEL(linear_residual_mma_f16, f16, RESIDUAL)
LINEAR_MMA_KERNEL(linear_residual_mma_bf16, bf16, RESIDUAL)
LINEAR_MMA_KERNEL(linear_gated_mma_f16, f16, GATED)
LINEAR_MMA_KERNEL(linear_gated_mma_bf16, bf16, GATED)

// `out_features` is the number of rows of w.
#define LINEAR_QKV_MMA_KERNEL(qkv_name, E)                                                                             \
  KERNEL __launch_bounds__(256)                                                                                        \
      qkv_name(const E* __restrict__ x, const E* __restrict__ w, const float* __restrict__ bias, u32 M, u32 K,         \
               u32 out_features, u32 first, u32 end, u32 query_width, const u32* __restrict__ positions,               \
               const float* __restrict__ cos, const float* __restrict__ sin, u32 rotated, u32 head_dim, u32 rotary_dim, \
               E* __restrict__ query, E* __restrict__ key_value, float* __restrict__ squares, float eps) {             \
    const Qkv qkv = {first, end, query_width, out_features - query_width, positions, cos, sin, rotated, head_dim,      \
                     rotary_dim};                                                                                      \
    linear_mma<E, QKV>(x, w, bias, M, K, out_features, IDENTITY, qkv, query, key_value, squares, eps);                 \
  }                                                                                                                    \
  REGISTER_KERNEL(qkv_name);

LINEAR_QKV_MMA_KERNEL(linear_qkv_mma_f16, f16)
LINEAR_QKV_MMA_KERNEL(linear_qkv_mma_bf16, bf16)
