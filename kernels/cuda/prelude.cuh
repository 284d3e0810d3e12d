// Everything a kernel may use beyond plain CUDA C++, behind small functions.
//
// The first half is for a device: all PTX of the project is here. The other half, emulator/device_api.h, has the same
// functions in plain C++, so that tests execute the same kernel sources on a CPU. Kernels include this file and
// nothing else; no header of a CUDA toolkit is needed to compile them.
//
// Kernels are compiled with --fmad=false: where a product and a sum are fused the source says `fmaf`. Kernels without
// `mma` use correctly rounded operations alone, and so give the same bits on every device and on the CPU.
#pragma once

using u32 = unsigned int;
using u64 = unsigned long long;

// Storage types. Arithmetic is in f32; `from_float` rounds to nearest, ties to even.
struct bf16 {
  unsigned short bits;
};
struct f16 {
  unsigned short bits;
};

#if defined(__CUDACC__) || defined(__CUDACC_RTC__)

#define KERNEL extern "C" __global__ void
// A kernel whose blocks run in clusters: `blocks` neighbours in x at the same time, each on a multiprocessor of its own.
#define KERNEL_OF_CLUSTERS(name, blocks) KERNEL __cluster_dims__(blocks, 1, 1)
#define BY_VALUE const __grid_constant__
#define DEVICE static __device__ __forceinline__
#define SHARED_ARRAY(type, name, count) __shared__ type name[count]
#define DYNAMIC_SHARED(type, name)                          \
  extern __shared__ __align__(128) unsigned char shared_bytes[]; \
  type* name = reinterpret_cast<type*>(shared_bytes)
#define REGISTER_KERNEL(name)

DEVICE float bits_to_float(u32 bits) { return __uint_as_float(bits); }
DEVICE u32 float_to_bits(float value) { return __float_as_uint(value); }
DEVICE float max_of(float a, float b) { return fmaxf(a, b); }
DEVICE float shuffle_xor(float value, u32 lanes) { return __shfl_xor_sync(0xffffffffu, value, lanes); }
// 2^x by the special function unit, within 2 units in the last place; exact at 0 and minus infinity.
DEVICE float fast_exp2(float x) {
  float power;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(x));
  return power;
}
DEVICE void atomic_min(u64* address, u64 value) { atomicMin(address, value); }
DEVICE void atomic_max(u64* address, u64 value) { atomicMax(address, value); }
DEVICE void atomic_add(u64* address, u64 value) { atomicAdd(address, value); }

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
// Two rounded elements in a word, `low` at the lower address.
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

DEVICE u32 shared_address(const void* pointer) { return static_cast<u32>(__cvta_generic_to_shared(pointer)); }
// Copies 16 bytes to shared memory without waiting: `bytes` from global memory, zeros for the rest.
DEVICE void copy_16_async(void* to_shared, const void* from_global, u32 bytes) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to_shared)), "l"(from_global),
               "r"(bytes)
               : "memory");
}
// Ends a group of copies of this thread.
DEVICE void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Waits until at most `GROUPS_LEFT` groups of this thread are still on their way.
template <int GROUPS_LEFT>
DEVICE void wait_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(GROUPS_LEFT) : "memory");
}

// Four 8x8 matrices of 16-bit elements, the rows of matrix m at the addresses that lanes 8m..8m+8 give. A lane gets
// elements (lane / 4, lane % 4 * 2) and its right neighbour of each; of the transposed matrices if `TRANSPOSED`.
template <bool TRANSPOSED>
DEVICE void load_fragments(u32 (&fragments)[4], const void* row) {
  if (TRANSPOSED) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(fragments[0]), "=r"(fragments[1]), "=r"(fragments[2]), "=r"(fragments[3])
                 : "r"(shared_address(row))
                 : "memory");
  } else {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(fragments[0]), "=r"(fragments[1]), "=r"(fragments[2]), "=r"(fragments[3])
                 : "r"(shared_address(row))
                 : "memory");
  }
}

// sums += a b by the warp: a is 16x16, b is 16x8, sums 16x8 in f32. Lane l holds rows l / 4 and l / 4 + 8.
template <class E>
__device__ void mma_16x8x16(float (&sums)[4], const u32 (&a)[4], u32 b0, u32 b1);
template <>
__device__ __forceinline__ void mma_16x8x16<bf16>(float (&sums)[4], const u32 (&a)[4], u32 b0, u32 b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
template <>
__device__ __forceinline__ void mma_16x8x16<f16>(float (&sums)[4], const u32 (&a)[4], u32 b0, u32 b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// ---- sm_90a alone: copies of tiles by the tensor memory accelerator, barriers that count them, products of a warpgroup
//
// The accelerator and the tensor cores reach shared memory by a way of their own, the asynchronous proxy. What they
// exchange with each other is ordered by the barriers and by `wait_products`; what threads have written, such as a
// barrier's first state, needs `fence_barriers`.

// A matrix and the tiles it is copied by, made by the host. A kernel takes it BY_VALUE: its address is what counts.
struct __align__(64) TensorMap {
  u64 opaque[16];
};

// A barrier whose phase ends when `arrivals` threads have arrived and the bytes expected meanwhile have been copied.
DEVICE void init_barrier(u64* barrier, u32 arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(barrier)), "r"(arrivals) : "memory");
}
// Shows barriers that this thread has initialised to the accelerator; other threads need `__syncthreads` as well.
DEVICE void fence_barriers() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}
DEVICE void arrive_at(u64* barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(barrier)) : "memory");
}
// Arrives, and lets the phase wait for `bytes` more bytes.
DEVICE void arrive_expecting(u64* barrier, u32 bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(barrier)), "r"(bytes)
               : "memory");
}
// Waits until the phase of this parity has ended. Phases count from 0; before the first has ended, that of parity 1 has.
DEVICE void wait_at(u64* barrier, u32 parity) {
  asm volatile(
      "{\n"
      ".reg .pred over;\n"
      "WAIT:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 over, [%0], %1;\n"
      "@over bra OVER;\n"
      "bra WAIT;\n"
      "OVER:\n"
      "}" ::"r"(shared_address(barrier)),
      "r"(parity)
      : "memory");
}
// Starts the copy of the tile at `column` and `row`, whose bytes `barrier` counts; zeros where the matrix has ended.
DEVICE void copy_tile_async(void* to_shared, const TensorMap& map, u64* barrier, u32 column, u32 row) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4}], [%2];" ::"r"(
          shared_address(to_shared)),
      "l"(&map), "r"(shared_address(barrier)), "r"(column), "r"(row)
      : "memory");
}
// The same to the same place of each block of the cluster whose bit is set in `blocks`, read once; each block's bytes are
// counted at its own barrier, which lies where `barrier` does.
DEVICE void copy_tile_to_blocks_async(void* to_shared, const TensorMap& map, u64* barrier, u32 column, u32 row,
                                      u32 blocks) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.multicast::cluster [%0], "
      "[%1, {%3, %4}], [%2], %5;" ::"r"(shared_address(to_shared)),
      "l"(&map), "r"(shared_address(barrier)), "r"(column), "r"(row), "h"(static_cast<unsigned short>(blocks))
      : "memory");
}
DEVICE void prefetch_map(const TensorMap& map) { asm volatile("prefetch.tensormap [%0];" ::"l"(&map) : "memory"); }

// The number of this block in its cluster.
DEVICE u32 block_of_cluster() {
  u32 block;
  asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(block));
  return block;
}
// Waits for all threads of all blocks of the cluster. Of memory it orders nothing but what `fence_barriers` shows.
DEVICE void synchronize_cluster() {
  asm volatile("barrier.cluster.arrive.relaxed;" ::: "memory");
  asm volatile("barrier.cluster.wait.acquire;" ::: "memory");
}
// Arrives at the barrier that block `block` of the cluster has where this one has `barrier`; that block must not have ended.
// Says that products and copies are over that this thread has waited for. What threads write it orders within their block
// alone: the order of the whole cluster would be a fence of all memory at each arrival.
DEVICE void arrive_at_block(u64* barrier, u32 block) {
  asm volatile(
      "{\n"
      ".reg .b32 there;\n"
      "mapa.shared::cluster.u32 there, %0, %1;\n"
      "mbarrier.arrive.shared::cluster.b64 _, [there];\n"
      "}" ::"r"(shared_address(barrier)),
      "r"(block)
      : "memory");
}

// The registers that each thread of this warpgroup may use from now on: fewer, or more once others have given them up.
template <u32 REGISTERS>
DEVICE void give_up_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(REGISTERS));
}
template <u32 REGISTERS>
DEVICE void take_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(REGISTERS));
}

// Before products that take registers which were written by anything else.
DEVICE void fence_products() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
// Ends a group of products of this warpgroup.
DEVICE void commit_products() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
// Waits until at most `GROUPS_LEFT` groups are still being computed.
template <u32 GROUPS_LEFT>
DEVICE void wait_products() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(GROUPS_LEFT) : "memory");
}
// Starts sums = a b^T, or sums += a b^T if it `adds`, by the warpgroup: a is 64x16, b is 256x16, both in shared memory as
// `tile_descriptor` says. Lane l of warp w holds rows 16 w + l / 4 and 8 more; of columns 8 j to 8 j + 8 sums 4 j to
// 4 j + 3, as of `mma_16x8x16`.
template <class E>
__device__ void multiply_64x256x16(float (&sums)[128], u64 a, u64 b, bool adds);
#define SUMS_4(i) "+f"(sums[i]), "+f"(sums[i + 1]), "+f"(sums[i + 2]), "+f"(sums[i + 3])
#define SUMS_16(i) SUMS_4(i), SUMS_4(i + 4), SUMS_4(i + 8), SUMS_4(i + 12)
#define MULTIPLY_64X256X16(E, TYPE)                                                                                   \
  template <>                                                                                                         \
  __device__ __forceinline__ void multiply_64x256x16<E>(float (&sums)[128], u64 a, u64 b, bool adds) {                \
    asm volatile(                                                                                                     \
        "{.reg .pred adds;\n"                                                                                         \
        "setp.ne.b32 adds, %130, 0;\n"                                                                                \
        "wgmma.mma_async.sync.aligned.m64n256k16.f32." TYPE "." TYPE " {"                                             \
        "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "                                      \
        "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "                            \
        "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "                            \
        "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, "                            \
        "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, "                            \
        "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, "                            \
        "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, "                \
        "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127}, "           \
        "%128, %129, adds, 1, 1, 0, 0;}"                                                                              \
        : SUMS_16(0), SUMS_16(16), SUMS_16(32), SUMS_16(48), SUMS_16(64), SUMS_16(80), SUMS_16(96), SUMS_16(112)      \
        : "l"(a), "l"(b), "r"(adds ? 1 : 0));                                                                                  \
  }
MULTIPLY_64X256X16(bf16, "bf16")
MULTIPLY_64X256X16(f16, "f16")
#undef MULTIPLY_64X256X16
#undef SUMS_16
#undef SUMS_4

#else
#include "emulator/device_api.h"
#endif

// ---- written once, for both halves

// Lanes of the interleaved sums: value i belongs to lane i % SUM_LANES.
constexpr u32 SUM_LANES = 16;

// How `multiply_64x256x16` finds a matrix of rows of 128 bytes, swizzled, of which eight are 1024 bytes that begin at a
// multiple of 1024 (PTX ISA, "Matrix descriptor"): the address and the distance of eights of rows in units of 16 bytes;
// the first distance is not used in this layout. 16 columns further on in the rows is 32 bytes further on.
DEVICE u64 tile_descriptor(const void* start) {
  const u64 unused_distance = 1, eight_rows = 1024 / 16, swizzled_by_128_bytes = 1;
  return (shared_address(start) & 0x3ffffu) >> 4 | unused_distance << 16 | eight_rows << 32 | swizzled_by_128_bytes << 62;
}

DEVICE float minus_infinity() { return bits_to_float(0xff800000u); }

// The bits of an element as it is stored.
DEVICE u32 bits_of(float value) { return float_to_bits(value); }
template <class E>
DEVICE u32 bits_of(E value) {
  return value.bits;
}

// What a thread moves at once: 16 bytes, from and to addresses that are a multiple of 16.
template <class E>
constexpr u32 WIDE = 16 / sizeof(E);

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
DEVICE void load_wide(const E* from, float (&values)[WIDE<E>]) {
  constexpr u32 IN_A_WORD = 4 / sizeof(E);
  const uint4 words = *reinterpret_cast<const uint4*>(from);
  unpack_word(words.x, values, E{});
  unpack_word(words.y, values + IN_A_WORD, E{});
  unpack_word(words.z, values + 2 * IN_A_WORD, E{});
  unpack_word(words.w, values + 3 * IN_A_WORD, E{});
}
template <class E>
DEVICE void store_wide(E* to, const float (&values)[WIDE<E>]) {
  constexpr u32 IN_A_WORD = 4 / sizeof(E);
  const uint4 words = {pack_word(values, E{}), pack_word(values + IN_A_WORD, E{}), pack_word(values + 2 * IN_A_WORD, E{}),
                       pack_word(values + 3 * IN_A_WORD, E{})};
  *reinterpret_cast<uint4*>(to) = words;
}
// `COUNT` floats, a multiple of four.
template <u32 COUNT>
DEVICE void load_floats(const float* from, float (&values)[COUNT]) {
#pragma unroll
  for (u32 i = 0; i < COUNT; i += 4) {
    float four[4];
    load_wide(from + i, four);
#pragma unroll
    for (u32 j = 0; j < 4; j++) values[i + j] = four[j];
  }
}

// e^x for x <= 0 or moderate positive x, within 2 units in the last place: Cody and Waite's range reduction and the
// polynomial of Cephes' expf. The library's expf differs between a device and a CPU; this one is the CPU backend's.
DEVICE float exponential(float x) {
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
  // The low bits of the shifted sum hold n.
  const float scaled = value * bits_to_float((float_to_bits(shifted) + 127) << 23);
  return x < lowest ? 0.0f : scaled;
}

// x / (1 + e^-x).
DEVICE float silu(float x) { return x / (1.0f + exponential(-x)); }

// Joins the lanes of an interleaved sum in the order of the CPU backend. Overwrites them.
DEVICE float join_lanes(float* lanes) {
  for (u32 width = SUM_LANES / 2; width > 0; width /= 2) {
    for (u32 lane = 0; lane < width; lane++) lanes[lane] += lanes[lane + width];
  }
  return lanes[0];
}
