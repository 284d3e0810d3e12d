//! The tile registers: configuration, clear, load, store and multiplication. The intrinsics of the standard library are
//! not stable yet, so these are short blocks of assembly.
//!
//! The compiler does not use tile registers, so they keep their contents from one block to the next. Registers 0 to 3
//! are the accumulators: the rows of a pass in upper and lower tiles, its outputs in left and right tiles. The others
//! are operands.

use std::arch::asm;

use super::{LINE, PassAccumulators, TILE_ROWS};
use crate::cpu::gemm::pack::PANEL;

/// Clears the accumulators.
///
/// # Safety
/// The tile registers are configured.
#[inline(always)]
pub(super) unsafe fn clear() {
    // SAFETY: the caller guarantees the registers.
    unsafe { asm!("tilezero tmm0", "tilezero tmm1", "tilezero tmm2", "tilezero tmm3", options(nostack)) };
}

/// Loads the accumulators of one tile of rows, or of `BOTH`, to the tile registers.
///
/// # Safety
/// The tile registers are configured.
#[inline(always)]
pub(super) unsafe fn load<const BOTH: bool>(accumulators: &PassAccumulators) {
    let (start, line) = (accumulators.as_ptr(), PANEL * size_of::<f32>());
    // SAFETY: the caller guarantees the registers; the tiles lie inside the accumulators.
    unsafe {
        asm!(
            "tileloadd tmm0, [{start} + {line}]",
            "tileloadd tmm1, [{start} + {line} + 64]",
            start = in(reg) start,
            line = in(reg) line,
            options(nostack, readonly),
        );
        if BOTH {
            asm!(
                "tileloadd tmm2, [{start} + {line} + 2048]",
                "tileloadd tmm3, [{start} + {line} + 2112]",
                start = in(reg) start,
                line = in(reg) line,
                options(nostack, readonly),
            );
        }
    }
}

/// Stores the accumulators of one tile of rows, or of `BOTH`, from the tile registers.
///
/// # Safety
/// The tile registers are configured.
#[inline(always)]
pub(super) unsafe fn store<const BOTH: bool>(accumulators: &mut PassAccumulators) {
    let (start, line) = (accumulators.as_mut_ptr(), PANEL * size_of::<f32>());
    // SAFETY: the caller guarantees the registers; the tiles lie inside the accumulators.
    unsafe {
        asm!(
            "tilestored [{start} + {line}], tmm0",
            "tilestored [{start} + {line} + 64], tmm1",
            start = in(reg) start,
            line = in(reg) line,
            options(nostack),
        );
        if BOTH {
            asm!(
                "tilestored [{start} + {line} + 2048], tmm2",
                "tilestored [{start} + {line} + 2112], tmm3",
                start = in(reg) start,
                line = in(reg) line,
                options(nostack),
            );
        }
    }
}

/// Multiplies `steps` tiles of inputs and accumulates in the tile registers.
///
/// Activations are loaded with the hint that they are not reused soon (`tileloaddt1`), so that the panel, which is
/// reused, stays in the L1 cache.
///
/// # Safety
/// The tile registers are configured, and `steps > 0`. `upper` and `lower` are a pointer to 16 rows of `steps * 64`
/// bytes and the stride of the rows in bytes. `panel` points to `steps * 32` inputs.
#[inline(always)]
pub(super) unsafe fn multiply_steps<const BOTH: bool>(
    steps: usize,
    upper: (*const u8, usize),
    lower: (*const u8, usize),
    panel: *const u8,
) {
    // SAFETY: the caller guarantees the registers and the sizes.
    unsafe {
        if BOTH {
            asm!(
                "2:",
                "tileloaddt1 tmm4, [{upper} + {upper_bytes}]",
                "tileloadd tmm6, [{panel} + {line}]",
                "tileloadd tmm7, [{panel} + {line} + 64]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tileloaddt1 tmm5, [{lower} + {lower_bytes}]",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tdpbf16ps tmm3, tmm5, tmm7",
                "add {upper}, 64",
                "add {lower}, 64",
                "add {panel}, 2048",
                "dec {steps}",
                "jnz 2b",
                steps = inout(reg) steps => _,
                upper = inout(reg) upper.0 => _,
                upper_bytes = in(reg) upper.1,
                lower = inout(reg) lower.0 => _,
                lower_bytes = in(reg) lower.1,
                panel = inout(reg) panel => _,
                line = in(reg) PANEL * size_of::<f32>(),
                options(nostack, readonly),
            );
        } else {
            asm!(
                "2:",
                "tileloaddt1 tmm4, [{upper} + {upper_bytes}]",
                "tileloadd tmm6, [{panel} + {line}]",
                "tileloadd tmm7, [{panel} + {line} + 64]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "add {upper}, 64",
                "add {panel}, 2048",
                "dec {steps}",
                "jnz 2b",
                steps = inout(reg) steps => _,
                upper = inout(reg) upper.0 => _,
                upper_bytes = in(reg) upper.1,
                panel = inout(reg) panel => _,
                line = in(reg) PANEL * size_of::<f32>(),
                options(nostack, readonly),
            );
        }
    }
}

/// The operand of `ldtilecfg`.
#[repr(C, align(64))]
struct TileConfig {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

/// All eight tile registers as 16 rows of 64 bytes. Palette 1 is the only one that is defined.
static FULL_TILES: TileConfig = {
    let mut configuration =
        TileConfig { palette: 1, start_row: 0, reserved: [0; 14], row_bytes: [0; 16], rows: [0; 16] };
    let mut register = 0;
    while register < 8 {
        configuration.row_bytes[register] = LINE as u16;
        configuration.rows[register] = TILE_ROWS as u8;
        register += 1;
    }
    configuration
};

/// Configures this thread's tile registers until it is dropped. Released registers need not be saved at a context
/// switch.
pub(in crate::cpu) struct TileConfigGuard;

impl TileConfigGuard {
    /// # Safety
    /// The process must be allowed to use AMX.
    pub(in crate::cpu) unsafe fn new() -> Self {
        // SAFETY: the caller guarantees the instruction; the operand is 64 readable bytes of a valid configuration.
        unsafe { asm!("ldtilecfg [{}]", in(reg) &raw const FULL_TILES, options(nostack, readonly)) };
        TileConfigGuard
    }
}

impl Drop for TileConfigGuard {
    fn drop(&mut self) {
        // SAFETY: `new` ran on this thread, so the instruction exists.
        unsafe { asm!("tilerelease", options(nostack, nomem)) };
    }
}
