// Products with weights on tensor cores, for f16 and bf16: what linear.cu computes, with f32 sums in tiles.
//
// Version 2 of the ladder, by mma.sync, ldmatrix and cp.async, for every device from sm_80 on. linear_wgmma.cu is version 3.
// Shapes and epilogues are those of linear.cu; `inputs` is a multiple of 8, so that rows start at multiples of 16
// bytes. A block computes 128 rows by 128 weight rows in steps of 32 inputs. 8 warps, 2 x 4, each 64 x 32 as 4 x 4
// products of m16n8k16. A ring of STAGES tiles in shared memory is filled by asynchronous copies while older ones are
// used; what lies beyond rows, weight rows or inputs is zeros there. In a tile a row is 64 bytes, its four 16-byte
// chunks swapped by the row so that `ldmatrix` meets no bank conflict.
// The order of a sum is that of the inputs in steps of 16, whatever the row's place and neighbours: its bits are its
// own.
// Launch: 256 threads; grid (ceil(weight rows / 128), ceil(rows / 128)); SHARED_BYTES of dynamic shared memory.
#include "prelude.cuh"

constexpr u32 TILE_ROWS = 128, TILE_OUTPUTS = 128, TILE_INPUTS = 32;
constexpr u32 STAGES = 3;
constexpr u32 THREADS = 256;
constexpr u32 CHUNK = 8;  // elements of 16 bytes
constexpr u32 ROW_CHUNKS = TILE_INPUTS / CHUNK;
constexpr u32 TILE_ELEMENTS = (TILE_ROWS + TILE_OUTPUTS) * TILE_INPUTS;

enum Epilogue { STORE, ADD, SWIGLU };

// Where chunk `chunk` of row `row` lies in a tile, in elements.
DEVICE u32 chunk_at(u32 row, u32 chunk) { return row * TILE_INPUTS + (chunk ^ (row / 2 % ROW_CHUNKS)) * CHUNK; }

// Starts the copies of rows `first..first + 128` of `matrix` at inputs `input..input + 32`.
template <class E>
DEVICE void copy_tile(E* tile, const E* matrix, u32 n_rows, u32 inputs, u32 first, u32 input) {
#pragma unroll
  for (u32 part = 0; part < TILE_ROWS * ROW_CHUNKS / THREADS; part++) {
    const u32 index = part * THREADS + threadIdx.x;
    const u32 row = index / ROW_CHUNKS, chunk = index % ROW_CHUNKS;
    const u32 column = input + chunk * CHUNK;
    const bool inside = first + row < n_rows && column < inputs;
    const E* source = inside ? matrix + static_cast<u64>(first + row) * inputs + column : matrix;
    copy_16_async(tile + chunk_at(row, chunk), source, inside ? 16 : 0);
  }
}

// Adds the products of one tile to a warp's sums.
template <class E>
DEVICE void multiply_tile(const E* x_tile, const E* weight_tile, u32 warp_row, u32 warp_output,
                          float (&sums)[4][4][4]) {
  const u32 lane = threadIdx.x % 32;
#pragma unroll
  for (u32 step = 0; step < TILE_INPUTS / 16; step++) {
    u32 a[4][4], b[2][4];
#pragma unroll
    for (u32 i = 0; i < 4; i++) {
      load_fragments<false>(a[i], x_tile + chunk_at(warp_row + i * 16 + lane % 16, step * 2 + lane / 16));
    }
#pragma unroll
    for (u32 j = 0; j < 2; j++) {
      const u32 row = warp_output + j * 16 + lane % 8 + lane / 16 * 8;
      load_fragments<false>(b[j], weight_tile + chunk_at(row, step * 2 + lane / 8 % 2));
    }
#pragma unroll
    for (u32 i = 0; i < 4; i++) {
#pragma unroll
      for (u32 j = 0; j < 4; j++) mma_16x8x16<E>(sums[i][j], a[i], b[j / 2][j % 2 * 2], b[j / 2][j % 2 * 2 + 1]);
    }
  }
}

// Stores two neighbouring sums of a row; `column` is the first one's weight row, an even number.
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

template <class E, Epilogue EPILOGUE>
DEVICE void linear_mma(const E* x, const E* weights, const float* bias, u32 rows, u32 inputs, u32 outputs, E* out) {
  DYNAMIC_SHARED(E, ring);
  const u32 weight_rows = EPILOGUE == SWIGLU ? 2 * outputs : outputs;
  const u32 first_row = blockIdx.y * TILE_ROWS, first_output = blockIdx.x * TILE_OUTPUTS;
  const u32 warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const u32 warp_row = warp / 4 * 64, warp_output = warp % 4 * 32;
  const u32 n_steps = (inputs + TILE_INPUTS - 1) / TILE_INPUTS;

  // A group of copies a step, empty beyond the last one, so that the count of groups to wait for is fixed.
  auto copy_step = [&](u32 step) {
    if (step < n_steps) {
      E* slot = ring + step % STAGES * TILE_ELEMENTS;
      copy_tile(slot, x, rows, inputs, first_row, step * TILE_INPUTS);
      copy_tile(slot + TILE_ROWS * TILE_INPUTS, weights, weight_rows, inputs, first_output, step * TILE_INPUTS);
    }
    commit_copies();
  };

  float sums[4][4][4] = {};
#pragma unroll
  for (u32 step = 0; step < STAGES - 1; step++) copy_step(step);
  for (u32 step = 0; step < n_steps; step++) {
    wait_copies<STAGES - 2>();
    // Everyone's copies of this step have arrived, and everyone is done with the slot of the step before.
    __syncthreads();
    copy_step(step + STAGES - 1);
    const E* slot = ring + step % STAGES * TILE_ELEMENTS;
    multiply_tile(slot, slot + TILE_ROWS * TILE_INPUTS, warp_row, warp_output, sums);
  }

#pragma unroll
  for (u32 i = 0; i < 4; i++) {
#pragma unroll
    for (u32 half = 0; half < 2; half++) {
      const u32 row = first_row + warp_row + i * 16 + half * 8 + lane / 4;
      if (row >= rows) continue;
#pragma unroll
      for (u32 j = 0; j < 4; j++) {
        const u32 column = first_output + warp_output + j * 8 + lane % 4 * 2;
        store_pair<E, EPILOGUE>(sums[i][j][half * 2], sums[i][j][half * 2 + 1], bias, row, column, outputs, out);
      }
    }
  }
}

#define LINEAR_MMA_KERNEL(name, E, EPILOGUE)                                                                     \
  KERNEL __launch_bounds__(256) name(const E* x, const E* weights, const float* bias, u32 rows, u32 inputs,      \
                                     u32 outputs, E* out) {                                                      \
    linear_mma<E, EPILOGUE>(x, weights, bias, rows, inputs, outputs, out);                                       \
  }                                                                                                              \
  REGISTER_KERNEL(name);

LINEAR_MMA_KERNEL(linear_mma_f16, f16, STORE)
LINEAR_MMA_KERNEL(linear_mma_bf16, bf16, STORE)
LINEAR_MMA_KERNEL(linear_residual_mma_f16, f16, ADD)
LINEAR_MMA_KERNEL(linear_residual_mma_bf16, bf16, ADD)
LINEAR_MMA_KERNEL(linear_swiglu_mma_f16, f16, SWIGLU)
LINEAR_MMA_KERNEL(linear_swiglu_mma_bf16, bf16, SWIGLU)
