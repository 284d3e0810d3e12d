// Functions and reductions with a defined order and rounding.
//
// Kernels without `mma` use correctly rounded operations alone, and so give the same bits on every device and on the CPU.
#pragma once

#include "ptx.cuh"

// Interleaved partial sums of the CPU backend: value i is added to partial sum i % PARTIAL_SUMS.
constexpr u32 PARTIAL_SUMS = 16;

DEVICE float minus_infinity() { return bits_to_float(0xff800000u); }
// The smallest finite value.
DEVICE float lowest_float() { return bits_to_float(0xff7fffffu); }

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

// ln(1 - erf(t)) for t >= 0, by a minimax polynomial for t > 0.93 by N. Juffa, the CPU backend's.
DEVICE float erf_exponent(float t) {
  float p = fmaf(-1.7285347e-5f, t, 3.8319713e-4f);
  p = fmaf(p, t * t, fmaf(-3.8839644e-3f, t, 2.4254622e-2f));
  p = fmaf(p, t, -1.0677788e-1f);
  p = fmaf(p, t, -6.348467e-1f);
  p = fmaf(p, t, -1.2871751e-1f);
  return fmaf(p, t, -t);
}

// The error function, with an absolute error below 6e-8: near 0 a polynomial for erf(x) / x - 1, also N. Juffa's, elsewhere
// `erf_exponent`. Both are computed and one is selected, as the CPU backend does.
DEVICE float erf_accurate(float x) {
  const float boundary = 0.9277344f;
  const float t = fabsf(x), square = x * x;
  const float tail = 1.0f - exp_accurate(erf_exponent(t));
  float q = -5.967617e-4f;
  q = fmaf(q, square, 4.9911942e-3f);
  q = fmaf(q, square, -2.6768135e-2f);
  q = fmaf(q, square, 1.12819925e-1f);
  q = fmaf(q, square, -3.7612534e-1f);
  q = fmaf(q, square, 1.2837917e-1f);
  const float center = fmaf(q, x, x);
  const float signed_tail = x < 0.0f ? -tail : tail;
  return t > boundary ? signed_tail : center;
}

// x (1 + erf(x / sqrt(2))) / 2, the GELU of Hendrycks and Gimpel 2016.
DEVICE float gelu(float x) {
  const float half = 0.5f * x;
  return fmaf(half, erf_accurate(x * 0.70710678118654752440f), half);
}

// x / 2 (1 + tanh(u)) with u = sqrt(2 / pi) (x + 0.044715 x^3), as x / (1 + e^-2u), in which nothing cancels.
DEVICE float gelu_tanh(float x) {
  const float twice_u = x * fmaf(x * x, 0.071354814f, 1.5957692f);
  return x / (1.0f + exp_accurate(-twice_u));
}

// The hyperbolic tangent, with a relative error below 2e-7: 1 - 2 / (e^2|x| + 1), and near 0, where that loses digits, the
// CPU backend's minimax polynomial for tanh(x) / x - 1 by N. Juffa.
DEVICE float tanh_accurate(float x) {
  const float boundary = 0.55f;
  const float t = fabsf(x), square = x * x;
  const float tail = 1.0f - 2.0f / (exp_accurate(t + t) + 1.0f);
  float p = 1.573944e-2f;
  p = fmaf(p, square, -5.2302558e-2f);
  p = fmaf(p, square, 1.3315247e-1f);
  p = fmaf(p, square, -3.3332768e-1f);
  const float center = fmaf(p * square, x, x);
  const float signed_tail = x < 0.0f ? -tail : tail;
  return t >= boundary ? signed_tail : center;
}

// cap tanh(score / cap), the limit of scores of Gemma 2.
DEVICE float soft_capped(float score, float cap) { return cap * tanh_accurate(score / cap); }

// The activation of an MLP, or none: the `activation` of the GEMMs.
enum Activation : u32 { IDENTITY, SILU, GELU, GELU_TANH };

template <Activation ACTIVATION>
DEVICE float activate(float x) {
  if (ACTIVATION == SILU) return silu(x);
  if (ACTIVATION == GELU) return gelu(x);
  if (ACTIVATION == GELU_TANH) return gelu_tanh(x);
  return x;
}

// The same with an activation that the host chooses.
DEVICE float activate(float x, u32 activation) {
  if (activation == SILU) return activate<SILU>(x);
  if (activation == GELU) return activate<GELU>(x);
  if (activation == GELU_TANH) return activate<GELU_TANH>(x);
  return x;
}

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

// Lowers `*note`, which starts at all ones, to four times `index` if the element is not finite, plus 0 for a NaN, 1 for an
// infinity and 2 for a negative one.
template <class To>
DEVICE void check_finite(To rounded, u64 index, u64* note) {
  const u32 bits = float_to_bits(to_float(rounded)), exponent = 0x7f800000u;
  if ((bits & exponent) != exponent) return;
  const u64 kind = (bits & 0x007fffffu) != 0 ? 0 : 1 + (bits >> 31);
  atomic_min(note, index * 4 + kind);
}
