//! The tile registers: set up, cleared, loaded, stored, and fed with products. The intrinsics of the standard library
//! are not stable yet, so these are short blocks of assembly.
//!
//! The compiler has no use for tile registers, so they keep their contents from one block to the next. Registers 0 to
//! 3 hold sums: the rows of a pass in upper and lower tiles, its outputs in left and right ones. The others hold what
//! is multiplied.

use std::arch::asm;

use super::{LINE, Sums, TILE_ROWS};
use crate::cpu::gemm::pack::PANEL;

/// Clears the sums.
///
/// # Safety
/// The tile registers are configured.
#[inline(always)]
pub(super) unsafe fn clear() {
    // SAFETY: the caller grants the registers.
    unsafe { asm!("tilezero tmm0", "tilezero tmm1", "tilezero tmm2", "tilezero tmm3", options(nostack)) };
}

/// Loads the sums of one tile of rows or of `BOTH` into the tile registers.
///
/// # Safety
/// The tile registers are configured.
#[inline(always)]
pub(super) unsafe fn load<const BOTH: bool>(sums: &Sums) {
    let (sums, line) = (sums.as_ptr(), PANEL * size_of::<f32>());
    // SAFETY: the caller grants the registers; the tiles lie inside the sums.
    unsafe {
        asm!(
            "tileloadd tmm0, [{sums} + {line}]",
            "tileloadd tmm1, [{sums} + {line} + 64]",
            sums = in(reg) sums,
            line = in(reg) line,
            options(nostack, readonly),
        );
        if BOTH {
            asm!(
                "tileloadd tmm2, [{sums} + {line} + 2048]",
                "tileloadd tmm3, [{sums} + {line} + 2112]",
                sums = in(reg) sums,
                line = in(reg) line,
                options(nostack, readonly),
            );
        }
    }
}

/// Stores the tile registers into the sums of one tile of rows or of `BOTH`.
///
/// # Safety
/// The tile registers are configured.
#[inline(always)]
pub(super) unsafe fn store<const BOTH: bool>(sums: &mut Sums) {
    let (sums, line) = (sums.as_mut_ptr(), PANEL * size_of::<f32>());
    // SAFETY: the caller grants the registers; the tiles lie inside the sums.
    unsafe {
        asm!(
            "tilestored [{sums} + {line}], tmm0",
            "tilestored [{sums} + {line} + 64], tmm1",
            sums = in(reg) sums,
            line = in(reg) line,
            options(nostack),
        );
        if BOTH {
            asm!(
                "tilestored [{sums} + {line} + 2048], tmm2",
                "tilestored [{sums} + {line} + 2112], tmm3",
                sums = in(reg) sums,
                line = in(reg) line,
                options(nostack),
            );
        }
    }
}

/// Adds `steps` tiles of inputs to the sums in the tile registers.
///
/// Activations are loaded with the hint that they are not needed again soon: the panel, which is, then stays in the
/// first-level cache where it fits.
///
/// # Safety
/// The tile registers are configured, and `steps > 0`. `upper` and `lower` point to 16 rows of `steps * 64` bytes, as
/// many bytes from each other as they say, and `panel` to `steps * 32` inputs.
#[inline(always)]
pub(super) unsafe fn add_steps<const BOTH: bool>(
    steps: usize,
    upper: (*const u8, usize),
    lower: (*const u8, usize),
    panel: *const u8,
) {
    // SAFETY: the caller grants the registers and the sizes.
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
struct Configuration {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

/// All eight tile registers as 16 rows of 64 bytes. Palette 1 is the only one there is.
static FULL_TILES: Configuration = {
    let mut configuration =
        Configuration { palette: 1, start_row: 0, reserved: [0; 14], row_bytes: [0; 16], rows: [0; 16] };
    let mut register = 0;
    while register < 8 {
        configuration.row_bytes[register] = LINE as u16;
        configuration.rows[register] = TILE_ROWS as u8;
        register += 1;
    }
    configuration
};

/// This thread's tile registers, ready for use until dropped. Given back, they need not be saved when the thread is
/// switched out.
pub(super) struct Configured;

impl Configured {
    /// # Safety
    /// The process must be allowed to use AMX.
    pub(super) unsafe fn new() -> Self {
        // SAFETY: the caller grants the instruction; the operand is 64 readable bytes of a valid configuration.
        unsafe { asm!("ldtilecfg [{}]", in(reg) &raw const FULL_TILES, options(nostack, readonly)) };
        Configured
    }
}

impl Drop for Configured {
    fn drop(&mut self) {
        // SAFETY: `new` ran on this thread, so the instruction is there.
        unsafe { asm!("tilerelease", options(nostack, nomem)) };
    }
}
