// RMSNorm, Zhang & Sennrich 2019: out = x / sqrt(mean(x^2) + eps) * scale, a row at a time.
//
// x and out are [rows, columns], scale is f32 [columns]. The sum of squares has SUM_LANES interleaved lanes joined in
// a fixed order, as on the CPU, so the bits of version 1 are the CPU backend's.
// Version 1, plain: one lane of the sum a thread. Launch: one block of 128 threads a row.
// Version 2, wide: rows of a multiple of 16 bytes, 16 at a time by each thread; the sum has a lane a thread, joined in a
// fixed order. Launch: one block of 256 threads a row.
#include "prelude.cuh"

template <class E>
DEVICE void rms_norm(const E* x, const float* scale, u32 columns, float eps, E* out) {
  SHARED_ARRAY(float, lanes, SUM_LANES);
  SHARED_ARRAY(float, inverse, 1);
  const E* row = x + static_cast<u64>(blockIdx.x) * columns;
  if (threadIdx.x < SUM_LANES) {
    float sum = 0.0f;
    for (u32 column = threadIdx.x; column < columns; column += SUM_LANES) {
      const float value = to_float(row[column]);
      sum = fmaf(value, value, sum);
    }
    lanes[threadIdx.x] = sum;
  }
  __syncthreads();
  if (threadIdx.x == 0) inverse[0] = 1.0f / sqrtf(join_lanes(lanes) / static_cast<float>(columns) + eps);
  __syncthreads();
  for (u32 column = threadIdx.x; column < columns; column += blockDim.x) {
    const float value = to_float(row[column]) * inverse[0] * scale[column];
    out[static_cast<u64>(blockIdx.x) * columns + column] = from_float<E>(value);
  }
}

constexpr u32 WIDE_THREADS = 256;

template <class E>
DEVICE void rms_norm_wide(const E* x, const float* scale, u32 columns, float eps, E* out) {
  SHARED_ARRAY(float, warps, WIDE_THREADS / 32);
  const E* row = x + static_cast<u64>(blockIdx.x) * columns;
  E* out_row = out + static_cast<u64>(blockIdx.x) * columns;
  float values[WIDE<E>];
  float sum = 0.0f;
  for (u32 column = threadIdx.x * WIDE<E>; column < columns; column += WIDE_THREADS * WIDE<E>) {
    load_wide(row + column, values);
#pragma unroll
    for (u32 i = 0; i < WIDE<E>; i++) sum = fmaf(values[i], values[i], sum);
  }
#pragma unroll
  for (u32 distance = 16; distance > 0; distance /= 2) sum += shuffle_xor(sum, distance);
  if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = sum;
  __syncthreads();
  sum = warps[0];
#pragma unroll
  for (u32 warp = 1; warp < WIDE_THREADS / 32; warp++) sum += warps[warp];
  const float inverse = 1.0f / sqrtf(sum / static_cast<float>(columns) + eps);
  for (u32 column = threadIdx.x * WIDE<E>; column < columns; column += WIDE_THREADS * WIDE<E>) {
    float scales[WIDE<E>];
    load_wide(row + column, values);
    load_floats(scale + column, scales);
#pragma unroll
    for (u32 i = 0; i < WIDE<E>; i++) values[i] = values[i] * inverse * scales[i];
    store_wide(out_row + column, values);
  }
}

#define RMS_NORM_KERNEL(name, E, threads, body)                                                            \
  KERNEL __launch_bounds__(threads) name(const E* x, const float* scale, u32 columns, float eps, E* out) { \
    body<E>(x, scale, columns, eps, out);                                                                  \
  }                                                                                                        \
  REGISTER_KERNEL(name);

RMS_NORM_KERNEL(rms_norm_f32, float, 128, rms_norm)
RMS_NORM_KERNEL(rms_norm_f16, f16, 128, rms_norm)
RMS_NORM_KERNEL(rms_norm_bf16, bf16, 128, rms_norm)
RMS_NORM_KERNEL(rms_norm_wide_f32, float, 256, rms_norm_wide)
RMS_NORM_KERNEL(rms_norm_wide_f16, f16, 256, rms_norm_wide)
RMS_NORM_KERNEL(rms_norm_wide_bf16, bf16, 256, rms_norm_wide)
