// RMSNorm (Zhang & Sennrich 2019): out = x / sqrt(mean(x^2) + eps) * scale, row by row. rms_norm_residual adds it to out in
// f32 and rounds once, for models that normalize the outputs of blocks (Gemma 2, OLMo 2).
// Step 1, rms_norm_TYPE: 16 threads sum the squares.              H100, 4096 x 4096 bf16: 783 GB/s (27 % of a copy)
// Step 2, rms_norm_wide_TYPE: 16 bytes a thread, warp shuffles.   H100, 4096 x 4096 bf16: 2356 GB/s (81 % of a copy)
//
// x and out are [rows, columns], scale is f32 [columns]. Step 2 needs rows of a multiple of 16 bytes; it reads x twice.
// Launch: grid (rows), 128 threads in step 1, 256 in step 2; 68 and 32 bytes of static shared memory. No pipeline.
// Determinism: step 1 has PARTIAL_SUMS 16 interleaved partial sums and a fixed tree, the bits of the CPU backend. Step 2
// has one partial sum a thread, added in a fixed order: other bits than step 1, the same on every device. A row depends on
// itself alone.
// Measured: docs/measurements/gpu/kernels.txt, NVIDIA H100 80GB HBM3 (SXM). rms_norm_residual is not measured yet.
#include "math.cuh"

template <class E, bool RESIDUAL>
DEVICE void rms_norm(const E* x, const float* scale, u32 columns, float eps, E* out) {
  SHARED_ARRAY(float, partial, PARTIAL_SUMS);
  SHARED_ARRAY(float, inverse, 1);
  const E* row = x + static_cast<u64>(blockIdx.x) * columns;
  if (threadIdx.x < PARTIAL_SUMS) {
    float sum = 0.0f;
    for (u32 column = threadIdx.x; column < columns; column += PARTIAL_SUMS) {
      const float value = to_float(row[column]);
      sum = fmaf(value, value, sum);
    }
    partial[threadIdx.x] = sum;
  }
  __syncthreads();
  if (threadIdx.x == 0) inverse[0] = 1.0f / sqrtf(tree_reduce_sum(partial) / static_cast<float>(columns) + eps);
  __syncthreads();
  for (u32 column = threadIdx.x; column < columns; column += blockDim.x) {
    const float value = to_float(row[column]) * inverse[0] * scale[column];
    E* stored = out + static_cast<u64>(blockIdx.x) * columns + column;
    *stored = from_float<E>(RESIDUAL ? to_float(*stored) + value : value);
  }
}

constexpr u32 VEC_THREADS = 256;

template <class E, bool RESIDUAL>
DEVICE void rms_norm_wide(const E* x, const float* scale, u32 columns, float eps, E* out) {
  SHARED_ARRAY(float, warp_sums, VEC_THREADS / 32);
  const E* row = x + static_cast<u64>(blockIdx.x) * columns;
  E* out_row = out + static_cast<u64>(blockIdx.x) * columns;
  float values[VEC<E>];
  float sum = 0.0f;
  for (u32 column = threadIdx.x * VEC<E>; column < columns; column += VEC_THREADS * VEC<E>) {
    load_vec(row + column, values);
#pragma unroll
    for (u32 i = 0; i < VEC<E>; i++) sum = fmaf(values[i], values[i], sum);
  }
  sum = warp_reduce_sum(sum);
  if (threadIdx.x % 32 == 0) warp_sums[threadIdx.x / 32] = sum;
  __syncthreads();
  sum = warp_sums[0];
#pragma unroll
  for (u32 warp = 1; warp < VEC_THREADS / 32; warp++) sum += warp_sums[warp];
  const float inverse = 1.0f / sqrtf(sum / static_cast<float>(columns) + eps);
  for (u32 column = threadIdx.x * VEC<E>; column < columns; column += VEC_THREADS * VEC<E>) {
    float scales[VEC<E>];
    load_vec(row + column, values);
    load_floats(scale + column, scales);
#pragma unroll
    for (u32 i = 0; i < VEC<E>; i++) values[i] = values[i] * inverse * scales[i];
    if (RESIDUAL) {
      float old[VEC<E>];
      load_vec(out_row + column, old);
#pragma unroll
      for (u32 i = 0; i < VEC<E>; i++) values[i] = old[i] + values[i];
    }
    store_vec(out_row + column, values);
  }
}

#define RMS_NORM_KERNEL(name, E, threads, body)                                                                     \
  KERNEL __launch_bounds__(threads)                                                                                 \
      name(const E* __restrict__ x, const float* __restrict__ scale, u32 columns, float eps, E* __restrict__ out) { \
    body(x, scale, columns, eps, out);                                                                              \
  }                                                                                                                 \
  REGISTER_KERNEL(name);

RMS_NORM_KERNEL(rms_norm_f32, float, 128, (rms_norm<float, false>))
RMS_NORM_KERNEL(rms_norm_f16, f16, 128, (rms_norm<f16, false>))
RMS_NORM_KERNEL(rms_norm_bf16, bf16, 128, (rms_norm<bf16, false>))
RMS_NORM_KERNEL(rms_norm_wide_f32, float, 256, (rms_norm_wide<float, false>))
RMS_NORM_KERNEL(rms_norm_wide_f16, f16, 256, (rms_norm_wide<f16, false>))
RMS_NORM_KERNEL(rms_norm_wide_bf16, bf16, 256, (rms_norm_wide<bf16, false>))
RMS_NORM_KERNEL(rms_norm_residual_f32, float, 128, (rms_norm<float, true>))
RMS_NORM_KERNEL(rms_norm_residual_f16, f16, 128, (rms_norm<f16, true>))
RMS_NORM_KERNEL(rms_norm_residual_bf16, bf16, 128, (rms_norm<bf16, true>))
RMS_NORM_KERNEL(rms_norm_residual_wide_f32, float, 256, (rms_norm_wide<float, true>))
RMS_NORM_KERNEL(rms_norm_residual_wide_f16, f16, 256, (rms_norm_wide<f16, true>))
RMS_NORM_KERNEL(rms_norm_residual_wide_bf16, bf16, 256, (rms_norm_wide<bf16, true>))
