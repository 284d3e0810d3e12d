// Causal attention of attention_mma.cu by wgmma and TMA, f16/bf16 in, f32 accumulate: FlashAttention-3 (Shah et al. 2024). sm_90a.
// Step 4: a producer warpgroup loads keys and values by TMA; S = Q K^T of a block overlaps the softmax of the block before.
//                                                                                                     H100: not measured
//   (step 3 attention_mma.cu: mma.sync and cp.async, which reach half of the rate of wgmma)
//   Prediction, not measured, as a share of the peak of wgmma (989 TFLOP/s), causal, groups of four heads: head_dim 64 15 % for
//   sequences of 256 and 38 % for 2,048, head_dim 128 22 % and 52 %.
//
// CTA tile   BQ 128 rows x BKV 64 keys x HEAD 64 or 128, which is head_dim       smem 97 or 193 KiB dynamic, 384 threads
//   Rows, tiles and KV heads are those of attention_mma.cu, two warpgroups of 64 rows each.
//   warpgroup 0     producer    40 regs   warp 0: the keys of a block, wait empty[s] -> expect_tx full[s] -> TMA
//                                         warp 1: its values in the same way
//   warpgroup 1, 2  consumer   232 regs   queries by cp.async and ldmatrix to registers, S = Q K^T by wgmma m64n64k16 ->
//                                         online softmax -> acc += P V by wgmma m64n64k16 or m64n128k16, P in registers
//   stage      4 of keys, 4 of values: boxes of 64 rows by 64 columns with TMA's 128-byte swizzle. Keys are a K-major operand,
//              values an MN-major one.
//   wgmma      S0 | S1 PV0 | S2 PV1 | ... | PVn        S(j + 1) and PVj are issued together; the softmax of j + 1 begins when
//   softmax       0       1        2                   S(j + 1) is complete and overlaps PVj
//
// Persistent: a grid of G CTAs, at most one for each multiprocessor. The host lists the longest tiles first; CTA c has items
// c, 2 G - 1 - c, 2 G + c, ... of tiles x KV heads, so that sums of lengths differ little. The producer and the copies of queries
// are ahead of the consumers, also over the end of a tile.
// Keys in key_rows (a node of a prefix tree) are not consecutive, so TMA cannot load them: the lanes of the producer's warps copy
// their rows by cp.async to the same places of a stage. The consumers cannot distinguish them, so a row has the same bits.
// Proxies: TMA and wgmma reach shared memory through the asynchronous proxy. fence_proxy_async lies between the writes of cp.async
// or of threads and the arrival after which wgmma reads them.
// Keys behind the last one of a tile: TMA loads rows of other sequences, which may not be numbers. Their scores are masked, and their
// values are overwritten by zeros, because masked keys are multiplied by p = 0. An infinite value of the tile's own keys gives NaN
// also in its earlier rows, as in attention_mma.cu.
// Rounding, masks, window, soft cap: those of attention_mma.cu.
// Determinism: blocks of keys begin at absolute positions 0, 64, ..., and a block that is masked for a row changes none of its
// bits, so a row depends on its own sequence alone and not on its tile, on the grid or on how its keys were copied.
// Launch: 384 threads, SHARED_BYTES of dynamic shared memory. The tensor map is of keys_values in swizzled boxes of 64 by 64.
#include "attention.cuh"
#include "math.cuh"
#include "ptx_sm90.cuh"
#include "ring.cuh"

constexpr u32 WGMMA_M = 64, BKV = 64;
constexpr u32 WARPGROUP_THREADS = 128, THREADS = 384;
constexpr u32 CONSUMER_WARPS = 8, WARP_ROWS = 16;
constexpr u32 STAGES = 4;
constexpr u32 TILE_WORDS = 6;
constexpr u32 CHUNK = 8;  // elements in 16 bytes

// Bytes of shared memory, of 2-byte elements.
constexpr u32 BOX_COLUMNS = 64, ROW_BYTES = BOX_COLUMNS * 2, BOX_BYTES = BKV * ROW_BYTES;
constexpr u32 SWIZZLE_ALIGNMENT = 1024;
// A step of 16 along K in a K-major and in an MN-major box.
constexpr u32 K_MAJOR_STEP = 16 * 2, MN_MAJOR_STEP = 16 * ROW_BYTES;
// The keys or the values of a block.
template <u32 HEAD>
constexpr u32 STAGE_BYTES = HEAD / BOX_COLUMNS * BOX_BYTES;
// The queries or the results of a warp.
template <u32 HEAD>
constexpr u32 SLAB_BYTES = WARP_ROWS * HEAD * 2;
template <u32 HEAD>
constexpr u32 SHARED_BYTES = 2 * STAGES * STAGE_BYTES<HEAD> + 2 * CONSUMER_WARPS * SLAB_BYTES<HEAD> + SWIZZLE_ALIGNMENT;
static_assert(SHARED_BYTES<128> <= 227 << 10, "stages and slabs do not fit the shared memory of a CTA");

// As in linear_wgmma.cu: together no more than the 168 registers that each of 384 threads is launched with.
constexpr u32 PRODUCER_REGISTERS = 40, CONSUMER_REGISTERS = 232;
static_assert(WARPGROUP_THREADS * (PRODUCER_REGISTERS + 2 * CONSUMER_REGISTERS) <= 65536,
              "more registers than there are");

// The arguments that all items of a launch share.
struct Launch {
  const u32* tiles;
  u32 n_items, kv_heads, group, window;
};

// A tile of a KV head. `visible` is the number of keys up to the last that a row sees.
struct Item {
  u32 first_query, first_position, first_head, n_rows, first_key, in_key_rows;
  u32 kv_head, visible, first_block, n_blocks;
};

DEVICE u32 item_of_round(u32 round) {
  return round * gridDim.x + (round % 2 == 0 ? blockIdx.x : gridDim.x - 1 - blockIdx.x);
}

struct TileWords {
  u32 word[TILE_WORDS];
};
// The words of the tile of an item, zeros behind the last one.
DEVICE TileWords load_tile(const Launch& launch, u32 index) {
  TileWords tile = {};
  if (index >= launch.n_items) return tile;
  const u32* words = launch.tiles + TILE_WORDS * (index / launch.kv_heads);
#pragma unroll
  for (u32 i = 0; i < TILE_WORDS; i++) tile.word[i] = words[i];
  return tile;
}

DEVICE Item item_of(const Launch& launch, const TileWords& tile, u32 index) {
  const u32(&word)[TILE_WORDS] = tile.word;
  Item item = {word[0], word[1], word[2], word[3], word[4], word[5], index % launch.kv_heads, 0, 0, 0};
  item.visible = item.first_position + (item.first_head + item.n_rows - 1) / launch.group + 1;
  item.n_blocks = (item.visible + BKV - 1) / BKV;
  // The block of the first key that the first row sees.
  if (launch.window > 0 && item.first_position + 1 > launch.window) {
    item.first_block = (item.first_position + 1 - launch.window) / BKV;
  }
  return item;
}

// The stages of keys or of values.
struct Ring {
  unsigned char* stages;
  u64* full;
  u64* empty;
};

// Arrives for the rows that the lanes of a warp have copied to a stage.
DEVICE void signal_copied(u64* full) {
  fence_proxy_async();
  syncwarp();
  if (threadIdx.x % 32 == 0) mbarrier_arrive(full);
}

// Copies the rows of a block to where TMA would, by the lanes of a warp. `column` is the first element of the lane's KV head in a row.
template <class E, u32 HEAD>
DEVICE void gather_block(const E* column, u64 row_elements, const u32* key_rows, const Item& item, u32 block,
                         unsigned char* stage) {
  constexpr u32 ROW_CHUNKS = HEAD / CHUNK, ROWS_A_PASS = 32 / ROW_CHUNKS;
  const u32 lane = threadIdx.x % 32, chunk = lane % ROW_CHUNKS;
  unsigned char* box = stage + chunk / 8 * BOX_BYTES;
// Not all at once: the producer has few registers.
#pragma unroll 4
  for (u32 pass = 0; pass < BKV / ROWS_A_PASS; pass++) {
    const u32 row = pass * ROWS_A_PASS + lane / ROW_CHUNKS, position = block * BKV + row;
    // Rows behind the last one are copies of it, which exists.
    const u32 stored = key_rows[item.first_key + (position < item.visible ? position : item.visible - 1)];
    cp_async_16(box + row * ROW_BYTES + (chunk % 8 ^ row % 8) * 16, column + stored * row_elements + chunk * CHUNK, 16);
  }
  cp_async_commit_group();
}

// Warps 0 and 1: the keys and the values of all blocks. `part` is 0 for keys and 1 for values.
template <class E, u32 HEAD>
DEVICE void produce(const TensorMap& map, const E* keys_values, const u32* key_rows, const Launch& launch, Ring ring,
                    u32 part) {
  const u32 lane = threadIdx.x % 32;
  const u64 row_elements = 2 * launch.kv_heads * HEAD;
  Slot<STAGES> slot = {0, 0};
  for (u32 round = 0; item_of_round(round) < launch.n_items; round++) {
    const Item item = item_of(launch, load_tile(launch, item_of_round(round)), item_of_round(round));
    const u32 column = (part * launch.kv_heads + item.kv_head) * HEAD;
    u32 previous = 0;
    for (u32 block = item.first_block; block < item.n_blocks; block++) {
      // Parity 1 before phase 0: the stages start empty.
      mbarrier_wait_parity(&ring.empty[slot.stage], slot.parity ^ 1);
      // A lane that has not seen this phase when the stage is filled may miss it.
      syncwarp();
      unsigned char* stage = ring.stages + slot.stage * STAGE_BYTES<HEAD>;
      if (item.in_key_rows) {
        gather_block<E, HEAD>(keys_values + column, row_elements, key_rows, item, block, stage);
        // The rows of this block are in flight; those of the previous one are copied.
        cp_async_wait_group<1>();
        if (block > item.first_block) signal_copied(&ring.full[previous]);
        previous = slot.stage;
      } else if (lane == 0) {
        mbarrier_arrive_expect_tx(&ring.full[slot.stage], STAGE_BYTES<HEAD>);
        for (u32 box = 0; box < HEAD / BOX_COLUMNS; box++) {
          tma_load_2d(stage + box * BOX_BYTES, map, &ring.full[slot.stage], column + box * BOX_COLUMNS,
                      item.first_key + block * BKV);
        }
      }
      advance(slot);
    }
    if (item.in_key_rows) {
      cp_async_wait_group<0>();
      signal_copied(&ring.full[previous]);
    }
  }
}

// A warp's arrival that it has read a stage.
DEVICE void release(u64* empty) {
  if (threadIdx.x % 32 == 0) mbarrier_arrive(empty);
}

// The head that is row `row` of an item, numbered through all rows of query and out. The last row's for rows that do not exist.
DEVICE u32 head_of_row(const Launch& launch, const Item& item, u32 row) {
  const u32 packed = item.first_head + (row < item.n_rows ? row : item.n_rows - 1);
  const u32 query_row = item.first_query + packed / launch.group;
  return (query_row * launch.kv_heads + item.kv_head) * launch.group + packed % launch.group;
}

// The bytes before chunk `chunk` of row `row` of a slab, XOR-swizzled against bank conflicts.
template <u32 HEAD>
DEVICE u32 slab_at(u32 row, u32 chunk) {
  return row * HEAD * 2 + (chunk ^ row % 8) * 16;
}

// One cp.async group: the queries of a warp, zeros for rows that do not exist. `warp_row` is its first row in the item; `head` is
// `head_of_row` of row lane % 16, which lanes exchange because its divisions are slow.
template <class E, u32 HEAD>
DEVICE void load_queries(const E* query, const Item& item, u32 warp_row, u32 head, unsigned char* slab) {
  constexpr u32 ROW_CHUNKS = HEAD / CHUNK, ROWS_A_PASS = 32 / ROW_CHUNKS;
  const u32 lane = threadIdx.x % 32, chunk = lane % ROW_CHUNKS;
#pragma unroll
  for (u32 pass = 0; pass < WARP_ROWS / ROWS_A_PASS; pass++) {
    const u32 row = pass * ROWS_A_PASS + lane / ROW_CHUNKS;
    const E* source = query + static_cast<u64>(shfl_idx(head, row)) * HEAD + chunk * CHUNK;
    cp_async_16(slab + slab_at<HEAD>(row, chunk), source, warp_row + row < item.n_rows ? 16 : 0);
  }
  cp_async_commit_group();
}

// Starts scores = q k^T for the warpgroup's 64 rows and the keys of a stage.
template <class E, u32 HEAD>
DEVICE void start_qk(const u32 (&q)[HEAD / 16][4], const unsigned char* keys, float (&scores)[BKV / 2]) {
  const u64 desc = make_smem_desc(keys);
  wgmma_fence();
#pragma unroll
  for (u32 step = 0; step < HEAD / 16; step++) {
    const u32 offset = step / 4 * BOX_BYTES + step % 4 * K_MAJOR_STEP;
    wgmma_m64n64k16<E, false>(scores, q[step], desc + offset / 16, step > 0);
  }
  wgmma_commit_group();
}

// Starts acc = p v, or acc += p v if `scale_d`, for the values of a stage.
template <class E>
DEVICE void start_pv(const u32 (&p)[BKV / 16][4], const unsigned char* values, bool scale_d, float (&acc)[32]) {
  const u64 desc = make_smem_desc_mn_major(values, BOX_BYTES);
  wgmma_fence();
#pragma unroll
  for (u32 step = 0; step < BKV / 16; step++) {
    wgmma_m64n64k16<E, true>(acc, p[step], desc + step * MN_MAJOR_STEP / 16, scale_d || step > 0);
  }
  wgmma_commit_group();
}
template <class E>
DEVICE void start_pv(const u32 (&p)[BKV / 16][4], const unsigned char* values, bool scale_d, float (&acc)[64]) {
  const u64 desc = make_smem_desc_mn_major(values, BOX_BYTES);
  wgmma_fence();
#pragma unroll
  for (u32 step = 0; step < BKV / 16; step++) {
    wgmma_m64n128k16<E, true>(acc, p[step], desc + step * MN_MAJOR_STEP / 16, scale_d || step > 0);
  }
  wgmma_commit_group();
}

// How the scores of a thread's two rows become p.
struct ScoreRule {
  float scale, soft_cap;
  float power_scale;  // e^x = 2^(x log2 e); capped scores are scaled already
  u32 window;
  u32 position[2];
  u32 first_position, visible;  // of the warpgroup: the position of its first row, and the keys up to the last that a row sees
};

// Soft cap and masks of a block.
DEVICE void cap_and_mask(float (&scores)[BKV / 2], const ScoreRule& rule, u32 block) {
  if (rule.soft_cap > 0.0f) cap_scores(scores, rule.scale, rule.soft_cap);
  const u32 first_key = block * BKV, lane_key = first_key + threadIdx.x % 4 * 2;
  // Only where the first row does not see the last key.
  if (first_key + BKV > rule.first_position + 1) mask_after_position(scores, rule.position, lane_key);
  // Only where the last row does not see the first key.
  if (rule.window > 0 && first_key + rule.window < rule.visible) {
    mask_before_window(scores, rule.position, lane_key, rule.window);
  }
}

// Replaces the scores of both rows by p. acc is to be multiplied by `correction`.
DEVICE void softmax_of_block(float (&scores)[BKV / 2], float (&row_max)[2], float (&row_sum)[2], float power_scale,
                             float (&correction)[2]) {
#pragma unroll
  for (u32 half = 0; half < 2; half++) {
    correction[half] = online_softmax(scores, half, row_max[half], row_sum[half], power_scale);
  }
}

// The accumulator layout of 16 columns is the layout of an operand a.
template <class E>
DEVICE void pack_p(const float (&scores)[BKV / 2], u32 (&p)[BKV / 16][4]) {
#pragma unroll
  for (u32 i = 0; i < BKV / 4; i++) p[i / 4][i % 4] = pack_pair<E>(scores[i * 2], scores[i * 2 + 1]);
}

// Overwrites the values from key `first` of a stage on by zeros, by the threads of a consumer.
template <u32 HEAD>
DEVICE void zero_values(unsigned char* values, u32 first, u32 consumer) {
  constexpr u32 ROW_CHUNKS = HEAD / CHUNK;
  // The swizzle permutes chunks within a row.
  for (u32 i = threadIdx.x % WARPGROUP_THREADS; i < (BKV - first) * ROW_CHUNKS; i += WARPGROUP_THREADS) {
    const u32 row = first + i / ROW_CHUNKS, chunk = i % ROW_CHUNKS;
    st_shared_16(values + chunk / 8 * BOX_BYTES + row * ROW_BYTES + chunk % 8 * 16, {0, 0, 0, 0});
  }
  fence_proxy_async();
  // The other consumer writes zeros to the same rows, at any time.
  bar_sync(1 + consumer, WARPGROUP_THREADS);
}

// Stores the results of a warp through its slab, whole rows at a time.
template <class E, u32 HEAD>
DEVICE void store_results(float (&acc)[HEAD / 2], const float (&row_sum)[2], const Item& item, u32 warp_row, u32 head,
                          unsigned char* slab, E* out) {
  constexpr u32 ROW_CHUNKS = HEAD / CHUNK, ROWS_A_PASS = 32 / ROW_CHUNKS;
  const u32 lane = threadIdx.x % 32;
  float inverse[2];
#pragma unroll
  for (u32 half = 0; half < 2; half++) {
    float sum = row_sum[half];
    sum += shfl_xor(sum, 1);
    sum += shfl_xor(sum, 2);
    inverse[half] = 1.0f / sum;
  }
#pragma unroll
  for (u32 block = 0; block < HEAD / 16; block++) {
    u32 words[4];
#pragma unroll
    for (u32 i = 0; i < 4; i++) {
      const u32 first = block * 8 + i * 2;
      words[i] = pack_pair<E>(acc[first] * inverse[i % 2], acc[first + 1] * inverse[i % 2]);
    }
    stmatrix_x4(slab + slab_at<HEAD>(lane % 16, block * 2 + lane / 16), words);
  }
  syncwarp();
  const u32 chunk = lane % ROW_CHUNKS;
#pragma unroll
  for (u32 pass = 0; pass < WARP_ROWS / ROWS_A_PASS; pass++) {
    const u32 row = pass * ROWS_A_PASS + lane / ROW_CHUNKS;
    E* stored = out + static_cast<u64>(shfl_idx(head, row)) * HEAD + chunk * CHUNK;
    if (warp_row + row >= item.n_rows) continue;
    *reinterpret_cast<uint4*>(stored) = *reinterpret_cast<const uint4*>(slab + slab_at<HEAD>(row, chunk));
  }
  // The slab is overwritten by the next item.
  syncwarp();
}

// Warpgroups 1 and 2. `slabs` are those of the warp: its queries, then its results.
template <class E, u32 HEAD>
DEVICE void consume(const E* query, const Launch& launch, Ring keys, Ring values, u32 consumer, float scale,
                    float soft_cap, unsigned char* slabs, E* out) {
  const u32 lane = threadIdx.x % 32, warpgroup_row = consumer * WGMMA_M;
  const u32 warp_row = warpgroup_row + threadIdx.x % WARPGROUP_THREADS / 32 * WARP_ROWS;
  ScoreRule rule = {scale, soft_cap, (soft_cap > 0.0f ? 1.0f : scale) * LOG2_E, launch.window, {}, 0, 0};
  // Both rings have the same order.
  Slot<STAGES> key_slot = {0, 0}, value_slot = {0, 0};
  Item item = item_of(launch, load_tile(launch, item_of_round(0)), item_of_round(0));
  // Loaded an item ahead of its use.
  TileWords next_tile = load_tile(launch, item_of_round(1));
  u32 head = head_of_row(launch, item, warp_row + lane % WARP_ROWS);
  load_queries<E, HEAD>(query, item, warp_row, head, slabs);
  for (u32 round = 0; item_of_round(round) < launch.n_items; round++) {
    u32 q[HEAD / 16][4];
    cp_async_wait_group<0>();
    syncwarp();
#pragma unroll
    for (u32 step = 0; step < HEAD / 16; step++) {
      ldmatrix_x4<false>(q[step], slabs + slab_at<HEAD>(lane % 16, step * 2 + lane / 16));
    }
    // All lanes have read the slab, to which the queries of the next item are copied.
    syncwarp();
    Item next = item;
    u32 next_head = 0;
    if (item_of_round(round + 1) < launch.n_items) {
      next = item_of(launch, next_tile, item_of_round(round + 1));
      next_head = head_of_row(launch, next, warp_row + lane % WARP_ROWS);
      load_queries<E, HEAD>(query, next, warp_row, next_head, slabs);
      next_tile = load_tile(launch, item_of_round(round + 2));
    }

    // The warpgroup may have no rows, or see fewer blocks than the other one.
    const u32 n_rows = item.n_rows > warpgroup_row ? item.n_rows - warpgroup_row : 0;
    const u32 last_row = warpgroup_row + (n_rows < WGMMA_M ? n_rows : WGMMA_M) - 1;
    rule.first_position = item.first_position + (item.first_head + warpgroup_row) / launch.group;
    rule.visible = item.first_position + (item.first_head + last_row) / launch.group + 1;
    const u32 n_blocks = n_rows == 0 ? item.first_block : (rule.visible + BKV - 1) / BKV;
    if (n_rows > 0) {
      float row_max[2], row_sum[2], correction[2], scores[BKV / 2];
      // Not initialized: the first wgmma overwrites it (scale_d = 0).
      float acc[HEAD / 2];
      u32 p[BKV / 16][4];
#pragma unroll
      for (u32 half = 0; half < 2; half++) {
        row_max[half] = lowest_float();
        row_sum[half] = 0.0f;
        rule.position[half] = item.first_position + (item.first_head + warp_row + half * 8 + lane / 4) / launch.group;
      }
      mbarrier_wait_parity(&keys.full[key_slot.stage], key_slot.parity);
      start_qk<E, HEAD>(q, keys.stages + key_slot.stage * STAGE_BYTES<HEAD>, scores);
      wgmma_wait_group<0>(scores);
      release(&keys.empty[key_slot.stage]);
      advance(key_slot);
      cap_and_mask(scores, rule, item.first_block);
      softmax_of_block(scores, row_max, row_sum, rule.power_scale, correction);
      pack_p<E>(scores, p);
      if (item.first_block + 1 < n_blocks) mbarrier_wait_parity(&keys.full[key_slot.stage], key_slot.parity);
      for (u32 block = item.first_block + 1; block < n_blocks; block++) {
        start_qk<E, HEAD>(q, keys.stages + key_slot.stage * STAGE_BYTES<HEAD>, scores);
        mbarrier_wait_parity(&values.full[value_slot.stage], value_slot.parity);
        start_pv<E>(p, values.stages + value_slot.stage * STAGE_BYTES<HEAD>, block > item.first_block + 1, acc);
        // The scores are complete; p v is in flight.
        wgmma_wait_group<1>(scores);
        release(&keys.empty[key_slot.stage]);
        advance(key_slot);
        cap_and_mask(scores, rule, block);
        softmax_of_block(scores, row_max, row_sum, rule.power_scale, correction);
        // The branches of this wait also keep the compiler from moving the next one before the softmax.
        if (block + 1 < n_blocks) mbarrier_wait_parity(&keys.full[key_slot.stage], key_slot.parity);
        wgmma_wait_group<0>(acc);
        release(&values.empty[value_slot.stage]);
        advance(value_slot);
#pragma unroll
        for (u32 i = 0; i < HEAD / 2; i++) acc[i] *= correction[i / 2 % 2];
        pack_p<E>(scores, p);
      }
      mbarrier_wait_parity(&values.full[value_slot.stage], value_slot.parity);
      unsigned char* last_values = values.stages + value_slot.stage * STAGE_BYTES<HEAD>;
      if (n_blocks == item.n_blocks && item.visible % BKV != 0) {
        zero_values<HEAD>(last_values, item.visible % BKV, consumer);
      }
      start_pv<E>(p, last_values, n_blocks > item.first_block + 1, acc);
      wgmma_wait_group<0>(acc);
      release(&values.empty[value_slot.stage]);
      advance(value_slot);
      store_results<E, HEAD>(acc, row_sum, item, warp_row, head, slabs + SLAB_BYTES<HEAD>, out);
    }
// Blocks that only the other consumer sees.
#pragma unroll 1
    for (u32 block = n_blocks; block < item.n_blocks; block++) {
      mbarrier_wait_parity(&keys.full[key_slot.stage], key_slot.parity);
      mbarrier_wait_parity(&values.full[value_slot.stage], value_slot.parity);
      // All lanes have seen these phases, as after a wgmma.
      syncwarp();
      release(&keys.empty[key_slot.stage]);
      advance(key_slot);
      release(&values.empty[value_slot.stage]);
      advance(value_slot);
    }
    item = next;
    head = next_head;
  }
}

template <class E, u32 HEAD>
DEVICE void attention_wgmma(const TensorMap& map, const E* query, const E* keys_values, const u32* key_rows,
                            const Launch& launch, float scale, float soft_cap, E* out) {
  DYNAMIC_SHARED(unsigned char, unaligned);
  SHARED_ARRAY(u64, barriers, 4 * STAGES);
  unsigned char* stages =
      unaligned + (SWIZZLE_ALIGNMENT - shared_address(unaligned) % SWIZZLE_ALIGNMENT) % SWIZZLE_ALIGNMENT;
  const Ring keys = {stages, barriers, barriers + STAGES};
  const Ring values = {stages + STAGES * STAGE_BYTES<HEAD>, barriers + 2 * STAGES, barriers + 3 * STAGES};
  unsigned char* slabs = stages + 2 * STAGES * STAGE_BYTES<HEAD>;
  if (threadIdx.x == 0) {
    prefetch_tensormap(map);
    for (u32 stage = 0; stage < STAGES; stage++) {
      mbarrier_init(&keys.full[stage], 1);
      mbarrier_init(&values.full[stage], 1);
      mbarrier_init(&keys.empty[stage], CONSUMER_WARPS);
      mbarrier_init(&values.empty[stage], CONSUMER_WARPS);
    }
    fence_mbarrier_init();
  }
  __syncthreads();

  // From a shuffle, so that the compiler knows it to be the same in a warp and computes descriptors in uniform registers.
  const u32 warp = shfl_idx(threadIdx.x / 32, 0);
  if (warp < WARPGROUP_THREADS / 32) {
    setmaxnreg_dec<PRODUCER_REGISTERS>();
    if (warp < 2) produce<E, HEAD>(map, keys_values, key_rows, launch, warp == 0 ? keys : values, warp);
    return;
  }
  setmaxnreg_inc<CONSUMER_REGISTERS>();
  const u32 consumer_warp = warp - WARPGROUP_THREADS / 32;
  consume<E, HEAD>(query, launch, keys, values, consumer_warp / 4, scale, soft_cap,
                   slabs + consumer_warp * 2 * SLAB_BYTES<HEAD>, out);
}

#define ATTENTION_WGMMA_KERNEL(name, E, HEAD)                                                                          \
  KERNEL __launch_bounds__(THREADS, 1)                                                                                 \
      name(GRID_CONSTANT TensorMap map, const E* __restrict__ query, const E* __restrict__ keys_values,                \
           const u32* __restrict__ tiles, const u32* __restrict__ key_rows, u32 n_tiles, u32 heads, u32 kv_heads,      \
           float scale, u32 window, float soft_cap, E* __restrict__ out) {                                             \
    const Launch launch = {tiles, n_tiles * kv_heads, kv_heads, heads / kv_heads, window};                             \
    attention_wgmma<E, HEAD>(map, query, keys_values, key_rows, launch, scale, soft_cap, out);                         \
  }                                                                                                                    \
  REGISTER_KERNEL(name);

ATTENTION_WGMMA_KERNEL(attention_wgmma_f16_64, f16, 64)
ATTENTION_WGMMA_KERNEL(attention_wgmma_f16_128, f16, 128)
ATTENTION_WGMMA_KERNEL(attention_wgmma_bf16_64, bf16, 64)
ATTENTION_WGMMA_KERNEL(attention_wgmma_bf16_128, bf16, 128)
