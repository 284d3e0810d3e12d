// Instructions that every device from sm_80 on has, by their PTX names: shuffles, atomics, cp.async, ldmatrix, mma.sync.
#pragma once

#include "types.cuh"

#if defined(__CUDACC__) || defined(__CUDACC_RTC__)

// The value of the lane whose number differs by `lane_mask`, for all 32 lanes.
DEVICE float shfl_xor(float value, u32 lane_mask) { return __shfl_xor_sync(0xffffffffu, value, lane_mask); }
// The value of lane `lane`, for all 32 lanes.
DEVICE u32 shfl_idx(u32 value, u32 lane) { return __shfl_sync(0xffffffffu, value, lane); }
// Waits for all 32 lanes, whose writes to memory are then visible to each other.
DEVICE void syncwarp() { __syncwarp(); }
// Four bytes of the eight of `low` and `high`, numbered by the hexadecimal digits of `selector`.
DEVICE u32 prmt(u32 low, u32 high, u32 selector) { return __byte_perm(low, high, selector); }
// 2^x by the special function unit, within 2 units in the last place; exact at 0 and minus infinity.
DEVICE float ex2_approx(float x) {
  float power;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(x));
  return power;
}
// 1 / x by the special function unit, within 1 unit in the last place.
DEVICE float rcp_approx(float x) {
  float reciprocal;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(reciprocal) : "f"(x));
  return reciprocal;
}
// 1 / sqrt(x) by the special function unit, with a relative error of at most 2^-22.9.
DEVICE float rsqrt_approx(float x) {
  float reciprocal;
  asm("rsqrt.approx.ftz.f32 %0, %1;" : "=f"(reciprocal) : "f"(x));
  return reciprocal;
}
DEVICE void atomic_min(u64* address, u64 value) { atomicMin(address, value); }
DEVICE void atomic_max(u64* address, u64 value) { atomicMax(address, value); }
DEVICE void atomic_add(u64* address, u64 value) { atomicAdd(address, value); }

DEVICE u32 shared_address(const void* pointer) { return static_cast<u32>(__cvta_generic_to_shared(pointer)); }
// Starts a copy of 16 bytes to shared memory: `bytes` from global memory, zeros for the rest.
DEVICE void cp_async_16(void* to_shared, const void* from_global, u32 bytes) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to_shared)), "l"(from_global),
               "r"(bytes)
               : "memory");
}
DEVICE void cp_async_commit_group() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Waits until at most `N` groups of this thread are pending.
template <int N>
DEVICE void cp_async_wait_group() {
  asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

// Four 8x8 matrices of 16-bit elements; lanes 8m to 8m + 7 give the addresses of the rows of matrix m. A lane gets
// elements (lane / 4, lane % 4 * 2) and its right neighbor of each matrix, of the transposed matrices if `TRANS`.
template <bool TRANS>
DEVICE void ldmatrix_x4(u32 (&fragments)[4], const void* row) {
  if (TRANS) {
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

// acc += a b by the warp: a is 16x16, b is 16x8, acc 16x8 in f32. Lane l holds rows l / 4 and l / 4 + 8.
template <class E>
__device__ void mma_m16n8k16(float (&acc)[4], const u32 (&a)[4], u32 b0, u32 b1);
template <>
__device__ __forceinline__ void mma_m16n8k16<bf16>(float (&acc)[4], const u32 (&a)[4], u32 b0, u32 b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(acc[0]), "+f"(acc[1]), "+f"(acc[2]), "+f"(acc[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
template <>
__device__ __forceinline__ void mma_m16n8k16<f16>(float (&acc)[4], const u32 (&a)[4], u32 b0, u32 b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(acc[0]), "+f"(acc[1]), "+f"(acc[2]), "+f"(acc[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

#else
#include "emulator/ptx.h"
#endif
