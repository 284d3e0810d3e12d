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
        find: "entry < end; entry++",
        replace: "entry + 1 < end; entry++",
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
];
