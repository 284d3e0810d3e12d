// Products with weights on the tensor cores of sm_90a, for f16 and bf16: what linear.cu computes, with f32 sums in tiles.
//
// Version 3 of the ladder: linear.cu is plain, linear_mma.cu is for every device with tensor cores, this one is for the
// devices that copy tiles by themselves and multiply them from shared memory.
//
// Shapes and epilogues are those of linear.cu; `inputs` is a multiple of 8, so that rows start at multiples of 16
// bytes. A block computes 128 rows by 256 weight rows in steps of 64 inputs. Of its three warpgroups the first only
// copies: one thread fills a ring of STAGES slots through the tensor memory accelerator, which writes zeros for what lies
// beyond the matrices. The other two take 64 rows each, 64 x 256 sums in their registers, for which the first gives up
// its own.
// Two blocks of a cluster have the same weight rows, and the rows of the second follow those of the first. Each copies its
// own x and half of the weights, which the accelerator hands to both: of what a block needs in a step, 48 KiB, 32 are
// read from L2 for it. Without this, reading from L2 takes longer than the products do.
// Two barriers a slot order them: `filled` counts the bytes of its tiles, whichever block they come from, and `drained`
// the warps of both blocks that are done with it in theirs. A warp is done with a slot when the products of the next one
// have been started and those of this one are over, so that the tensor cores always have work. It says so only where the
// slot is filled once more: then the other block waits for the word, and has not ended before. The last tiles are
// waited for in both blocks, so nothing reaches a block that has ended, and no barrier is needed at the end.
// In a tile a row is 128 bytes, its eight 16-byte chunks swapped by the row (the 128-byte swizzle of tensor maps and
// descriptors).
// Where `outputs` is a multiple of 8, lanes exchange sums so that each has eight neighbours and stores 16 bytes at once.
// Blocks go through the result in bands of BAND tiles of rows, so that what runs at the same time shares tiles in L2. The
// tiles of rows are rounded up to whole clusters; a block beyond the rows multiplies zeros and stores nothing.
// The order of a sum is that of the inputs in steps of 16, whatever the row's place and neighbours: its bits are its own.
// Launch: 384 threads; grid (tiles of rows, an even number, * tiles of weight rows); SHARED_BYTES of dynamic shared memory.
// x and weights are tensor maps of tiles of 128 rows by 64 inputs, swizzled.
#include "prelude.cuh"

constexpr u32 TILE_ROWS = 128, TILE_OUTPUTS = 256, TILE_INPUTS = 64;
constexpr u32 STAGES = 4;
constexpr u32 THREADS = 384;
constexpr u32 WARPGROUP = 128;
constexpr u32 ROWS_OF_A_WARPGROUP = 64;
constexpr u32 CONSUMER_WARPS = 8;
constexpr u32 CLUSTER_BLOCKS = 2, ALL_BLOCKS = (1 << CLUSTER_BLOCKS) - 1;
constexpr u32 CLUSTER_ROWS = CLUSTER_BLOCKS * TILE_ROWS;
constexpr u32 COPIED_OUTPUTS = TILE_OUTPUTS / CLUSTER_BLOCKS;
constexpr u32 BAND = 16;
static_assert(BAND % CLUSTER_BLOCKS == 0, "blocks of a cluster must have the same weight rows");

// Bytes of shared memory: elements have 2.
constexpr u32 ROW_BYTES = TILE_INPUTS * 2;
constexpr u32 X_BYTES = TILE_ROWS * ROW_BYTES;
constexpr u32 SLOT_BYTES = X_BYTES + TILE_OUTPUTS * ROW_BYTES;
constexpr u32 STEP_BYTES = 16 * 2;
constexpr u32 SWIZZLE_ALIGNMENT = 1024;
constexpr u32 SHARED_BYTES = STAGES * SLOT_BYTES + SWIZZLE_ALIGNMENT;
static_assert(SHARED_BYTES <= 227 << 10, "the ring does not fit the shared memory of a block");

// A multiple of 8 each; together the registers that 384 threads are launched with, 168 each.
constexpr u32 PRODUCER_REGISTERS = 40, CONSUMER_REGISTERS = 232;
static_assert(WARPGROUP * (PRODUCER_REGISTERS + 2 * CONSUMER_REGISTERS) <= 65536, "more registers than there are");

enum Epilogue { STORE, ADD, SWIGLU };

// The tiles of a block: consecutive blocks go down the rows of a band before they go on to the next weight rows. A band is
// whole clusters high, so that those of a cluster are consecutive rows of the same weight rows.
struct Place {
  u32 first_row, first_output;
};
DEVICE Place place_of_block(u32 rows, u32 weight_rows) {
  const u32 row_tiles = (rows + CLUSTER_ROWS - 1) / CLUSTER_ROWS * CLUSTER_BLOCKS;
  const u32 output_tiles = (weight_rows + TILE_OUTPUTS - 1) / TILE_OUTPUTS;
  const u32 first = blockIdx.x / (BAND * output_tiles) * BAND, within = blockIdx.x % (BAND * output_tiles);
  const u32 height = row_tiles - first < BAND ? row_tiles - first : BAND;
  return {(first + within % height) * TILE_ROWS, within / height * TILE_OUTPUTS};
}

// Stores two neighbouring sums of a row, for any number of outputs; `column` is the first one's weight row, an even number.
template <class E, Epilogue EPILOGUE>
DEVICE void store_pair(float first, float second, const float* bias, u64 row, u32 column, u32 outputs, E* out) {
  if (EPILOGUE == SWIGLU) {
    const u32 output = column / 2;
    if (output >= outputs) return;
    const float gate = bias ? first + bias[output] : first;
    const float up = bias ? second + bias[outputs + output] : second;
    out[row * outputs + output] = from_float<E>(silu(gate) * up);
    return;
  }
  E* stored = out + row * outputs + column;
  if (column < outputs) {
    if (bias) first += bias[column];
    stored[0] = from_float<E>(EPILOGUE == ADD ? to_float(stored[0]) + first : first);
  }
  if (column + 1 < outputs) {
    if (bias) second += bias[column + 1];
    stored[1] = from_float<E>(EPILOGUE == ADD ? to_float(stored[1]) + second : second);
  }
}

// Of four neighbouring lanes each has two columns of eight: of four such eights lane q gets the whole of number q.
DEVICE void gather_eight(const float (&sums)[128], u32 first, u32 lane, float (&eight)[8]) {
  float pairs[4][2];
#pragma unroll
  for (u32 i = 0; i < 4; i++) {
    pairs[i][0] = sums[first + i * 4];
    pairs[i][1] = sums[first + i * 4 + 1];
  }
  // A 4 x 4 transposition of pairs, first of neighbours, then of neighbours of neighbours.
#pragma unroll
  for (u32 distance = 1; distance <= 2; distance *= 2) {
    const bool upper = (lane & distance) != 0;
#pragma unroll
    for (u32 low = 0; low < 4; low++) {
      if ((low & distance) != 0) continue;
      const u32 high = low + distance;
#pragma unroll
      for (u32 i = 0; i < 2; i++) {
        const float got = shuffle_xor(upper ? pairs[low][i] : pairs[high][i], distance);
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

// Stores eight neighbouring sums of a row whose elements of `out` begin at a multiple of what is stored at once.
template <class E, Epilogue EPILOGUE>
DEVICE void store_eight(float (&eight)[8], const float* bias, u64 row, u32 column, u32 outputs, E* out) {
  if (EPILOGUE == SWIGLU) {
    const u32 output = column / 2;
    if (output >= outputs) return;
    if (bias) {
      float of_gates[4], of_ups[4];
      load_floats(bias + output, of_gates);
      load_floats(bias + outputs + output, of_ups);
#pragma unroll
      for (u32 i = 0; i < 4; i++) {
        eight[i * 2] += of_gates[i];
        eight[i * 2 + 1] += of_ups[i];
      }
    }
    float values[4];
#pragma unroll
    for (u32 i = 0; i < 4; i++) values[i] = silu(eight[i * 2]) * eight[i * 2 + 1];
    const uint2 words = {pack_pair<E>(values[0], values[1]), pack_pair<E>(values[2], values[3])};
    *reinterpret_cast<uint2*>(out + row * outputs + output) = words;
    return;
  }
  if (column >= outputs) return;
  E* stored = out + row * outputs + column;
  if (bias) {
    float biases[8];
    load_floats(bias + column, biases);
#pragma unroll
    for (u32 i = 0; i < 8; i++) eight[i] += biases[i];
  }
  if (EPILOGUE == ADD) {
    float old[8];
    load_wide(stored, old);
#pragma unroll
    for (u32 i = 0; i < 8; i++) eight[i] = old[i] + eight[i];
  }
  store_wide(stored, eight);
}

// What the one copying thread does.
DEVICE void fill_slots(const TensorMap& x, const TensorMap& weights, unsigned char* ring, u64* filled, u64* drained,
                       Place place, u32 n_steps) {
  const u32 copied = block_of_cluster() * COPIED_OUTPUTS;
  for (u32 step = 0; step < n_steps; step++) {
    const u32 slot = step % STAGES, round = step / STAGES;
    // In the first round slots are empty: the phase in front of a barrier's first counts as over.
    wait_at(&drained[slot], (round + 1) % 2);
    unsigned char* tiles = ring + slot * SLOT_BYTES;
    // The other block's half may have come already: the barrier then counts less than no bytes for a moment.
    arrive_expecting(&filled[slot], SLOT_BYTES);
    copy_tile_async(tiles, x, &filled[slot], step * TILE_INPUTS, place.first_row);
    copy_tile_to_blocks_async(tiles + X_BYTES + copied * ROW_BYTES, weights, &filled[slot], step * TILE_INPUTS,
                              place.first_output + copied, ALL_BLOCKS);
  }
}

// What a multiplying warpgroup does.
template <class E>
DEVICE void multiply_slots(const unsigned char* ring, u64* filled, u64* drained, u32 consumer, u32 n_steps,
                           float (&sums)[128]) {
  const u32 lane = threadIdx.x % 32;
  for (u32 step = 0; step < n_steps; step++) {
    const u32 slot = step % STAGES, round = step / STAGES;
    wait_at(&filled[slot], round % 2);
    const unsigned char* tiles = ring + slot * SLOT_BYTES;
    const u64 a = tile_descriptor(tiles + consumer * ROWS_OF_A_WARPGROUP * ROW_BYTES);
    const u64 b = tile_descriptor(tiles + X_BYTES);
    fence_products();
#pragma unroll
    for (u32 part = 0; part < TILE_INPUTS / 16; part++) {
      multiply_64x256x16<E>(sums, a + part * (STEP_BYTES / 16), b + part * (STEP_BYTES / 16), step + part > 0);
    }
    commit_products();
    // The products of this step may go on; those of the step before are over, and this warp does not need its slot.
    wait_products<1>();
    const bool is_filled_again = step > 0 && step - 1 + STAGES < n_steps;
    // A lane a block.
    if (is_filled_again && lane < CLUSTER_BLOCKS) arrive_at_block(&drained[(step - 1) % STAGES], lane);
  }
  wait_products<0>();
}

template <class E, Epilogue EPILOGUE>
DEVICE void linear_wgmma(const TensorMap& x, const TensorMap& weights, const float* bias, u32 rows, u32 inputs,
                         u32 outputs, E* out) {
  DYNAMIC_SHARED(unsigned char, unaligned);
  SHARED_ARRAY(u64, filled, STAGES);
  SHARED_ARRAY(u64, drained, STAGES);
  unsigned char* ring =
      unaligned + (SWIZZLE_ALIGNMENT - shared_address(unaligned) % SWIZZLE_ALIGNMENT) % SWIZZLE_ALIGNMENT;
  const Place place = place_of_block(rows, EPILOGUE == SWIGLU ? 2 * outputs : outputs);
  const u32 n_steps = (inputs + TILE_INPUTS - 1) / TILE_INPUTS;

  if (threadIdx.x == 0) {
    prefetch_map(x);
    prefetch_map(weights);
    for (u32 slot = 0; slot < STAGES; slot++) {
      init_barrier(&filled[slot], 1);
      init_barrier(&drained[slot], CLUSTER_BLOCKS * CONSUMER_WARPS);
    }
    fence_barriers();
  }
  // The other block uses this one's barriers as well.
  synchronize_cluster();

  const u32 warpgroup = threadIdx.x / WARPGROUP;
  if (warpgroup == 0) {
    give_up_registers<PRODUCER_REGISTERS>();
    if (threadIdx.x == 0) fill_slots(x, weights, ring, filled, drained, place, n_steps);
    return;
  }
  take_registers<CONSUMER_REGISTERS>();
  // The first product replaces what is in them. Zeros to begin with would be written between products as the compiler sees
  // it, and it would let each product end before the next.
  float sums[128];
  multiply_slots<E>(ring, filled, drained, warpgroup - 1, n_steps, sums);

  const u32 thread = threadIdx.x % WARPGROUP, lane = thread % 32;
  const u32 first_row = place.first_row + (warpgroup - 1) * ROWS_OF_A_WARPGROUP + thread / 32 * 16 + lane / 4;
  if (outputs % 8 == 0) {
#pragma unroll
    for (u32 group = 0; group < TILE_OUTPUTS / 32; group++) {
      const u32 column = place.first_output + group * 32 + lane % 4 * 8;
#pragma unroll
      for (u32 half = 0; half < 2; half++) {
        float eight[8];
        gather_eight(sums, group * 16 + half * 2, lane, eight);
        const u32 row = first_row + half * 8;
        if (row < rows) store_eight<E, EPILOGUE>(eight, bias, row, column, outputs, out);
      }
    }
    return;
  }
#pragma unroll
  for (u32 half = 0; half < 2; half++) {
    const u32 row = first_row + half * 8;
    if (row >= rows) continue;
#pragma unroll
    for (u32 j = 0; j < TILE_OUTPUTS / 8; j++) {
      const u32 column = place.first_output + j * 8 + lane % 4 * 2;
      store_pair<E, EPILOGUE>(sums[j * 4 + half * 2], sums[j * 4 + half * 2 + 1], bias, row, column, outputs, out);
    }
  }
}

#define LINEAR_WGMMA_KERNEL(name, E, EPILOGUE)                                                                      \
  KERNEL_OF_CLUSTERS(name, CLUSTER_BLOCKS)                                                                          \
  __launch_bounds__(THREADS, 1) name(BY_VALUE TensorMap x, BY_VALUE TensorMap weights, const float* bias, u32 rows, \
                                     u32 inputs, u32 outputs, E* out) {                                             \
    linear_wgmma<E, EPILOGUE>(x, weights, bias, rows, inputs, outputs, out);                                        \
  }                                                                                                                 \
  REGISTER_KERNEL(name);

LINEAR_WGMMA_KERNEL(linear_wgmma_f16, f16, STORE)
LINEAR_WGMMA_KERNEL(linear_wgmma_bf16, bf16, STORE)
LINEAR_WGMMA_KERNEL(linear_residual_wgmma_f16, f16, ADD)
LINEAR_WGMMA_KERNEL(linear_residual_wgmma_bf16, bf16, ADD)
LINEAR_WGMMA_KERNEL(linear_swiglu_wgmma_f16, f16, SWIGLU)
LINEAR_WGMMA_KERNEL(linear_swiglu_wgmma_bf16, bf16, SWIGLU)
