// Causal attention on tensor cores, for f16 and bf16: what attention.cu computes, in the manner of FlashAttention-2
// (Dao 2023), with the softmax kept as a running maximum and a running sum over blocks of keys. Version 2 of the ladder, by
// mma.sync, ldmatrix and cp.async, for every device from sm_80 on.
//
// Tensors, tiles and key_rows are those of attention.cu; a tile is up to 64 query rows, `head_dim` a multiple of 8 and
// at most HEAD, to which it is filled with zeros. A block serves one tile and head: 4 warps of 16 query rows each walk
// the same blocks of 64 keys. Blocks of keys start at absolute positions 0, 64, ..., and a block that a row does not
// see changes none of its bits, so a row depends on its own sequence alone, not on the tile it is in.
// Keys and values have one buffer each: the next keys are copied while values are used, and the other way round. In
// shared memory a row's 16-byte chunks are swapped by the row against bank conflicts.
// The weights of a row are rounded to the storage type for the second product, as tensor cores take them; their sum is
// taken before. This is the one rounding beside the store.
// A value that is infinite spoils the rows of its sequence in front of it as well, in tiles that reach it: unlike
// attention.cu, tensor cores multiply what a row does not see by a weight of zero.
// Launch: 128 threads; grid (tiles, heads); 3 * 64 * HEAD * 2 bytes of dynamic shared memory.
#include "prelude.cuh"

constexpr u32 QUERIES = 64, KEYS = 64;
constexpr u32 THREADS = 128;
constexpr u32 CHUNK = 8;  // elements of 16 bytes

// Where chunk `chunk` of row `row` lies in a buffer of rows of HEAD elements.
template <u32 HEAD>
DEVICE u32 chunk_at(u32 row, u32 chunk) {
  return row * HEAD + (chunk ^ (row % 8)) * CHUNK;
}

// What one thread knows of its two query rows: the running maximum, its part of the running sum, and the outputs.
template <u32 HEAD>
struct Rows {
  float largest[2], sum[2];
  float out[HEAD / 8][4];
};

// scores = queries keys^T for the warp's 16 queries and 64 keys.
template <class E, u32 HEAD>
DEVICE void score_keys(const E* queries, const E* keys, u32 warp, u32 lane, float (&scores)[KEYS / 8][4]) {
#pragma unroll
  for (u32 i = 0; i < KEYS / 8; i++) {
#pragma unroll
    for (u32 j = 0; j < 4; j++) scores[i][j] = 0.0f;
  }
#pragma unroll
  for (u32 step = 0; step < HEAD / 16; step++) {
    u32 a[4];
    load_fragments<false>(a, queries + chunk_at<HEAD>(warp * 16 + lane % 16, step * 2 + lane / 16));
#pragma unroll
    for (u32 pair = 0; pair < KEYS / 16; pair++) {
      u32 b[4];
      load_fragments<false>(b, keys + chunk_at<HEAD>(pair * 16 + lane % 8 + lane / 16 * 8, step * 2 + lane / 8 % 2));
      mma_16x8x16<E>(scores[pair * 2], a, b[0], b[1]);
      mma_16x8x16<E>(scores[pair * 2 + 1], a, b[2], b[3]);
    }
  }
}

// Scores to weights, and the outputs so far to the new maximum. `position` is that of the thread's first row.
template <u32 HEAD>
DEVICE void weigh(float (&scores)[KEYS / 8][4], Rows<HEAD>& rows, u32 position, u32 first_key, u32 lane, float scale) {
#pragma unroll
  for (u32 half = 0; half < 2; half++) {
    float largest = rows.largest[half];
#pragma unroll
    for (u32 i = 0; i < KEYS / 8; i++) {
#pragma unroll
      for (u32 j = 0; j < 2; j++) {
        const bool hidden = first_key + i * 8 + lane % 4 * 2 + j > position + half * 8;
        if (hidden) scores[i][half * 2 + j] = minus_infinity();
        largest = max_of(largest, scores[i][half * 2 + j]);
      }
    }
    // The four lanes of a group share a row.
    largest = max_of(largest, shuffle_xor(largest, 1));
    largest = max_of(largest, shuffle_xor(largest, 2));
    const float correction = fast_exp2((rows.largest[half] - largest) * scale);
    rows.largest[half] = largest;
    float sum = rows.sum[half] * correction;
#pragma unroll
    for (u32 i = 0; i < KEYS / 8; i++) {
#pragma unroll
      for (u32 j = 0; j < 2; j++) {
        const float weight = fast_exp2((scores[i][half * 2 + j] - largest) * scale);
        scores[i][half * 2 + j] = weight;
        sum += weight;
      }
    }
    rows.sum[half] = sum;
#pragma unroll
    for (u32 i = 0; i < HEAD / 8; i++) {
      rows.out[i][half * 2] *= correction;
      rows.out[i][half * 2 + 1] *= correction;
    }
  }
}

// outputs += weights values.
template <class E, u32 HEAD>
DEVICE void add_values(const float (&weights)[KEYS / 8][4], const E* values, u32 lane, Rows<HEAD>& rows) {
#pragma unroll
  for (u32 step = 0; step < KEYS / 16; step++) {
    // The layout of sums is that of the first operand, two blocks of eight columns making sixteen.
    const u32 a[4] = {pack_pair<E>(weights[step * 2][0], weights[step * 2][1]),
                      pack_pair<E>(weights[step * 2][2], weights[step * 2][3]),
                      pack_pair<E>(weights[step * 2 + 1][0], weights[step * 2 + 1][1]),
                      pack_pair<E>(weights[step * 2 + 1][2], weights[step * 2 + 1][3])};
#pragma unroll
    for (u32 pair = 0; pair < HEAD / 16; pair++) {
      u32 b[4];
      load_fragments<true>(b, values + chunk_at<HEAD>(step * 16 + lane % 16, pair * 2 + lane / 16));
      mma_16x8x16<E>(rows.out[pair * 2], a, b[0], b[1]);
      mma_16x8x16<E>(rows.out[pair * 2 + 1], a, b[2], b[3]);
    }
  }
}

template <class E, u32 HEAD>
DEVICE void attention_mma(const E* query, const E* keys_values, const u32* tiles, const u32* key_rows, u32 heads,
                          u32 kv_heads, u32 head_dim, float scale, E* out) {
  DYNAMIC_SHARED(E, queries);
  E* keys = queries + QUERIES * HEAD;
  E* values = keys + KEYS * HEAD;
  const u32* tile = tiles + 4 * blockIdx.x;
  const u32 first_query = tile[0], first_position = tile[1], n_queries = tile[2];
  const u32 head = blockIdx.y, kv_head = head / (heads / kv_heads);
  const u32 warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const u32 visible = first_position + n_queries;
  const u32 n_blocks = (visible + KEYS - 1) / KEYS;

  // A row's chunks of 16 bytes into `buffer`, zeros where there is no such row or no such element.
  auto copy_row_chunk = [&](E* buffer, u32 index, const E* row, bool inside) {
    const u32 chunk = index % (HEAD / CHUNK);
    const bool copied = inside && chunk * CHUNK < head_dim;
    copy_16_async(buffer + chunk_at<HEAD>(index / (HEAD / CHUNK), chunk), copied ? row + chunk * CHUNK : keys_values,
                  copied ? 16 : 0);
  };
  // One group of copies: the keys (part 0) or values (part 1) of a block of positions; empty behind the last.
  auto copy_block = [&](u32 block, u32 part, E* buffer) {
    for (u32 index = threadIdx.x; block < n_blocks && index < KEYS * HEAD / CHUNK; index += THREADS) {
      const u32 position = block * KEYS + index / (HEAD / CHUNK);
      const u64 row = position < visible ? key_rows[tile[3] + position] : 0;
      const E* source = keys_values + ((row * 2 + part) * kv_heads + kv_head) * head_dim;
      copy_row_chunk(buffer, index, source, position < visible);
    }
    commit_copies();
  };

  for (u32 index = threadIdx.x; index < QUERIES * HEAD / CHUNK; index += THREADS) {
    const u32 row = index / (HEAD / CHUNK);
    copy_row_chunk(queries, index, query + (static_cast<u64>(first_query + row) * heads + head) * head_dim,
                   row < n_queries);
  }
  copy_block(0, 0, keys);
  copy_block(0, 1, values);

  Rows<HEAD> rows;
#pragma unroll
  for (u32 half = 0; half < 2; half++) {
    rows.largest[half] = minus_infinity();
    rows.sum[half] = 0.0f;
  }
#pragma unroll
  for (u32 i = 0; i < HEAD / 8; i++) {
#pragma unroll
    for (u32 j = 0; j < 4; j++) rows.out[i][j] = 0.0f;
  }
  const u32 position = first_position + warp * 16 + lane / 4;
  // e^x = 2^(x log2 e).
  const float power_scale = scale * 1.44269504088896341f;

  for (u32 block = 0; block < n_blocks; block++) {
    float scores[KEYS / 8][4];
    wait_copies<1>();
    __syncthreads();
    score_keys<E, HEAD>(queries, keys, warp, lane, scores);
    // Everyone has read the keys before the next ones overwrite them.
    __syncthreads();
    copy_block(block + 1, 0, keys);
    weigh<HEAD>(scores, rows, position, block * KEYS, lane, power_scale);
    wait_copies<1>();
    __syncthreads();
    add_values<E, HEAD>(scores, values, lane, rows);
    // Everyone has read the values before the next ones overwrite them.
    __syncthreads();
    copy_block(block + 1, 1, values);
  }

#pragma unroll
  for (u32 half = 0; half < 2; half++) {
    float sum = rows.sum[half];
    sum += shuffle_xor(sum, 1);
    sum += shuffle_xor(sum, 2);
    const float inverse = 1.0f / sum;
    const u32 row = warp * 16 + half * 8 + lane / 4;
    E* stored = out + (static_cast<u64>(first_query + row) * heads + head) * head_dim;
#pragma unroll
    for (u32 i = 0; i < HEAD / 8; i++) {
      const u32 element = i * 8 + lane % 4 * 2;
      if (row < n_queries && element < head_dim) {
        const u32 pair = pack_pair<E>(rows.out[i][half * 2] * inverse, rows.out[i][half * 2 + 1] * inverse);
        *reinterpret_cast<u32*>(stored + element) = pair;
      }
    }
  }
}

#define ATTENTION_MMA_KERNEL(name, E, HEAD)                                                                       \
  KERNEL __launch_bounds__(128) name(const E* query, const E* keys_values, const u32* tiles, const u32* key_rows, \
                                     u32 heads, u32 kv_heads, u32 head_dim, float scale, E* out) {                \
    attention_mma<E, HEAD>(query, keys_values, tiles, key_rows, heads, kv_heads, head_dim, scale, out);           \
  }                                                                                                               \
  REGISTER_KERNEL(name);

ATTENTION_MMA_KERNEL(attention_mma_f16_64, f16, 64)
ATTENTION_MMA_KERNEL(attention_mma_f16_128, f16, 128)
ATTENTION_MMA_KERNEL(attention_mma_f16_256, f16, 256)
ATTENTION_MMA_KERNEL(attention_mma_bf16_64, bf16, 64)
ATTENTION_MMA_KERNEL(attention_mma_bf16_128, bf16, 128)
ATTENTION_MMA_KERNEL(attention_mma_bf16_256, bf16, 256)
