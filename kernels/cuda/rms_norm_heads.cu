// RMSNorm of heads, in place: x = x / sqrt(mean(x^2) + eps) * scale for each head of a row (Qwen3, OLMo 2, Gemma 3).
// Step 1, rms_norm_heads_TYPE: a block a head, 16 threads sum the squares.                        not measured yet
// Step 2, rms_norm_heads_wide_TYPE: a warp a head, 16 bytes a lane, warp shuffles.                not measured yet
//
// x is [rows, columns]; the first `heads` heads of head_dim columns of each row are normalized, all with `scale`, f32
// [head_dim]; the other columns stay. `norms` is rows * heads. Step 2 needs a head and a row to be multiples of 16 bytes; it
// reads x twice.
// Launch: 128 threads; step 1 grid (norms), 68 bytes of static shared memory; step 2 grid (ceil(norms / 4)), no shared
// memory. No pipeline.
// Determinism: step 1 has PARTIAL_SUMS 16 interleaved partial sums and a fixed tree, the bits of the CPU backend. Step 2
// has one partial sum a lane, added in a fixed order: other bits than step 1, the same on every device. A head depends on
// itself alone.
#include "math.cuh"

// The first column of head `norm`, of all heads of all rows.
template <class E>
DEVICE E* head_start(E* x, u32 norm, u32 columns, u32 heads, u32 head_dim) {
  return x + static_cast<u64>(norm / heads) * columns + static_cast<u64>(norm % heads) * head_dim;
}

template <class E>
DEVICE void rms_norm_heads(E* x, const float* scale, u32 norms, u32 columns, u32 heads, u32 head_dim, float eps) {
  SHARED_ARRAY(float, partial, PARTIAL_SUMS);
  SHARED_ARRAY(float, inverse, 1);
  if (blockIdx.x >= norms) return;
  E* head = head_start(x, blockIdx.x, columns, heads, head_dim);
  if (threadIdx.x < PARTIAL_SUMS) {
    float sum = 0.0f;
    for (u32 column = threadIdx.x; column < head_dim; column += PARTIAL_SUMS) {
      const float value = to_float(head[column]);
      sum = fmaf(value, value, sum);
    }
    partial[threadIdx.x] = sum;
  }
  __syncthreads();
  if (threadIdx.x == 0) inverse[0] = 1.0f / sqrtf(tree_reduce_sum(partial) / static_cast<float>(head_dim) + eps);
  __syncthreads();
  for (u32 column = threadIdx.x; column < head_dim; column += blockDim.x) {
    head[column] = from_float<E>(to_float(head[column]) * inverse[0] * scale[column]);
  }
}

template <class E>
DEVICE void rms_norm_heads_wide(E* x, const float* scale, u32 norms, u32 columns, u32 heads, u32 head_dim, float eps) {
  const u32 lane = threadIdx.x % 32;
  const u32 norm = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
  // The whole warp: there is no barrier of the block.
  if (norm >= norms) return;
  E* head = head_start(x, norm, columns, heads, head_dim);
  float values[VEC<E>];
  float sum = 0.0f;
  for (u32 column = lane * VEC<E>; column < head_dim; column += 32 * VEC<E>) {
    load_vec(head + column, values);
#pragma unroll
    for (u32 i = 0; i < VEC<E>; i++) sum = fmaf(values[i], values[i], sum);
  }
  sum = warp_reduce_sum(sum);
  const float inverse = 1.0f / sqrtf(sum / static_cast<float>(head_dim) + eps);
  // A lane overwrites the columns that it has read, and no others.
  for (u32 column = lane * VEC<E>; column < head_dim; column += 32 * VEC<E>) {
    float scales[VEC<E>];
    load_vec(head + column, values);
    load_floats(scale + column, scales);
#pragma unroll
    for (u32 i = 0; i < VEC<E>; i++) values[i] = values[i] * inverse * scales[i];
    store_vec(head + column, values);
  }
}

#define RMS_NORM_HEADS_KERNEL(name, E, body)                                                          \
  KERNEL __launch_bounds__(128) name(E* __restrict__ x, const float* __restrict__ scale, u32 norms,   \
                                     u32 columns, u32 heads, u32 head_dim, float eps) {               \
    body<E>(x, scale, norms, columns, heads, head_dim, eps);                                          \
  }                                                                                                   \
  REGISTER_KERNEL(name);

RMS_NORM_HEADS_KERNEL(rms_norm_heads_f32, float, rms_norm_heads)
RMS_NORM_HEADS_KERNEL(rms_norm_heads_f16, f16, rms_norm_heads)
RMS_NORM_HEADS_KERNEL(rms_norm_heads_bf16, bf16, rms_norm_heads)
RMS_NORM_HEADS_KERNEL(rms_norm_heads_wide_f32, float, rms_norm_heads_wide)
RMS_NORM_HEADS_KERNEL(rms_norm_heads_wide_f16, f16, rms_norm_heads_wide)
RMS_NORM_HEADS_KERNEL(rms_norm_heads_wide_bf16, bf16, rms_norm_heads_wide)
