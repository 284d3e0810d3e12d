//! The peak multiply-add rate of a core: loops over registers only, the reference for GEMM.

use actbench_kernels::cpu::Isa;

/// Independent instructions per loop iteration, one register each: enough to hide their latency.
#[cfg(target_arch = "x86_64")]
const CHAINS: u64 = 12;

/// Runs about `iterations` iterations of the loop with `isa`'s fastest instruction for bf16 GEMM on this thread.
/// Returns the number of floating-point operations, or `None` if there is no loop for `isa`.
///
/// The instructions are fused multiply-adds for AVX2 and AVX-512, `vdpbf16ps` and `tdpbf16ps`. An `isa`
/// above [`Isa::detect`] gives `None`.
pub fn spin(isa: Isa, iterations: u64) -> Option<u64> {
    if isa > Isa::detect() {
        return None;
    }
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the machine has the instructions of `isa`, and for AMX its permission: see the comparison above.
    return unsafe { x86::spin(isa, iterations) };
    #[cfg(not(target_arch = "x86_64"))]
    {
        let _ = iterations;
        None
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::asm;

    use super::{CHAINS, Isa};

    /// The operand of `ldtilecfg`: eight registers of 16 rows of 64 bytes in palette 1.
    #[repr(align(64))]
    struct TileConfig {
        #[allow(dead_code, reason = "the processor reads it")]
        bytes: [u8; 64],
    }

    static TILE_CONFIG: TileConfig = {
        let mut bytes = [0; 64];
        bytes[0] = 1;
        let mut register = 0;
        while register < 8 {
            bytes[16 + 2 * register] = 64;
            bytes[48 + register] = 16;
            register += 1;
        }
        TileConfig { bytes }
    };

    /// # Safety
    /// The processor has the instructions of `isa`, and the process may use them.
    pub(super) unsafe fn spin(isa: Isa, iterations: u64) -> Option<u64> {
        let (flops, iterations) = match isa {
            Isa::Portable => return None,
            // SAFETY: the caller grants the instructions; registers that the loops write are named.
            Isa::Avx2 => unsafe {
                asm!(
                    "2:",
                    "vfmadd231ps ymm0, ymm14, ymm15", "vfmadd231ps ymm1, ymm14, ymm15",
                    "vfmadd231ps ymm2, ymm14, ymm15", "vfmadd231ps ymm3, ymm14, ymm15",
                    "vfmadd231ps ymm4, ymm14, ymm15", "vfmadd231ps ymm5, ymm14, ymm15",
                    "vfmadd231ps ymm6, ymm14, ymm15", "vfmadd231ps ymm7, ymm14, ymm15",
                    "vfmadd231ps ymm8, ymm14, ymm15", "vfmadd231ps ymm9, ymm14, ymm15",
                    "vfmadd231ps ymm10, ymm14, ymm15", "vfmadd231ps ymm11, ymm14, ymm15",
                    "dec {iterations}", "jnz 2b",
                    iterations = inout(reg) iterations.max(1) => _,
                    out("ymm0") _, out("ymm1") _, out("ymm2") _, out("ymm3") _, out("ymm4") _, out("ymm5") _,
                    out("ymm6") _, out("ymm7") _, out("ymm8") _, out("ymm9") _, out("ymm10") _, out("ymm11") _,
                    out("ymm14") _, out("ymm15") _,
                    options(nostack, nomem),
                );
                (2 * 8, iterations)
            },
            // SAFETY: as above.
            Isa::Avx512 => unsafe {
                asm!(
                    "2:",
                    "vfmadd231ps zmm0, zmm14, zmm15", "vfmadd231ps zmm1, zmm14, zmm15",
                    "vfmadd231ps zmm2, zmm14, zmm15", "vfmadd231ps zmm3, zmm14, zmm15",
                    "vfmadd231ps zmm4, zmm14, zmm15", "vfmadd231ps zmm5, zmm14, zmm15",
                    "vfmadd231ps zmm6, zmm14, zmm15", "vfmadd231ps zmm7, zmm14, zmm15",
                    "vfmadd231ps zmm8, zmm14, zmm15", "vfmadd231ps zmm9, zmm14, zmm15",
                    "vfmadd231ps zmm10, zmm14, zmm15", "vfmadd231ps zmm11, zmm14, zmm15",
                    "dec {iterations}", "jnz 2b",
                    iterations = inout(reg) iterations.max(1) => _,
                    out("zmm0") _, out("zmm1") _, out("zmm2") _, out("zmm3") _, out("zmm4") _, out("zmm5") _,
                    out("zmm6") _, out("zmm7") _, out("zmm8") _, out("zmm9") _, out("zmm10") _, out("zmm11") _,
                    out("zmm14") _, out("zmm15") _,
                    options(nostack, nomem),
                );
                (2 * 16, iterations)
            },
            // SAFETY: as above.
            Isa::Avx512Bf16 => unsafe {
                asm!(
                    "2:",
                    "vdpbf16ps zmm0, zmm14, zmm15", "vdpbf16ps zmm1, zmm14, zmm15",
                    "vdpbf16ps zmm2, zmm14, zmm15", "vdpbf16ps zmm3, zmm14, zmm15",
                    "vdpbf16ps zmm4, zmm14, zmm15", "vdpbf16ps zmm5, zmm14, zmm15",
                    "vdpbf16ps zmm6, zmm14, zmm15", "vdpbf16ps zmm7, zmm14, zmm15",
                    "vdpbf16ps zmm8, zmm14, zmm15", "vdpbf16ps zmm9, zmm14, zmm15",
                    "vdpbf16ps zmm10, zmm14, zmm15", "vdpbf16ps zmm11, zmm14, zmm15",
                    "dec {iterations}", "jnz 2b",
                    iterations = inout(reg) iterations.max(1) => _,
                    out("zmm0") _, out("zmm1") _, out("zmm2") _, out("zmm3") _, out("zmm4") _, out("zmm5") _,
                    out("zmm6") _, out("zmm7") _, out("zmm8") _, out("zmm9") _, out("zmm10") _, out("zmm11") _,
                    out("zmm14") _, out("zmm15") _,
                    options(nostack, nomem),
                );
                (2 * 2 * 16, iterations)
            },
            // A tile multiplication takes 16 cycles, so this loop runs fewer iterations than those above.
            // SAFETY: as above; the tiles are released again.
            Isa::Amx => unsafe {
                let iterations = (iterations / 16).max(1);
                asm!(
                    "ldtilecfg [{tiles}]",
                    "tilezero tmm6", "tilezero tmm7",
                    "tilezero tmm0", "tilezero tmm1", "tilezero tmm2", "tilezero tmm3",
                    "2:",
                    "tdpbf16ps tmm0, tmm6, tmm7", "tdpbf16ps tmm1, tmm6, tmm7",
                    "tdpbf16ps tmm2, tmm6, tmm7", "tdpbf16ps tmm3, tmm6, tmm7",
                    "tdpbf16ps tmm0, tmm6, tmm7", "tdpbf16ps tmm1, tmm6, tmm7",
                    "tdpbf16ps tmm2, tmm6, tmm7", "tdpbf16ps tmm3, tmm6, tmm7",
                    "tdpbf16ps tmm0, tmm6, tmm7", "tdpbf16ps tmm1, tmm6, tmm7",
                    "tdpbf16ps tmm2, tmm6, tmm7", "tdpbf16ps tmm3, tmm6, tmm7",
                    "dec {iterations}", "jnz 2b",
                    "tilerelease",
                    tiles = in(reg) &raw const TILE_CONFIG,
                    iterations = inout(reg) iterations => _,
                    out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _, out("tmm6") _, out("tmm7") _,
                    options(nostack, readonly),
                );
                (2 * 16 * 16 * 32, iterations)
            },
        };
        Some(flops * CHAINS * iterations.max(1))
    }
}
