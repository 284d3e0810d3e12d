//! Mutants of the sources, to show that this check detects the faults it is for.

use actbench_kernels::cuda::Architecture;
use actbench_kernels::cuda::registry::{KernelSource, SOURCES};

/// One changed text in a source, and a part of the message that must report it.
struct Mutant {
    file: &'static str,
    /// The only kernel that is compiled, to save time.
    kernel: &'static str,
    find: &'static str,
    replace: &'static str,
    message: &'static str,
}

const MUTANTS: [Mutant; 10] = [
    Mutant {
        file: "linear_wgmma.cu",
        kernel: "linear_wgmma_bf16",
        find: "    wgmma_commit_group();\n",
        replace: "    wgmma_commit_group();\n    acc[0] += 1.0f;\n",
        message: "C7511",
    },
    Mutant {
        file: "linear_wgmma.cu",
        kernel: "linear_wgmma_bf16",
        find: "#define LINEAR_WGMMA_KERNEL(",
        replace: "#undef __launch_bounds__\n#define __launch_bounds__(...)\n#define LINEAR_WGMMA_KERNEL(",
        message: "C7508",
    },
    Mutant {
        file: "pool.cu",
        kernel: "pool_wide_bf16",
        find: "#pragma unroll\n  for (u32 i = 0; i < VEC<E>; i++) values[i] = 0.0f;",
        replace: "float kept[64];\n  for (u32 i = 0; i < 64; i++) kept[i * end % 64] = begin + i;\n  \
                  for (u32 i = 0; i < VEC<E>; i++) values[i] = kept[begin * i % 64];",
        message: "stack frame",
    },
    Mutant {
        file: "rms_norm.cu",
        kernel: "rms_norm_wide_bf16",
        find: "    store_vec(out_row + column, values);",
        replace: "    for (u32 i = 0; i < VEC<E>; i++) out_row[column + i] = from_float<E>(values[i]);",
        message: "no STG",
    },
    Mutant {
        file: "linear_mma.cu",
        kernel: "linear_gated_mma_bf16",
        find: "#include \"epilogue.cuh\"",
        replace: "#include \"math.cuh\"\n#define rcp_approx(x) (1.0f / (x))\n#include \"epilogue.cuh\"\n",
        message: "a division by its slow path",
    },
    Mutant {
        file: "linear_wgmma.cu",
        kernel: "linear_residual_wgmma_bf16",
        find: "    stmatrix_x4(place, words);",
        replace: "    *reinterpret_cast<uint4*>(place) = {words[0], words[1], words[2], words[3]};",
        message: "no STSM",
    },
    Mutant {
        file: "pool.cu",
        kernel: "pool_wide_bf16",
        find: "ROWS_IN_FLIGHT = 8;",
        replace: "ROWS_IN_FLIGHT = 4;",
        message: "vector loads in flight",
    },
    // Masks in every block.
    Mutant {
        file: "attention_mma.cu",
        kernel: "attention_mma_bf16_64",
        find: "if (first_key_position + BKV > first_position + 1) mask",
        replace: "mask",
        message: "HMMA of",
    },
    // Masks in every block.
    Mutant {
        file: "attention_wgmma.cu",
        kernel: "attention_wgmma_bf16_64",
        find: "if (first_key + BKV > rule.first_position + 1) mask",
        replace: "mask",
        message: "HGMMA of",
    },
    // The compiler moves the wait for P V before the softmax.
    Mutant {
        file: "attention_wgmma.cu",
        kernel: "attention_wgmma_bf16_128",
        find: "        if (block + 1 < n_blocks) mbarrier_wait_parity(&keys.full[key_slot.stage], key_slot.parity);\n",
        replace: "",
        message: "exponentials while a wgmma is in flight",
    },
];

/// The mutants that `check`, which compiles a source and returns its faults, does not report.
///
/// # Errors
/// Errors of `check`, and a mutant whose text does not occur exactly once.
pub fn undetected(
    check: impl Fn(&KernelSource, Architecture) -> Result<Vec<String>, String>,
) -> Result<Vec<String>, String> {
    let mut undetected = Vec::new();
    for mutant in &MUTANTS {
        let source = SOURCES.iter().find(|source| source.file == mutant.file);
        let source = source.ok_or_else(|| format!("{} does not exist", mutant.file))?;
        if source.text.matches(mutant.find).count() != 1 {
            return Err(format!("{} must contain {:?} exactly once", mutant.file, mutant.find));
        }
        let others: Vec<&str> =
            source.kernels().map(|kernel| kernel.name).filter(|kernel| *kernel != mutant.kernel).collect();
        let is_kept = |line: &&str| {
            !others.iter().any(|kernel| line.contains(&format!("_KERNEL({kernel},")) && !line.starts_with('#'))
        };
        let text: Vec<&str> = source.text.lines().filter(is_kept).collect();
        // A few small texts, needed until the process exits.
        let text: &'static str = text.join("\n").replace(mutant.find, mutant.replace).leak();
        let mutated = KernelSource { text, ..*source };
        let faults = check(&mutated, Architecture::new(90).code())?;
        if !faults.iter().any(|line| line.contains(mutant.message)) {
            undetected
                .push(format!("a mutant is not detected: {} in {} gives {faults:?}", mutant.message, mutant.file));
        }
    }
    Ok(undetected)
}
