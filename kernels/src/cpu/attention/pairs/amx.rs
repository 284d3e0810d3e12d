//! The matmuls of attention on the tile registers of AMX.

use std::arch::asm;

use half::bf16;

use super::{AttentionInputs, AttentionTask, Line, PairRows, PairScratch, PairTiles, attend};
use crate::cpu::gemm::TileConfigGuard;

/// Up to 2 x 2 tile registers of 16 rows by 16 lanes. Registers 0 to 3 are accumulators, 4 and 5 rows, 6 and 7 lanes.
struct AmxTiles;

/// Rows of a tile.
const ROWS: usize = 16;
/// Pairs of a row of a tile register.
const PAIRS: usize = 16;
/// Bytes of a row of a tile register.
const LINE: usize = size_of::<Line>();

/// Computes the output rows of `task`.
///
/// # Safety
/// The process may use AMX, and the processor has AVX-512 BF16.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma,f16c")]
pub(in crate::cpu::attention) unsafe fn attend_amx(
    inputs: &AttentionInputs<'_, bf16>,
    task: &AttentionTask<'_>,
    scratch: &mut PairScratch,
) {
    // SAFETY: the caller guarantees the instructions.
    unsafe {
        let _configured = TileConfigGuard::new();
        attend::<AmxTiles>(inputs, task, scratch);
    }
}

impl PairTiles for AmxTiles {
    const GROUP: usize = 2;
    const ROWS: usize = ROWS;
    const PAIRS: usize = PAIRS;
    const VALUES_BY_ELEMENT: bool = true;

    #[inline(always)]
    unsafe fn multiply<const V: usize, const ADD: bool>(a: PairRows, b: [*const Line; V], c: [*mut Line; V]) {
        // SAFETY: the caller guarantees the registers and the sizes.
        unsafe { multiply::<V, ADD>(a, b, c) }
    }
}

/// Multiplies `a`, `[row][pair]`, and sets `c` or adds to it.
///
/// # Safety
/// The tile registers are configured, and the operands have the sizes of `a`.
#[inline(always)]
unsafe fn multiply<const V: usize, const ADD: bool>(a: PairRows, b: [*const Line; V], c: [*mut Line; V]) {
    let steps = a.pairs / PAIRS;
    let stride = a.stride * size_of::<u32>();
    let last_b = b[V - 1];
    let last_c = c[V - 1];
    // SAFETY: the caller guarantees the registers and the sizes.
    unsafe {
        for first in (0..a.rows).step_by(2 * ROWS) {
            let upper = a.start.add(first * a.stride).cast::<u8>();
            let (left, right) = (c[0].add(first), last_c.add(first));
            // The loop over the steps with the instructions of one, of 64 bytes of a row and 16 lines of lanes.
            macro_rules! multiply_steps {
                ($($instruction:literal),*) => {
                    asm!(
                        "2:",
                        $($instruction,)*
                        "add {upper}, 64",
                        "add {lower}, 64",
                        "add {left}, 1024",
                        "add {right}, 1024",
                        "dec {steps}",
                        "jnz 2b",
                        steps = inout(reg) steps.max(1) => _,
                        upper = inout(reg) upper => _,
                        lower = inout(reg) upper.wrapping_add(ROWS * stride) => _,
                        left = inout(reg) b[0] => _,
                        right = inout(reg) last_b => _,
                        stride = in(reg) stride,
                        line = in(reg) LINE,
                        options(nostack, readonly),
                    )
                };
            }
            if first + ROWS < a.rows {
                begin::<V, true, ADD>(left, right);
                if V == 2 {
                    multiply_steps!(
                        "tileloadd tmm6, [{left} + {line}]",
                        "tileloadd tmm4, [{upper} + {stride}]",
                        "tileloadd tmm7, [{right} + {line}]",
                        "tdpbf16ps tmm0, tmm4, tmm6",
                        "tileloadd tmm5, [{lower} + {stride}]",
                        "tdpbf16ps tmm1, tmm4, tmm7",
                        "tdpbf16ps tmm2, tmm5, tmm6",
                        "tdpbf16ps tmm3, tmm5, tmm7"
                    );
                } else {
                    multiply_steps!(
                        "tileloadd tmm6, [{left} + {line}]",
                        "tileloadd tmm4, [{upper} + {stride}]",
                        "tileloadd tmm5, [{lower} + {stride}]",
                        "tdpbf16ps tmm0, tmm4, tmm6",
                        "tdpbf16ps tmm2, tmm5, tmm6"
                    );
                }
                end::<V, true>(left, right);
            } else {
                begin::<V, false, ADD>(left, right);
                if V == 2 {
                    multiply_steps!(
                        "tileloadd tmm6, [{left} + {line}]",
                        "tileloadd tmm4, [{upper} + {stride}]",
                        "tileloadd tmm7, [{right} + {line}]",
                        "tdpbf16ps tmm0, tmm4, tmm6",
                        "tdpbf16ps tmm1, tmm4, tmm7"
                    );
                } else {
                    multiply_steps!(
                        "tileloadd tmm6, [{left} + {line}]",
                        "tileloadd tmm4, [{upper} + {stride}]",
                        "tdpbf16ps tmm0, tmm4, tmm6"
                    );
                }
                end::<V, false>(left, right);
            }
        }
    }
}

/// Clears the accumulators, or loads them with `ADD`: `left` to registers 0 and 2, `right` to 1 and 3; 2 and 3 with `BOTH`
/// tiles of rows.
#[inline(always)]
unsafe fn begin<const V: usize, const BOTH: bool, const ADD: bool>(left: *const Line, right: *const Line) {
    // SAFETY: the caller guarantees the registers and the sizes.
    unsafe {
        if !ADD {
            asm!("tilezero tmm0", "tilezero tmm1", "tilezero tmm2", "tilezero tmm3", options(nostack));
            return;
        }
        asm!("tileloadd tmm0, [{} + {}]", in(reg) left, in(reg) LINE, options(nostack, readonly));
        if V == 2 {
            asm!("tileloadd tmm1, [{} + {}]", in(reg) right, in(reg) LINE, options(nostack, readonly));
        }
        if BOTH {
            asm!("tileloadd tmm2, [{} + {}]", in(reg) left.add(ROWS), in(reg) LINE, options(nostack, readonly));
            if V == 2 {
                asm!("tileloadd tmm3, [{} + {}]", in(reg) right.add(ROWS), in(reg) LINE, options(nostack, readonly));
            }
        }
    }
}

/// Stores the accumulators that [`begin`] loads.
#[inline(always)]
unsafe fn end<const V: usize, const BOTH: bool>(left: *mut Line, right: *mut Line) {
    // SAFETY: the caller guarantees the registers and the sizes.
    unsafe {
        asm!("tilestored [{} + {}], tmm0", in(reg) left, in(reg) LINE, options(nostack));
        if V == 2 {
            asm!("tilestored [{} + {}], tmm1", in(reg) right, in(reg) LINE, options(nostack));
        }
        if BOTH {
            asm!("tilestored [{} + {}], tmm2", in(reg) left.add(ROWS), in(reg) LINE, options(nostack));
            if V == 2 {
                asm!("tilestored [{} + {}], tmm3", in(reg) right.add(ROWS), in(reg) LINE, options(nostack));
            }
        }
    }
}
