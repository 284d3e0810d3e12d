//! Faults planted in sources, to show that this check sees what it is for.

use actbench_kernels::cuda::Architecture;
use actbench_kernels::cuda::sources::{KernelSource, SOURCES};

/// A change of one place of a source, and what must be said of it.
struct Planted {
    file: &'static str,
    /// The kernel that is kept: the others would only take time.
    kernel: &'static str,
    find: &'static str,
    replace: &'static str,
    told: &'static str,
}

const PLANTED: [Planted; 4] = [
    Planted {
        file: "linear_wgmma.cu",
        kernel: "linear_wgmma_bf16",
        find: "    commit_products();\n",
        replace: "    commit_products();\n    sums[0] += 1.0f;\n",
        told: "C7511",
    },
    Planted {
        file: "linear_wgmma.cu",
        kernel: "linear_wgmma_bf16",
        find: "__launch_bounds__(THREADS, 1)",
        replace: "",
        told: "C7508",
    },
    Planted {
        file: "pool.cu",
        kernel: "pool_wide_bf16",
        find: "#pragma unroll\n  for (u32 i = 0; i < WIDE<E>; i++) values[i] = 0.0f;",
        replace: "float kept[64];\n  for (u32 i = 0; i < 64; i++) kept[i * end % 64] = begin + i;\n  \
                  for (u32 i = 0; i < WIDE<E>; i++) values[i] = kept[begin * i % 64];",
        told: "stack frame",
    },
    Planted {
        file: "rms_norm.cu",
        kernel: "rms_norm_wide_bf16",
        find: "    store_wide(out_row + column, values);",
        replace: "    for (u32 i = 0; i < WIDE<E>; i++) out_row[column + i] = from_float<E>(values[i]);",
        told: "no STG",
    },
];

/// What was not seen. `check` compiles a source and returns its faults.
///
/// # Errors
/// Those of `check`, and a fault whose text is not where it should be.
pub fn unseen(
    check: impl Fn(&KernelSource, Architecture) -> Result<Vec<String>, String>,
) -> Result<Vec<String>, String> {
    let mut unseen = Vec::new();
    for fault in &PLANTED {
        let source = SOURCES.iter().find(|source| source.file == fault.file);
        let source = source.ok_or_else(|| format!("there is no {}", fault.file))?;
        if source.text.matches(fault.find).count() != 1 {
            return Err(format!("{} must hold {:?} exactly once", fault.file, fault.find));
        }
        let others: Vec<&str> = source.kernels().filter(|kernel| *kernel != fault.kernel).collect();
        let is_kept = |line: &&str| {
            !others.iter().any(|kernel| line.contains(&format!("_KERNEL({kernel},")) && !line.starts_with('#'))
        };
        let text: Vec<&str> = source.text.lines().filter(is_kept).collect();
        // Few and small: they last as long as the program.
        let text: &'static str = text.join("\n").replace(fault.find, fault.replace).leak();
        let planted = KernelSource { file: source.file, text, only: source.only };
        let faults = check(&planted, Architecture::new(90).code())?;
        if !faults.iter().any(|line| line.contains(fault.told)) {
            unseen.push(format!("a planted fault is not seen: {} in {} gives {faults:?}", fault.told, fault.file));
        }
    }
    Ok(unseen)
}
