// The online softmax of attention on tensor cores, from scores to p: soft cap, masks, running maximum and sum.
//
// Scores are those of a thread's two rows in the accumulators of mma.sync and of wgmma: element i belongs to row i / 2 % 2 and to
// key i / 4 * 8 + i % 2 after `lane_key`, which is the first key of the block and twice the lane in its group of four.
#pragma once

#include "math.cuh"

// The scores of block `block` of eight keys, an accumulator of mma.m16n8.
template <u32 N>
DEVICE float (&block_of(float (&scores)[N], u32 block))[4] {
  return reinterpret_cast<float(&)[4]>(scores[block * 4]);
}

// e^x = 2^(x log2 e).
constexpr float LOG2_E = 1.44269504088896341f;

// Caps the scores, which are not scaled yet: soft_cap tanh(scale score / soft_cap), with tanh(x) = 1 - 2 / (e^2x + 1). It has a
// small absolute error, a few 1e-7, and a large relative one near 0: the softmax depends on differences of scores alone.
template <u32 N>
DEVICE void cap_scores(float (&scores)[N], float scale, float soft_cap) {
  const float power_scale = scale / soft_cap * (2.0f * LOG2_E);
#pragma unroll
  for (u32 i = 0; i < N; i++) {
    const float reciprocal = rcp_approx(1.0f + ex2_approx(scores[i] * power_scale));
    scores[i] = fmaf(-2.0f * soft_cap, reciprocal, soft_cap);
  }
}

// Masks the keys after the positions of the rows.
template <u32 N>
DEVICE void mask_after_position(float (&scores)[N], const u32 (&position)[2], u32 lane_key) {
#pragma unroll
  for (u32 i = 0; i < N; i++) {
    const u32 key = lane_key + i / 4 * 8 + i % 2;
    if (key > position[i / 2 % 2]) scores[i] = minus_infinity();
  }
}

// Masks the keys before the windows of the rows.
template <u32 N>
DEVICE void mask_before_window(float (&scores)[N], const u32 (&position)[2], u32 lane_key, u32 window) {
#pragma unroll
  for (u32 i = 0; i < N; i++) {
    const u32 key = lane_key + i / 4 * 8 + i % 2;
    if (key + window <= position[i / 2 % 2]) scores[i] = minus_infinity();
  }
}

// Replaces the scores of row `half` of the thread's two by p, and returns the factor of its output so far. `row_sum` is the thread's
// part of the sum. `scale` includes log2 e.
template <u32 N>
DEVICE float online_softmax(float (&scores)[N], u32 half, float& row_max, float& row_sum, float scale) {
  float largest = row_max;
#pragma unroll
  for (u32 i = 0; i < N / 4; i++) {
    largest = fmaxf(largest, scores[i * 4 + half * 2]);
    largest = fmaxf(largest, scores[i * 4 + half * 2 + 1]);
  }
  // Four lanes share a row.
  largest = fmaxf(largest, shfl_xor(largest, 1));
  largest = fmaxf(largest, shfl_xor(largest, 2));
  const float correction = ex2_approx((row_max - largest) * scale);
  row_max = largest;
  float sum = row_sum * correction;
#pragma unroll
  for (u32 i = 0; i < N / 4; i++) {
#pragma unroll
    for (u32 j = 0; j < 2; j++) {
      const float p = ex2_approx((scores[i * 4 + half * 2 + j] - largest) * scale);
      scores[i * 4 + half * 2 + j] = p;
      sum += p;
    }
  }
  row_sum = sum;
  return correction;
}
