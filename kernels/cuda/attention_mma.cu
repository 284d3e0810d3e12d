// Causal attention of attention.cu on tensor cores, f16/bf16 in, f32 accumulate: FlashAttention-2 (Dao 2023).
// Step 2: mma.sync, ldmatrix, cp.async. sm_80 and later.       H100, head_dim 128: 124 (bf16), 122 (f16) TFLOP/s
//   (step 1 attention.cu: naive, 0.78 TFLOP/s)
//
// CTA tile   BQ 64 queries x BKV 64 keys x HEAD 64, 128 or 256           smem 3 * 64 * HEAD * 2 bytes, 128 threads
//   4 warps of 16 query rows each: S = q k^T -> online softmax in registers -> acc += P v, by mma m16n8k16.
//   head_dim is a multiple of 8, filled with zeros up to HEAD. Rows of a buffer are XOR-swizzled by chunks of 16 bytes.
//
//   block      0                      1
//   cp.async   k0, v0    k1      v1      k2      v2           one buffer for k and one for v: the next keys are copied
//   mma               S0      PV0     S1      PV1             during softmax and P v, the next values during S
//
// Tensors, tiles, key_rows, window and soft_cap are those of attention.cu; a tile is up to 64 query rows of one sequence.
// With a window the loop begins at the first block that a row of the tile sees, and keys before a row's window are masked.
// With a soft cap the scores are capped before the softmax, with tanh(x) = 1 - 2 / (e^2x + 1); without one, the scale is in
// the exponent of the softmax. Both are uniform branches.
// p is rounded to the storage type for P v; row_sum is taken before. This is the only rounding besides the store.
// An infinite value gives NaN also in earlier rows of its sequence in the tiles that reach it: unlike attention.cu, masked
// keys are multiplied by p = 0.
// Launch: grid (tiles, heads), 128 threads.
// Determinism: blocks of keys begin at absolute positions 0, 64, ..., and a block that is masked for a row changes none of
// its bits, so a row depends on its own sequence alone and not on its tile. Running maxima begin at the lowest finite value:
// a row whose window begins in a later block keeps it, where minus infinity would make the correction NaN.
// Measured: docs/measurements/gpu/kernels.txt, NVIDIA H100 80GB HBM3 (SXM), four sequences of 1,024, 32 heads, 8 KV heads.
// HEAD 64 and 256 are not measured alone; window and soft cap are not measured yet.
#include "math.cuh"

constexpr u32 BQ = 64, BKV = 64;
constexpr u32 THREADS = 128;
constexpr u32 CHUNK = 8;  // elements in 16 bytes

// The offset of chunk `chunk` of row `row` in a buffer of rows of HEAD elements, XOR-swizzled against bank conflicts.
template <u32 HEAD>
DEVICE u32 chunk_at(u32 row, u32 chunk) {
  return row * HEAD + (chunk ^ (row % 8)) * CHUNK;
}

// The online softmax of the two query rows of a thread: running maximum, its part of the running sum, output.
template <u32 HEAD>
struct SoftmaxState {
  float row_max[2], row_sum[2];
  float acc[HEAD / 8][4];
};

// scores = q k^T for the warp's 16 queries and BKV keys.
template <class E, u32 HEAD>
DEVICE void mma_qk(const E* queries, const E* keys, u32 warp, u32 lane, float (&scores)[BKV / 8][4]) {
#pragma unroll
  for (u32 i = 0; i < BKV / 8; i++) {
#pragma unroll
    for (u32 j = 0; j < 4; j++) scores[i][j] = 0.0f;
  }
#pragma unroll
  for (u32 step = 0; step < HEAD / 16; step++) {
    u32 a[4];
    ldmatrix_x4<false>(a, queries + chunk_at<HEAD>(warp * 16 + lane % 16, step * 2 + lane / 16));
#pragma unroll
    for (u32 pair = 0; pair < BKV / 16; pair++) {
      u32 b[4];
      ldmatrix_x4<false>(b, keys + chunk_at<HEAD>(pair * 16 + lane % 8 + lane / 16 * 8, step * 2 + lane / 8 % 2));
      mma_m16n8k16<E>(scores[pair * 2], a, b[0], b[1]);
      mma_m16n8k16<E>(scores[pair * 2 + 1], a, b[2], b[3]);
    }
  }
}

// Caps the scores, which are not scaled yet: soft_cap tanh(scale score / soft_cap). This tanh has a small absolute error, a
// few 1e-7, and a large relative one near 0: the softmax depends on differences of scores alone.
DEVICE void cap_scores(float (&scores)[BKV / 8][4], float scale, float soft_cap) {
  // e^2x = 2^(2 x log2 e).
  const float power_scale = scale / soft_cap * (2.0f * 1.44269504088896341f);
#pragma unroll
  for (u32 i = 0; i < BKV / 8; i++) {
#pragma unroll
    for (u32 j = 0; j < 4; j++) {
      const float reciprocal = rcp_approx(1.0f + ex2_approx(scores[i][j] * power_scale));
      scores[i][j] = fmaf(-2.0f * soft_cap, reciprocal, soft_cap);
    }
  }
}

// Masks the keys before the window of the thread's two rows, of which the first is at `position`.
DEVICE void mask_before_window(float (&scores)[BKV / 8][4], u32 position, u32 first_key, u32 lane, u32 window) {
#pragma unroll
  for (u32 i = 0; i < BKV / 8; i++) {
#pragma unroll
    for (u32 j = 0; j < 4; j++) {
      const u32 key = first_key + i * 8 + lane % 4 * 2 + j % 2;
      if (key + window <= position + j / 2 * 8) scores[i][j] = minus_infinity();
    }
  }
}

// Replaces scores by p and rescales acc to the new maximum. `position` is the position of the thread's first row.
template <u32 HEAD>
DEVICE void online_softmax_update(float (&scores)[BKV / 8][4], SoftmaxState<HEAD>& state, u32 position, u32 first_key,
                                  u32 lane, float scale) {
#pragma unroll
  for (u32 half = 0; half < 2; half++) {
    float row_max = state.row_max[half];
#pragma unroll
    for (u32 i = 0; i < BKV / 8; i++) {
#pragma unroll
      for (u32 j = 0; j < 2; j++) {
        const bool masked = first_key + i * 8 + lane % 4 * 2 + j > position + half * 8;
        if (masked) scores[i][half * 2 + j] = minus_infinity();
        row_max = fmaxf(row_max, scores[i][half * 2 + j]);
      }
    }
    // Four lanes share a row.
    row_max = fmaxf(row_max, shfl_xor(row_max, 1));
    row_max = fmaxf(row_max, shfl_xor(row_max, 2));
    const float correction = ex2_approx((state.row_max[half] - row_max) * scale);
    state.row_max[half] = row_max;
    float sum = state.row_sum[half] * correction;
#pragma unroll
    for (u32 i = 0; i < BKV / 8; i++) {
#pragma unroll
      for (u32 j = 0; j < 2; j++) {
        const float p = ex2_approx((scores[i][half * 2 + j] - row_max) * scale);
        scores[i][half * 2 + j] = p;
        sum += p;
      }
    }
    state.row_sum[half] = sum;
#pragma unroll
    for (u32 i = 0; i < HEAD / 8; i++) {
      state.acc[i][half * 2] *= correction;
      state.acc[i][half * 2 + 1] *= correction;
    }
  }
}

// acc += p v.
template <class E, u32 HEAD>
DEVICE void mma_pv(const float (&p)[BKV / 8][4], const E* values, u32 lane, SoftmaxState<HEAD>& state) {
#pragma unroll
  for (u32 step = 0; step < BKV / 16; step++) {
    // The accumulator layout of two blocks of eight columns is the layout of operand a.
    const u32 a[4] = {pack_pair<E>(p[step * 2][0], p[step * 2][1]), pack_pair<E>(p[step * 2][2], p[step * 2][3]),
                      pack_pair<E>(p[step * 2 + 1][0], p[step * 2 + 1][1]),
                      pack_pair<E>(p[step * 2 + 1][2], p[step * 2 + 1][3])};
#pragma unroll
    for (u32 pair = 0; pair < HEAD / 16; pair++) {
      u32 b[4];
      ldmatrix_x4<true>(b, values + chunk_at<HEAD>(step * 16 + lane % 16, pair * 2 + lane / 16));
      mma_m16n8k16<E>(state.acc[pair * 2], a, b[0], b[1]);
      mma_m16n8k16<E>(state.acc[pair * 2 + 1], a, b[2], b[3]);
    }
  }
}

template <class E, u32 HEAD>
DEVICE void attention_mma(const E* query, const E* keys_values, const u32* tiles, const u32* key_rows, u32 heads,
                          u32 kv_heads, u32 head_dim, float scale, u32 window, float soft_cap, E* out) {
  DYNAMIC_SHARED(E, queries);
  E* keys = queries + BQ * HEAD;
  E* values = keys + BKV * HEAD;
  const u32* tile = tiles + 4 * blockIdx.x;
  const u32 first_query = tile[0], first_position = tile[1], n_queries = tile[2];
  const u32 head = blockIdx.y, kv_head = head / (heads / kv_heads);
  const u32 warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const u32 visible = first_position + n_queries;
  const u32 n_blocks = (visible + BKV - 1) / BKV;
  // The block of the first key that the first row sees.
  const u32 first_block = window > 0 && first_position + 1 > window ? (first_position + 1 - window) / BKV : 0;

  // Copies one chunk of `row` into `buffer`; zeros where the row or the elements do not exist.
  auto load_chunk = [&](E* buffer, u32 index, const E* row, bool inside) {
    const u32 chunk = index % (HEAD / CHUNK);
    const bool copied = inside && chunk * CHUNK < head_dim;
    cp_async_16(buffer + chunk_at<HEAD>(index / (HEAD / CHUNK), chunk), copied ? row + chunk * CHUNK : keys_values,
                copied ? 16 : 0);
  };
  // One cp.async group: the keys (part 0) or values (part 1) of a block of positions; empty beyond the last block.
  auto load_block = [&](u32 block, u32 part, E* buffer) {
    for (u32 index = threadIdx.x; block < n_blocks && index < BKV * HEAD / CHUNK; index += THREADS) {
      const u32 position = block * BKV + index / (HEAD / CHUNK);
      const u64 row = position < visible ? key_rows[tile[3] + position] : 0;
      const E* source = keys_values + ((row * 2 + part) * kv_heads + kv_head) * head_dim;
      load_chunk(buffer, index, source, position < visible);
    }
    cp_async_commit_group();
  };

  for (u32 index = threadIdx.x; index < BQ * HEAD / CHUNK; index += THREADS) {
    const u32 row = index / (HEAD / CHUNK);
    load_chunk(queries, index, query + (static_cast<u64>(first_query + row) * heads + head) * head_dim,
               row < n_queries);
  }
  load_block(first_block, 0, keys);
  load_block(first_block, 1, values);

  SoftmaxState<HEAD> state;
#pragma unroll
  for (u32 half = 0; half < 2; half++) {
    state.row_max[half] = lowest_float();
    state.row_sum[half] = 0.0f;
  }
#pragma unroll
  for (u32 i = 0; i < HEAD / 8; i++) {
#pragma unroll
    for (u32 j = 0; j < 4; j++) state.acc[i][j] = 0.0f;
  }
  const u32 position = first_position + warp * 16 + lane / 4;
  // e^x = 2^(x log2 e). Capped scores are scaled already.
  const float power_scale = (soft_cap > 0.0f ? 1.0f : scale) * 1.44269504088896341f;

  for (u32 block = first_block; block < n_blocks; block++) {
    float scores[BKV / 8][4];
    cp_async_wait_group<1>();
    __syncthreads();
    mma_qk<E, HEAD>(queries, keys, warp, lane, scores);
    // All warps have read the keys; the next block overwrites them.
    __syncthreads();
    load_block(block + 1, 0, keys);
    if (soft_cap > 0.0f) cap_scores(scores, scale, soft_cap);
    // Only where the last row of the tile does not see the first key.
    if (window > 0 && block * BKV + window < visible) mask_before_window(scores, position, block * BKV, lane, window);
    online_softmax_update<HEAD>(scores, state, position, block * BKV, lane, power_scale);
    cp_async_wait_group<1>();
    __syncthreads();
    mma_pv<E, HEAD>(scores, values, lane, state);
    // All warps have read the values; the next block overwrites them.
    __syncthreads();
    load_block(block + 1, 1, values);
  }

#pragma unroll
  for (u32 half = 0; half < 2; half++) {
    float sum = state.row_sum[half];
    sum += shfl_xor(sum, 1);
    sum += shfl_xor(sum, 2);
    const float inverse = 1.0f / sum;
    const u32 row = warp * 16 + half * 8 + lane / 4;
    E* stored = out + (static_cast<u64>(first_query + row) * heads + head) * head_dim;
#pragma unroll
    for (u32 i = 0; i < HEAD / 8; i++) {
      const u32 element = i * 8 + lane % 4 * 2;
      if (row < n_queries && element < head_dim) {
        const u32 pair = pack_pair<E>(state.acc[i][half * 2] * inverse, state.acc[i][half * 2 + 1] * inverse);
        *reinterpret_cast<u32*>(stored + element) = pair;
      }
    }
  }
}

#define ATTENTION_MMA_KERNEL(name, E, HEAD)                                                                      \
  KERNEL __launch_bounds__(128) name(const E* __restrict__ query, const E* __restrict__ keys_values,             \
                                     const u32* __restrict__ tiles, const u32* __restrict__ key_rows, u32 heads, \
                                     u32 kv_heads, u32 head_dim, float scale, u32 window, float soft_cap,        \
                                     E* __restrict__ out) {                                                      \
    attention_mma<E, HEAD>(query, keys_values, tiles, key_rows, heads, kv_heads, head_dim, scale, window,        \
                           soft_cap, out);                                                                       \
  }                                                                                                              \
  REGISTER_KERNEL(name);

ATTENTION_MMA_KERNEL(attention_mma_f16_64, f16, 64)
ATTENTION_MMA_KERNEL(attention_mma_f16_128, f16, 128)
ATTENTION_MMA_KERNEL(attention_mma_f16_256, f16, 256)
ATTENTION_MMA_KERNEL(attention_mma_bf16_64, bf16, 64)
ATTENTION_MMA_KERNEL(attention_mma_bf16_128, bf16, 128)
ATTENTION_MMA_KERNEL(attention_mma_bf16_256, bf16, 256)
