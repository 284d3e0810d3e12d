// GEMM out[M,N] = x[M,K] . w[N,K]^T with the epilogues bias, activation, residual and gated activation, f32, f16 or bf16 in,
// f32 accumulate.
// Step 1: naive, one output a thread.          H100, M = 256, bf16: 0.48 to 0.50 TFLOP/s, f32: 0.50 TFLOP/s
//   (step 2 linear_mma.cu: mma.sync, 247 to 299 TFLOP/s;  step 3 linear_wgmma.cu: TMA + WGMMA, 705 to 766 TFLOP/s)
//
// x is [M, K], w [N, K], bias f32 [N] or null, out [M, out_features].
//   linear           out = activation(x w^T + bias)                               N = out_features
//   linear_residual  out = out + (x w^T + bias)                                   N = out_features
//   linear_gated     out = activation(x gate^T + gate_bias) * (x up^T + up_bias)  N = 2 * out_features
//                    w interleaves the rows of gate and up, bias is [gate_bias | up_bias]
//   linear_qkv       [query | key_value] = x w^T + bias, columns first to end - 1 of it; heads before column `rotated` by the
//                    rotary embedding of rope.cu; rounded before the rotation as well, as by the CPU backend
// `activation` is a number of enum Activation: none for `linear` alone, ignored by linear_residual.
//
// Launch: grid (M, ceil(out_features / 128)), or (M, ceil((end - first) / 128)), 128 threads. No tile, no shared memory,
// no pipeline.
// Determinism: each accumulator is one chain of fused multiply-adds in the order of K. A row has the bits of the CPU
// backend and does not depend on M. In f32 this is the only step: tensor cores would round its inputs to tf32.
// Measured: docs/measurements/gpu/kernels.txt, NVIDIA H100 80GB HBM3 (SXM), shapes of an 8B model, SiLU in
// linear_gated; the other activations are not measured yet.
#include "math.cuh"

template <class E>
DEVICE float dot(const E* x, const E* w, u32 K) {
  float sum = 0.0f;
  for (u32 k = 0; k < K; k++) sum = fmaf(to_float(x[k]), to_float(w[k]), sum);
  return sum;
}

template <class E, bool RESIDUAL>
DEVICE void linear(const E* x, const E* w, const float* bias, u32 K, u32 out_features, u32 activation, E* out) {
  const u32 n = blockIdx.y * blockDim.x + threadIdx.x;
  if (n >= out_features) return;
  float value = dot(x + static_cast<u64>(blockIdx.x) * K, w + static_cast<u64>(n) * K, K);
  if (bias) value += bias[n];
  if (!RESIDUAL) value = activate(value, activation);
  E* stored = out + static_cast<u64>(blockIdx.x) * out_features + n;
  *stored = from_float<E>(RESIDUAL ? to_float(*stored) + value : value);
}

template <class E>
DEVICE void gated(const E* x, const E* w, const float* bias, u32 K, u32 out_features, u32 activation, E* out) {
  const u32 n = blockIdx.y * blockDim.x + threadIdx.x;
  if (n >= out_features) return;
  const E* row = x + static_cast<u64>(blockIdx.x) * K;
  float gate = dot(row, w + static_cast<u64>(2 * n) * K, K);
  float up = dot(row, w + static_cast<u64>(2 * n + 1) * K, K);
  if (bias) {
    gate += bias[n];
    up += bias[out_features + n];
  }
  out[static_cast<u64>(blockIdx.x) * out_features + n] = from_float<E>(activate(gate, activation) * up);
}

#define LINEAR_KERNEL(name, E, body)                                                                                   \
  KERNEL __launch_bounds__(128) name(const E* __restrict__ x, const E* __restrict__ w, const float* __restrict__ bias, \
                                     u32 K, u32 out_features, u32 activation, E* __restrict__ out) {                   \
    body(x, w, bias, K, out_features, activation, out);                                                                \
  }                                                                                                                    \
  REGISTER_KERNEL(name);

// The thread of the first column of a pair computes the second one, too.
template <class E>
DEVICE void qkv(const E* x, const E* w, const float* bias, u32 K, u32 first, u32 end, u32 query_width, u32 kv_width,
                const u32* positions, const float* cos, const float* sin, u32 rotated, u32 head_dim, u32 rotary_dim,
                E* query, E* key_value) {
  const u32 n = first + blockIdx.y * blockDim.x + threadIdx.x;
  if (n >= end) return;
  const u64 row = blockIdx.x;
  const u32 half = rotary_dim / 2;
  const u32 in_head = n < rotated ? n % head_dim : rotary_dim;
  auto rounded = [&](u32 column) {
    const float sum = dot(x + row * K, w + static_cast<u64>(column) * K, K);
    return to_float(from_float<E>(bias ? sum + bias[column] : sum));
  };
  auto store = [&](u32 column, float value) {
    E* stored = column < query_width ? query + row * query_width + column
                                     : key_value + row * kv_width + (column - query_width);
    *stored = from_float<E>(value);
  };
  if (in_head >= half && in_head < rotary_dim) return;
  const float a = rounded(n);
  if (in_head >= half) {
    store(n, a);
    return;
  }
  const u64 angle = static_cast<u64>(positions[row]) * half + in_head;
  const float b = rounded(n + half), c = cos[angle], s = sin[angle];
  store(n, fmaf(a, c, -(b * s)));
  store(n + half, fmaf(b, c, a * s));
}

LINEAR_KERNEL(linear_f32, float, (linear<float, false>))
LINEAR_KERNEL(linear_f16, f16, (linear<f16, false>))
LINEAR_KERNEL(linear_bf16, bf16, (linear<bf16, false>))
LINEAR_KERNEL(linear_residual_f32, float, (linear<float, true>))
LINEAR_KERNEL(linear_residual_f16, f16, (linear<f16, true>))
LINEAR_KERNEL(linear_residual_bf16, bf16, (linear<bf16, true>))
LINEAR_KERNEL(linear_gated_f32, float, gated<float>)
LINEAR_KERNEL(linear_gated_f16, f16, gated<f16>)
LINEAR_KERNEL(linear_gated_bf16, bf16, gated<bf16>)

#define LINEAR_QKV_KERNEL(qkv_name, E)                                                                                 \
  KERNEL __launch_bounds__(128)                                                                                        \
      qkv_name(const E* __restrict__ x, const E* __restrict__ w, const float* __restrict__ bias, u32 K, u32 first,     \
               u32 end, u32 query_width, u32 kv_width, const u32* __restrict__ positions,                              \
               const float* __restrict__ cos, const float* __restrict__ sin, u32 rotated, u32 head_dim, u32 rotary_dim, \
               E* __restrict__ query, E* __restrict__ key_value) {                                                     \
    qkv<E>(x, w, bias, K, first, end, query_width, kv_width, positions, cos, sin, rotated, head_dim, rotary_dim,       \
           query, key_value);                                                                                          \
  }                                                                                                                    \
  REGISTER_KERNEL(qkv_name);

LINEAR_QKV_KERNEL(linear_qkv_f32, float)
LINEAR_QKV_KERNEL(linear_qkv_f16, f16)
LINEAR_QKV_KERNEL(linear_qkv_bf16, bf16)
