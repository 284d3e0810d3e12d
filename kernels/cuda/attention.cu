// Causal attention with grouped query heads over ragged rows and prefix-tree nodes.
//
// query and out are [_, heads * head_dim], keys_values [_, 2 * kv_heads * head_dim] with the keys first. A tile is
// {first query row, position of that row, number of rows, first entry of its sequence in key_rows}; key_rows maps the
// positions of a sequence to rows of keys_values. Here a tile is one row.
// Keys come in blocks of 64 from absolute position 0 on, with a running maximum and a running sum of the weights. A
// score is one chain over the head, the sum of the weights and each output one chain over the positions: the order of
// the CPU backend, so the bits are its too, and a row depends on its own sequence alone.
// Launch: one block of 128 threads a tile and head; grid (tiles, heads). head_dim is at most 256.
// Version 1, plain: one row at a time. attention_mma.cu is version 2, for f16 and bf16.
#include "prelude.cuh"

constexpr u32 THREADS = 128;
constexpr u32 KEYS = 64;  // keys of a block, aligned to absolute positions
constexpr u32 MAX_HEAD_DIM = 256;
constexpr u32 PARTS = MAX_HEAD_DIM / THREADS;  // elements of the output that a thread computes

template <class E>
DEVICE float score(const float* query, const E* key, u32 head_dim) {
  float sum = 0.0f;
  for (u32 element = 0; element < head_dim; element++) sum = fmaf(query[element], to_float(key[element]), sum);
  return sum;
}

template <class E>
DEVICE void attention(const E* query, const E* keys_values, const u32* tiles, const u32* key_rows, u32 heads,
                      u32 kv_heads, u32 head_dim, float scale, E* out) {
  SHARED_ARRAY(float, scaled_query, MAX_HEAD_DIM);
  SHARED_ARRAY(float, weights, KEYS);
  SHARED_ARRAY(float, largest, 1);
  SHARED_ARRAY(float, factor, 1);
  SHARED_ARRAY(float, total, 1);
  const u32* tile = tiles + 4 * blockIdx.x;
  const u32 head = blockIdx.y, kv_head = head / (heads / kv_heads);
  const u32 visible = tile[1] + 1;
  const u64 offset = (static_cast<u64>(tile[0]) * heads + head) * head_dim;
  const E* keys = keys_values + static_cast<u64>(kv_head) * head_dim;
  const E* values = keys_values + static_cast<u64>(kv_heads + kv_head) * head_dim;
  const u64 pitch = 2ull * kv_heads * head_dim;
  const u32* rows = key_rows + tile[3];

  for (u32 element = threadIdx.x; element < head_dim; element += THREADS) {
    scaled_query[element] = to_float(query[offset + element]) * scale;
  }
  if (threadIdx.x == 0) {
    largest[0] = minus_infinity();
    total[0] = 0.0f;
  }
  __syncthreads();

  float sums[PARTS] = {0.0f, 0.0f};
  for (u32 first = 0; first < visible; first += KEYS) {
    const u32 n_keys = visible - first < KEYS ? visible - first : KEYS;
    if (threadIdx.x < n_keys) {
      weights[threadIdx.x] = score(scaled_query, keys + rows[first + threadIdx.x] * pitch, head_dim);
    }
    __syncthreads();
    if (threadIdx.x == 0) {
      const float before = largest[0];
      for (u32 key = 0; key < n_keys; key++) largest[0] = max_of(largest[0], weights[key]);
      factor[0] = exponential(before - largest[0]);
    }
    __syncthreads();
    if (threadIdx.x < n_keys) weights[threadIdx.x] = exponential(weights[threadIdx.x] - largest[0]);
    __syncthreads();
    if (threadIdx.x == 0) {
      total[0] *= factor[0];
      for (u32 key = 0; key < n_keys; key++) total[0] += weights[key];
    }
#pragma unroll
    for (u32 part = 0; part < PARTS; part++) {
      const u32 element = part * THREADS + threadIdx.x;
      sums[part] *= factor[0];
      for (u32 key = 0; element < head_dim && key < n_keys; key++) {
        sums[part] = fmaf(weights[key], to_float(values[rows[first + key] * pitch + element]), sums[part]);
      }
    }
    // The next block's scores go where these weights are.
    __syncthreads();
  }
  const float inverse = 1.0f / total[0];
#pragma unroll
  for (u32 part = 0; part < PARTS; part++) {
    const u32 element = part * THREADS + threadIdx.x;
    if (element < head_dim) out[offset + element] = from_float<E>(sums[part] * inverse);
  }
}

// Four blocks of a processor at once: left to itself, the compiler spills to fit more.
#define ATTENTION_KERNEL(name, E)                                                                               \
  KERNEL __launch_bounds__(128, 4)                                                                              \
      name(const E* query, const E* keys_values, const u32* tiles, const u32* key_rows, u32 heads, u32 kv_heads, \
           u32 head_dim, float scale, E* out) {                                                                 \
    attention<E>(query, keys_values, tiles, key_rows, heads, kv_heads, head_dim, scale, out);                   \
  }                                                                                                             \
  REGISTER_KERNEL(name);

ATTENTION_KERNEL(attention_f32, float)
ATTENTION_KERNEL(attention_f16, f16)
ATTENTION_KERNEL(attention_bf16, bf16)
