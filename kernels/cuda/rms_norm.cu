// RMSNorm, Zhang & Sennrich 2019: out = x / sqrt(mean(x^2) + eps) * scale, a row at a time.
//
// x and out are [rows, columns], scale is f32 [columns]. The sum of squares has SUM_LANES interleaved lanes joined in
// a fixed order, as on the CPU, so the bits are the CPU backend's. Launch: one block of 128 threads a row.
// Version 1, plain: one lane of the sum a thread.
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

#define RMS_NORM_KERNEL(name, E)                                                                       \
  KERNEL __launch_bounds__(128) name(const E* x, const float* scale, u32 columns, float eps, E* out) { \
    rms_norm<E>(x, scale, columns, eps, out);                                                          \
  }                                                                                                    \
  REGISTER_KERNEL(name);

RMS_NORM_KERNEL(rms_norm_f32, float)
RMS_NORM_KERNEL(rms_norm_f16, f16)
RMS_NORM_KERNEL(rms_norm_bf16, bf16)
