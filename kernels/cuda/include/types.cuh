// Storage types of the kernels, their conversions, and loads and stores of 16 bytes.
//
// Headers of this directory have two halves: the one here is for a device, the one in emulator/ has the same functions in
// plain C++, so that tests execute the same kernel sources on a CPU. Kernels include headers of this directory and nothing
// else; no header of a CUDA toolkit is needed to compile them.
//
// Pointer parameters of kernels are __restrict__: the backend passes written buffers as `&mut`, so no other argument of the
// launch is the same buffer. Operations in place, such as rope, have one pointer.
//
// Kernels are compiled with --fmad=false: where a multiplication and an addition are fused the source says `fmaf`.
#pragma once

using u32 = unsigned int;
using u64 = unsigned long long;

// Arithmetic is in f32; `from_float` rounds to nearest, ties to even.
struct bf16 {
  unsigned short bits;
};
struct f16 {
  unsigned short bits;
};

#if defined(__CUDACC__) || defined(__CUDACC_RTC__)

#define KERNEL extern "C" __global__ void
// A kernel whose blocks run in clusters of `size` blocks, neighbors in x.
#define KERNEL_WITH_CLUSTER(name, size) KERNEL __cluster_dims__(size, 1, 1)
#define GRID_CONSTANT const __grid_constant__
#define DEVICE static __device__ __forceinline__
#define SHARED_ARRAY(type, name, count) __shared__ type name[count]
#define DYNAMIC_SHARED(type, name)                               \
  extern __shared__ __align__(128) unsigned char shared_bytes[]; \
  type* name = reinterpret_cast<type*>(shared_bytes)
#define REGISTER_KERNEL(name)

DEVICE float bits_to_float(u32 bits) { return __uint_as_float(bits); }
DEVICE u32 float_to_bits(float value) { return __float_as_uint(value); }

DEVICE float to_float(float value) { return value; }
DEVICE float to_float(bf16 value) { return bits_to_float(static_cast<u32>(value.bits) << 16); }
DEVICE float to_float(f16 value) {
  float wide;
  asm("cvt.f32.f16 %0, %1;" : "=f"(wide) : "h"(value.bits));
  return wide;
}

template <class E>
__device__ E from_float(float value);
template <>
__device__ __forceinline__ float from_float<float>(float value) {
  return value;
}
template <>
__device__ __forceinline__ bf16 from_float<bf16>(float value) {
  bf16 narrow;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(narrow.bits) : "f"(value));
  return narrow;
}
template <>
__device__ __forceinline__ f16 from_float<f16>(float value) {
  f16 narrow;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(narrow.bits) : "f"(value));
  return narrow;
}
// Two rounded elements in 32 bits, `low` at the lower address.
template <class E>
__device__ u32 pack_pair(float low, float high);
template <>
__device__ __forceinline__ u32 pack_pair<bf16>(float low, float high) {
  u32 pair;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
}
template <>
__device__ __forceinline__ u32 pack_pair<f16>(float low, float high) {
  u32 pair;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
}

#else
#include "emulator/types.h"
#endif

// ---- both halves

// The bits of an element as it is stored.
DEVICE u32 bits_of(float value) { return float_to_bits(value); }
template <class E>
DEVICE u32 bits_of(E value) {
  return value.bits;
}

// Elements of a vector access: 16 bytes, at an address that is a multiple of 16.
template <class E>
constexpr u32 VEC = 16 / sizeof(E);

DEVICE void unpack_word(u32 word, float* to, float) { to[0] = bits_to_float(word); }
template <class E>
DEVICE void unpack_word(u32 word, float* to, E) {
  to[0] = to_float(E{static_cast<unsigned short>(word)});
  to[1] = to_float(E{static_cast<unsigned short>(word >> 16)});
}
DEVICE u32 pack_word(const float* from, float) { return float_to_bits(from[0]); }
template <class E>
DEVICE u32 pack_word(const float* from, E) {
  return pack_pair<E>(from[0], from[1]);
}
template <class E>
DEVICE void unpack_vec(const uint4& words, float (&values)[VEC<E>]) {
  constexpr u32 IN_A_WORD = 4 / sizeof(E);
  unpack_word(words.x, values, E{});
  unpack_word(words.y, values + IN_A_WORD, E{});
  unpack_word(words.z, values + 2 * IN_A_WORD, E{});
  unpack_word(words.w, values + 3 * IN_A_WORD, E{});
}
template <class E>
DEVICE void load_vec(const E* from, float (&values)[VEC<E>]) {
  const uint4 words = *reinterpret_cast<const uint4*>(from);
  unpack_vec<E>(words, values);
}
template <class E>
DEVICE void store_vec(E* to, const float (&values)[VEC<E>]) {
  constexpr u32 IN_A_WORD = 4 / sizeof(E);
  const uint4 words = {pack_word(values, E{}), pack_word(values + IN_A_WORD, E{}),
                       pack_word(values + 2 * IN_A_WORD, E{}), pack_word(values + 3 * IN_A_WORD, E{})};
  *reinterpret_cast<uint4*>(to) = words;
}
// Two floats, at an address that is a multiple of 8.
DEVICE void load_two(const float* from, float (&values)[2]) {
  const uint2 words = *reinterpret_cast<const uint2*>(from);
  values[0] = bits_to_float(words.x);
  values[1] = bits_to_float(words.y);
}
// `COUNT` floats, a multiple of four, by vector loads.
template <u32 COUNT>
DEVICE void load_floats(const float* from, float (&values)[COUNT]) {
#pragma unroll
  for (u32 i = 0; i < COUNT; i += 4) {
    float four[4];
    load_vec(from + i, four);
#pragma unroll
    for (u32 j = 0; j < 4; j++) values[i + j] = four[j];
  }
}
