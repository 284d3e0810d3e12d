// LayerNorm (Ba et al. 2016): out = (x - mean(x)) / sqrt(variance(x) + eps) * scale + bias, row by row, biased variance.
// Step 1, layer_norm_TYPE: 16 threads sum.                                                        not measured yet
// Step 2, layer_norm_wide_TYPE: 16 bytes a thread, warp shuffles.                                 not measured yet
//
// x and out are [rows, columns], scale and bias f32 [columns]. The variance is the mean of squared differences from the
// mean: the mean square less the squared mean would cancel. Step 2 needs rows of a multiple of 16 bytes. Both read x three
// times.
// Launch: grid (rows), 128 threads in step 1, 256 in step 2; 68 and 64 bytes of static shared memory. No pipeline.
// Determinism: step 1 has PARTIAL_SUMS 16 interleaved partial sums and a fixed tree, the bits of the CPU backend. Step 2
// has one partial sum a thread, added in a fixed order: other bits than step 1, the same on every device. A row depends on
// itself alone.
#include "math.cuh"

template <class E>
DEVICE void layer_norm(const E* x, const float* scale, const float* bias, u32 columns, float eps, E* out) {
  SHARED_ARRAY(float, partial, PARTIAL_SUMS);
  SHARED_ARRAY(float, statistic, 1);
  const E* row = x + static_cast<u64>(blockIdx.x) * columns;
  if (threadIdx.x < PARTIAL_SUMS) {
    float sum = 0.0f;
    for (u32 column = threadIdx.x; column < columns; column += PARTIAL_SUMS) sum += to_float(row[column]);
    partial[threadIdx.x] = sum;
  }
  __syncthreads();
  if (threadIdx.x == 0) statistic[0] = tree_reduce_sum(partial) / static_cast<float>(columns);
  __syncthreads();
  const float mean = statistic[0];
  if (threadIdx.x < PARTIAL_SUMS) {
    float sum = 0.0f;
    for (u32 column = threadIdx.x; column < columns; column += PARTIAL_SUMS) {
      const float difference = to_float(row[column]) - mean;
      sum = fmaf(difference, difference, sum);
    }
    partial[threadIdx.x] = sum;
  }
  // All threads have read the mean, which the inverse overwrites.
  __syncthreads();
  if (threadIdx.x == 0) statistic[0] = 1.0f / sqrtf(tree_reduce_sum(partial) / static_cast<float>(columns) + eps);
  __syncthreads();
  for (u32 column = threadIdx.x; column < columns; column += blockDim.x) {
    const float normalized = (to_float(row[column]) - mean) * statistic[0];
    out[static_cast<u64>(blockIdx.x) * columns + column] =
        from_float<E>(fmaf(normalized, scale[column], bias[column]));
  }
}

constexpr u32 VEC_THREADS = 256;

// The sum over the threads of the block, in every thread. `warp_sums` is written once.
DEVICE float block_reduce_sum(float sum, float* warp_sums) {
  sum = warp_reduce_sum(sum);
  if (threadIdx.x % 32 == 0) warp_sums[threadIdx.x / 32] = sum;
  __syncthreads();
  sum = warp_sums[0];
#pragma unroll
  for (u32 warp = 1; warp < VEC_THREADS / 32; warp++) sum += warp_sums[warp];
  return sum;
}

template <class E>
DEVICE void layer_norm_wide(const E* x, const float* scale, const float* bias, u32 columns, float eps, E* out) {
  // One array for each sum: a warp may write the second while another one still reads the first.
  SHARED_ARRAY(float, warp_sums, VEC_THREADS / 32);
  SHARED_ARRAY(float, warp_squares, VEC_THREADS / 32);
  const E* row = x + static_cast<u64>(blockIdx.x) * columns;
  E* out_row = out + static_cast<u64>(blockIdx.x) * columns;
  float values[VEC<E>];
  float sum = 0.0f;
  for (u32 column = threadIdx.x * VEC<E>; column < columns; column += VEC_THREADS * VEC<E>) {
    load_vec(row + column, values);
#pragma unroll
    for (u32 i = 0; i < VEC<E>; i++) sum += values[i];
  }
  const float mean = block_reduce_sum(sum, warp_sums) / static_cast<float>(columns);
  float squares = 0.0f;
  for (u32 column = threadIdx.x * VEC<E>; column < columns; column += VEC_THREADS * VEC<E>) {
    load_vec(row + column, values);
#pragma unroll
    for (u32 i = 0; i < VEC<E>; i++) squares = fmaf(values[i] - mean, values[i] - mean, squares);
  }
  const float variance = block_reduce_sum(squares, warp_squares) / static_cast<float>(columns);
  const float inverse = 1.0f / sqrtf(variance + eps);
  for (u32 column = threadIdx.x * VEC<E>; column < columns; column += VEC_THREADS * VEC<E>) {
    float scales[VEC<E>], biases[VEC<E>];
    load_vec(row + column, values);
    load_floats(scale + column, scales);
    load_floats(bias + column, biases);
#pragma unroll
    for (u32 i = 0; i < VEC<E>; i++) values[i] = fmaf((values[i] - mean) * inverse, scales[i], biases[i]);
    store_vec(out_row + column, values);
  }
}

#define LAYER_NORM_KERNEL(name, E, threads, body)                                                                  \
  KERNEL __launch_bounds__(threads)                                                                                \
      name(const E* __restrict__ x, const float* __restrict__ scale, const float* __restrict__ bias, u32 columns, \
           float eps, E* __restrict__ out) {                                                                       \
    body<E>(x, scale, bias, columns, eps, out);                                                                    \
  }                                                                                                                \
  REGISTER_KERNEL(name);

LAYER_NORM_KERNEL(layer_norm_f32, float, 128, layer_norm)
LAYER_NORM_KERNEL(layer_norm_f16, f16, 128, layer_norm)
LAYER_NORM_KERNEL(layer_norm_bf16, bf16, 128, layer_norm)
LAYER_NORM_KERNEL(layer_norm_wide_f32, float, 256, layer_norm_wide)
LAYER_NORM_KERNEL(layer_norm_wide_f16, f16, 256, layer_norm_wide)
LAYER_NORM_KERNEL(layer_norm_wide_bf16, bf16, 256, layer_norm_wide)
