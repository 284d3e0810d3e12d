// GEMM out[M,N] = x[M,K] . w[N,K]^T with the epilogues of linear.cu, f16/bf16 in, f32 accumulate. sm_90a.
// Step 3: warp-specialized TMA + WGMMA, clusters of 2 CTAs.
//                                              H100, M = 4096, bf16: 750 (linear), 705 (gated), 766 (residual) TFLOP/s
//   (step 1 linear.cu: naive, 0.5 TFLOP/s;  step 2 linear_mma.cu: cp.async + mma.sync, 247 to 299 TFLOP/s)
//
// CTA tile   BM 128 x BN 256 x BK 64, STAGES 4, swizzle 128B        smem 193 KiB dynamic, 384 threads
//   warpgroup 0     producer    40 regs   1 thread: wait empty[s] -> expect_tx full[s] -> TMA x, TMA half of w (multicast)
//   warpgroup 1, 2  consumer   232 regs   64 rows each: wait full[s] -> 4 wgmma m64n256k16 -> commit -> wait_group<1>
//                                         -> arrive empty[s - 1] in both CTAs
// Cluster (2,1,1): its CTAs have consecutive tiles of M and the same tile of N. Each loads its own x and half of w for
// both: a CTA reads 32 KiB a step from L2 instead of 48 KiB.
//
//   stage   0    1    2    3    0    1 ...
//   TMA    [==] [==] [==] [==] [==] [==]      full[s]:  1 arrival and STAGE_BYTES, from either CTA
//   WGMMA       [##] [##] [##] [##] [##]      empty[s]: 8 consumer warps x 2 CTAs
//
// Cluster exit: empty is not signaled in the last STAGES steps, where the stage is not refilled and the other CTA may
// have exited. The last tiles are waited for in both CTAs, so no operation reaches a CTA that has exited, and there is no
// cluster barrier at the end.
// Epilogue: where out_features is a multiple of 8, lanes exchange accumulators so that each stores 16 bytes. RESIDUAL loads
// 8 x 16 bytes before the first of them is added and stored: `out` may be what a store has written, so no compiler moves
// a load over it, and each would wait for the memory. An activation other than the usual one (none, SiLU for GATED) has a
// loop of its own: one uniform branch a tile.
// Predicted for an H100, 2048 rows, bf16, not measured: 206 us instead of 238 for [2048 -> 16384, gated] by a SiLU without an
// IEEE division, 30 instead of 38 for [2048 -> 2048, residual] and 87 instead of 95 for [8192 -> 2048, residual] by the
// loads.
// K must be a multiple of 8 and not 0. TMA fills tiles with zeros beyond M, N and K. Tiles of M are rounded up to whole
// clusters; a CTA beyond M multiplies zeros and stores nothing.
// Launch: grid (tiles of M, an even number, * tiles of N), 384 threads, SHARED_BYTES of dynamic shared memory. x and w are
// tensor maps of tiles of 128 rows by 64 columns, swizzled by 128 bytes.
// Determinism: K is accumulated in order in steps of 16; a row's bits do not depend on M or on its position.
// Measured: docs/measurements/gpu/kernels.txt, NVIDIA H100 80GB HBM3 (SXM), power-limited, shapes of an 8B model,
// SiLU in linear_gated_wgmma; the other activations are not measured yet.
#include "epilogue.cuh"
#include "ptx_sm90.cuh"

constexpr u32 BM = 128, BN = 256, BK = 64;
constexpr u32 STAGES = 4;
constexpr u32 THREADS = 384;
constexpr u32 WARPGROUP_THREADS = 128;
constexpr u32 WGMMA_M = 64;
constexpr u32 CONSUMER_WARPS = 8;
constexpr u32 CLUSTER_SIZE = 2, MULTICAST_MASK = (1 << CLUSTER_SIZE) - 1;
constexpr u32 CLUSTER_M = CLUSTER_SIZE * BM;
constexpr u32 MULTICAST_N = BN / CLUSTER_SIZE;
constexpr u32 GROUP_M = 16;
// Groups of 32 columns whose residuals are loaded together, 2 x 16 bytes each. Sixteen loads would spill registers.
constexpr u32 RESIDUAL_GROUPS = 4;
static_assert(BN / 32 % RESIDUAL_GROUPS == 0, "the groups of a tile are loaded in whole chunks");
static_assert(GROUP_M % CLUSTER_SIZE == 0, "the CTAs of a cluster must have the same columns of N");

// Bytes of shared memory, of 2-byte elements.
constexpr u32 ROW_BYTES = BK * 2;
constexpr u32 X_TILE_BYTES = BM * ROW_BYTES;
constexpr u32 STAGE_BYTES = X_TILE_BYTES + BN * ROW_BYTES;
constexpr u32 WGMMA_K_BYTES = 16 * 2;
constexpr u32 SWIZZLE_ALIGNMENT = 1024;
constexpr u32 SHARED_BYTES = STAGES * STAGE_BYTES + SWIZZLE_ALIGNMENT;
static_assert(SHARED_BYTES <= 227 << 10, "the stages do not fit the shared memory of a CTA");

// Multiples of 8 that setmaxnreg takes; together no more than the 168 registers that each of 384 threads is launched with.
constexpr u32 PRODUCER_REGISTERS = 40, CONSUMER_REGISTERS = 232;
static_assert(WARPGROUP_THREADS * (PRODUCER_REGISTERS + 2 * CONSUMER_REGISTERS) <= 65536,
              "more registers than there are");

// The tile of a CTA. Grouped rasterization: consecutive CTAs go down GROUP_M tiles of M before the next tile of N, so that
// CTAs that run at the same time share tiles in L2. GROUP_M is whole clusters, so a cluster is consecutive in M.
struct TileCoord {
  u32 m, n;
};
DEVICE TileCoord tile_of_cta(u32 M, u32 N) {
  const u32 m_tiles = (M + CLUSTER_M - 1) / CLUSTER_M * CLUSTER_SIZE;
  const u32 n_tiles = (N + BN - 1) / BN;
  const u32 first = blockIdx.x / (GROUP_M * n_tiles) * GROUP_M, within = blockIdx.x % (GROUP_M * n_tiles);
  const u32 height = m_tiles - first < GROUP_M ? m_tiles - first : GROUP_M;
  return {(first + within % height) * BM, within / height * BN};
}

// Each of four neighboring lanes holds two columns of four groups of eight: lane q gets all eight columns of group q.
DEVICE void quad_transpose(const float (&acc)[128], u32 first, u32 lane, float (&eight)[8]) {
  float pairs[4][2];
#pragma unroll
  for (u32 i = 0; i < 4; i++) {
    pairs[i][0] = acc[first + i * 4];
    pairs[i][1] = acc[first + i * 4 + 1];
  }
  // A 4 x 4 transposition of pairs in two butterfly steps.
#pragma unroll
  for (u32 distance = 1; distance <= 2; distance *= 2) {
    const bool upper = (lane & distance) != 0;
#pragma unroll
    for (u32 low = 0; low < 4; low++) {
      if ((low & distance) != 0) continue;
      const u32 high = low + distance;
#pragma unroll
      for (u32 i = 0; i < 2; i++) {
        const float got = shfl_xor(upper ? pairs[low][i] : pairs[high][i], distance);
        if (upper) {
          pairs[low][i] = got;
        } else {
          pairs[high][i] = got;
        }
      }
    }
  }
#pragma unroll
  for (u32 i = 0; i < 8; i++) eight[i] = pairs[i / 2][i % 2];
}

// One thread of warpgroup 0.
DEVICE void produce(const TensorMap& x, const TensorMap& w, unsigned char* stages, u64* full, u64* empty,
                    TileCoord tile, u32 k_steps) {
  const u32 half_n = cluster_ctarank() * MULTICAST_N;
  for (u32 step = 0; step < k_steps; step++) {
    const u32 stage = step % STAGES, phase = step / STAGES;
    // Parity 1 before phase 0: the stages start empty.
    mbarrier_wait_parity(&empty[stage], (phase + 1) % 2);
    unsigned char* tiles = stages + stage * STAGE_BYTES;
    // The other CTA's half of w may have arrived already: the pending bytes are negative for a moment.
    mbarrier_arrive_expect_tx(&full[stage], STAGE_BYTES);
    tma_load_2d(tiles, x, &full[stage], step * BK, tile.m);
    tma_load_2d_multicast(tiles + X_TILE_BYTES + half_n * ROW_BYTES, w, &full[stage], step * BK, tile.n + half_n,
                          MULTICAST_MASK);
  }
}

// Warpgroups 1 and 2.
template <class E>
DEVICE void consume(const unsigned char* stages, u64* full, u64* empty, u32 consumer_index, u32 k_steps,
                    float (&acc)[128]) {
  const u32 lane = threadIdx.x % 32;
  for (u32 step = 0; step < k_steps; step++) {
    const u32 stage = step % STAGES, phase = step / STAGES;
    mbarrier_wait_parity(&full[stage], phase % 2);
    const unsigned char* tiles = stages + stage * STAGE_BYTES;
    const u64 a = make_smem_desc(tiles + consumer_index * WGMMA_M * ROW_BYTES);
    const u64 b = make_smem_desc(tiles + X_TILE_BYTES);
    wgmma_fence();
#pragma unroll
    for (u32 k16 = 0; k16 < BK / 16; k16++) {
      wgmma_m64n256k16<E>(acc, a + k16 * (WGMMA_K_BYTES / 16), b + k16 * (WGMMA_K_BYTES / 16), step + k16 > 0);
    }
    wgmma_commit_group();
    // The wgmmas of this step are in flight; those of the previous step are complete, and this warp has read its stage.
    wgmma_wait_group<1>();
    // Signaled only where the stage is refilled: the producer of the other CTA then waits for it, so that CTA has not exited.
    const bool is_refilled = step > 0 && step - 1 + STAGES < k_steps;
    // One lane for each CTA.
    if (is_refilled && lane < CLUSTER_SIZE) mbarrier_arrive_cluster(&empty[(step - 1) % STAGES], lane);
  }
  wgmma_wait_group<0>();
}

// The 16 bytes that `store_eight` will overwrite at the first column of each group, of rows `first_row` and 8 more.
template <class E>
DEVICE void load_residual(const E* out, u32 M, u32 out_features, u32 first_row, u32 first_column,
                          uint4 (&old)[RESIDUAL_GROUPS][2]) {
#pragma unroll
  for (u32 i = 0; i < RESIDUAL_GROUPS; i++) {
#pragma unroll
    for (u32 half = 0; half < 2; half++) {
      const u32 row = first_row + half * 8, column = first_column + i * 32;
      if (row >= M || column >= out_features) continue;
      old[i][half] = *reinterpret_cast<const uint4*>(out + static_cast<u64>(row) * out_features + column);
    }
  }
}

// Stores the 64 rows of a warpgroup with the usual activation. A thread's accumulators begin at `first_row`.
template <class E, Epilogue EPILOGUE>
DEVICE void store_tile(const float (&acc)[128], const float* bias, u32 M, u32 first_row, u32 first_column, u32 lane,
                       u32 out_features, E* out) {
  if (out_features % 8 == 0) {
#pragma unroll
    for (u32 first = 0; first < BN / 32; first += RESIDUAL_GROUPS) {
      uint4 old[RESIDUAL_GROUPS][2] = {};
      if (EPILOGUE == RESIDUAL) {
        load_residual(out, M, out_features, first_row, first_column + first * 32 + lane % 4 * 8, old);
      }
#pragma unroll
      for (u32 i = 0; i < RESIDUAL_GROUPS; i++) {
        const u32 group = first + i, column = first_column + group * 32 + lane % 4 * 8;
#pragma unroll
        for (u32 half = 0; half < 2; half++) {
          float eight[8];
          quad_transpose(acc, group * 16 + half * 2, lane, eight);
          const u32 row = first_row + half * 8;
          if (row < M) store_eight<E, EPILOGUE>(eight, old[i][half], bias, row, column, out_features, out);
        }
      }
    }
    return;
  }
#pragma unroll
  for (u32 half = 0; half < 2; half++) {
    const u32 row = first_row + half * 8;
    if (row >= M) continue;
#pragma unroll
    for (u32 j = 0; j < BN / 8; j++) {
      const u32 column = first_column + j * 8 + lane % 4 * 2;
      store_pair<E, EPILOGUE, false>(acc[j * 4 + half * 2], acc[j * 4 + half * 2 + 1], bias, row, column, out_features,
                                     USUAL_ACTIVATION<EPILOGUE>, out);
    }
  }
}

// The same with another activation. One loop for any `out_features`: it has a copy of the code for each accumulator.
template <class E, Epilogue EPILOGUE>
DEVICE void store_tile_activated(const float (&acc)[128], const float* bias, u32 M, u32 first_row, u32 first_column,
                                 u32 lane, u32 out_features, u32 activation, E* out) {
#pragma unroll
  for (u32 group = 0; group < BN / 32; group++) {
    const u32 column = first_column + group * 32 + lane % 4 * 8;
#pragma unroll
    for (u32 half = 0; half < 2; half++) {
      float eight[8];
      quad_transpose(acc, group * 16 + half * 2, lane, eight);
      const u32 row = first_row + half * 8;
      if (row < M) store_eight_activated<E, EPILOGUE>(eight, bias, row, column, out_features, activation, out);
    }
  }
}

template <class E, Epilogue EPILOGUE>
DEVICE void linear_wgmma(const TensorMap& x, const TensorMap& w, const float* bias, u32 M, u32 K, u32 out_features,
                         u32 activation, E* out) {
  DYNAMIC_SHARED(unsigned char, unaligned);
  SHARED_ARRAY(u64, full, STAGES);
  SHARED_ARRAY(u64, empty, STAGES);
  unsigned char* stages =
      unaligned + (SWIZZLE_ALIGNMENT - shared_address(unaligned) % SWIZZLE_ALIGNMENT) % SWIZZLE_ALIGNMENT;
  const TileCoord tile = tile_of_cta(M, EPILOGUE == GATED ? 2 * out_features : out_features);
  const u32 k_steps = (K + BK - 1) / BK;

  if (threadIdx.x == 0) {
    prefetch_tensormap(x);
    prefetch_tensormap(w);
    for (u32 stage = 0; stage < STAGES; stage++) {
      mbarrier_init(&full[stage], 1);
      mbarrier_init(&empty[stage], CLUSTER_SIZE * CONSUMER_WARPS);
    }
    fence_mbarrier_init();
  }
  // The other CTA arrives at this one's barriers.
  cluster_sync();

  const u32 warpgroup = threadIdx.x / WARPGROUP_THREADS;
  if (warpgroup == 0) {
    setmaxnreg_dec<PRODUCER_REGISTERS>();
    if (threadIdx.x == 0) produce(x, w, stages, full, empty, tile, k_steps);
    return;
  }
  setmaxnreg_inc<CONSUMER_REGISTERS>();
  // Not initialized: the first wgmma overwrites it (scale_d = 0). With zeros the compiler sees writes between wgmmas and
  // serializes them (C7511).
  float acc[128];
  consume<E>(stages, full, empty, warpgroup - 1, k_steps, acc);

  const u32 thread = threadIdx.x % WARPGROUP_THREADS, lane = thread % 32;
  const u32 first_row = tile.m + (warpgroup - 1) * WGMMA_M + thread / 32 * 16 + lane / 4;
  if (is_usual<EPILOGUE>(activation)) {
    store_tile<E, EPILOGUE>(acc, bias, M, first_row, tile.n, lane, out_features, out);
  } else {
    store_tile_activated<E, EPILOGUE>(acc, bias, M, first_row, tile.n, lane, out_features, activation, out);
  }
}

#define LINEAR_WGMMA_KERNEL(name, E, EPILOGUE)                                                                 \
  KERNEL_WITH_CLUSTER(name, CLUSTER_SIZE)                                                                      \
  __launch_bounds__(THREADS, 1)                                                                                \
      name(GRID_CONSTANT TensorMap x, GRID_CONSTANT TensorMap w, const float* __restrict__ bias, u32 M, u32 K, \
           u32 out_features, u32 activation, E* __restrict__ out) {                                            \
    linear_wgmma<E, EPILOGUE>(x, w, bias, M, K, out_features, activation, out);                                \
  }                                                                                                            \
  REGISTER_KERNEL(name);

LINEAR_WGMMA_KERNEL(linear_wgmma_f16, f16, STORE)
LINEAR_WGMMA_KERNEL(linear_wgmma_bf16, bf16, STORE)
LINEAR_WGMMA_KERNEL(linear_residual_wgmma_f16, f16, RESIDUAL)
LINEAR_WGMMA_KERNEL(linear_residual_wgmma_bf16, bf16, RESIDUAL)
LINEAR_WGMMA_KERNEL(linear_gated_wgmma_f16, f16, GATED)
LINEAR_WGMMA_KERNEL(linear_gated_wgmma_bf16, bf16, GATED)
