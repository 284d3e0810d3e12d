// Products with weights and their epilogues: bias, residual, SwiGLU.
//
// x is [rows, inputs], weights [outputs, inputs], bias f32 [outputs] or null, out [rows, outputs].
//   linear           out = x W^T + bias
//   linear_residual  out = out + (x W^T + bias)
//   linear_swiglu    out = silu(x G^T + bias_gate) * (x U^T + bias_up); weights [2 * outputs, inputs] hold the rows of
//                    G and U in turn, bias is [bias_gate | bias_up]
// Each sum is one chain of fused multiply-adds in input order, so the bits are the CPU backend's and a row's own.
// Launch: 128 threads a block, one an output; grid (rows, ceil(outputs / 128)).
// Version 1, plain: no tiles. For f16 and bf16 there are version 2, linear_mma.cu, on the tensor cores of every device, and
// version 3, linear_wgmma.cu, on those of sm_90. In f32 this one alone keeps all bits: tensor cores would round its inputs.
#include "prelude.cuh"

template <class E>
DEVICE float dot(const E* x, const E* weights, u32 inputs) {
  float sum = 0.0f;
  for (u32 input = 0; input < inputs; input++) sum = fmaf(to_float(x[input]), to_float(weights[input]), sum);
  return sum;
}

template <class E, bool ADDS_TO_OUT>
DEVICE void linear(const E* x, const E* weights, const float* bias, u32 inputs, u32 outputs, E* out) {
  const u32 output = blockIdx.y * blockDim.x + threadIdx.x;
  if (output >= outputs) return;
  float value = dot(x + static_cast<u64>(blockIdx.x) * inputs, weights + static_cast<u64>(output) * inputs, inputs);
  if (bias) value += bias[output];
  E* stored = out + static_cast<u64>(blockIdx.x) * outputs + output;
  *stored = from_float<E>(ADDS_TO_OUT ? to_float(*stored) + value : value);
}

template <class E>
DEVICE void swiglu(const E* x, const E* weights, const float* bias, u32 inputs, u32 outputs, E* out) {
  const u32 output = blockIdx.y * blockDim.x + threadIdx.x;
  if (output >= outputs) return;
  const E* row = x + static_cast<u64>(blockIdx.x) * inputs;
  float gate = dot(row, weights + static_cast<u64>(2 * output) * inputs, inputs);
  float up = dot(row, weights + static_cast<u64>(2 * output + 1) * inputs, inputs);
  if (bias) {
    gate += bias[output];
    up += bias[outputs + output];
  }
  out[static_cast<u64>(blockIdx.x) * outputs + output] = from_float<E>(silu(gate) * up);
}

#define LINEAR_KERNEL(name, E, body)                                                                        \
  KERNEL __launch_bounds__(128) name(const E* x, const E* weights, const float* bias, u32 inputs, u32 outputs, \
                                     E* out) {                                                              \
    body(x, weights, bias, inputs, outputs, out);                                                           \
  }                                                                                                         \
  REGISTER_KERNEL(name);

LINEAR_KERNEL(linear_f32, float, (linear<float, false>))
LINEAR_KERNEL(linear_f16, f16, (linear<f16, false>))
LINEAR_KERNEL(linear_bf16, bf16, (linear<bf16, false>))
LINEAR_KERNEL(linear_residual_f32, float, (linear<float, true>))
LINEAR_KERNEL(linear_residual_f16, f16, (linear<f16, true>))
LINEAR_KERNEL(linear_residual_bf16, bf16, (linear<bf16, true>))
LINEAR_KERNEL(linear_swiglu_f32, float, swiglu<float>)
LINEAR_KERNEL(linear_swiglu_f16, f16, swiglu<f16>)
LINEAR_KERNEL(linear_swiglu_bf16, bf16, swiglu<bf16>)
