//! Faults planted in copies of the kernels, to show that the emulator's modes see them. The build script makes the
//! copies; `emulator_planted.rs` runs them. A fault's text must be found exactly once in its file.
#![allow(dead_code)]

/// A change of one place of one kernel source.
pub struct Planted {
    /// Name of the fault: what is wrong.
    pub name: &'static str,
    /// File in `kernels/cuda/`, without its extension.
    pub file: &'static str,
    /// The text that is replaced.
    pub find: &'static str,
    /// What replaces it.
    pub replace: &'static str,
}

/// All faults.
pub const PLANTED: &[Planted] = &[
    Planted {
        name: "norm_missing_barrier",
        file: "rms_norm",
        find: "__syncthreads();\n  if (threadIdx.x == 0) inverse",
        replace: "if (threadIdx.x == 0) inverse",
    },
    Planted {
        name: "linear_unwritten_output",
        file: "linear",
        find: "if (output >= outputs) return;\n  float value",
        replace: "if (output + 1 >= outputs) return;\n  float value",
    },
    Planted {
        name: "pool_tail_off_by_one",
        file: "pool",
        find: "entry < end; entry++) {\n    const float",
        replace: "entry + 1 < end; entry++) {\n    const float",
    },
    Planted {
        name: "pool_wide_columns_left_out",
        file: "pool",
        find: "blockIdx.y * blockDim.x + threadIdx.x) * WIDE<E>;\n  if (column >= columns) return;",
        replace: "blockIdx.y * blockDim.x + threadIdx.x) * WIDE<E>;\n  if (column + WIDE<E> >= columns) return;",
    },
    Planted {
        name: "norm_wide_missing_barrier",
        file: "rms_norm",
        find: "__syncthreads();\n  sum = warps[0];",
        replace: "sum = warps[0];",
    },
    Planted {
        name: "norm_wide_reads_beyond_the_row",
        file: "rms_norm",
        find: "column < columns; column += WIDE_THREADS * WIDE<E>) {\n    load_wide(row + column, values);\n#pragma",
        replace: "column <= columns; column += WIDE_THREADS * WIDE<E>) {\n    load_wide(row + column, values);\n#pragma",
    },
    Planted {
        name: "attention_weights_overwritten_early",
        file: "attention",
        find: "    // The next block's scores go where these weights are.\n    __syncthreads();",
        replace: "",
    },
    Planted {
        name: "mma_missing_barrier",
        file: "linear_mma",
        find: "__syncthreads();\n    copy_step(step + STAGES - 1);",
        replace: "copy_step(step + STAGES - 1);",
    },
    Planted {
        name: "mma_early_slot_release",
        file: "linear_mma",
        find: "__syncthreads();\n    copy_step(step + STAGES - 1);",
        replace: "copy_step(step + STAGES - 1);\n    __syncthreads();",
    },
    Planted { name: "mma_missing_wait", file: "linear_mma", find: "wait_copies<STAGES - 2>();", replace: "" },
    Planted {
        name: "mma_waits_one_group_too_few",
        file: "linear_mma",
        find: "wait_copies<STAGES - 2>();",
        replace: "wait_copies<STAGES - 1>();",
    },
    Planted {
        name: "mma_input_tail_off_by_one",
        file: "linear_mma",
        find: "column < inputs;",
        replace: "column <= inputs;",
    },
    Planted {
        name: "mma_copies_a_row_too_many",
        file: "linear_mma",
        find: "first + row < n_rows &&",
        replace: "first + row <= n_rows &&",
    },
    Planted {
        name: "mma_unwritten_output",
        file: "linear_mma",
        find: "if (column + 1 < outputs)",
        replace: "if (column + 2 < outputs)",
    },
    Planted {
        name: "mma_row_beyond_the_end",
        file: "linear_mma",
        find: "if (row >= rows) continue;",
        replace: "if (row > rows) continue;",
    },
    Planted {
        name: "flash_keys_overwritten_early",
        file: "attention_mma",
        find: "__syncthreads();\n    copy_block(block + 1, 0, keys);",
        replace: "copy_block(block + 1, 0, keys);",
    },
    Planted {
        name: "flash_values_overwritten_early",
        file: "attention_mma",
        find: "__syncthreads();\n    copy_block(block + 1, 1, values);",
        replace: "copy_block(block + 1, 1, values);",
    },
    Planted {
        name: "flash_missing_wait_for_values",
        file: "attention_mma",
        find: "wait_copies<1>();\n    __syncthreads();\n    add_values",
        replace: "__syncthreads();\n    add_values",
    },
    Planted {
        name: "flash_sees_one_key_too_few",
        file: "attention_mma",
        find: "> position + half * 8;",
        replace: ">= position + half * 8 && first_key + i + j + lane % 4 > 0;",
    },
    Planted {
        name: "flash_keys_end_one_early",
        file: "attention_mma",
        find: "copy_row_chunk(buffer, index, source, position < visible);",
        replace: "copy_row_chunk(buffer, index, source, position + 1 < visible);",
    },
    Planted {
        name: "flash_old_sum_not_corrected",
        file: "attention_mma",
        find: "rows.sum[half] * correction;",
        replace: "rows.sum[half];",
    },
    Planted {
        name: "flash_warp_skips_a_barrier",
        file: "attention_mma",
        find: "wait_copies<1>();\n    __syncthreads();\n    score_keys",
        replace: "wait_copies<1>();\n    if (warp != 3) __syncthreads();\n    score_keys",
    },
    Planted {
        name: "flash_lanes_leave_their_warp",
        file: "attention_mma",
        find: "float sum = rows.sum[half];",
        replace: "if (lane > 15) return;\n    float sum = rows.sum[half];",
    },
    Planted {
        name: "wgmma_early_slot_release",
        file: "linear_wgmma",
        find: "step > 0 && step - 1 + STAGES < n_steps;\n    // A lane a block.\n    \
               if (is_filled_again && lane < CLUSTER_BLOCKS) arrive_at_block(&drained[(step - 1) % STAGES], lane);",
        replace: "step + STAGES < n_steps;\n    \
                  if (is_filled_again && lane < CLUSTER_BLOCKS) arrive_at_block(&drained[slot], lane);",
    },
    Planted {
        name: "wgmma_missing_wait_for_copies",
        file: "linear_wgmma",
        find: "wait_at(&filled[slot], round % 2);",
        replace: "",
    },
    Planted {
        name: "wgmma_missing_wait_for_products",
        file: "linear_wgmma",
        find: "  wait_products<0>();\n",
        replace: "",
    },
    Planted {
        name: "wgmma_waits_for_a_group_too_few",
        file: "linear_wgmma",
        find: "wait_products<1>();",
        replace: "wait_products<2>();",
    },
    Planted { name: "wgmma_missing_fence", file: "linear_wgmma", find: "fence_products();", replace: "" },
    Planted {
        name: "wgmma_slot_taken_before_it_is_drained",
        file: "linear_wgmma",
        find: "wait_at(&drained[slot], (round + 1) % 2);",
        replace: "wait_at(&drained[slot], 1);",
    },
    Planted {
        name: "wgmma_counts_too_few_arrivals",
        file: "linear_wgmma",
        find: "init_barrier(&drained[slot], CLUSTER_BLOCKS * CONSUMER_WARPS);",
        replace: "init_barrier(&drained[slot], CLUSTER_BLOCKS * CONSUMER_WARPS - 1);",
    },
    Planted {
        name: "wgmma_ring_is_not_aligned",
        file: "linear_wgmma",
        find: "unaligned + (SWIZZLE_ALIGNMENT - shared_address(unaligned) % SWIZZLE_ALIGNMENT) % SWIZZLE_ALIGNMENT;",
        replace: "unaligned;",
    },
    Planted {
        name: "wgmma_barriers_not_initialised_in_time",
        file: "linear_wgmma",
        find: "synchronize_cluster();",
        replace: "",
    },
    Planted {
        name: "wgmma_cluster_not_awaited",
        file: "linear_wgmma",
        find: "synchronize_cluster();",
        replace: "__syncthreads();",
    },
    Planted {
        name: "wgmma_counts_one_blocks_warps",
        file: "linear_wgmma",
        find: "init_barrier(&drained[slot], CLUSTER_BLOCKS * CONSUMER_WARPS);",
        replace: "init_barrier(&drained[slot], CONSUMER_WARPS);",
    },
    // Each block waits for its own warps alone, and overwrites what the other one multiplies.
    Planted {
        name: "wgmma_waits_for_its_own_block_alone",
        file: "linear_wgmma",
        find: "lane < CLUSTER_BLOCKS) arrive_at_block(&drained[(step - 1) % STAGES], lane);",
        replace: "lane < CLUSTER_BLOCKS) arrive_at(&drained[(step - 1) % STAGES]);",
    },
    Planted {
        name: "wgmma_tells_its_own_block_alone",
        file: "linear_wgmma",
        find: "lane < CLUSTER_BLOCKS) arrive_at_block(",
        replace: "lane == block_of_cluster()) arrive_at_block(",
    },
    Planted {
        name: "wgmma_arrives_where_nobody_waits",
        file: "linear_wgmma",
        find: "step > 0 && step - 1 + STAGES < n_steps;",
        replace: "step > 0;",
    },
    Planted {
        name: "wgmma_both_blocks_copy_the_same_half",
        file: "linear_wgmma",
        find: "place.first_output + copied, ALL_BLOCKS",
        replace: "place.first_output, ALL_BLOCKS",
    },
    Planted {
        name: "wgmma_halves_in_one_place",
        file: "linear_wgmma",
        find: "tiles + X_BYTES + copied * ROW_BYTES,",
        replace: "tiles + X_BYTES,",
    },
    Planted {
        name: "wgmma_copies_for_its_own_block_alone",
        file: "linear_wgmma",
        find: "copied, ALL_BLOCKS);",
        replace: "copied, 1 << block_of_cluster());",
    },
    Planted {
        name: "wgmma_blocks_of_a_cluster_apart",
        file: "linear_wgmma",
        find: "/ CLUSTER_ROWS * CLUSTER_BLOCKS;",
        replace: "/ CLUSTER_ROWS * CLUSTER_BLOCKS - 1;",
    },
    Planted {
        name: "wgmma_expects_too_few_bytes",
        file: "linear_wgmma",
        find: "arrive_expecting(&filled[slot], SLOT_BYTES);",
        replace: "arrive_expecting(&filled[slot], SLOT_BYTES - X_BYTES);",
    },
    Planted {
        name: "wgmma_expects_too_many_bytes",
        file: "linear_wgmma",
        find: "arrive_expecting(&filled[slot], SLOT_BYTES);",
        replace: "arrive_expecting(&filled[slot], SLOT_BYTES + 16);",
    },
    Planted {
        name: "wgmma_wrong_rows_of_the_second_warpgroup",
        file: "linear_wgmma",
        find: "tiles + consumer * ROWS_OF_A_WARPGROUP * ROW_BYTES",
        replace: "tiles + consumer * (ROWS_OF_A_WARPGROUP - 8) * ROW_BYTES",
    },
    Planted {
        name: "wgmma_wrong_step_within_a_row",
        file: "linear_wgmma",
        find: "b + part * (STEP_BYTES / 16)",
        replace: "b + part * (STEP_BYTES / 32)",
    },
    Planted {
        name: "wgmma_wrong_swizzle",
        file: "linear_wgmma",
        find: "const u64 b = tile_descriptor(tiles + X_BYTES);",
        replace: "const u64 b = tile_descriptor(tiles + X_BYTES) ^ 3ull << 62;",
    },
    Planted {
        name: "wgmma_one_warp_multiplies_less",
        file: "linear_wgmma",
        find: "for (u32 part = 0; part < TILE_INPUTS / 16; part++) {",
        replace: "for (u32 part = threadIdx.x / 32 == 11; part < TILE_INPUTS / 16; part++) {",
    },
    Planted {
        name: "wgmma_takes_more_registers_than_there_are",
        file: "linear_wgmma",
        find: "take_registers<CONSUMER_REGISTERS>();",
        replace: "take_registers<CONSUMER_REGISTERS + 8>();",
    },
    Planted {
        name: "wgmma_row_beyond_the_end",
        file: "linear_wgmma",
        find: "if (row >= rows) continue;",
        replace: "if (row > rows) continue;",
    },
    Planted {
        name: "wgmma_unwritten_output",
        file: "linear_wgmma",
        find: "if (column + 1 < outputs)",
        replace: "if (column + 2 < outputs)",
    },
    Planted {
        name: "wgmma_unwritten_eight",
        file: "linear_wgmma",
        find: "if (column >= outputs) return;",
        replace: "if (column + 8 >= outputs) return;",
    },
    Planted {
        name: "wgmma_lanes_exchange_the_wrong_sums",
        file: "linear_wgmma",
        find: "upper ? pairs[low][i] : pairs[high][i]",
        replace: "upper ? pairs[high][i] : pairs[low][i]",
    },
    Planted {
        name: "wgmma_last_inputs_left_out",
        file: "linear_wgmma",
        find: "(inputs + TILE_INPUTS - 1) / TILE_INPUTS;",
        replace: "inputs / TILE_INPUTS;",
    },
];
