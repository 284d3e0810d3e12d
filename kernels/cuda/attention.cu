// Causal attention out = softmax(scale q k^T) v with grouped query heads, over ragged sequences and prefix-tree nodes, with
// a window and a soft cap of the scores.
// Step 1: naive, one query row and head a block.        H100, bf16, head_dim 128: 0.78 TFLOP/s
//   (steps 2 and 3 attention_mma.cu: mma.sync; step 2 had 124 TFLOP/s, step 3 is not measured)
//
// query and out are [_, heads * head_dim], keys_values [_, 2 * kv_heads * head_dim] with the keys first. A tile is
// {first query row, position of that row, number of rows, first entry of its sequence in key_rows}; key_rows maps the
// positions of a sequence to rows of keys_values. Here a tile is one row.
// With a `window` that is not 0 a row sees so many positions, its own included. With a `soft_cap` that is not 0 the scores
// become soft_cap tanh(score / soft_cap) (Gemma 2).
//
// Keys are processed in blocks of BKV 64 from absolute position 0, with a running maximum and a running sum; blocks wholly
// before the window are skipped, which changes no bit:
//   dot_qk (a key a thread) -> row_max, correction -> p = exp(score - row_max) -> acc = acc * correction + p v
// Launch: grid (tiles, heads), 128 threads; 1,292 bytes of static shared memory. head_dim is at most 256.
// Determinism: a score is one chain over head_dim, row_sum and each output one chain over the positions. A row has the
// bits of the CPU backend and depends on its own sequence alone.
// Measured: docs/measurements/gpu/kernels.txt, NVIDIA H100 80GB HBM3 (SXM), 256 rows of four sequences of 1,024, 32 heads,
// without window and soft cap, which are not measured yet.
#include "math.cuh"

constexpr u32 THREADS = 128;
constexpr u32 BKV = 64;  // keys of a block, aligned to absolute positions
constexpr u32 MAX_HEAD_DIM = 256;
constexpr u32 ELEMENTS_PER_THREAD = MAX_HEAD_DIM / THREADS;  // of the output

template <class E>
DEVICE float dot_qk(const float* query, const E* key, u32 head_dim) {
  float sum = 0.0f;
  for (u32 element = 0; element < head_dim; element++) sum = fmaf(query[element], to_float(key[element]), sum);
  return sum;
}

template <class E>
DEVICE void attention(const E* query, const E* keys_values, const u32* tiles, const u32* key_rows, u32 heads,
                      u32 kv_heads, u32 head_dim, float scale, u32 window, float soft_cap, E* out) {
  SHARED_ARRAY(float, scaled_query, MAX_HEAD_DIM);
  SHARED_ARRAY(float, p, BKV);
  SHARED_ARRAY(float, row_max, 1);
  SHARED_ARRAY(float, correction, 1);
  SHARED_ARRAY(float, row_sum, 1);
  const u32* tile = tiles + 4 * blockIdx.x;
  const u32 head = blockIdx.y, kv_head = head / (heads / kv_heads);
  const u32 visible = tile[1] + 1;
  const u32 first_visible = window > 0 && visible > window ? visible - window : 0;
  const u64 offset = (static_cast<u64>(tile[0]) * heads + head) * head_dim;
  const E* keys = keys_values + static_cast<u64>(kv_head) * head_dim;
  const E* values = keys_values + static_cast<u64>(kv_heads + kv_head) * head_dim;
  const u64 pitch = 2ull * kv_heads * head_dim;
  const u32* rows = key_rows + tile[3];

  for (u32 element = threadIdx.x; element < head_dim; element += THREADS) {
    scaled_query[element] = to_float(query[offset + element]) * scale;
  }
  if (threadIdx.x == 0) {
    row_max[0] = minus_infinity();
    row_sum[0] = 0.0f;
  }
  __syncthreads();

  float acc[ELEMENTS_PER_THREAD] = {0.0f, 0.0f};
  for (u32 first = first_visible / BKV * BKV; first < visible; first += BKV) {
    const u32 n_keys = visible - first < BKV ? visible - first : BKV;
    // Keys of the block before the window are left out: the chains begin with the first visible one.
    const u32 first_key = first_visible > first ? first_visible - first : 0;
    const bool has_key = threadIdx.x >= first_key && threadIdx.x < n_keys;
    if (has_key) {
      const float score = dot_qk(scaled_query, keys + rows[first + threadIdx.x] * pitch, head_dim);
      p[threadIdx.x] = soft_cap > 0.0f ? soft_capped(score, soft_cap) : score;
    }
    __syncthreads();
    if (threadIdx.x == 0) {
      const float before = row_max[0];
      for (u32 key = first_key; key < n_keys; key++) row_max[0] = fmaxf(row_max[0], p[key]);
      correction[0] = exp_accurate(before - row_max[0]);
    }
    __syncthreads();
    if (has_key) p[threadIdx.x] = exp_accurate(p[threadIdx.x] - row_max[0]);
    __syncthreads();
    if (threadIdx.x == 0) {
      row_sum[0] *= correction[0];
      for (u32 key = first_key; key < n_keys; key++) row_sum[0] += p[key];
    }
#pragma unroll
    for (u32 i = 0; i < ELEMENTS_PER_THREAD; i++) {
      const u32 element = i * THREADS + threadIdx.x;
      acc[i] *= correction[0];
      for (u32 key = first_key; element < head_dim && key < n_keys; key++) {
        acc[i] = fmaf(p[key], to_float(values[rows[first + key] * pitch + element]), acc[i]);
      }
    }
    // The scores of the next block overwrite p.
    __syncthreads();
  }
  const float inverse = 1.0f / row_sum[0];
#pragma unroll
  for (u32 i = 0; i < ELEMENTS_PER_THREAD; i++) {
    const u32 element = i * THREADS + threadIdx.x;
    if (element < head_dim) out[offset + element] = from_float<E>(acc[i] * inverse);
  }
}

// At least four blocks a multiprocessor: without the bound the compiler spills to fit more.
#define ATTENTION_KERNEL(name, E)                                                                                   \
  KERNEL __launch_bounds__(128, 4) name(const E* __restrict__ query, const E* __restrict__ keys_values,             \
                                        const u32* __restrict__ tiles, const u32* __restrict__ key_rows, u32 heads, \
                                        u32 kv_heads, u32 head_dim, float scale, u32 window, float soft_cap,        \
                                        E* __restrict__ out) {                                                      \
    attention<E>(query, keys_values, tiles, key_rows, heads, kv_heads, head_dim, scale, window, soft_cap, out);     \
  }                                                                                                                 \
  REGISTER_KERNEL(name);

ATTENTION_KERNEL(attention_f32, float)
ATTENTION_KERNEL(attention_f16, f16)
ATTENTION_KERNEL(attention_bf16, bf16)
