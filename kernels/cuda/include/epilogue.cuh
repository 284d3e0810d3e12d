// Epilogues of the tensor-core GEMMs: bias, then an activation and a store, an addition to `out`, a gated activation, or
// the rotation of queries and keys.
//
// `column` is a column of the GEMM's N, in which GATED interleaves gate and up projection: columns `column` and
// `column + 1` make output `column / 2` of `out_features`. Its bias is [gate bias | up bias].
#pragma once

#include "math.cuh"

enum Epilogue { STORE, RESIDUAL, GATED, QKV };

// A GEMM whose columns are queries, then keys and values. Its columns `first` to `end - 1` are computed.
struct Qkv {
  u32 first, end;
  // Columns of queries, and of keys and values.
  u32 query_width, kv_width;
  // Position of each row, and f32 [positions, rotary_dim / 2] of the angles.
  const u32* positions;
  const float* cos;
  const float* sin;
  // Columns before it belong to heads that are rotated: those of queries and keys, or none.
  u32 rotated;
  // Columns of a head, and how many of them are rotated.
  u32 head_dim, rotary_dim;
};

// The operations of rope.cu, in f32 before the result is rounded.
DEVICE void rotate_pair(float& first, float& second, float c, float s) {
  const float a = first, b = second;
  first = fmaf(a, c, -(b * s));
  second = fmaf(b, c, a * s);
}

// The activation of most models, for which the epilogue is compiled without branches: none, and SiLU of a gated one.
template <Epilogue EPILOGUE>
constexpr Activation USUAL_ACTIVATION = EPILOGUE == GATED ? SILU : IDENTITY;

// Whether the epilogue is compiled for `activation` alone. RESIDUAL has none.
template <Epilogue EPILOGUE>
DEVICE bool is_usual(u32 activation) {
  return EPILOGUE == RESIDUAL || activation == USUAL_ACTIVATION<EPILOGUE>;
}

// Activations are by the special function unit: those of math.cuh, which have the CPU's bits, would make the code of an
// epilogue four times as long, and their IEEE division has a slow path that is a call, so that a thread's elements would
// be computed one after the other. The errors are far below the rounding to 16 bits.

// x / (1 + 2^(-x log2 e)), with an error of at most 2^-22 |x| and 1 unit in the last place. Below -87.3, where the
// reciprocal is subnormal, it is -0. NaN for minus infinity, as in PyTorch.
DEVICE float silu_approx(float x) { return x * rcp_approx(1.0f + ex2_approx(x * -1.44269504f)); }

// x / (1 + 2^(x (linear + cubic x^2))): SiLU and the tanh GELU, with an error of at most 2e-5 |x|. The bound of the square
// makes no infinity times 0. With `cubic` 0 it has the bits of `silu_approx`.
DEVICE float sigmoid_linear_approx(float x, float linear, float cubic) {
  return x * rcp_approx(1.0f + ex2_approx(x * fmaf(fminf(x * x, 1e30f), cubic, linear)));
}
DEVICE float gelu_approx(float x) {
  const float half = 0.5f * x;
  const float tail = 1.0f - ex2_approx(erf_exponent(fabsf(x) * 0.70710678118654752440f) * 1.44269504088896341f);
  return fmaf(half, x < 0.0f ? -tail : tail, half);
}

// Replaces values by their activation: the usual one, or with OTHER any one, by a uniform branch.
template <Epilogue EPILOGUE, bool OTHER, u32 COUNT>
DEVICE void activate_all(float (&values)[COUNT], u32 activation) {
  if (!OTHER) {
#pragma unroll
    for (u32 i = 0; EPILOGUE == GATED && i < COUNT; i++) values[i] = silu_approx(values[i]);
  } else if (activation == GELU) {
#pragma unroll
    for (u32 i = 0; i < COUNT; i++) values[i] = gelu_approx(values[i]);
  } else {
    // -log2 e, and -2 sqrt(2 / pi) log2 e without and with the factor 0.044715.
    const float linear = activation == SILU ? -1.44269504f : -2.3022082f;
    const float cubic = activation == SILU ? 0.0f : -0.10294324f;
#pragma unroll
    for (u32 i = 0; i < COUNT; i++) values[i] = sigmoid_linear_approx(values[i], linear, cubic);
  }
}

// RMSNorm folded into the GEMMs that read a stream: `squares` is f32 [rows, square_blocks(columns)] with the sum of the squares
// of each 64 columns of the stream, the last block may have fewer. RESIDUAL writes it, STORE and GATED read it and scale
// their accumulators by the row's 1 / sqrt(mean + eps); the norm's weights are in w.
// Order of a sum: of each half of 64 columns, lane q of four has one chain of fused multiply-adds over columns 8 j + 2 q and
// 8 j + 2 q + 1, j = 0 to 3; the four are added as (0 + 1) + (2 + 3), then the halves, and by the reader blocks in order.
constexpr u32 SQUARES_COLUMNS = 64;
DEVICE u32 square_blocks(u32 columns) { return (columns + SQUARES_COLUMNS - 1) / SQUARES_COLUMNS; }

// The sum over four neighboring lanes, in each of them.
DEVICE float quad_sum(float value) {
  value += shfl_xor(value, 1);
  return value + shfl_xor(value, 2);
}

// The factor of row `row` of a stream of `columns` columns.
DEVICE float row_scale(const float* squares, u64 row, u32 columns, float eps) {
  const u32 blocks = square_blocks(columns);
  float sum = 0.0f;
#pragma unroll 8
  for (u32 block = 0; block < blocks; block++) sum += squares[row * blocks + block];
  return rsqrt_approx(fmaf(sum, rcp_approx(static_cast<float>(columns)), eps));
}

// Two neighboring accumulators of a row, for any `out_features`; `column` is the first one's, an even number. RESIDUAL adds the
// squares of what it stores to `sum`.
template <class E, Epilogue EPILOGUE, bool OTHER>
DEVICE void store_pair(float first, float second, const float* bias, u64 row, u32 column, u32 out_features,
                       u32 activation, E* out, float& sum) {
  if (EPILOGUE == GATED) {
    const u32 output = column / 2;
    if (output >= out_features) return;
    float gate[1] = {bias ? first + bias[output] : first};
    const float up = bias ? second + bias[out_features + output] : second;
    activate_all<EPILOGUE, OTHER>(gate, activation);
    out[row * out_features + output] = from_float<E>(gate[0] * up);
    return;
  }
  E* stored = out + row * out_features + column;
  float values[2] = {first, second};
  if (bias && column < out_features) values[0] += bias[column];
  if (bias && column + 1 < out_features) values[1] += bias[column + 1];
  if (EPILOGUE == STORE) activate_all<EPILOGUE, OTHER>(values, activation);
#pragma unroll
  for (u32 i = 0; i < 2; i++) {
    if (column + i >= out_features) continue;
    const E rounded = from_float<E>(EPILOGUE == RESIDUAL ? to_float(stored[i]) + values[i] : values[i]);
    stored[i] = rounded;
    if (EPILOGUE == RESIDUAL) sum = fmaf(to_float(rounded), to_float(rounded), sum);
  }
}
