// The emulator's half of include/ptx_sm90.cuh. Each function does what the PTX manual says of its instruction.
#pragma once

#include "emulator.h"

struct alignas(64) TensorMap {
  emulator::TensorMap map;
};

DEVICE void mbarrier_init(u64* barrier, u32 arrivals) {
  emulator::mbarrier_init(reinterpret_cast<uint64_t*>(barrier), arrivals);
}
DEVICE void fence_mbarrier_init() {}
DEVICE void mbarrier_arrive(u64* barrier) { emulator::mbarrier_arrive(reinterpret_cast<uint64_t*>(barrier), 0); }
DEVICE void mbarrier_arrive_expect_tx(u64* barrier, u32 bytes) {
  emulator::mbarrier_arrive(reinterpret_cast<uint64_t*>(barrier), bytes);
}
DEVICE void mbarrier_wait_parity(u64* barrier, u32 parity) {
  emulator::mbarrier_wait_parity(reinterpret_cast<uint64_t*>(barrier), parity);
}
DEVICE void tma_load_2d(void* to_shared, const TensorMap& map, u64* barrier, u32 column, u32 row) {
  emulator::issue_tma_load(to_shared, map.map, reinterpret_cast<uint64_t*>(barrier), column, row,
                           1u << emulator::current->block->rank);
}
DEVICE void prefetch_tensormap(const TensorMap&) {}
DEVICE void tma_store_2d(const TensorMap& map, const void* from_shared, u32 column, u32 row) {
  emulator::issue_tma_store(map.map, from_shared, column, row);
}
DEVICE void cp_async_bulk_commit_group() { emulator::bulk_commit_group(); }
template <int N>
DEVICE void cp_async_bulk_wait_group_read() {
  emulator::bulk_wait_group(N);
}
DEVICE void fence_proxy_async() { emulator::fence_proxy_async(); }
// A macro, for the line of the kernel.
#define bar_sync(barrier, threads) emulator::named_barrier(barrier, threads, __FILE__, __LINE__)
DEVICE void st_shared_16(void* to_shared, const uint4& words) {
  const u32 address = emulator::shared_address(to_shared, 16);
  if (address % 16 != 0) emulator::fail("st.shared.v4: an address is not a multiple of 16");
  std::memcpy(to_shared, &words, 16);
  emulator::record_write(address);
}
struct StmatrixInput {
  void* row;
  u32 word[4];
};
DEVICE void stmatrix_x4(void* row, const u32 (&fragments)[4]) {
  const u32 address = emulator::shared_address(row, 16);
  if (address % 16 != 0) emulator::fail("stmatrix: an address is not a multiple of 16");
  const StmatrixInput in = {row, {fragments[0], fragments[1], fragments[2], fragments[3]}};
  emulator::collective<StmatrixInput, u32>("stmatrix", ~0u, in, [](const StmatrixInput* lanes, u32*) {
    // As in `ldmatrix_x4`: lanes 8m to 8m + 7 give the rows of matrix m; a lane has two neighbors of row lane / 4.
    for (u32 matrix = 0; matrix < 4; matrix++) {
      for (u32 lane = 0; lane < 32; lane++) {
        char* to = static_cast<char*>(lanes[matrix * 8 + lane / 4].row) + lane % 4 * 4;
        std::memcpy(to, &lanes[lane].word[matrix], 4);
      }
    }
  });
  emulator::record_write(address);
}

// A macro, for the line of the kernel.
#define cluster_sync() emulator::cluster_barrier(__FILE__, __LINE__)
DEVICE u32 cluster_ctarank() { return emulator::current->block->rank; }
DEVICE void mbarrier_arrive_cluster(u64* barrier, u32 rank) {
  emulator::mbarrier_arrive_cluster(reinterpret_cast<uint64_t*>(barrier), rank);
}
DEVICE void tma_load_2d_multicast(void* to_shared, const TensorMap& map, u64* barrier, u32 column, u32 row,
                                  u32 cta_mask) {
  emulator::issue_tma_load(to_shared, map.map, reinterpret_cast<uint64_t*>(barrier), column, row, cta_mask);
}

// The last lane to arrive runs `body` once for its warp.
template <class Body>
DEVICE void once_per_warp(const char* operation, Body body) {
  emulator::collective<u32, u32>(operation, ~0u, 0, [&](const u32*, u32*) { body(); });
}
template <u32 REGISTERS>
DEVICE void setmaxnreg_dec() {
  once_per_warp("setmaxnreg.dec", [] { emulator::setmaxnreg(REGISTERS, true); });
}
template <u32 REGISTERS>
DEVICE void setmaxnreg_inc() {
  once_per_warp("setmaxnreg.inc", [] { emulator::setmaxnreg(REGISTERS, false); });
}
DEVICE void wgmma_fence() { once_per_warp("wgmma.fence", emulator::wgmma_fence); }
DEVICE void wgmma_commit_group() { once_per_warp("wgmma.commit_group", emulator::wgmma_commit_group); }
template <u32 N>
DEVICE void wgmma_wait_group() {
  once_per_warp("wgmma.wait_group", [] { emulator::wgmma_wait_group(N); });
}

template <u32 N, class Acc>
DEVICE void wgmma_wait_group(Acc&) {
  wgmma_wait_group<N>();
}

// The part of one warp: 16 rows from `first_row` of operand a, and all `N` columns. Operand a is in shared memory or in
// registers, b is K-major or, if `TRANS_B`, MN-major.
template <class E, u32 N, bool TRANS_B>
inline void emulated_wgmma(const emulator::Wgmma& wgmma, unsigned first_row) {
  static uint16_t a_bits[16][16], b_bits[N][16];
  static float a[16][16], b[16][N], acc[16][N];
  if (wgmma.a_registers[0]) {
    for (u32 lane = 0; lane < 32; lane++) {
      for (u32 i = 0; i < 8; i++) {
        const u32 row = lane / 4 + i / 2 % 2 * 8, column = lane % 4 * 2 + i % 2 + i / 4 * 8;
        a_bits[row][column] = static_cast<uint16_t>(wgmma.a_registers[lane][i / 2] >> 16 * (i % 2));
      }
    }
  } else {
    emulator::read_wgmma_operand(wgmma.a, first_row, 16, a_bits);
  }
  if (TRANS_B) {
    emulator::read_wgmma_mn_major(wgmma.b, N, b_bits);
  } else {
    emulator::read_wgmma_operand(wgmma.b, 0, N, b_bits);
  }
  for (u32 k = 0; k < 16; k++) {
    for (u32 row = 0; row < 16; row++) a[row][k] = to_float(E{a_bits[row][k]});
    for (u32 column = 0; column < N; column++) b[k][column] = to_float(E{b_bits[column][k]});
  }
  const auto element = [](u32 lane, u32 i) -> float& {
    return acc[lane / 4 + i / 2 % 2 * 8][i / 4 * 8 + lane % 4 * 2 + i % 2];
  };
  for (u32 lane = 0; lane < 32; lane++) {
    for (u32 i = 0; i < N / 2; i++) element(lane, i) = wgmma.scale_d ? wgmma.acc[lane][i] : 0.0f;
  }
  for (u32 row = 0; row < 16; row++) {
    for (u32 k = 0; k < 16; k++) {
      for (u32 column = 0; column < N; column++) acc[row][column] += a[row][k] * b[k][column];
    }
  }
  for (u32 lane = 0; lane < 32; lane++) {
    for (u32 i = 0; i < N / 2; i++) wgmma.acc[lane][i] = element(lane, i);
  }
}
struct EmulatedWgmmaInput {
  u64 a, b;
  const u32* a_registers;  // null where a is in shared memory
  float* acc;
  bool scale_d;
};
template <class E, u32 N, bool TRANS_B>
DEVICE void issue_emulated_wgmma(const EmulatedWgmmaInput& in) {
  emulator::collective<EmulatedWgmmaInput, u32>("wgmma", ~0u, in, [](const EmulatedWgmmaInput* lanes, u32*) {
    emulator::Wgmma wgmma = {lanes[0].a, lanes[0].b, lanes[0].scale_d, {}, {}, emulated_wgmma<E, N, TRANS_B>};
    for (u32 lane = 0; lane < 32; lane++) {
      if (lanes[lane].a != wgmma.a || lanes[lane].b != wgmma.b || lanes[lane].scale_d != wgmma.scale_d) {
        emulator::fail("wgmma: lanes of a warp have different operands");
      }
      wgmma.a_registers[lane] = lanes[lane].a_registers;
      wgmma.acc[lane] = lanes[lane].acc;
    }
    emulator::issue_wgmma(wgmma);
  });
}
template <class E>
DEVICE void wgmma_m64n256k16(float (&acc)[128], u64 desc_a, u64 desc_b, bool scale_d) {
  issue_emulated_wgmma<E, 256, false>({desc_a, desc_b, nullptr, acc, scale_d});
}
template <class E, bool TRANS_B>
DEVICE void wgmma_m64n64k16(float (&acc)[32], const u32 (&a)[4], u64 desc_b, bool scale_d) {
  issue_emulated_wgmma<E, 64, TRANS_B>({0, desc_b, a, acc, scale_d});
}
template <class E, bool TRANS_B>
DEVICE void wgmma_m64n128k16(float (&acc)[64], const u32 (&a)[4], u64 desc_b, bool scale_d) {
  issue_emulated_wgmma<E, 128, TRANS_B>({0, desc_b, a, acc, scale_d});
}
