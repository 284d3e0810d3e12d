// Instructions of sm_90a by their PTX names: mbarrier, named barriers, TMA (cp.async.bulk.tensor), stmatrix, clusters, setmaxnreg,
// wgmma.
//
// TMA and wgmma reach shared memory through the asynchronous proxy. Barriers and `wgmma_wait_group` order their accesses
// with each other; writes of threads need `fence_proxy_async`, and the initialization of a barrier `fence_mbarrier_init`.
#pragma once

#include "ptx.cuh"

#if defined(__CUDACC__) || defined(__CUDACC_RTC__)

// A matrix and its tiles (CUtensorMap), encoded by the host. A kernel takes it as GRID_CONSTANT: TMA needs its address.
struct __align__(64) TensorMap {
  u64 opaque[16];
};

// A barrier whose phase completes after `arrivals` arrivals and all expected bytes.
DEVICE void mbarrier_init(u64* barrier, u32 arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(barrier)), "r"(arrivals) : "memory");
}
// Makes initialized barriers visible to TMA; other threads need `__syncthreads` or `cluster_sync` as well.
DEVICE void fence_mbarrier_init() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}
DEVICE void mbarrier_arrive(u64* barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(barrier)) : "memory");
}
// Arrives and adds `bytes` to the bytes that the phase expects.
DEVICE void mbarrier_arrive_expect_tx(u64* barrier, u32 bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(barrier)), "r"(bytes)
               : "memory");
}
// Waits until the phase of this parity has completed. Phases count from 0; before phase 0 has completed, the phase of
// parity 1 counts as completed.
DEVICE void mbarrier_wait_parity(u64* barrier, u32 parity) {
  asm volatile(
      "{\n"
      ".reg .pred complete;\n"
      "WAIT:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 complete, [%0], %1;\n"
      "@complete bra DONE;\n"
      "bra WAIT;\n"
      "DONE:\n"
      "}" ::"r"(shared_address(barrier)),
      "r"(parity)
      : "memory");
}
// Starts the copy of the tile at `column` and `row`, whose bytes `barrier` counts; zeros beyond the matrix.
DEVICE void tma_load_2d(void* to_shared, const TensorMap& map, u64* barrier, u32 column, u32 row) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4}], [%2];" ::
          "r"(shared_address(to_shared)),
      "l"(&map), "r"(shared_address(barrier)), "r"(column), "r"(row)
      : "memory");
}
// The same, read once and written to the same offset in each block of the cluster whose bit is set in `cta_mask`. Each
// block's barrier, at the offset of `barrier`, counts its bytes.
DEVICE void tma_load_2d_multicast(void* to_shared, const TensorMap& map, u64* barrier, u32 column, u32 row,
                                  u32 cta_mask) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.multicast::cluster [%0], "
      "[%1, {%3, %4}], [%2], %5;" ::"r"(shared_address(to_shared)),
      "l"(&map), "r"(shared_address(barrier)), "r"(column), "r"(row), "h"(static_cast<unsigned short>(cta_mask))
      : "memory");
}
// Starts the copy of the tile at `column` and `row` from shared memory; nothing is written beyond the matrix.
DEVICE void tma_store_2d(const TensorMap& map, const void* from_shared, u32 column, u32 row) {
  asm volatile("cp.async.bulk.tensor.2d.global.shared::cta.tile.bulk_group [%0, {%2, %3}], [%1];" ::"l"(&map),
               "r"(shared_address(from_shared)), "r"(column), "r"(row)
               : "memory");
}
DEVICE void cp_async_bulk_commit_group() { asm volatile("cp.async.bulk.commit_group;" ::: "memory"); }
// Waits until at most `N` groups of this thread's stores have not read shared memory yet.
template <int N>
DEVICE void cp_async_bulk_wait_group_read() {
  asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"(N) : "memory");
}
// Makes this thread's writes to shared memory visible to TMA and wgmma, after a barrier.
DEVICE void fence_proxy_async() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }
// Waits until `threads` threads of the block, whole warps, have arrived at barrier `barrier`, 1 to 15.
DEVICE void bar_sync(u32 barrier, u32 threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(barrier), "r"(threads) : "memory");
}
// Stores 16 bytes to shared memory, for TMA or wgmma to read.
DEVICE void st_shared_16(void* to_shared, const uint4& words) {
  asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %4};" ::"r"(shared_address(to_shared)), "r"(words.x), "r"(words.y),
               "r"(words.z), "r"(words.w)
               : "memory");
}
// Stores four 8x8 matrices of 16-bit elements, of which a lane holds what `ldmatrix_x4` gives it.
DEVICE void stmatrix_x4(void* row, const u32 (&fragments)[4]) {
  asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(shared_address(row)),
               "r"(fragments[0]), "r"(fragments[1]), "r"(fragments[2]), "r"(fragments[3])
               : "memory");
}
DEVICE void prefetch_tensormap(const TensorMap& map) {
  asm volatile("prefetch.tensormap [%0];" ::"l"(&map) : "memory");
}

// The rank of this block in its cluster.
DEVICE u32 cluster_ctarank() {
  u32 rank;
  asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return rank;
}
// Waits for all threads of all blocks of the cluster. The arrival is relaxed: it orders only what `fence_mbarrier_init`
// has made visible.
DEVICE void cluster_sync() {
  asm volatile("barrier.cluster.arrive.relaxed;" ::: "memory");
  asm volatile("barrier.cluster.wait.acquire;" ::: "memory");
}
// Arrives at the barrier at the offset of `barrier` in block `rank` of the cluster, which must not have exited. Orders
// only wgmma and TMA operations that this thread has waited for: a release at cluster scope would be a fence of all
// memory at each arrival.
DEVICE void mbarrier_arrive_cluster(u64* barrier, u32 rank) {
  asm volatile(
      "{\n"
      ".reg .b32 remote;\n"
      "mapa.shared::cluster.u32 remote, %0, %1;\n"
      "mbarrier.arrive.shared::cluster.b64 _, [remote];\n"
      "}" ::"r"(shared_address(barrier)),
      "r"(rank)
      : "memory");
}

// Sets the registers of each thread of this warpgroup, to fewer or to more.
template <u32 REGISTERS>
DEVICE void setmaxnreg_dec() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(REGISTERS));
}
template <u32 REGISTERS>
DEVICE void setmaxnreg_inc() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(REGISTERS));
}

// Needed before a wgmma whose registers other instructions have written.
DEVICE void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
DEVICE void wgmma_commit_group() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
// Waits until at most `N` groups of this warpgroup are pending.
template <u32 N>
DEVICE void wgmma_wait_group() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory");
}
// The same. Keeps the compiler from reading `acc`, the accumulators of a group that is then complete, before the wait.
template <u32 N, u32 COUNT>
DEVICE void wgmma_wait_group(float (&acc)[COUNT]) {
  wgmma_wait_group<N>();
#pragma unroll
  for (u32 i = 0; i < COUNT; i++) asm volatile("" : "+f"(acc[i])::"memory");
}
// Starts acc = a b^T, or acc += a b^T if `scale_d`, by the warpgroup: a is 64x16, b is 256x16, both in shared memory as
// `make_smem_desc` describes. Lane l of warp w holds rows 16 w + l / 4 and 8 more; of columns 8 j to 8 j + 7 it holds
// acc[4 j] to acc[4 j + 3], laid out as in `mma_m16n8k16`.
template <class E>
__device__ void wgmma_m64n256k16(float (&acc)[128], u64 desc_a, u64 desc_b, bool scale_d);
#define ACC_4(i) "+f"(acc[i]), "+f"(acc[i + 1]), "+f"(acc[i + 2]), "+f"(acc[i + 3])
#define ACC_16(i) ACC_4(i), ACC_4(i + 4), ACC_4(i + 8), ACC_4(i + 12)
#define WGMMA_M64N256K16(E, TYPE)                                                                                \
  template <>                                                                                                    \
  __device__ __forceinline__ void wgmma_m64n256k16<E>(float (&acc)[128], u64 desc_a, u64 desc_b, bool scale_d) { \
    asm volatile(                                                                                                \
        "{.reg .pred scale_d;\n"                                                                                 \
        "setp.ne.b32 scale_d, %130, 0;\n"                                                                        \
        "wgmma.mma_async.sync.aligned.m64n256k16.f32." TYPE "." TYPE                                             \
        " {"                                                                                                     \
        "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "                                 \
        "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "                       \
        "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "                       \
        "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, "                       \
        "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, "                       \
        "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, "                       \
        "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, "           \
        "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127}, "      \
        "%128, %129, scale_d, 1, 1, 0, 0;}"                                                                      \
        : ACC_16(0), ACC_16(16), ACC_16(32), ACC_16(48), ACC_16(64), ACC_16(80), ACC_16(96), ACC_16(112)         \
        : "l"(desc_a), "l"(desc_b), "r"(scale_d ? 1 : 0));                                                       \
  }
WGMMA_M64N256K16(bf16, "bf16")
WGMMA_M64N256K16(f16, "f16")
#undef WGMMA_M64N256K16
// The same with a, 64x16, in registers laid out as in `mma_m16n8k16`, 16 rows a warp, and b 64x16 or 128x16. They must not
// change before the wgmma is complete. `TRANS_B`: b is MN-major, as `make_smem_desc_mn_major` describes.
template <class E, bool TRANS_B>
__device__ void wgmma_m64n64k16(float (&acc)[32], const u32 (&a)[4], u64 desc_b, bool scale_d);
template <class E, bool TRANS_B>
__device__ void wgmma_m64n128k16(float (&acc)[64], const u32 (&a)[4], u64 desc_b, bool scale_d);
#define WGMMA_M64N64K16(E, TYPE, TRANS_B)                                                                              \
  template <>                                                                                                          \
  __device__ __forceinline__ void wgmma_m64n64k16<E, TRANS_B>(float (&acc)[32], const u32 (&a)[4], u64 desc_b,         \
                                                              bool scale_d) {                                          \
    asm volatile(                                                                                                      \
        "{.reg .pred scale_d;\n"                                                                                       \
        "setp.ne.b32 scale_d, %37, 0;\n"                                                                               \
        "wgmma.mma_async.sync.aligned.m64n64k16.f32." TYPE "." TYPE                                                    \
        " {"                                                                                                           \
        "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "                                       \
        "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, "                            \
        "{%32, %33, %34, %35}, %36, scale_d, 1, 1, %38;}"                                                              \
        : ACC_16(0), ACC_16(16)                                                                                        \
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(desc_b), "r"(scale_d ? 1 : 0), "n"(TRANS_B ? 1 : 0));        \
  }
#define WGMMA_M64N128K16(E, TYPE, TRANS_B)                                                                             \
  template <>                                                                                                          \
  __device__ __forceinline__ void wgmma_m64n128k16<E, TRANS_B>(float (&acc)[64], const u32 (&a)[4], u64 desc_b,        \
                                                               bool scale_d) {                                         \
    asm volatile(                                                                                                      \
        "{.reg .pred scale_d;\n"                                                                                       \
        "setp.ne.b32 scale_d, %69, 0;\n"                                                                               \
        "wgmma.mma_async.sync.aligned.m64n128k16.f32." TYPE "." TYPE                                                   \
        " {"                                                                                                           \
        "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "                                       \
        "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "                             \
        "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "                             \
        "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, "                            \
        "{%64, %65, %66, %67}, %68, scale_d, 1, 1, %70;}"                                                              \
        : ACC_16(0), ACC_16(16), ACC_16(32), ACC_16(48)                                                                \
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(desc_b), "r"(scale_d ? 1 : 0), "n"(TRANS_B ? 1 : 0));        \
  }
WGMMA_M64N64K16(bf16, "bf16", false)
WGMMA_M64N64K16(bf16, "bf16", true)
WGMMA_M64N64K16(f16, "f16", false)
WGMMA_M64N64K16(f16, "f16", true)
WGMMA_M64N128K16(bf16, "bf16", true)
WGMMA_M64N128K16(f16, "f16", true)
#undef WGMMA_M64N64K16
#undef WGMMA_M64N128K16
#undef ACC_16
#undef ACC_4

#else
#include "emulator/ptx_sm90.h"
#endif

// ---- both halves

// The shared memory descriptor of a K-major matrix with rows of 128 bytes and the 128-byte swizzle, whose groups of eight
// rows (1024 bytes) begin at multiples of 1024 (PTX ISA, "Matrix descriptor"). Address and stride of the groups are in
// units of 16 bytes; the leading dimension's offset is not used in this layout. 16 columns further is 32 bytes further.
DEVICE u64 make_smem_desc(const void* start) {
  const u64 leading_offset = 1, stride_offset = 1024 / 16, swizzle_128_bytes = 1;
  return (shared_address(start) & 0x3ffffu) >> 4 | leading_offset << 16 | stride_offset << 32 | swizzle_128_bytes << 62;
}
// The descriptor of an MN-major matrix of 16 rows along K in boxes of 64 columns along MN: rows of 128 bytes with the same
// swizzle and alignment. The next box is `box_bytes` further, 16 rows along K are 2048 bytes further.
DEVICE u64 make_smem_desc_mn_major(const void* start, u32 box_bytes) {
  const u64 leading_offset = box_bytes / 16, stride_offset = 1024 / 16, swizzle_128_bytes = 1;
  return (shared_address(start) & 0x3ffffu) >> 4 | leading_offset << 16 | stride_offset << 32 | swizzle_128_bytes << 62;
}
