// Epilogues of the tensor-core GEMMs: bias, then store, add to `out`, or SwiGLU.
//
// `column` is a column of the GEMM's N, in which SwiGLU interleaves gate and up projection: columns `column` and
// `column + 1` make output `column / 2` of `out_features`. Its bias is [gate bias | up bias].
#pragma once

#include "math.cuh"

enum Epilogue { STORE, RESIDUAL, SWIGLU };

// Two neighboring accumulators of a row, for any `out_features`; `column` is the first one's, an even number.
template <class E, Epilogue EPILOGUE>
DEVICE void store_pair(float first, float second, const float* bias, u64 row, u32 column, u32 out_features, E* out) {
  if (EPILOGUE == SWIGLU) {
    const u32 output = column / 2;
    if (output >= out_features) return;
    const float gate = bias ? first + bias[output] : first;
    const float up = bias ? second + bias[out_features + output] : second;
    out[row * out_features + output] = from_float<E>(silu(gate) * up);
    return;
  }
  E* stored = out + row * out_features + column;
  if (column < out_features) {
    if (bias) first += bias[column];
    stored[0] = from_float<E>(EPILOGUE == RESIDUAL ? to_float(stored[0]) + first : first);
  }
  if (column + 1 < out_features) {
    if (bias) second += bias[column + 1];
    stored[1] = from_float<E>(EPILOGUE == RESIDUAL ? to_float(stored[1]) + second : second);
  }
}

// Eight neighboring accumulators of a row, where `out_features` is a multiple of 8: one store of 16 bytes, of 8 bytes
// for SwiGLU.
template <class E, Epilogue EPILOGUE>
DEVICE void store_eight(float (&acc)[8], const float* bias, u64 row, u32 column, u32 out_features, E* out) {
  if (EPILOGUE == SWIGLU) {
    const u32 output = column / 2;
    if (output >= out_features) return;
    if (bias) {
      float gate_bias[4], up_bias[4];
      load_floats(bias + output, gate_bias);
      load_floats(bias + out_features + output, up_bias);
#pragma unroll
      for (u32 i = 0; i < 4; i++) {
        acc[i * 2] += gate_bias[i];
        acc[i * 2 + 1] += up_bias[i];
      }
    }
    float values[4];
#pragma unroll
    for (u32 i = 0; i < 4; i++) values[i] = silu(acc[i * 2]) * acc[i * 2 + 1];
    const uint2 words = {pack_pair<E>(values[0], values[1]), pack_pair<E>(values[2], values[3])};
    *reinterpret_cast<uint2*>(out + row * out_features + output) = words;
    return;
  }
  if (column >= out_features) return;
  E* stored = out + row * out_features + column;
  if (bias) {
    float biases[8];
    load_floats(bias + column, biases);
#pragma unroll
    for (u32 i = 0; i < 8; i++) acc[i] += biases[i];
  }
  if (EPILOGUE == RESIDUAL) {
    float old[8];
    load_vec(stored, old);
#pragma unroll
    for (u32 i = 0; i < 8; i++) acc[i] = old[i] + acc[i];
  }
  store_vec(stored, acc);
}
