//! Products of bf16 on the tile registers of AMX.
//!
//! A pass multiplies 32 rows by one panel of 32 outputs over all inputs, in 2 x 2 accumulators of 16 x 16 sums. Rows
//! are loaded straight from the activations where they consist of whole tiles, else from a padded copy. A row of a
//! tile is summed on its own, in an order that `tdpbf16ps` fixes, so its bits depend on nothing else.

use std::arch::asm;
use std::mem::MaybeUninit;
use std::ops::Range;

use rayon::prelude::*;

use super::epilogue::Epilogue;
use super::pack::{PANEL, PackedWeights, TILE_INPUTS};
use crate::cpu::aligned::AlignedBytes;
use crate::cpu::tensor::CpuTensor;
use crate::error::KernelError;

/// Rows of a tile.
const TILE_ROWS: usize = 16;

/// Rows of a pass.
const PASS_ROWS: usize = 2 * TILE_ROWS;

/// Bytes of activations that a task goes through for each panel: half of a 2 MiB second-level cache.
const BLOCK_BYTES: usize = 1 << 20;

/// Tasks a thread: few, because each sets up the tile registers, and enough to even out unequal threads.
const TASKS_PER_THREAD: usize = 4;

/// The sums of a pass before the epilogue.
#[repr(C, align(64))]
struct Sums([[f32; PANEL]; PASS_ROWS]);

/// Where the tiles of activations are.
struct Tiles<'a> {
    /// Whole tiles, in the activations themselves.
    direct: &'a [u8],
    /// The tiles after them, in a padded copy.
    padded: &'a [u8],
    row_bytes: usize,
}

impl<'a> Tiles<'a> {
    /// Copies what `x` lacks whole tiles for into `scratch`.
    fn new(x: &'a CpuTensor, inputs: usize, scratch: &'a mut AlignedBytes) -> Result<Self, KernelError> {
        let row_bytes = inputs * size_of::<u16>();
        let whole = if x.columns() == inputs { x.rows() / TILE_ROWS * TILE_ROWS } else { 0 };
        let padded_rows = (x.rows() - whole).next_multiple_of(TILE_ROWS);
        if scratch.as_slice().len() < padded_rows * row_bytes {
            *scratch = AlignedBytes::zeroed("linear", padded_rows * row_bytes)?;
        }
        let padded = &mut scratch.as_mut_slice()[..padded_rows * row_bytes];
        if row_bytes > 0 {
            padded.par_chunks_mut(row_bytes).enumerate().for_each(|(row, padded)| {
                let source = if whole + row < x.rows() { x.row(whole + row) } else { &[] };
                let (copy, zeros) = padded.split_at_mut(source.len());
                copy.copy_from_slice(source);
                zeros.fill(0);
            });
        }
        Ok(Tiles { direct: &x.bytes()[..whole * x.row_bytes()], padded, row_bytes })
    }

    /// The tile whose first row is `row`, a multiple of [`TILE_ROWS`], to its end over all inputs.
    #[inline(always)]
    fn tile(&self, row: usize) -> &[u8] {
        let (first, len) = (row * self.row_bytes, TILE_ROWS * self.row_bytes);
        match first.checked_sub(self.direct.len()) {
            None => &self.direct[first..first + len],
            Some(first) => &self.padded[first..first + len],
        }
    }
}

/// Computes `x W^T` and hands each row of each panel to `epilogue`.
///
/// # Safety
/// The process must be allowed to use AMX, and the processor must have all instructions of [`Isa::Avx512Bf16`].
pub(super) unsafe fn multiply<E: Epilogue>(
    x: &CpuTensor,
    weights: &PackedWeights,
    epilogue: &E,
    scratch: &mut AlignedBytes,
) -> Result<(), KernelError> {
    let inputs = weights.panel_inputs();
    let tiles = Tiles::new(x, inputs, scratch)?;
    let most_rows = (BLOCK_BYTES / tiles.row_bytes.max(1)).clamp(PASS_ROWS, BLOCK_PASSES * PASS_ROWS);
    let blocks = x.rows().div_ceil(most_rows / PASS_ROWS * PASS_ROWS).max(1);
    let block_rows = x.rows().div_ceil(blocks).next_multiple_of(PASS_ROWS);
    let tasks = TASKS_PER_THREAD * rayon::current_num_threads();
    let groups = tasks.div_ceil(blocks).clamp(1, weights.panels().max(1));
    (0..blocks * groups).into_par_iter().for_each(|task| {
        let (block, group) = (task / groups, task % groups);
        let task = Task {
            rows: (block * block_rows).min(x.rows())..((block + 1) * block_rows).min(x.rows()),
            panels: weights.panels() * group / groups..weights.panels() * (group + 1) / groups,
            tiles: &tiles,
            weights,
        };
        // SAFETY: the caller grants the features.
        unsafe { run(&task, epilogue) };
    });
    Ok(())
}

/// A block of rows times some panels.
struct Task<'a> {
    rows: Range<usize>,
    panels: Range<usize>,
    tiles: &'a Tiles<'a>,
    weights: &'a PackedWeights,
}

/// # Safety
/// As [`multiply`].
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma,f16c")]
unsafe fn run<E: Epilogue>(task: &Task<'_>, epilogue: &E) {
    // SAFETY: the caller grants AMX.
    let _configured = unsafe { Configured::new() };
    let steps = task.weights.panel_inputs() / TILE_INPUTS;
    let chunks = steps.div_ceil(CHUNK_STEPS).max(1);
    let mut block = MaybeUninit::<[Sums; BLOCK_PASSES]>::uninit();
    let sums = block.as_mut_ptr().cast::<Sums>();
    let mut late: Option<Pass<'_>> = None;
    for panel in task.panels.clone() {
        for chunk in 0..chunks {
            let chunk = steps * chunk / chunks..steps * (chunk + 1) / chunks;
            for row in task.rows.clone().step_by(PASS_ROWS) {
                let pass = Pass { task, panel, row };
                // SAFETY: the tiles are configured.
                match row + TILE_ROWS < task.rows.end {
                    true => unsafe { pass.multiply::<true, E>(&chunk, sums, late, epilogue) },
                    false => unsafe { pass.multiply::<false, E>(&chunk, sums, late, epilogue) },
                }
                late = (chunk.end == steps).then_some(pass);
            }
        }
    }
    if let Some(late) = late {
        for part in 0..PARTS {
            // SAFETY: the pass is done.
            unsafe { late.store(part, sums, epilogue) };
        }
    }
}

/// The most passes of a block. Their sums take 4 KiB each.
const BLOCK_PASSES: usize = 16;

/// Tiles of inputs that are multiplied with all rows of a block before the next are: 36 KiB of a panel, which stay
/// in the first-level cache.
const CHUNK_STEPS: usize = 18;

/// Parts in which a chunk of inputs is walked through. In between, the epilogue of the pass before stores some of
/// its rows, so that this happens while tiles are multiplied.
const PARTS: usize = 8;

/// Rows that the epilogue stores in between two parts.
const PART_ROWS: usize = PASS_ROWS / PARTS;

/// Up to 32 rows times one panel.
#[derive(Clone, Copy)]
struct Pass<'a> {
    task: &'a Task<'a>,
    panel: usize,
    row: usize,
}

impl Pass<'_> {
    /// The place of the pass in its block.
    #[inline(always)]
    fn index(&self) -> usize {
        (self.row - self.task.rows.start) / PASS_ROWS
    }

    /// Hands part `part` of the rows to the epilogue.
    ///
    /// # Safety
    /// `sums` holds those of the passes of the block, and those of this pass are written.
    #[inline(always)]
    unsafe fn store<E: Epilogue>(&self, part: usize, sums: *const Sums, epilogue: &E) {
        let rows = PASS_ROWS.min(self.task.rows.end - self.row);
        let first = part * PART_ROWS;
        if first < rows {
            // SAFETY: these rows of the pass are written; other passes are not looked at.
            let sums = unsafe {
                let rows_start = sums.add(self.index()).cast::<[f32; PANEL]>();
                std::slice::from_raw_parts(rows_start.add(first), PART_ROWS.min(rows - first))
            };
            epilogue.store::<true>(self.row + first, self.panel, sums);
        }
    }

    /// Adds a chunk of inputs to the sums of the pass, of one tile of rows or of `BOTH`, and stores those of the pass
    /// `late` meanwhile.
    ///
    /// # Safety
    /// The tile registers are configured. `sums` has room for those of the passes of the block; those of this pass are
    /// written by the chunk before, and those of `late` are written.
    #[inline(always)]
    unsafe fn multiply<const BOTH: bool, E: Epilogue>(
        &self,
        chunk: &Range<usize>,
        sums: *mut Sums,
        late: Option<Pass<'_>>,
        epilogue: &E,
    ) {
        let stride = self.task.tiles.row_bytes;
        let upper = self.task.tiles.tile(self.row);
        let lower = if BOTH { self.task.tiles.tile(self.row + TILE_ROWS) } else { upper };
        let panel = self.task.weights.panel(self.panel);
        assert!(upper.len() == TILE_ROWS * stride && lower.len() == TILE_ROWS * stride);
        assert!(chunk.start <= chunk.end && chunk.end * LINE <= stride && chunk.end * STEP_BYTES <= panel.len());
        // The compiler has no use for tile registers, so they keep their contents from one block of assembly to the
        // next.
        // SAFETY: the caller grants the registers; the sizes are as asserted.
        unsafe {
            match chunk.start {
                0 => asm!("tilezero tmm0", "tilezero tmm1", "tilezero tmm2", "tilezero tmm3", options(nostack)),
                _ => load::<BOTH>(sums.add(self.index())),
            }
            for part in 0..PARTS {
                let from = chunk.start + chunk.len() * part / PARTS;
                let to = chunk.start + chunk.len() * (part + 1) / PARTS;
                if from < to {
                    let (upper, lower) = (upper.as_ptr().add(from * LINE), lower.as_ptr().add(from * LINE));
                    add_steps::<BOTH>(to - from, upper, lower, stride, panel.as_ptr().add(from * STEP_BYTES));
                }
                if let Some(late) = &late {
                    late.store(part, sums, epilogue);
                }
            }
            store::<BOTH>(sums.add(self.index()));
        }
    }
}

/// Loads the sums of one tile of rows or of `BOTH` into the tile registers.
///
/// # Safety
/// The tile registers are configured, and the sums are written.
#[inline(always)]
unsafe fn load<const BOTH: bool>(sums: *const Sums) {
    let line = PANEL * size_of::<f32>();
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
/// The tile registers are configured, and `sums` may be written.
#[inline(always)]
unsafe fn store<const BOTH: bool>(sums: *mut Sums) {
    let line = PANEL * size_of::<f32>();
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

/// A cache line, and a row of a tile.
const LINE: usize = 64;

/// Bytes of a panel for one tile of inputs.
const STEP_BYTES: usize = TILE_INPUTS * PANEL * size_of::<u16>();

/// Adds `steps` tiles of inputs to the sums in the tile registers.
///
/// Activations are loaded with the hint that they are not needed again soon: the panel, which is, then stays in the
/// first-level cache where it fits.
///
/// # Safety
/// The tile registers are configured, and `steps > 0`. `upper` and `lower` point to 16 rows of `steps * 64` bytes,
/// `stride` bytes from each other, and `panel` to `steps * 32` inputs.
#[inline(always)]
unsafe fn add_steps<const BOTH: bool>(
    steps: usize,
    upper: *const u8,
    lower: *const u8,
    stride: usize,
    panel: *const u8,
) {
    // SAFETY: the caller grants the registers and the sizes.
    unsafe {
        if BOTH {
            asm!(
                "2:",
                "tileloaddt1 tmm4, [{upper} + {stride}]",
                "tileloadd tmm6, [{panel} + {line}]",
                "tileloadd tmm7, [{panel} + {line} + 64]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tileloaddt1 tmm5, [{lower} + {stride}]",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tdpbf16ps tmm3, tmm5, tmm7",
                "add {upper}, 64",
                "add {lower}, 64",
                "add {panel}, 2048",
                "dec {steps}",
                "jnz 2b",
                steps = inout(reg) steps => _,
                upper = inout(reg) upper => _,
                lower = inout(reg) lower => _,
                panel = inout(reg) panel => _,
                stride = in(reg) stride,
                line = in(reg) PANEL * size_of::<f32>(),
                options(nostack, readonly),
            );
        } else {
            asm!(
                "2:",
                "tileloaddt1 tmm4, [{upper} + {stride}]",
                "tileloadd tmm6, [{panel} + {line}]",
                "tileloadd tmm7, [{panel} + {line} + 64]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "add {upper}, 64",
                "add {panel}, 2048",
                "dec {steps}",
                "jnz 2b",
                steps = inout(reg) steps => _,
                upper = inout(reg) upper => _,
                panel = inout(reg) panel => _,
                stride = in(reg) stride,
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
        configuration.row_bytes[register] = 64;
        configuration.rows[register] = TILE_ROWS as u8;
        register += 1;
    }
    configuration
};

/// This thread's tile registers, ready for use until dropped. Given back, they need not be saved when the thread is
/// switched out.
struct Configured;

impl Configured {
    /// # Safety
    /// The process must be allowed to use AMX.
    unsafe fn new() -> Self {
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
