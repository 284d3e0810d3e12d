//! Mutants of the kernels, to show that the emulator's modes detect them. The build script makes the copies;
//! `emulator_mutants.rs` runs them. The replaced text must occur exactly once in the kernel's file, or else in
//! `epilogue.cuh`, which the copy then contains.
#![allow(dead_code)]

/// The code path of a kernel file that a mutant changes, which decides on the shape that runs it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum KernelPath {
    /// The only kernel of its file, or the plain one.
    Default,
    /// The kernel with vector loads and stores.
    Wide,
    /// The epilogue that stores eight columns at once.
    VectorStores,
}

/// One changed text in one kernel source.
pub struct Mutant {
    /// Name of the mutant: the fault.
    pub name: &'static str,
    /// File in `kernels/cuda/`, without its extension.
    pub file: &'static str,
    /// The code path that it changes.
    pub path: KernelPath,
    /// The replaced text.
    pub find: &'static str,
    /// The replacement.
    pub replace: &'static str,
}

/// All mutants.
pub const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "norm_missing_barrier",
        file: "rms_norm",
        path: KernelPath::Default,
        find: "__syncthreads();\n  if (threadIdx.x == 0) inverse",
        replace: "if (threadIdx.x == 0) inverse",
    },
    Mutant {
        name: "linear_unwritten_output",
        file: "linear",
        path: KernelPath::Default,
        find: "if (n >= out_features) return;\n  float value",
        replace: "if (n + 1 >= out_features) return;\n  float value",
    },
    Mutant {
        name: "pool_tail_off_by_one",
        file: "pool",
        path: KernelPath::Default,
        find: "entry < end; entry++) {\n    const float",
        replace: "entry + 1 < end; entry++) {\n    const float",
    },
    Mutant {
        name: "pool_wide_skips_last_columns",
        file: "pool",
        path: KernelPath::Wide,
        find: "blockIdx.y * blockDim.x + threadIdx.x) * VEC<E>;\n  if (column >= columns) return;",
        replace: "blockIdx.y * blockDim.x + threadIdx.x) * VEC<E>;\n  if (column + VEC<E> >= columns) return;",
    },
    Mutant {
        name: "norm_wide_missing_barrier",
        file: "rms_norm",
        path: KernelPath::Wide,
        find: "__syncthreads();\n  sum = warp_sums[0];",
        replace: "sum = warp_sums[0];",
    },
    Mutant {
        name: "norm_wide_reads_past_the_row",
        file: "rms_norm",
        path: KernelPath::Wide,
        find: "column < columns; column += VEC_THREADS * VEC<E>) {\n    load_vec(row + column, values);\n#pragma",
        replace: "column <= columns; column += VEC_THREADS * VEC<E>) {\n    load_vec(row + column, values);\n#pragma",
    },
    Mutant {
        name: "attention_p_overwritten_early",
        file: "attention",
        path: KernelPath::Default,
        find: "    // The scores of the next block overwrite p.\n    __syncthreads();",
        replace: "",
    },
    Mutant {
        name: "mma_missing_barrier",
        file: "linear_mma",
        path: KernelPath::Default,
        find: "__syncthreads();\n    load_stage(step + STAGES - 1);",
        replace: "load_stage(step + STAGES - 1);",
    },
    Mutant {
        name: "mma_early_stage_release",
        file: "linear_mma",
        path: KernelPath::Default,
        find: "__syncthreads();\n    load_stage(step + STAGES - 1);",
        replace: "load_stage(step + STAGES - 1);\n    __syncthreads();",
    },
    Mutant {
        name: "mma_missing_wait",
        file: "linear_mma",
        path: KernelPath::Default,
        find: "cp_async_wait_group<STAGES - 2>();",
        replace: "",
    },
    Mutant {
        name: "mma_waits_one_group_too_few",
        file: "linear_mma",
        path: KernelPath::Default,
        find: "cp_async_wait_group<STAGES - 2>();",
        replace: "cp_async_wait_group<STAGES - 1>();",
    },
    Mutant {
        name: "mma_k_tail_off_by_one",
        file: "linear_mma",
        path: KernelPath::Default,
        find: "column < K;",
        replace: "column <= K;",
    },
    Mutant {
        name: "mma_copies_a_row_too_many",
        file: "linear_mma",
        path: KernelPath::Default,
        find: "first + row < n_rows &&",
        replace: "first + row <= n_rows &&",
    },
    Mutant {
        name: "mma_unwritten_output",
        file: "linear_mma",
        path: KernelPath::Default,
        find: "if (column + 1 < out_features)",
        replace: "if (column + 2 < out_features)",
    },
    Mutant {
        name: "mma_row_beyond_the_end",
        file: "linear_mma",
        path: KernelPath::Default,
        find: "if (row >= M) continue;",
        replace: "if (row > M) continue;",
    },
    Mutant {
        name: "flash_keys_overwritten_early",
        file: "attention_mma",
        path: KernelPath::Default,
        find: "__syncthreads();\n    load_block(block + 1, 0, keys);",
        replace: "load_block(block + 1, 0, keys);",
    },
    Mutant {
        name: "flash_values_overwritten_early",
        file: "attention_mma",
        path: KernelPath::Default,
        find: "__syncthreads();\n    load_block(block + 1, 1, values);",
        replace: "load_block(block + 1, 1, values);",
    },
    Mutant {
        name: "flash_missing_wait_for_values",
        file: "attention_mma",
        path: KernelPath::Default,
        find: "cp_async_wait_group<1>();\n    __syncthreads();\n    mma_pv",
        replace: "__syncthreads();\n    mma_pv",
    },
    Mutant {
        name: "flash_masks_one_key_too_many",
        file: "attention_mma",
        path: KernelPath::Default,
        find: "> position + half * 8;",
        replace: ">= position + half * 8 && first_key + i + j + lane % 4 > 0;",
    },
    Mutant {
        name: "flash_keys_end_one_early",
        file: "attention_mma",
        path: KernelPath::Default,
        find: "load_chunk(buffer, index, source, position < visible);",
        replace: "load_chunk(buffer, index, source, position + 1 < visible);",
    },
    Mutant {
        name: "flash_row_sum_not_rescaled",
        file: "attention_mma",
        path: KernelPath::Default,
        find: "state.row_sum[half] * correction;",
        replace: "state.row_sum[half];",
    },
    Mutant {
        name: "flash_warp_skips_a_barrier",
        file: "attention_mma",
        path: KernelPath::Default,
        find: "cp_async_wait_group<1>();\n    __syncthreads();\n    mma_qk",
        replace: "cp_async_wait_group<1>();\n    if (warp != 3) __syncthreads();\n    mma_qk",
    },
    Mutant {
        name: "flash_lanes_leave_their_warp",
        file: "attention_mma",
        path: KernelPath::Default,
        find: "float sum = state.row_sum[half];",
        replace: "if (lane > 15) return;\n    float sum = state.row_sum[half];",
    },
    Mutant {
        name: "wgmma_early_stage_release",
        file: "linear_wgmma",
        path: KernelPath::Default,
        find: "step > 0 && step - 1 + STAGES < k_steps;\n    // One lane for each CTA.\n    \
               if (is_refilled && lane < CLUSTER_SIZE) mbarrier_arrive_cluster(&empty[(step - 1) % STAGES], lane);",
        replace: "step + STAGES < k_steps;\n    \
                  if (is_refilled && lane < CLUSTER_SIZE) mbarrier_arrive_cluster(&empty[stage], lane);",
    },
    Mutant {
        name: "wgmma_missing_wait_for_copies",
        file: "linear_wgmma",
        path: KernelPath::Default,
        find: "mbarrier_wait_parity(&full[stage], phase % 2);",
        replace: "",
    },
    Mutant {
        name: "wgmma_missing_wait_group_0",
        file: "linear_wgmma",
        path: KernelPath::Default,
        find: "  wgmma_wait_group<0>();\n",
        replace: "",
    },
    Mutant {
        name: "wgmma_waits_for_one_group_too_few",
        file: "linear_wgmma",
        path: KernelPath::Default,
        find: "wgmma_wait_group<1>();",
        replace: "wgmma_wait_group<2>();",
    },
    Mutant {
        name: "wgmma_missing_fence",
        file: "linear_wgmma",
        path: KernelPath::Default,
        find: "wgmma_fence();",
        replace: "",
    },
    Mutant {
        name: "wgmma_stage_refilled_before_empty",
        file: "linear_wgmma",
        path: KernelPath::Default,
        find: "mbarrier_wait_parity(&empty[stage], (phase + 1) % 2);",
        replace: "mbarrier_wait_parity(&empty[stage], 1);",
    },
    Mutant {
        name: "wgmma_counts_too_few_arrivals",
        file: "linear_wgmma",
        path: KernelPath::Default,
        find: "mbarrier_init(&empty[stage], CLUSTER_SIZE * CONSUMER_WARPS);",
        replace: "mbarrier_init(&empty[stage], CLUSTER_SIZE * CONSUMER_WARPS - 1);",
    },
    Mutant {
        name: "wgmma_stages_not_aligned",
        file: "linear_wgmma",
        path: KernelPath::Default,
        find: "unaligned + (SWIZZLE_ALIGNMENT - shared_address(unaligned) % SWIZZLE_ALIGNMENT) % SWIZZLE_ALIGNMENT;",
        replace: "unaligned;",
    },
    Mutant {
        name: "wgmma_barriers_used_before_init",
        file: "linear_wgmma",
        path: KernelPath::Default,
        find: "cluster_sync();",
        replace: "",
    },
    Mutant {
        name: "wgmma_missing_cluster_sync",
        file: "linear_wgmma",
        path: KernelPath::Default,
        find: "cluster_sync();",
        replace: "__syncthreads();",
    },
    Mutant {
        name: "wgmma_counts_warps_of_one_cta",
        file: "linear_wgmma",
        path: KernelPath::Default,
        find: "mbarrier_init(&empty[stage], CLUSTER_SIZE * CONSUMER_WARPS);",
        replace: "mbarrier_init(&empty[stage], CONSUMER_WARPS);",
    },
    // Each CTA waits for its own warps only, and overwrites tiles that the other one multiplies.
    Mutant {
        name: "wgmma_arrives_at_own_cta_twice",
        file: "linear_wgmma",
        path: KernelPath::Default,
        find: "lane < CLUSTER_SIZE) mbarrier_arrive_cluster(&empty[(step - 1) % STAGES], lane);",
        replace: "lane < CLUSTER_SIZE) mbarrier_arrive(&empty[(step - 1) % STAGES]);",
    },
    Mutant {
        name: "wgmma_arrives_at_own_cta_only",
        file: "linear_wgmma",
        path: KernelPath::Default,
        find: "lane < CLUSTER_SIZE) mbarrier_arrive_cluster(",
        replace: "lane == cluster_ctarank()) mbarrier_arrive_cluster(",
    },
    Mutant {
        name: "wgmma_arrives_after_last_refill",
        file: "linear_wgmma",
        path: KernelPath::Default,
        find: "step > 0 && step - 1 + STAGES < k_steps;",
        replace: "step > 0;",
    },
    Mutant {
        name: "wgmma_both_ctas_load_the_same_half",
        file: "linear_wgmma",
        path: KernelPath::Default,
        find: "tile.n + half_n,\n                          MULTICAST_MASK",
        replace: "tile.n,\n                          MULTICAST_MASK",
    },
    Mutant {
        name: "wgmma_halves_at_one_offset",
        file: "linear_wgmma",
        path: KernelPath::Default,
        find: "tiles + X_TILE_BYTES + half_n * ROW_BYTES,",
        replace: "tiles + X_TILE_BYTES,",
    },
    Mutant {
        name: "wgmma_multicast_to_own_cta_only",
        file: "linear_wgmma",
        path: KernelPath::Default,
        find: "half_n,\n                          MULTICAST_MASK);",
        replace: "half_n,\n                          1 << cluster_ctarank());",
    },
    Mutant {
        name: "wgmma_cluster_split_over_n",
        file: "linear_wgmma",
        path: KernelPath::Default,
        find: "/ CLUSTER_M * CLUSTER_SIZE;",
        replace: "/ CLUSTER_M * CLUSTER_SIZE - 1;",
    },
    Mutant {
        name: "wgmma_expects_too_few_bytes",
        file: "linear_wgmma",
        path: KernelPath::Default,
        find: "mbarrier_arrive_expect_tx(&full[stage], STAGE_BYTES);",
        replace: "mbarrier_arrive_expect_tx(&full[stage], STAGE_BYTES - X_TILE_BYTES);",
    },
    Mutant {
        name: "wgmma_expects_too_many_bytes",
        file: "linear_wgmma",
        path: KernelPath::Default,
        find: "mbarrier_arrive_expect_tx(&full[stage], STAGE_BYTES);",
        replace: "mbarrier_arrive_expect_tx(&full[stage], STAGE_BYTES + 16);",
    },
    Mutant {
        name: "wgmma_wrong_rows_of_the_second_warpgroup",
        file: "linear_wgmma",
        path: KernelPath::Default,
        find: "tiles + consumer_index * WGMMA_M * ROW_BYTES",
        replace: "tiles + consumer_index * (WGMMA_M - 8) * ROW_BYTES",
    },
    Mutant {
        name: "wgmma_wrong_step_within_a_row",
        file: "linear_wgmma",
        path: KernelPath::Default,
        find: "b + k16 * (WGMMA_K_BYTES / 16)",
        replace: "b + k16 * (WGMMA_K_BYTES / 32)",
    },
    Mutant {
        name: "wgmma_wrong_swizzle",
        file: "linear_wgmma",
        path: KernelPath::Default,
        find: "const u64 b = make_smem_desc(tiles + X_TILE_BYTES);",
        replace: "const u64 b = make_smem_desc(tiles + X_TILE_BYTES) ^ 3ull << 62;",
    },
    Mutant {
        name: "wgmma_one_warp_skips_a_wgmma",
        file: "linear_wgmma",
        path: KernelPath::Default,
        find: "for (u32 k16 = 0; k16 < BK / 16; k16++) {",
        replace: "for (u32 k16 = threadIdx.x / 32 == 11; k16 < BK / 16; k16++) {",
    },
    Mutant {
        name: "wgmma_exceeds_the_register_file",
        file: "linear_wgmma",
        path: KernelPath::Default,
        find: "setmaxnreg_inc<CONSUMER_REGISTERS>();",
        replace: "setmaxnreg_inc<CONSUMER_REGISTERS + 8>();",
    },
    Mutant {
        name: "wgmma_row_beyond_the_end",
        file: "linear_wgmma",
        path: KernelPath::Default,
        find: "if (row >= M) continue;",
        replace: "if (row > M) continue;",
    },
    Mutant {
        name: "wgmma_unwritten_output",
        file: "linear_wgmma",
        path: KernelPath::Default,
        find: "if (column + 1 < out_features)",
        replace: "if (column + 2 < out_features)",
    },
    Mutant {
        name: "wgmma_unwritten_eight_columns",
        file: "linear_wgmma",
        path: KernelPath::VectorStores,
        find: "if (column >= out_features) return;",
        replace: "if (column + 8 >= out_features) return;",
    },
    Mutant {
        name: "wgmma_lanes_exchange_wrong_accumulators",
        file: "linear_wgmma",
        path: KernelPath::VectorStores,
        find: "upper ? pairs[low][i] : pairs[high][i]",
        replace: "upper ? pairs[high][i] : pairs[low][i]",
    },
    Mutant {
        name: "wgmma_skips_last_k_step",
        file: "linear_wgmma",
        path: KernelPath::Default,
        find: "(K + BK - 1) / BK;",
        replace: "K / BK;",
    },
];
