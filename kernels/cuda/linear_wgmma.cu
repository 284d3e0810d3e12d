// GEMM out[M,N] = x[M,K] . w[N,K]^T with the epilogues of linear.cu, f16/bf16 in, f32 accumulate. sm_90a.
// Step 3: warp-specialized TMA + WGMMA, clusters of 2 CTAs.
//                                              H100, M = 4096, bf16: 750 (linear), 705 (gated), 766 (residual) TFLOP/s
// Step 4: persistent clusters; results through shared memory, stored by TMA.                               not measured
//   (step 1 linear.cu: naive, 0.5 TFLOP/s;  step 2 linear_mma.cu: cp.async + mma.sync, 247 to 299 TFLOP/s)
//
// CTA tile   BM 128 x BN 256 x BK 64, STAGES 3, swizzle 128B; 2 slabs of 64 x 256 results
//            smem 209 KiB dynamic, 384 threads
//   warpgroup 0     producer    40 regs   thread 0:  wait empty[s] -> expect_tx full[s] -> TMA x, TMA half of w (multicast)
//                                         thread 32: wait written[h] -> TMA store of slab h -> wait until it is read
//                                                    -> ready[h], RESIDUAL: by a TMA load of the next tile's residual
//                                         warps 2, 3: the factors of 64 rows each for the next tile -> ready[h]
//   warpgroup 1, 2  consumer   232 regs   64 rows each: wait full[s] -> 4 wgmma m64n256k16 -> commit -> wait_group<1>
//                                         -> arrive empty[s - 1] in both CTAs; after the last step of a tile
//                                         wait ready[h] -> epilogue -> stmatrix to slab h -> arrive written[h]
// Cluster (2,1,1): its CTAs have consecutive tiles of M and the same tile of N. Each loads its own x and half of w for
// both: a CTA reads 32 KiB a step from L2 instead of 48 KiB.
//
//   stage   0    1    2    0    1    2 ...             over all tiles of the CTA: thread 0 fills the stages of the next tile
//   TMA    [==] [==] [==] [==] [==] [==]               during the epilogue of this one
//   WGMMA       [##] [##] [##]| epilogue |[##] [##]    full[s]:  1 arrival and STAGE_BYTES, from either CTA
//   store                            [===========]     empty[s]: 8 consumer warps x 2 CTAs
//
// Persistent: a grid of G CTAs, at most one for each multiprocessor; CTA c has the tiles c, c + G, c + 2 G, ... of the raster
// order. Both CTAs of a cluster have as many.
// Cluster exit: empty is not signaled in the last STAGES steps of all, where the stage is not refilled and the other CTA may
// have exited. The last tiles are waited for in both CTAs, so no operation reaches a CTA that has exited, and there is no
// cluster barrier at the end. Thread 32 waits until its stores have read the slabs before it exits.
// Proxies: consumers write slabs through the generic proxy, TMA reads them through the asynchronous one: each thread's
// fence_proxy_async lies between its writes and its arrival at written.
// Epilogue: a slab has the layout of TMA's 128-byte swizzle, so that stmatrix and ldmatrix have no bank conflicts. The
// interleaved gate and up projections of GATED make a lane's results every fourth column: lanes exchange them for pairs.
// Queries and keys: a lane holds both columns of a pair where head_dim is a power of two from 16 to 256 and half of rotary_dim
// one from 8 on; it rotates its accumulators before they go to the slab. Each box of a slab is stored into one of the two
// outputs: query_width is a multiple of 64 where both have columns, or none is stored behind it.
// An activation other than the usual one (none, SiLU for GATED) has a loop of its own: one uniform branch a tile.
// With `squares`, RESIDUAL writes the sums of squares of the rows that it stores, and the others scale rows by them: see
// epilogue.cuh.
// K and out_features must be multiples of 8, and K not 0. TMA fills tiles with zeros beyond M, N and K, and stores nothing
// there. Tiles of M are rounded up to whole clusters.
// Launch: grid of whole clusters, 384 threads, SHARED_BYTES of dynamic shared memory. x, w and the outputs are tensor maps swizzled
// by 128 bytes: tiles of 128 rows by 64 columns of x and w, of 64 by 64 of
// the outputs.
// Determinism: K is accumulated in order in steps of 16 in one CTA; a row's bits do not depend on M, on its position or on
// the grid.
// Measured: docs/measurements/gpu/kernels.txt, NVIDIA H100 80GB HBM3 (SXM), power-limited, shapes of an 8B model,
// SiLU in linear_gated_wgmma; the other activations and step 4 are not measured yet.
// Predicted for step 4 on an H100, not measured: of 2048 rows, bf16, 206 us instead of 238 for [2048 -> 16384, gated] by a
// SiLU without an IEEE division, 30 instead of 38 for [2048 -> 2048, residual] and 87 instead of 95 for
// [8192 -> 2048, residual] by residuals that are loaded before the epilogue; 5.5 ms less for a forward pass of a 1B model
// over 32768 tokens by persistence, if the card does not lower its clock.
#include "epilogue.cuh"
#include "ptx_sm90.cuh"
#include "ring.cuh"

constexpr u32 BM = 128, BN = 256, BK = 64;
constexpr u32 STAGES = 3;
constexpr u32 THREADS = 384;
constexpr u32 WARPGROUP_THREADS = 128;
constexpr u32 WGMMA_M = 64;
constexpr u32 CONSUMERS = 2;
constexpr u32 CONSUMER_WARPS = 8;
constexpr u32 CLUSTER_SIZE = 2, MULTICAST_MASK = (1 << CLUSTER_SIZE) - 1;
constexpr u32 CLUSTER_M = CLUSTER_SIZE * BM;
constexpr u32 MULTICAST_N = BN / CLUSTER_SIZE;
constexpr u32 GROUP_M = 16;
static_assert(GROUP_M % CLUSTER_SIZE == 0, "the CTAs of a cluster must have the same columns of N");

// Bytes of shared memory, of 2-byte elements.
constexpr u32 ROW_BYTES = BK * 2;
constexpr u32 X_TILE_BYTES = BM * ROW_BYTES;
constexpr u32 STAGE_BYTES = X_TILE_BYTES + BN * ROW_BYTES;
constexpr u32 WGMMA_K_BYTES = 16 * 2;
// A slab is boxes of 64 rows by 64 columns, one behind the other.
constexpr u32 BOX_COLUMNS = 64;
constexpr u32 BOX_BYTES = WGMMA_M * ROW_BYTES;
constexpr u32 SLAB_BYTES = WGMMA_M * BN * 2;
static_assert(ROW_BYTES == BOX_COLUMNS * 2, "rows of a box and of a stage are swizzled by 128 bytes");
constexpr u32 SWIZZLE_ALIGNMENT = 1024;
constexpr u32 SHARED_BYTES = STAGES * STAGE_BYTES + CONSUMERS * SLAB_BYTES + SWIZZLE_ALIGNMENT;
static_assert(SHARED_BYTES <= 227 << 10, "stages and slabs do not fit the shared memory of a CTA");

// Multiples of 8 that setmaxnreg takes; together no more than the 168 registers that each of 384 threads is launched with.
constexpr u32 PRODUCER_REGISTERS = 40, CONSUMER_REGISTERS = 232;
static_assert(WARPGROUP_THREADS * (PRODUCER_REGISTERS + 2 * CONSUMER_REGISTERS) <= 65536,
              "more registers than there are");

// The tiles of a GEMM. Grouped rasterization: consecutive tiles go down GROUP_M tiles of M before the next tile of N, so that
// CTAs that run at the same time share tiles in L2. GROUP_M is whole clusters, so a cluster is consecutive in M.
struct TileCoord {
  u32 m, n;
};
struct Raster {
  u32 m_tiles, n_tiles;
  // The first column.
  u32 first;
};
DEVICE u32 tile_count(const Raster& raster) { return raster.m_tiles * raster.n_tiles; }
DEVICE TileCoord tile_at(const Raster& raster, u32 index) {
  const u32 first = index / (GROUP_M * raster.n_tiles) * GROUP_M, within = index % (GROUP_M * raster.n_tiles);
  const u32 height = raster.m_tiles - first < GROUP_M ? raster.m_tiles - first : GROUP_M;
  return {(first + within % height) * BM, raster.first + within / height * BN};
}
DEVICE Raster raster_of(u32 M, u32 N, u32 first) {
  return {(M + CLUSTER_M - 1) / CLUSTER_M * CLUSTER_SIZE, (N + BN - 1) / BN, first};
}

// Thread 0.
DEVICE void produce(const TensorMap& x, const TensorMap& w, unsigned char* stages, u64* full, u64* empty, Raster raster,
                    u32 k_steps) {
  const u32 half_n = cluster_ctarank() * MULTICAST_N;
  Slot<STAGES> slot = {0, 0};
  for (u32 index = blockIdx.x; index < tile_count(raster); index += gridDim.x) {
    const TileCoord tile = tile_at(raster, index);
    for (u32 step = 0; step < k_steps; step++) {
      // Parity 1 before phase 0: the stages start empty.
      mbarrier_wait_parity(&empty[slot.stage], slot.parity ^ 1);
      unsigned char* tiles = stages + slot.stage * STAGE_BYTES;
      // The other CTA's half of w may have arrived already: the pending bytes are negative for a moment.
      mbarrier_arrive_expect_tx(&full[slot.stage], STAGE_BYTES);
      tma_load_2d(tiles, x, &full[slot.stage], step * BK, tile.m);
      tma_load_2d_multicast(tiles + X_TILE_BYTES + half_n * ROW_BYTES, w, &full[slot.stage], step * BK, tile.n + half_n,
                            MULTICAST_MASK);
      advance(slot);
    }
  }
}

// Gives slab `half` to its consumers for `tile`: empty, or with the residual.
template <Epilogue EPILOGUE>
DEVICE void prepare_slab(const TensorMap& out, unsigned char* slabs, u64* ready, u32 half, TileCoord tile) {
  if (EPILOGUE != RESIDUAL) {
    mbarrier_arrive(&ready[half]);
    return;
  }
  mbarrier_arrive_expect_tx(&ready[half], SLAB_BYTES);
  for (u32 box = 0; box < BN / BOX_COLUMNS; box++) {
    tma_load_2d(slabs + half * SLAB_BYTES + box * BOX_BYTES, out, &ready[half], tile.n + box * BOX_COLUMNS,
                tile.m + half * WGMMA_M);
  }
}

// Starts the store of a box of 64 columns from `column` on. Boundaries between queries, keys and values are those of boxes.
template <Epilogue EPILOGUE>
DEVICE void store_box(const TensorMap& out, const TensorMap& key_value, const Qkv& qkv, const unsigned char* box, u32 column,
                      u32 row) {
  if (EPILOGUE != QKV) {
    tma_store_2d(out, box, column, row);
  } else if (column < qkv.query_width) {
    tma_store_2d(out, box, column, row);
  } else if (column < qkv.end) {
    tma_store_2d(key_value, box, column - qkv.query_width, row);
  }
}

// Thread 32.
template <Epilogue EPILOGUE>
DEVICE void store_slabs(const TensorMap& out, const TensorMap& key_value, const Qkv& qkv, unsigned char* slabs, u64* ready, u64* written, Raster raster) {
  constexpr u32 COLUMNS = EPILOGUE == GATED ? BN / 2 : BN;
  TileCoord tile = tile_at(raster, blockIdx.x);
  for (u32 half = 0; half < CONSUMERS; half++) prepare_slab<EPILOGUE>(out, slabs, ready, half, tile);
  u32 parity = 0;
  for (u32 index = blockIdx.x; index < tile_count(raster); index += gridDim.x) {
    const u32 column = tile.n / (BN / COLUMNS);
    for (u32 half = 0; half < CONSUMERS; half++) {
      mbarrier_wait_parity(&written[half], parity);
      for (u32 box = 0; box < COLUMNS / BOX_COLUMNS; box++) {
        store_box<EPILOGUE>(out, key_value, qkv, slabs + half * SLAB_BYTES + box * BOX_BYTES, column + box * BOX_COLUMNS,
                            tile.m + half * WGMMA_M);
      }
      cp_async_bulk_commit_group();
    }
    parity ^= 1;
    if (index + gridDim.x >= tile_count(raster)) break;
    tile = tile_at(raster, index + gridDim.x);
    cp_async_bulk_wait_group_read<1>();
    prepare_slab<EPILOGUE>(out, slabs, ready, 0, tile);
    cp_async_bulk_wait_group_read<0>();
    prepare_slab<EPILOGUE>(out, slabs, ready, 1, tile);
  }
  cp_async_bulk_wait_group_read<0>();
}

// Warp 2 or 3: the factors of the rows of slab `half`, for its consumers. They have read those of the tile before when they have
// written its slab.
DEVICE void scale_rows(const float* squares, float eps, u32 M, u32 K, float* scales, u64* ready, u64* written, u32 half,
                       Raster raster) {
  const u32 lane = threadIdx.x % 32;
  // Parity 1 before phase 0: there is no tile before the first.
  u32 free = 1;
  for (u32 index = blockIdx.x; index < tile_count(raster); index += gridDim.x) {
    const u32 row = tile_at(raster, index).m + half * WGMMA_M + lane;
    const float first = row < M ? row_scale(squares, row, K, eps) : 0.0f;
    const float second = row + 32 < M ? row_scale(squares, row + 32, K, eps) : 0.0f;
    mbarrier_wait_parity(&written[half], free);
    scales[half * WGMMA_M + lane] = first;
    scales[half * WGMMA_M + lane + 32] = second;
    mbarrier_arrive(&ready[half]);
    free ^= 1;
  }
}

// A warp's arrival that it has read a stage, in both CTAs. Only where the stage is refilled, which `refills` counts: the
// producer of the other CTA then waits for it, so that CTA has not exited.
DEVICE void release(u64* empty, u32 stage, u32& refills) {
  if (refills == 0) return;
  refills--;
  // One lane for each CTA.
  const u32 lane = threadIdx.x % 32;
  if (lane < CLUSTER_SIZE) mbarrier_arrive_cluster(&empty[stage], lane);
}

// Warpgroups 1 and 2: the accumulators of a tile.
template <class E>
DEVICE void consume(const unsigned char* stages, u64* full, u64* empty, u32 consumer, u32 k_steps, Slot<STAGES>& slot,
                    u32& refills, float (&acc)[128]) {
  u32 previous = 0;
  for (u32 step = 0; step < k_steps; step++) {
    mbarrier_wait_parity(&full[slot.stage], slot.parity);
    const unsigned char* tiles = stages + slot.stage * STAGE_BYTES;
    const u64 a = make_smem_desc(tiles + consumer * WGMMA_M * ROW_BYTES);
    const u64 b = make_smem_desc(tiles + X_TILE_BYTES);
    wgmma_fence();
#pragma unroll
    for (u32 k16 = 0; k16 < BK / 16; k16++) {
      wgmma_m64n256k16<E>(acc, a + k16 * (WGMMA_K_BYTES / 16), b + k16 * (WGMMA_K_BYTES / 16), step + k16 > 0);
    }
    wgmma_commit_group();
    // The wgmmas of this step are in flight; those of the previous step are complete, and this warp has read its stage.
    wgmma_wait_group<1>();
    if (step > 0) release(empty, previous, refills);
    previous = slot.stage;
    advance(slot);
  }
  wgmma_wait_group<0>();
  release(empty, previous, refills);
}

// Rotates the heads in the accumulators, of whose columns 8 HALF is half of rotary_dim: both columns of a pair are in one
// lane. Tiles begin with a head and hold whole heads: head_dim is a power of two up to BN. `angles` are the offsets of the
// lane's two rows and two columns in the tables.
template <u32 HALF>
DEVICE void rotate_heads(const Qkv& qkv, u32 first_column, const u64 (&angles)[2], float (&acc)[128]) {
#pragma unroll
  for (u32 block = 0; block + HALF < BN / 8; block++) {
    const u32 in_head = block * 8 & (qkv.head_dim - 1);
    if (in_head >= HALF * 8 || first_column + block * 8 >= qkv.rotated) continue;
#pragma unroll
    for (u32 half = 0; half < 2; half++) {
      float c[2], s[2];
      load_two(qkv.cos + angles[half] + in_head, c);
      load_two(qkv.sin + angles[half] + in_head, s);
#pragma unroll
      for (u32 i = 0; i < 2; i++) {
        rotate_pair(acc[block * 4 + half * 2 + i], acc[(block + HALF) * 4 + half * 2 + i], c[i], s[i]);
      }
    }
  }
}

// Where a consumer's rows have their factors or their sums of squares, of which it has those of 64 rows.
struct RowNorms {
  // In shared memory; null if rows are not scaled.
  const float* scales;
  // Null if they are not asked for.
  float* squares;
  u32 first_row, M;
};

// Factors, bias and rotation of a consumer's 64 rows.
DEVICE void finish_qkv(const Qkv& qkv, const float* bias, const RowNorms& norms, u32 first_column, float (&acc)[128]) {
  const u32 lane = threadIdx.x % 32;
  const u32 first_row = norms.first_row, M = norms.M;
  if (norms.scales) {
    const float* own = norms.scales + threadIdx.x % WARPGROUP_THREADS / 32 * 16 + lane / 4;
    const float scales[2] = {own[0], own[8]};
#pragma unroll
    for (u32 i = 0; i < 128; i++) acc[i] *= scales[i / 2 % 2];
  }
  if (bias) {
#pragma unroll
    for (u32 block = 0; block < BN / 8; block++) {
      if (first_column + block * 8 >= qkv.end) continue;
      float pair[2];
      load_two(bias + first_column + block * 8 + lane % 4 * 2, pair);
#pragma unroll
      for (u32 i = 0; i < 4; i++) acc[block * 4 + i] += pair[i % 2];
    }
  }
  if (first_column >= qkv.rotated) return;
  const u32 half_dim = qkv.rotary_dim / 2;
  u64 angles[2];
#pragma unroll
  for (u32 half = 0; half < 2; half++) {
    const u32 row = first_row + threadIdx.x % WARPGROUP_THREADS / 32 * 16 + lane / 4 + half * 8;
    angles[half] = static_cast<u64>(row < M ? qkv.positions[row] : 0) * half_dim + lane % 4 * 2;
  }
  if (half_dim == 8) rotate_heads<1>(qkv, first_column, angles, acc);
  if (half_dim == 16) rotate_heads<2>(qkv, first_column, angles, acc);
  if (half_dim == 32) rotate_heads<4>(qkv, first_column, angles, acc);
  if (half_dim == 64) rotate_heads<8>(qkv, first_column, angles, acc);
  if (half_dim == 128) rotate_heads<16>(qkv, first_column, angles, acc);
}

// Of eight results, lane q of four neighbors has q and q + 4: it gets 2 q and 2 q + 1.
DEVICE u32 exchange_for_pair(u32 word, u32 lane) {
  const u32 first = lane / 4 * 4 + lane % 2 * 2;
  const u32 low = shfl_idx(word, first), high = shfl_idx(word, first + 1);
  return prmt(low, high, lane % 4 < 2 ? 0x5410 : 0x7632);
}

// Adds the squares of the stored pairs of 16 columns to the sums of this lane's two rows, and stores those of a block of 64
// columns after its last. `halves` has those of the first 32.
template <class E>
DEVICE void add_squares(const u32 (&words)[4], u32 block, u32 first_column, u32 out_features, const RowNorms& norms,
                        float (&sums)[2], float (&halves)[2]) {
  const u32 lane = threadIdx.x % 32;
#pragma unroll
  for (u32 i = 0; i < 4; i++) {
    float stored[2];
    unpack_word(words[i], stored, E{});
    if (block % 2 == 0 && i < 2) sums[i % 2] = 0.0f;
    sums[i % 2] = fmaf(stored[0], stored[0], sums[i % 2]);
    sums[i % 2] = fmaf(stored[1], stored[1], sums[i % 2]);
  }
  if (block % 2 == 0) return;
  const u32 blocks = square_blocks(out_features), own = first_column / SQUARES_COLUMNS + block / 4;
#pragma unroll
  for (u32 half = 0; half < 2; half++) {
    const float sum = quad_sum(sums[half]);
    if (block % 4 == 1) {
      halves[half] = sum;
      continue;
    }
    const u32 row = norms.first_row + threadIdx.x % WARPGROUP_THREADS / 32 * 16 + lane / 4 + half * 8;
    if (lane % 4 == 0 && row < norms.M && own < blocks) {
      norms.squares[static_cast<u64>(row) * blocks + own] = halves[half] + sum;
    }
  }
}

// The results of a consumer's 64 rows to its slab, by four 8 x 8 matrices of a warp at a time: 16 rows by 16 columns.
// `first_column` is the tile's first of `out_features`.
template <class E, Epilogue EPILOGUE, bool OTHER>
DEVICE void write_slab(const float (&acc)[128], const float* bias, u32 first_column, u32 out_features, u32 activation,
                       const RowNorms& norms, unsigned char* slab) {
  constexpr bool IS_GATED = EPILOGUE == GATED;
  constexpr u32 BLOCKS = (IS_GATED ? BN / 2 : BN) / 16;
  const u32 lane = threadIdx.x % 32;
  // The row of a matrix whose address this lane gives: matrices 0 and 2 have the first eight rows, 0 and 1 the first eight
  // columns.
  const u32 row = threadIdx.x % WARPGROUP_THREADS / 32 * 16 + lane % 16;
  // Of the lane's two rows of accumulators. A factor of 1 changes no bit.
  float scales[2] = {1.0f, 1.0f};
  if (EPILOGUE != RESIDUAL && EPILOGUE != QKV && norms.scales) {
    const float* own = norms.scales + threadIdx.x % WARPGROUP_THREADS / 32 * 16 + lane / 4;
    scales[0] = own[0];
    scales[1] = own[8];
  }
  float sums[2], halves[2];
#pragma unroll
  for (u32 block = 0; block < BLOCKS; block++) {
    unsigned char* place = slab + block / 4 * BOX_BYTES + row * ROW_BYTES + ((block % 4 * 2 + lane / 16) ^ row % 8) * 16;
    // Two of each matrix.
    float values[8], ups[8];
#pragma unroll
    for (u32 i = 0; i < 8; i++) {
      const u32 gate = block * 16 + i / 4 * 8 + i % 2 * 4 + i / 2 % 2 * 2;
      values[i] = acc[IS_GATED ? gate : block * 8 + i];
      ups[i] = IS_GATED ? acc[gate + 1] : 0.0f;
      if (EPILOGUE != RESIDUAL) values[i] *= scales[i / 2 % 2];
      if (IS_GATED) ups[i] *= scales[i / 2 % 2];
    }
    if (bias) {
#pragma unroll
      for (u32 i = 0; i < 8; i++) {
        const u32 eight = first_column + block * 16 + i / 4 * 8;
        const u32 column = eight + (IS_GATED ? i % 2 * 4 + lane % 4 : lane % 4 * 2 + i % 2);
        if (eight >= out_features) continue;
        values[i] += bias[column];
        if (IS_GATED) ups[i] += bias[out_features + column];
      }
    }
    if (EPILOGUE != RESIDUAL) activate_all<EPILOGUE, OTHER>(values, activation);
    u32 words[4];
    if (EPILOGUE == RESIDUAL) ldmatrix_x4<false>(words, place);
#pragma unroll
    for (u32 i = 0; i < 4; i++) {
      if (EPILOGUE == RESIDUAL) {
        float old[2];
        unpack_word(words[i], old, E{});
        values[i * 2] = old[0] + values[i * 2];
        values[i * 2 + 1] = old[1] + values[i * 2 + 1];
      }
      if (IS_GATED) {
        values[i * 2] *= ups[i * 2];
        values[i * 2 + 1] *= ups[i * 2 + 1];
      }
      words[i] = pack_pair<E>(values[i * 2], values[i * 2 + 1]);
      if (IS_GATED) words[i] = exchange_for_pair(words[i], lane);
    }
    if (EPILOGUE == RESIDUAL && norms.squares) {
      add_squares<E>(words, block, first_column, out_features, norms, sums, halves);
    }
    stmatrix_x4(place, words);
  }
}

template <class E, Epilogue EPILOGUE>
DEVICE void linear_wgmma(const TensorMap& x, const TensorMap& w, const TensorMap& out, const TensorMap& key_value,
                         const float* bias, u32 M, u32 K, u32 out_features, u32 activation, const Qkv& qkv,
                         float* squares, float eps) {
  DYNAMIC_SHARED(unsigned char, unaligned);
  SHARED_ARRAY(u64, full, STAGES);
  SHARED_ARRAY(u64, empty, STAGES);
  SHARED_ARRAY(u64, ready, CONSUMERS);
  SHARED_ARRAY(u64, written, CONSUMERS);
  SHARED_ARRAY(float, scales, BM);
  unsigned char* stages =
      unaligned + (SWIZZLE_ALIGNMENT - shared_address(unaligned) % SWIZZLE_ALIGNMENT) % SWIZZLE_ALIGNMENT;
  unsigned char* slabs = stages + STAGES * STAGE_BYTES;
  const u32 N = EPILOGUE == QKV ? qkv.end - qkv.first : EPILOGUE == GATED ? 2 * out_features : out_features;
  const Raster raster = raster_of(M, N, EPILOGUE == QKV ? qkv.first : 0);
  const u32 k_steps = (K + BK - 1) / BK;
  const bool is_scaled = EPILOGUE != RESIDUAL && squares;

  if (threadIdx.x == 0) {
    prefetch_tensormap(x);
    prefetch_tensormap(w);
    prefetch_tensormap(out);
    if (EPILOGUE == QKV) prefetch_tensormap(key_value);
    for (u32 stage = 0; stage < STAGES; stage++) {
      mbarrier_init(&full[stage], 1);
      mbarrier_init(&empty[stage], CLUSTER_SIZE * CONSUMER_WARPS);
    }
    for (u32 half = 0; half < CONSUMERS; half++) {
      mbarrier_init(&ready[half], is_scaled ? 1 + 32 : 1);
      mbarrier_init(&written[half], WARPGROUP_THREADS);
    }
    fence_mbarrier_init();
  }
  // The other CTA arrives at this one's barriers.
  cluster_sync();

  // From a shuffle, so that the compiler knows it to be the same in a warp and computes descriptors in uniform registers.
  const u32 warpgroup = shfl_idx(threadIdx.x / WARPGROUP_THREADS, 0);
  if (warpgroup == 0) {
    setmaxnreg_dec<PRODUCER_REGISTERS>();
    if (threadIdx.x == 0) produce(x, w, stages, full, empty, raster, k_steps);
    if (threadIdx.x == 32) store_slabs<EPILOGUE>(out, key_value, qkv, slabs, ready, written, raster);
    const u32 warp = threadIdx.x / 32;
    if (is_scaled && warp >= 2) scale_rows(squares, eps, M, K, scales, ready, written, warp - 2, raster);
    return;
  }
  setmaxnreg_inc<CONSUMER_REGISTERS>();
  const u32 consumer = warpgroup - 1;
  const u32 n_tiles = (tile_count(raster) - blockIdx.x + gridDim.x - 1) / gridDim.x;
  u32 refills = n_tiles * k_steps > STAGES ? n_tiles * k_steps - STAGES : 0;
  Slot<STAGES> slot = {0, 0};
  u32 parity = 0;
  for (u32 index = blockIdx.x; index < tile_count(raster); index += gridDim.x) {
    // Not initialized: the first wgmma overwrites it (scale_d = 0). With zeros the compiler sees writes between wgmmas and
    // serializes them (C7511).
    float acc[128];
    consume<E>(stages, full, empty, consumer, k_steps, slot, refills, acc);
    const TileCoord tile = tile_at(raster, index);
    const u32 column = tile.n / (EPILOGUE == GATED ? 2 : 1);
    const RowNorms norms = {is_scaled ? scales + consumer * WGMMA_M : nullptr, squares, tile.m + consumer * WGMMA_M, M};
    unsigned char* slab = slabs + consumer * SLAB_BYTES;
    mbarrier_wait_parity(&ready[consumer], parity);
    if (EPILOGUE == QKV) finish_qkv(qkv, bias, norms, column, acc);
    if (EPILOGUE == QKV || is_usual<EPILOGUE>(activation)) {
      write_slab<E, EPILOGUE, false>(acc, EPILOGUE == QKV ? nullptr : bias, column, out_features, activation, norms, slab);
    } else {
      write_slab<E, EPILOGUE, true>(acc, bias, column, out_features, activation, norms, slab);
    }
    fence_proxy_async();
    mbarrier_arrive(&written[consumer]);
    parity ^= 1;
  }
}

#define LINEAR_WGMMA_KERNEL(name, E, EPILOGUE)                                                                         \
  KERNEL_WITH_CLUSTER(name, CLUSTER_SIZE)                                                                              \
  __launch_bounds__(THREADS, 1)                                                                                        \
      name(GRID_CONSTANT TensorMap x, GRID_CONSTANT TensorMap w, GRID_CONSTANT TensorMap out,                          \
           const float* __restrict__ bias, u32 M, u32 K, u32 out_features, u32 activation,                             \
           float* __restrict__ squares, float eps) {                                                                   \
    linear_wgmma<E, EPILOGUE>(x, w, out, out, bias, M, K, out_features, activation, Qkv{}, squares, eps);              \
  }                                                                                                                    \
  REGISTER_KERNEL(name);

LINEAR_WGMMA_KERNEL(linear_wgmma_f16, f16, STORE)
LINEAR_WGMMA_KERNEL(linear_wgmma_bf16, bf16, STORE)
LINEAR_WGMMA_KERNEL(linear_residual_wgmma_f16, f16, RESIDUAL)
LINEAR_WGMMA_KERNEL(linear_residual_wgmma_bf16, bf16, RESIDUAL)
LINEAR_WGMMA_KERNEL(linear_gated_wgmma_f16, f16, GATED)
LINEAR_WGMMA_KERNEL(linear_gated_wgmma_bf16, bf16, GATED)

#define LINEAR_QKV_WGMMA_KERNEL(qkv_name, E)                                                                           \
  KERNEL_WITH_CLUSTER(qkv_name, CLUSTER_SIZE)                                                                          \
  __launch_bounds__(THREADS, 1)                                                                                        \
      qkv_name(GRID_CONSTANT TensorMap x, GRID_CONSTANT TensorMap w, GRID_CONSTANT TensorMap query,                    \
               GRID_CONSTANT TensorMap key_value, const float* __restrict__ bias, u32 M, u32 K, u32 first, u32 end,    \
               u32 query_width, const u32* __restrict__ positions, const float* __restrict__ cos,                      \
               const float* __restrict__ sin, u32 rotated, u32 head_dim, u32 rotary_dim,                               \
               float* __restrict__ squares, float eps) {                                                               \
    const Qkv qkv = {first, end, query_width, 0, positions, cos, sin, rotated, head_dim, rotary_dim};                  \
    linear_wgmma<E, QKV>(x, w, query, key_value, bias, M, K, end, IDENTITY, qkv, squares, eps);                        \
  }                                                                                                                    \
  REGISTER_KERNEL(qkv_name);

LINEAR_QKV_WGMMA_KERNEL(linear_qkv_wgmma_f16, f16)
LINEAR_QKV_WGMMA_KERNEL(linear_qkv_wgmma_bf16, bf16)
