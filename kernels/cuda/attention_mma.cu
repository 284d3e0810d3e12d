// Causal attention of attention.cu on tensor cores, f16/bf16 in, f32 accumulate: FlashAttention-2 (Dao 2023), with the query
// heads of a KV head packed into the rows of a tile (FlashAttention-3, "PackGQA").
// Step 3: mma.sync, ldmatrix, cp.async. sm_80 and later.       H100: not measured
//   (step 1 attention.cu: naive, 0.78 TFLOP/s; step 2: a head a tile, one buffer for k and for v, 124 TFLOP/s, head_dim 128)
//   Prediction, not measured: 4 ms less of the 118 ms of a forward pass of 128 x 256 tokens of a 1B Llama, 17 ms at 2,048 tokens.
//
// CTA tile   BQ 64 rows x BKV 64 keys x HEAD 64, 128 or 256              smem (1 + 2 * STAGES) * 64 * HEAD * 2 bytes, 128 threads
//   A row is one query of one of the `heads / kv_heads` heads of a KV head, so that these heads load its keys and values once.
//   The rows of a sequence are numbered query * group + head of the group; a tile is up to 64 consecutive ones. It may begin
//   and end within a query, so every size of a group fills its tiles.
//   4 warps of 16 rows each: S = q k^T -> online softmax in registers -> acc += P v, by mma m16n8k16.
//   head_dim is a multiple of 8, filled with zeros up to HEAD. Rows of a buffer are XOR-swizzled by chunks of 16 bytes.
//
//   HEAD 64, 128: STAGES 2, one barrier a block of keys          HEAD 256: STAGES 1, two barriers (a second stage exceeds the
//   block      0            1            2                       99 KB of sm_86, sm_89 and sm_120)
//   cp.async   k0 v0  k1 v1        k2 v2        k3 v3            k0    v0      k1   v1      k2
//   mma               S0 PV0       S1 PV1       S2 PV2                 S0      PV0  S1      PV1
//
// A tile is {first query row, its position, head of the group in its first row, rows, first key, in key_rows}. The keys of a
// sequence are consecutive rows of keys_values from `first key` on; where `in key_rows` is not 0 (a node of a prefix tree) they
// are the rows in key_rows from entry `first key` on. Tensors, window and soft_cap are those of attention.cu.
// With a window the loop begins at the first block that a row of the tile sees. Scores are masked in blocks that a row of the
// tile does not see as a whole: on the diagonal and at the edge of a window. With a soft cap the scores are capped before the
// softmax, with tanh(x) = 1 - 2 / (e^2x + 1); without one, the scale is in the exponent of the softmax. All are uniform branches.
// p is rounded to the storage type for P v; row_sum is taken before. This is the only rounding besides the store.
// An infinite value gives NaN also in earlier rows of its sequence in the tiles that reach it: unlike attention.cu, masked
// keys are multiplied by p = 0.
// Launch: grid tiles * kv_heads, 128 threads; the KV heads of a tile are neighbors. The host lists the longest tiles first, so
// that the last blocks to start are short.
// Determinism: blocks of keys begin at absolute positions 0, 64, ..., and a block that is masked for a row changes none of
// its bits, so a row depends on its own sequence alone and not on its tile; its bits are those of step 2. Running maxima begin
// at the lowest finite value: a row whose window begins in a later block keeps it, where minus infinity would make the
// correction NaN.
// Measured (step 2 alone): docs/measurements/gpu/kernels.txt, NVIDIA H100 80GB HBM3 (SXM), four sequences of 1,024, 32 heads,
// 8 KV heads.
#include "attention.cuh"
#include "math.cuh"

constexpr u32 BQ = 64, BKV = 64;
constexpr u32 THREADS = 128;
constexpr u32 CHUNK = 8;  // elements in 16 bytes
constexpr u32 TILE_WORDS = 6;

// Buffers of a block's keys and values.
template <u32 HEAD>
constexpr u32 STAGES = HEAD <= 128 ? 2 : 1;

// The offset of chunk `chunk` of row `row` in a buffer of rows of HEAD elements, XOR-swizzled against bank conflicts.
template <u32 HEAD>
DEVICE u32 chunk_at(u32 row, u32 chunk) {
  return row * HEAD + (chunk ^ (row % 8)) * CHUNK;
}

// `offset` of a chunk 0 or 1 of a row, moved by `pairs` times two chunks of the row: bits of the swizzle and an immediate, where
// chunk_at computes each address from the row.
DEVICE u32 moved_by(u32 offset, u32 pairs) { return (offset ^ (pairs % 4 * 2 * CHUNK)) + pairs / 4 * 8 * CHUNK; }

// The online softmax of the two query rows of a thread: running maximum, its part of the running sum, output.
template <u32 HEAD>
struct SoftmaxState {
  float row_max[2], row_sum[2];
  float acc[HEAD / 8][4];
};

// scores = q k^T for the warp's 16 queries and BKV keys.
template <class E, u32 HEAD>
DEVICE void mma_qk(const E* queries, const E* keys, u32 warp, u32 lane, float (&scores)[BKV / 2]) {
#pragma unroll
  for (u32 i = 0; i < BKV / 2; i++) scores[i] = 0.0f;
  const u32 query_chunk = chunk_at<HEAD>(warp * 16 + lane % 16, lane / 16);
  const u32 key_chunk = chunk_at<HEAD>(lane % 8 + lane / 16 * 8, lane / 8 % 2);
#pragma unroll
  for (u32 step = 0; step < HEAD / 16; step++) {
    u32 a[4];
    ldmatrix_x4<false>(a, queries + moved_by(query_chunk, step));
#pragma unroll
    for (u32 pair = 0; pair < BKV / 16; pair++) {
      u32 b[4];
      ldmatrix_x4<false>(b, keys + moved_by(key_chunk, step) + pair * 16 * HEAD);
      mma_m16n8k16<E>(block_of(scores, pair * 2), a, b[0], b[1]);
      mma_m16n8k16<E>(block_of(scores, pair * 2 + 1), a, b[2], b[3]);
    }
  }
}

// acc += p v.
template <class E, u32 HEAD>
DEVICE void mma_pv(const float (&p)[BKV / 2], const E* values, u32 lane, SoftmaxState<HEAD>& state) {
  const u32 value_chunk = chunk_at<HEAD>(lane % 16, lane / 16);
#pragma unroll
  for (u32 step = 0; step < BKV / 16; step++) {
    // The accumulator layout of two blocks of eight columns is the layout of operand a.
    u32 a[4];
#pragma unroll
    for (u32 i = 0; i < 4; i++) a[i] = pack_pair<E>(p[step * 8 + i * 2], p[step * 8 + i * 2 + 1]);
#pragma unroll
    for (u32 pair = 0; pair < HEAD / 16; pair++) {
      u32 b[4];
      ldmatrix_x4<true>(b, values + moved_by(value_chunk, pair) + step * 16 * HEAD);
      mma_m16n8k16<E>(state.acc[pair * 2], a, b[0], b[1]);
      mma_m16n8k16<E>(state.acc[pair * 2 + 1], a, b[2], b[3]);
    }
  }
}

template <class E, u32 HEAD>
DEVICE void attention_mma(const E* query, const E* keys_values, const u32* tiles, const u32* key_rows, u32 heads,
                          u32 kv_heads, u32 head_dim, float scale, u32 window, float soft_cap, E* out) {
  constexpr u32 STAGE = 2 * BKV * HEAD;  // elements of a stage: keys, then values
  constexpr u32 ROW_CHUNKS = HEAD / CHUNK, ROWS_A_PASS = THREADS / ROW_CHUNKS;
  DYNAMIC_SHARED(E, queries);
  E* stages = queries + BQ * HEAD;
  const u32* tile = tiles + TILE_WORDS * (blockIdx.x / kv_heads);
  const u32 first_query = tile[0], first_position = tile[1], first_head = tile[2], n_rows = tile[3];
  const u32 first_key = tile[4], in_key_rows = tile[5];
  const u32 kv_head = blockIdx.x % kv_heads, group = heads / kv_heads;
  const u32 warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const u32 visible = first_position + (first_head + n_rows - 1) / group + 1;
  const u32 n_blocks = (visible + BKV - 1) / BKV;
  // The block of the first key that the first row sees.
  const u32 first_block = window > 0 && first_position + 1 > window ? (first_position + 1 - window) / BKV : 0;

  // The first element of a row of the tile in query and out.
  auto row_offset = [&](u32 row) {
    const u32 packed = first_head + row;
    const u64 query_row = first_query + packed / group;
    return (query_row * heads + kv_head * group + packed % group) * head_dim;
  };
  // A thread copies one chunk of every ROWS_A_PASS-th row. Rows and elements that do not exist become zeros; their address is
  // that of others, which exist.
  const u32 chunk = threadIdx.x % ROW_CHUNKS, first_row = threadIdx.x / ROW_CHUNKS;
  const bool has_elements = chunk * CHUNK < head_dim;
  const u32 first_element = has_elements ? chunk * CHUNK : 0;
  const E* column = keys_values + kv_head * head_dim + first_element;
  const u32 values_offset = kv_heads * head_dim;
  // One cp.async group: the keys, the values or both of a block; empty beyond the last block.
  auto load_block = [&](u32 block, E* to, bool keys, bool values) {
    if (block < n_blocks) {
// Not unrolled: the addresses of all passes take registers that the narrow heads do not have.
#pragma unroll 1
      for (u32 pass = 0; pass < BKV / ROWS_A_PASS; pass++) {
        const u32 row = pass * ROWS_A_PASS + first_row, position = block * BKV + row;
        const bool copied = position < visible && has_elements;
        u32 stored = first_key + (position < visible ? position : visible - 1);
        if (in_key_rows) stored = key_rows[stored];
        const E* source = column + static_cast<u64>(stored) * (2 * values_offset);
        const u32 offset = chunk_at<HEAD>(row, chunk);
        if (keys) cp_async_16(to + offset, source, copied ? 16 : 0);
        if (values) cp_async_16(to + BKV * HEAD + offset, source + values_offset, copied ? 16 : 0);
      }
    }
    cp_async_commit_group();
  };

#pragma unroll
  for (u32 pass = 0; pass < BQ / ROWS_A_PASS; pass++) {
    const u32 row = pass * ROWS_A_PASS + first_row;
    const bool copied = row < n_rows && has_elements;
    cp_async_16(queries + chunk_at<HEAD>(row, chunk), query + row_offset(row < n_rows ? row : 0) + first_element,
                copied ? 16 : 0);
  }
  // The group has the queries as well. With one stage the values follow in the loop.
  load_block(first_block, stages, true, STAGES<HEAD> > 1);

  SoftmaxState<HEAD> state;
  u32 position[2];
#pragma unroll
  for (u32 half = 0; half < 2; half++) {
    state.row_max[half] = lowest_float();
    state.row_sum[half] = 0.0f;
    position[half] = first_position + (first_head + warp * 16 + half * 8 + lane / 4) / group;
  }
#pragma unroll
  for (u32 i = 0; i < HEAD / 8; i++) {
#pragma unroll
    for (u32 j = 0; j < 4; j++) state.acc[i][j] = 0.0f;
  }
  // e^x = 2^(x log2 e). Capped scores are scaled already.
  const float power_scale = (soft_cap > 0.0f ? 1.0f : scale) * LOG2_E;

  for (u32 block = first_block; block < n_blocks; block++) {
    E* keys = stages + (block - first_block) % STAGES<HEAD> * STAGE;
    E* next_keys = stages + (block + 1 - first_block) % STAGES<HEAD> * STAGE;
    float scores[BKV / 2];
    cp_async_wait_group<0>();
    // All warps have copied their part of the block, and have read the buffer that is overwritten next.
    __syncthreads();
    if (STAGES<HEAD> > 1) {
      load_block(block + 1, next_keys, true, true);
    } else {
      load_block(block, keys, false, true);
    }
    mma_qk<E, HEAD>(queries, keys, warp, lane, scores);
    if (soft_cap > 0.0f) cap_scores(scores, scale, soft_cap);
    const u32 first_key_position = block * BKV, lane_key = first_key_position + lane % 4 * 2;
    // Only where the first row of the tile does not see the last key.
    if (first_key_position + BKV > first_position + 1) mask_after_position(scores, position, lane_key);
    // Only where the last row of the tile does not see the first key.
    if (window > 0 && first_key_position + window < visible) {
      mask_before_window(scores, position, lane_key, window);
    }
#pragma unroll
    for (u32 half = 0; half < 2; half++) {
      const float correction = online_softmax(scores, half, state.row_max[half], state.row_sum[half], power_scale);
#pragma unroll
      for (u32 i = 0; i < HEAD / 8; i++) {
        state.acc[i][half * 2] *= correction;
        state.acc[i][half * 2 + 1] *= correction;
      }
    }
    if (STAGES<HEAD> == 1) {
      cp_async_wait_group<0>();
      // All warps have copied their part of the values, and have read the keys.
      __syncthreads();
      load_block(block + 1, keys, true, false);
    }
    mma_pv<E, HEAD>(scores, keys + BKV * HEAD, lane, state);
  }

#pragma unroll
  for (u32 half = 0; half < 2; half++) {
    float sum = state.row_sum[half];
    sum += shfl_xor(sum, 1);
    sum += shfl_xor(sum, 2);
    const float inverse = 1.0f / sum;
    const u32 row = warp * 16 + half * 8 + lane / 4;
    E* stored = out + row_offset(row);
#pragma unroll
    for (u32 i = 0; i < HEAD / 8; i++) {
      const u32 element = i * 8 + lane % 4 * 2;
      if (row < n_rows && element < head_dim) {
        const u32 pair = pack_pair<E>(state.acc[i][half * 2] * inverse, state.acc[i][half * 2 + 1] * inverse);
        *reinterpret_cast<u32*>(stored + element) = pair;
      }
    }
  }
}

// With more blocks a multiprocessor, which the compiler aims for without a bound, it spills on sm_80.
#define ATTENTION_MMA_KERNEL(name, E, HEAD)                                                                                           \
  KERNEL __launch_bounds__(128, HEAD == 256 ? 1 : 3) name(const E* __restrict__ query, const E* __restrict__ keys_values,             \
                                     const u32* __restrict__ tiles, const u32* __restrict__ key_rows, u32 heads,                      \
                                     u32 kv_heads, u32 head_dim, float scale, u32 window, float soft_cap,                             \
                                     E* __restrict__ out) {                                                                           \
    attention_mma<E, HEAD>(query, keys_values, tiles, key_rows, heads, kv_heads, head_dim, scale, window,                             \
                           soft_cap, out);                                                                                            \
  }                                                                                                                                   \
  REGISTER_KERNEL(name);

ATTENTION_MMA_KERNEL(attention_mma_f16_64, f16, 64)
ATTENTION_MMA_KERNEL(attention_mma_f16_128, f16, 128)
ATTENTION_MMA_KERNEL(attention_mma_f16_256, f16, 256)
ATTENTION_MMA_KERNEL(attention_mma_bf16_64, bf16, 64)
ATTENTION_MMA_KERNEL(attention_mma_bf16_128, bf16, 128)
ATTENTION_MMA_KERNEL(attention_mma_bf16_256, bf16, 256)
