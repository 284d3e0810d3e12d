// Causal attention with grouped query heads over ragged rows and prefix-tree nodes.
//
// query and out are [_, heads * head_dim], keys_values [_, 2 * kv_heads * head_dim] with the keys first. A tile is
// {first query row, position of that row, number of rows, first entry of its sequence in key_rows}; key_rows maps the
// positions of a sequence to rows of keys_values. Here a tile is one row.
// A score is one chain over the head, an output one chain over the positions, and the softmax sum has SUM_LANES lanes
// by position: the order of the CPU backend, so the bits are its too, and a row depends on its own sequence alone.
// Launch: one block of 128 threads a tile and head; grid (tiles, heads). head_dim is at most 256.
// Version 1, plain: three passes over blocks of 128 keys, each computing the scores anew, so that no sequence is too
// long for shared memory. attention_mma.cu has the fast version for f16 and bf16.
#include "prelude.cuh"

constexpr u32 KEYS = 128;  // keys of a block, aligned to absolute positions
constexpr u32 MAX_HEAD_DIM = 256;

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
  SHARED_ARRAY(float, lanes, SUM_LANES);
  SHARED_ARRAY(float, largest, KEYS);
  const u32* tile = tiles + 4 * blockIdx.x;
  const u32 head = blockIdx.y, kv_head = head / (heads / kv_heads);
  const u32 visible = tile[1] + 1;
  const u64 offset = (static_cast<u64>(tile[0]) * heads + head) * head_dim;
  const E* keys = keys_values + static_cast<u64>(kv_head) * head_dim;
  const E* values = keys_values + static_cast<u64>(kv_heads + kv_head) * head_dim;
  const u64 pitch = 2ull * kv_heads * head_dim;
  const u32* rows = key_rows + tile[3];

  for (u32 element = threadIdx.x; element < head_dim; element += KEYS) {
    scaled_query[element] = to_float(query[offset + element]) * scale;
  }
  __syncthreads();
  largest[threadIdx.x] = minus_infinity();
  for (u32 position = threadIdx.x; position < visible; position += KEYS) {
    const float found = score(scaled_query, keys + rows[position] * pitch, head_dim);
    largest[threadIdx.x] = max_of(largest[threadIdx.x], found);
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    for (u32 thread = 1; thread < KEYS; thread++) largest[0] = max_of(largest[0], largest[thread]);
  }
  if (threadIdx.x < SUM_LANES) lanes[threadIdx.x] = 0.0f;
  __syncthreads();
  const float shift = largest[0];

  for (u32 first = 0; first < visible; first += KEYS) {
    const u32 position = first + threadIdx.x;
    if (position < visible) {
      weights[threadIdx.x] = exponential(score(scaled_query, keys + rows[position] * pitch, head_dim) - shift);
    }
    __syncthreads();
    if (threadIdx.x < SUM_LANES) {
      for (u32 key = threadIdx.x; key < KEYS && first + key < visible; key += SUM_LANES) {
        lanes[threadIdx.x] += weights[key];
      }
    }
    __syncthreads();
  }
  if (threadIdx.x == 0) lanes[0] = 1.0f / join_lanes(lanes);
  __syncthreads();
  const float inverse = lanes[0];

  float sums[MAX_HEAD_DIM / KEYS] = {0.0f, 0.0f};
  for (u32 first = 0; first < visible; first += KEYS) {
    const u32 position = first + threadIdx.x;
    if (position < visible) {
      const float found = score(scaled_query, keys + rows[position] * pitch, head_dim);
      weights[threadIdx.x] = exponential(found - shift) * inverse;
    }
    __syncthreads();
#pragma unroll
    for (u32 part = 0; part < MAX_HEAD_DIM / KEYS; part++) {
      const u32 element = part * KEYS + threadIdx.x;
      for (u32 key = 0; element < head_dim && key < KEYS && first + key < visible; key++) {
        sums[part] = fmaf(weights[key], to_float(values[rows[first + key] * pitch + element]), sums[part]);
      }
    }
    __syncthreads();
  }
#pragma unroll
  for (u32 part = 0; part < MAX_HEAD_DIM / KEYS; part++) {
    const u32 element = part * KEYS + threadIdx.x;
    if (element < head_dim) out[offset + element] = from_float<E>(sums[part]);
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
