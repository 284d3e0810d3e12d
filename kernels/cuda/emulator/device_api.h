// What kernels may name, in terms of the emulator: the CUDA vocabulary and the wrappers that prelude.cuh has for a
// device. Each wrapper does what the PTX instruction of the device half is documented to do.
#pragma once

#include "emulator.h"

#define __device__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __restrict__ __restrict

#define KERNEL static void
#define KERNEL_OF_CLUSTERS(name, blocks)                                                           \
  static const emulator::ClusterRegistration clusters_of_##name(KERNEL_PREFIX, #name, blocks);     \
  KERNEL
#define BY_VALUE const
#define DEVICE static inline
#define SHARED_ARRAY(type, name, count)                                                            \
  static char name##_site;                                                               \
  type(&name)[count] = *static_cast<type(*)[count]>(                                               \
      emulator::static_shared(&name##_site, sizeof(type) * (count), alignof(type) < 16 ? 16 : alignof(type)))
#define DYNAMIC_SHARED(type, name) type* name = reinterpret_cast<type*>(emulator::current->block->arena)
// The prefix tells planted faults from the kernel they were planted in; the build script sets it.
#define REGISTER_KERNEL(name)                                                                      \
  static const emulator::Registration registration_of_##name(                                      \
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
DEVICE float max_of(float a, float b) { return fmaxf(a, b); }
DEVICE float shuffle_xor(float value, u32 lanes) {
  struct In {
    float value;
    u32 lanes;
  };
  return emulator::collective<In, float>("shfl", ~0u, In{value, lanes}, [](const In* in, float* out) {
    for (u32 lane = 0; lane < 32; lane++) out[lane] = in[(lane ^ in[lane].lanes) & 31].value;
  });
}
DEVICE float fast_exp2(float x) { return exp2f(x); }
DEVICE void atomic_min(u64* address, u64 value) {
  if (value < *address) *address = value;
}
DEVICE void atomic_max(u64* address, u64 value) {
  if (value > *address) *address = value;
}
DEVICE void atomic_add(u64* address, u64 value) { *address += value; }

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

DEVICE void copy_16_async(void* to_shared, const void* from_global, u32 bytes) {
  emulator::issue_copy(to_shared, from_global, bytes);
}
DEVICE void commit_copies() { emulator::commit_copies(); }
template <int GROUPS_LEFT>
DEVICE void wait_copies() {
  emulator::wait_copies(GROUPS_LEFT);
}

struct EmulatedFragments {
  u32 word[4];
};
template <bool TRANSPOSED>
DEVICE void load_fragments(u32 (&fragments)[4], const void* row) {
  if (emulator::shared_address(row, 16) % 16 != 0) emulator::fail("ldmatrix: an address is not a multiple of 16");
  const EmulatedFragments loaded = emulator::collective<const void*, EmulatedFragments>(
      TRANSPOSED ? "ldmatrix.trans" : "ldmatrix", ~0u, row, [](const void* const* rows, EmulatedFragments* out) {
        // Matrix m has its eight rows at the addresses of lanes 8m..8m+8; a lane gets two neighbours of row lane / 4.
        for (u32 matrix = 0; matrix < 4; matrix++) {
          for (u32 lane = 0; lane < 32; lane++) {
            u32 word = 0;
            for (u32 half = 0; half < 2; half++) {
              const u32 major = lane / 4, minor = lane % 4 * 2 + half;
              const u32 from_row = TRANSPOSED ? minor : major, from_column = TRANSPOSED ? major : minor;
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

// A lane's part of the product of a 16x16 and a 16x8 matrix.
struct EmulatedMmaInput {
  u32 a[4], b[2];
  float sums[4];
};
struct EmulatedMmaOutput {
  float sums[4];
};
template <class E>
inline void emulated_mma(const EmulatedMmaInput* in, EmulatedMmaOutput* out) {
  float a[16][16], b[16][8], sums[16][8];
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
    for (u32 i = 0; i < 4; i++) sums[group + i / 2 * 8][pair + i % 2] = in[lane].sums[i];
  }
  for (u32 row = 0; row < 16; row++) {
    for (u32 k = 0; k < 16; k++) {
      for (u32 column = 0; column < 8; column++) sums[row][column] += a[row][k] * b[k][column];
    }
  }
  for (u32 lane = 0; lane < 32; lane++) {
    for (u32 i = 0; i < 4; i++) out[lane].sums[i] = sums[lane / 4 + i / 2 * 8][lane % 4 * 2 + i % 2];
  }
}
template <class E>
DEVICE void mma_16x8x16(float (&sums)[4], const u32 (&a)[4], u32 b0, u32 b1) {
  const EmulatedMmaInput in = {{a[0], a[1], a[2], a[3]}, {b0, b1}, {sums[0], sums[1], sums[2], sums[3]}};
  const auto out = emulator::collective<EmulatedMmaInput, EmulatedMmaOutput>("mma", ~0u, in, emulated_mma<E>);
  for (int i = 0; i < 4; i++) sums[i] = out.sums[i];
}

// ---- sm_90a alone

struct alignas(64) TensorMap {
  emulator::TensorMap map;
};

DEVICE u32 shared_address(const void* pointer) { return emulator::shared_address(pointer, 1); }
DEVICE void init_barrier(u64* barrier, u32 arrivals) {
  emulator::init_barrier(reinterpret_cast<uint64_t*>(barrier), arrivals);
}
DEVICE void fence_barriers() {}
DEVICE void arrive_at(u64* barrier) { emulator::arrive_at(reinterpret_cast<uint64_t*>(barrier), 0); }
DEVICE void arrive_expecting(u64* barrier, u32 bytes) {
  emulator::arrive_at(reinterpret_cast<uint64_t*>(barrier), bytes);
}
DEVICE void wait_at(u64* barrier, u32 parity) { emulator::wait_at(reinterpret_cast<uint64_t*>(barrier), parity); }
DEVICE void copy_tile_async(void* to_shared, const TensorMap& map, u64* barrier, u32 column, u32 row) {
  emulator::issue_tile(to_shared, map.map, reinterpret_cast<uint64_t*>(barrier), column, row,
                       1u << emulator::current->block->rank);
}
DEVICE void prefetch_map(const TensorMap&) {}

#define synchronize_cluster() emulator::cluster_barrier(__FILE__, __LINE__)
DEVICE u32 block_of_cluster() { return emulator::current->block->rank; }
DEVICE void arrive_at_block(u64* barrier, u32 block) {
  emulator::arrive_at_block(reinterpret_cast<uint64_t*>(barrier), block);
}
DEVICE void copy_tile_to_blocks_async(void* to_shared, const TensorMap& map, u64* barrier, u32 column, u32 row,
                                      u32 blocks) {
  emulator::issue_tile(to_shared, map.map, reinterpret_cast<uint64_t*>(barrier), column, row, blocks);
}

// What the last lane to arrive does once for its warp.
template <class Body>
DEVICE void once_a_warp(const char* operation, Body body) {
  emulator::collective<u32, u32>(operation, ~0u, 0, [&](const u32*, u32*) { body(); });
}
template <u32 REGISTERS>
DEVICE void give_up_registers() {
  once_a_warp("setmaxnreg.dec", [] { emulator::set_registers(REGISTERS, true); });
}
template <u32 REGISTERS>
DEVICE void take_registers() {
  once_a_warp("setmaxnreg.inc", [] { emulator::set_registers(REGISTERS, false); });
}
DEVICE void fence_products() { once_a_warp("wgmma.fence", emulator::fence_products); }
DEVICE void commit_products() { once_a_warp("wgmma.commit_group", emulator::commit_products); }
template <u32 GROUPS_LEFT>
DEVICE void wait_products() {
  once_a_warp("wgmma.wait_group", [] { emulator::wait_products(GROUPS_LEFT); });
}

// The part of one warp: 16 rows, which begin at `first_row` of the first operand, and all 256 columns.
template <class E>
inline void emulated_wgmma(const emulator::Product& product, unsigned first_row) {
  static uint16_t a_bits[16][16], b_bits[256][16];
  static float a[16][16], b[16][256], sums[16][256];
  emulator::read_operand(product.a, first_row, 16, a_bits);
  emulator::read_operand(product.b, 0, 256, b_bits);
  for (u32 k = 0; k < 16; k++) {
    for (u32 row = 0; row < 16; row++) a[row][k] = to_float(E{a_bits[row][k]});
    for (u32 column = 0; column < 256; column++) b[k][column] = to_float(E{b_bits[column][k]});
  }
  const auto place = [](u32 lane, u32 i) -> float& {
    return sums[lane / 4 + i / 2 % 2 * 8][i / 4 * 8 + lane % 4 * 2 + i % 2];
  };
  for (u32 lane = 0; lane < 32; lane++) {
    for (u32 i = 0; i < 128; i++) place(lane, i) = product.adds ? product.sums[lane][i] : 0.0f;
  }
  for (u32 row = 0; row < 16; row++) {
    for (u32 k = 0; k < 16; k++) {
      for (u32 column = 0; column < 256; column++) sums[row][column] += a[row][k] * b[k][column];
    }
  }
  for (u32 lane = 0; lane < 32; lane++) {
    for (u32 i = 0; i < 128; i++) product.sums[lane][i] = place(lane, i);
  }
}
struct EmulatedWgmmaInput {
  u64 a, b;
  float* sums;
  bool adds;
};
template <class E>
DEVICE void multiply_64x256x16(float (&sums)[128], u64 a, u64 b, bool adds) {
  const EmulatedWgmmaInput in = {a, b, sums, adds};
  emulator::collective<EmulatedWgmmaInput, u32>("wgmma", ~0u, in, [](const EmulatedWgmmaInput* lanes, u32*) {
    emulator::Product product = {lanes[0].a, lanes[0].b, lanes[0].adds, {}, emulated_wgmma<E>};
    for (u32 lane = 0; lane < 32; lane++) {
      if (lanes[lane].a != product.a || lanes[lane].b != product.b || lanes[lane].adds != product.adds) {
        emulator::fail("wgmma: lanes of a warp have different operands");
      }
      product.sums[lane] = lanes[lane].sums;
    }
    emulator::issue_product(product);
  });
}
