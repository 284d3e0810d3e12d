// Functions and reductions with a defined order and rounding.
//
// Kernels without `mma` use correctly rounded operations alone, and so give the same bits on every device and on the CPU.
#pragma once

#include "ptx.cuh"

// Interleaved partial sums of the CPU backend: value i is added to partial sum i % PARTIAL_SUMS.
constexpr u32 PARTIAL_SUMS = 16;

DEVICE float minus_infinity() { return bits_to_float(0xff800000u); }

// e^x for x <= 0 or moderate positive x, within 2 units in the last place: Cody and Waite's range reduction and the
// polynomial of Cephes' expf. The library's expf differs between a device and a CPU; this one is the CPU backend's.
DEVICE float exp_accurate(float x) {
  const float lowest = -87.33655f, highest = 88.37626f, round = 12582912.0f;
  float clamped = x;
  clamped = clamped < lowest ? lowest : clamped;
  clamped = clamped > highest ? highest : clamped;
  const float shifted = fmaf(clamped, 1.44269504088896341f, round);
  const float n = shifted - round;
  const float r = fmaf(n, 2.1219444e-4f, fmaf(n, -0.6933594f, clamped));
  float p = 1.9875691e-4f;
  p = fmaf(p, r, 1.3982e-3f);
  p = fmaf(p, r, 8.333452e-3f);
  p = fmaf(p, r, 4.1665796e-2f);
  p = fmaf(p, r, 1.6666665e-1f);
  p = fmaf(p, r, 5.0000003e-1f);
  const float value = fmaf(p, r * r, r) + 1.0f;
  // The low bits of the shifted value hold n.
  const float scaled = value * bits_to_float((float_to_bits(shifted) + 127) << 23);
  return x < lowest ? 0.0f : scaled;
}

// x / (1 + e^-x).
DEVICE float silu(float x) { return x / (1.0f + exp_accurate(-x)); }

// Adds the partial sums in the tree order of the CPU backend, by one thread. Overwrites them.
DEVICE float tree_reduce_sum(float* partial) {
  for (u32 width = PARTIAL_SUMS / 2; width > 0; width /= 2) {
    for (u32 i = 0; i < width; i++) partial[i] += partial[i + width];
  }
  return partial[0];
}

// The sum over the lanes of a warp, in every lane.
DEVICE float warp_reduce_sum(float value) {
#pragma unroll
  for (u32 lane_mask = 16; lane_mask > 0; lane_mask /= 2) value += shfl_xor(value, lane_mask);
  return value;
}
