// The emulator's half of include/types.cuh: the words of CUDA C++, conversions and packing.
#pragma once

#include "emulator.h"

#define __device__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __restrict__ __restrict

#define KERNEL static void
#define KERNEL_WITH_CLUSTER(name, size)                                                      \
  static const emulator::ClusterRegistration clusters_of_##name(KERNEL_PREFIX, #name, size); \
  KERNEL
#define GRID_CONSTANT const
#define DEVICE static inline
#define SHARED_ARRAY(type, name, count)              \
  static char name##_site;                           \
  type(&name)[count] = *static_cast<type(*)[count]>( \
      emulator::static_shared(&name##_site, sizeof(type) * (count), alignof(type) < 16 ? 16 : alignof(type)))
#define DYNAMIC_SHARED(type, name) type* name = reinterpret_cast<type*>(emulator::current->block->arena)
// The prefix distinguishes a mutant from its kernel; the build script sets it.
#define REGISTER_KERNEL(name)                                 \
  static const emulator::Registration registration_of_##name( \
      KERNEL_PREFIX, #name, [](void** arguments) { emulator::call(&name, arguments); }, emulator::sizes(&name))

#define threadIdx (emulator::current->thread)
#define blockIdx (emulator::current->block->index)
#define blockDim (emulator::block_size)
#define gridDim (emulator::grid_size)
#define __syncthreads() emulator::barrier(__FILE__, __LINE__)

struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};

DEVICE float bits_to_float(u32 bits) {
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}
DEVICE u32 float_to_bits(float value) {
  u32 bits;
  std::memcpy(&bits, &value, 4);
  return bits;
}

DEVICE float to_float(float value) { return value; }
DEVICE float to_float(bf16 value) { return bits_to_float(static_cast<u32>(value.bits) << 16); }
DEVICE float to_float(f16 value) {
  const u32 sign = (value.bits & 0x8000u) << 16, magnitude = value.bits & 0x7fffu;
  if (magnitude >= 0x7c00) return bits_to_float(sign | 0x7f800000u | (magnitude & 0x3ff) << 13);
  // 2^112 moves the exponent from the bias of f16 to that of f32; subnormals come out right as well.
  return bits_to_float(sign | float_to_bits(bits_to_float(magnitude << 13) * 5.192296858534828e33f));
}

template <class E>
E from_float(float value);
template <>
inline float from_float<float>(float value) {
  return value;
}
template <>
inline bf16 from_float<bf16>(float value) {
  const u32 bits = float_to_bits(value);
  if (value != value) return bf16{0x7fff};
  return bf16{static_cast<unsigned short>((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};
}
template <>
inline f16 from_float<f16>(float value) {
  const u32 bits = float_to_bits(value), sign = bits >> 16 & 0x8000, magnitude = bits & 0x7fffffff;
  u32 half;
  if (magnitude > 0x7f800000) {
    return f16{0x7fff};
  } else if (magnitude >= 0x477ff000) {
    half = 0x7c00;  // 65520 and above round to infinity
  } else if (magnitude < 0x38800000) {
    // Below 2^-14: adding 0.5 leaves the subnormal's bits, rounded to nearest even, at the end of the sum.
    half = float_to_bits(bits_to_float(magnitude) + 0.5f) - 0x3f000000u;
  } else {
    half = (magnitude - 0x38000000u + 0xfff + (magnitude >> 13 & 1)) >> 13;
  }
  return f16{static_cast<unsigned short>(sign | half)};
}
template <class E>
DEVICE u32 pack_pair(float low, float high) {
  return static_cast<u32>(from_float<E>(high).bits) << 16 | from_float<E>(low).bits;
}
