// The emulator's half of include/ptx.cuh. Each function does what the PTX manual says of its instruction.
#pragma once

#include "emulator.h"

DEVICE float shfl_xor(float value, u32 lane_mask) {
  struct In {
    float value;
    u32 lane_mask;
  };
  return emulator::collective<In, float>("shfl", ~0u, In{value, lane_mask}, [](const In* in, float* out) {
    for (u32 lane = 0; lane < 32; lane++) out[lane] = in[(lane ^ in[lane].lane_mask) & 31].value;
  });
}
DEVICE u32 shfl_idx(u32 value, u32 lane) {
  return emulator::collective<uint2, u32>("shfl.idx", ~0u, uint2{value, lane}, [](const uint2* in, u32* out) {
    for (u32 lane = 0; lane < 32; lane++) out[lane] = in[in[lane].y & 31].x;
  });
}
DEVICE void syncwarp() {
  emulator::collective<u32, u32>("syncwarp", ~0u, 0, [](const u32*, u32*) {});
}
DEVICE u32 prmt(u32 low, u32 high, u32 selector) {
  const u64 bytes = static_cast<u64>(high) << 32 | low;
  u32 word = 0;
  for (u32 i = 0; i < 4; i++) word |= static_cast<u32>(bytes >> (selector >> 4 * i & 7) * 8 & 0xff) << 8 * i;
  return word;
}
// `.ftz`: subnormal operands and results are zeros of their sign.
DEVICE float flush_subnormal(float x) { return fabsf(x) < 1.17549435e-38f ? copysignf(0.0f, x) : x; }
DEVICE float ex2_approx(float x) { return flush_subnormal(exp2f(flush_subnormal(x))); }
DEVICE float rcp_approx(float x) { return flush_subnormal(1.0f / flush_subnormal(x)); }
DEVICE float rsqrt_approx(float x) { return flush_subnormal(1.0f / sqrtf(flush_subnormal(x))); }
DEVICE void atomic_min(u64* address, u64 value) {
  if (value < *address) *address = value;
}
DEVICE void atomic_max(u64* address, u64 value) {
  if (value > *address) *address = value;
}
DEVICE void atomic_add(u64* address, u64 value) { *address += value; }

DEVICE u32 shared_address(const void* pointer) { return emulator::shared_address(pointer, 1); }
DEVICE void cp_async_16(void* to_shared, const void* from_global, u32 bytes) {
  emulator::issue_cp_async(to_shared, from_global, bytes);
}
DEVICE void cp_async_commit_group() { emulator::cp_async_commit_group(); }
template <int N>
DEVICE void cp_async_wait_group() {
  emulator::cp_async_wait_group(N);
}

struct LdmatrixResult {
  u32 word[4];
};
template <bool TRANS>
DEVICE void ldmatrix_x4(u32 (&fragments)[4], const void* row) {
  if (emulator::shared_address(row, 16) % 16 != 0) emulator::fail("ldmatrix: an address is not a multiple of 16");
  const LdmatrixResult loaded = emulator::collective<const void*, LdmatrixResult>(
      TRANS ? "ldmatrix.trans" : "ldmatrix", ~0u, row, [](const void* const* rows, LdmatrixResult* out) {
        // Lanes 8m to 8m + 7 give the rows of matrix m; a lane gets two neighbors of row lane / 4.
        for (u32 matrix = 0; matrix < 4; matrix++) {
          for (u32 lane = 0; lane < 32; lane++) {
            u32 word = 0;
            for (u32 half = 0; half < 2; half++) {
              const u32 major = lane / 4, minor = lane % 4 * 2 + half;
              const u32 from_row = TRANS ? minor : major, from_column = TRANS ? major : minor;
              unsigned short element;
              std::memcpy(&element, static_cast<const char*>(rows[matrix * 8 + from_row]) + from_column * 2, 2);
              word |= static_cast<u32>(element) << (16 * half);
            }
            out[lane].word[matrix] = word;
          }
        }
      });
  for (int i = 0; i < 4; i++) fragments[i] = loaded.word[i];
}

// The operands of one lane.
struct EmulatedMmaInput {
  u32 a[4], b[2];
  float acc[4];
};
struct EmulatedMmaOutput {
  float acc[4];
};
template <class E>
inline void emulated_mma(const EmulatedMmaInput* in, EmulatedMmaOutput* out) {
  float a[16][16], b[16][8], acc[16][8];
  for (u32 lane = 0; lane < 32; lane++) {
    const u32 group = lane / 4, pair = lane % 4 * 2;
    for (u32 half = 0; half < 2; half++) {
      for (u32 i = 0; i < 4; i++) {
        const auto bits = static_cast<unsigned short>(in[lane].a[i] >> (16 * half));
        a[group + i % 2 * 8][pair + half + i / 2 * 8] = to_float(E{bits});
      }
      for (u32 i = 0; i < 2; i++) {
        const auto bits = static_cast<unsigned short>(in[lane].b[i] >> (16 * half));
        b[pair + half + i * 8][group] = to_float(E{bits});
      }
    }
    for (u32 i = 0; i < 4; i++) acc[group + i / 2 * 8][pair + i % 2] = in[lane].acc[i];
  }
  for (u32 row = 0; row < 16; row++) {
    for (u32 k = 0; k < 16; k++) {
      for (u32 column = 0; column < 8; column++) acc[row][column] += a[row][k] * b[k][column];
    }
  }
  for (u32 lane = 0; lane < 32; lane++) {
    for (u32 i = 0; i < 4; i++) out[lane].acc[i] = acc[lane / 4 + i / 2 * 8][lane % 4 * 2 + i % 2];
  }
}
template <class E>
DEVICE void mma_m16n8k16(float (&acc)[4], const u32 (&a)[4], u32 b0, u32 b1) {
  const EmulatedMmaInput in = {{a[0], a[1], a[2], a[3]}, {b0, b1}, {acc[0], acc[1], acc[2], acc[3]}};
  const auto out = emulator::collective<EmulatedMmaInput, EmulatedMmaOutput>("mma", ~0u, in, emulated_mma<E>);
  for (int i = 0; i < 4; i++) acc[i] = out.acc[i];
}
