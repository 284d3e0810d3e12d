//! Products of bf16 on the tile registers of AMX.
//!
//! A pass multiplies 32 rows by one panel of 32 outputs over all inputs, in 2 x 2 accumulators of 16 x 16 sums. Rows
//! are loaded straight from the activations where they consist of whole tiles, else from a padded copy. A row of a
//! tile is summed on its own, in an order that `tdpbf16ps` fixes, so its bits depend on nothing else.

use std::arch::asm;
use std::cell::Cell;
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

/// A cache line, and a row of a tile.
const LINE: usize = 64;

/// Bytes of a panel for one tile of inputs.
const STEP_BYTES: usize = TILE_INPUTS * PANEL * size_of::<u16>();

/// Tiles of inputs that are multiplied with all rows of a block before the next are: 36 KiB of a panel, which stay in
/// the first-level cache.
const CHUNK_STEPS: usize = 18;

/// Tiles of inputs of a section. More inputs than this are gone through in sections, so that the second-level cache
/// holds enough rows; between sections the sums wait in memory.
const SECTION_STEPS: usize = 64;

/// Panels of a task that has several sections: with a whole block their sums take 512 KiB.
const SECTION_PANELS: usize = 16;

/// Tiles of inputs times passes of a block: 1 MiB of activations, half of a 2 MiB second-level cache.
const BLOCK_STEPS: usize = 512;

/// The most passes of a block.
const BLOCK_PASSES: usize = 16;

/// Rows a multiple of this long begin in few sets of a cache and drive each other out.
const CONFLICTING_BYTES: usize = 8192;

/// Tasks a thread: few, because each sets up the tile registers, and enough to even out unequal threads.
const TASKS_PER_THREAD: usize = 4;

/// The sums of a pass before the epilogue.
type Sums = [[f32; PANEL]; PASS_ROWS];

thread_local! {
    /// The sums of a task, kept between tasks so that the steady state allocates nothing here.
    static SUMS: Cell<Option<AlignedBytes>> = const { Cell::new(None) };
}

/// Where the tiles of activations are.
struct Tiles<'a> {
    /// Whole tiles, in the activations themselves.
    direct: &'a [u8],
    /// Bytes from row to row there.
    row_bytes: usize,
    /// The tiles after them, in a padded copy.
    padded: &'a [u8],
    /// Bytes from row to row there.
    padded_bytes: usize,
}

impl<'a> Tiles<'a> {
    /// Copies into `scratch` what of `x` cannot be read in place.
    ///
    /// These are rows that are not whole tiles, and all where [`CONFLICTING_BYTES`] divide a row: the copy has an odd
    /// number of cache lines a row, so that the lines of a tile spread over the cache.
    fn new(x: &'a CpuTensor, inputs: usize, scratch: &'a mut AlignedBytes) -> Result<Self, KernelError> {
        let row_bytes = inputs * size_of::<u16>();
        let in_place = x.columns() == inputs && !row_bytes.is_multiple_of(CONFLICTING_BYTES);
        let whole = if in_place { x.rows() / TILE_ROWS * TILE_ROWS } else { 0 };
        let padded_rows = (x.rows() - whole).next_multiple_of(TILE_ROWS);
        let padded_bytes = ((row_bytes / LINE) | 1) * LINE;
        if scratch.as_slice().len() < padded_rows * padded_bytes {
            *scratch = AlignedBytes::zeroed("linear", padded_rows * padded_bytes)?;
        }
        let padded = &mut scratch.as_mut_slice()[..padded_rows * padded_bytes];
        padded.par_chunks_mut(padded_bytes).enumerate().for_each(|(row, padded)| {
            let source = if whole + row < x.rows() { x.row(whole + row) } else { &[] };
            let (copy, zeros) = padded.split_at_mut(source.len());
            copy.copy_from_slice(source);
            zeros.fill(0);
        });
        Ok(Tiles { direct: &x.bytes()[..whole * row_bytes], row_bytes, padded, padded_bytes })
    }

    /// The tile whose first row is `row`, a multiple of [`TILE_ROWS`], over all inputs, and the bytes from row to row.
    #[inline(always)]
    fn tile(&self, row: usize) -> (&[u8], usize) {
        let direct_rows = self.direct.len().checked_div(self.row_bytes).unwrap_or(0);
        let (rows, row, row_bytes) = match row.checked_sub(direct_rows) {
            None => (self.direct, row, self.row_bytes),
            Some(row) => (self.padded, row, self.padded_bytes),
        };
        (&rows[row * row_bytes..(row + TILE_ROWS) * row_bytes], row_bytes)
    }
}

/// Computes `x W^T` and hands each row of each panel to `epilogue`.
///
/// # Safety
/// The process must be allowed to use AMX, and the processor must have all instructions of `Isa::Avx512Bf16`.
pub(super) unsafe fn multiply<E: Epilogue>(
    x: &CpuTensor,
    weights: &PackedWeights,
    epilogue: &E,
    scratch: &mut AlignedBytes,
) -> Result<(), KernelError> {
    let tiles = Tiles::new(x, weights.panel_inputs(), scratch)?;
    let steps = weights.panel_inputs() / TILE_INPUTS;
    let sections = steps.div_ceil(SECTION_STEPS).max(1);
    let most_passes = (BLOCK_STEPS / steps.div_ceil(sections).max(1)).clamp(1, BLOCK_PASSES);
    let blocks = x.rows().div_ceil(most_passes * PASS_ROWS).max(1);
    let block_rows = x.rows().div_ceil(blocks).next_multiple_of(PASS_ROWS);
    let panels = weights.panels();
    let groups = (TASKS_PER_THREAD * rayon::current_num_threads()).div_ceil(blocks);
    let groups = if sections > 1 { groups.max(panels.div_ceil(SECTION_PANELS)) } else { groups };
    let groups = groups.clamp(1, panels.max(1));
    (0..blocks * groups).into_par_iter().try_for_each(|task| {
        let (block, group) = (task / groups, task % groups);
        let task = Task {
            rows: (block * block_rows).min(x.rows())..((block + 1) * block_rows).min(x.rows()),
            panels: panels * group / groups..panels * (group + 1) / groups,
            sections,
            tiles: &tiles,
            weights,
        };
        let mut sums = match SUMS.take().filter(|sums| sums.as_slice().len() >= task.slots() * size_of::<Sums>()) {
            Some(sums) => sums,
            None => AlignedBytes::zeroed("linear", task.slots() * size_of::<Sums>())?,
        };
        // SAFETY: the caller grants the features.
        unsafe { run(&task, bytemuck::cast_slice_mut(sums.as_mut_slice()), epilogue) };
        SUMS.set(Some(sums));
        Ok(())
    })
}

/// A block of rows times some panels.
struct Task<'a> {
    rows: Range<usize>,
    panels: Range<usize>,
    /// Parts in which the inputs are gone through, each with all rows and panels.
    sections: usize,
    tiles: &'a Tiles<'a>,
    weights: &'a PackedWeights,
}

impl Task<'_> {
    fn passes(&self) -> usize {
        self.rows.len().div_ceil(PASS_ROWS)
    }

    /// Passes whose sums are kept at a time.
    fn slots(&self) -> usize {
        self.passes() * if self.sections > 1 { self.panels.len() } else { 1 }
    }
}

/// `sums` has at least `task.slots()` elements.
///
/// # Safety
/// As [`multiply`].
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma,f16c")]
unsafe fn run<E: Epilogue>(task: &Task<'_>, sums: &mut [Sums], epilogue: &E) {
    // SAFETY: the caller grants AMX.
    let _configured = unsafe { Configured::new() };
    let steps = task.weights.panel_inputs() / TILE_INPUTS;
    let mut late: Option<Pass<'_>> = None;
    for section in 0..task.sections {
        let section = part_of(&(0..steps), section, task.sections);
        let chunks = section.len().div_ceil(CHUNK_STEPS).max(1);
        for panel in task.panels.clone() {
            for chunk in 0..chunks {
                let chunk = part_of(&section, chunk, chunks);
                for row in task.rows.clone().step_by(PASS_ROWS) {
                    let pass = Pass { task, panel, row };
                    // SAFETY: the tiles are configured.
                    unsafe {
                        match row + TILE_ROWS < task.rows.end {
                            true => pass.multiply::<true, E>(&chunk, sums, late, epilogue),
                            false => pass.multiply::<false, E>(&chunk, sums, late, epilogue),
                        }
                    }
                    late = (chunk.end == steps).then_some(pass);
                }
            }
        }
    }
    if let Some(late) = late {
        for part in 0..PARTS {
            late.store(part, sums, epilogue);
        }
    }
}

/// Part `part` of `parts` about equal ones of a range.
#[inline(always)]
fn part_of(range: &Range<usize>, part: usize, parts: usize) -> Range<usize> {
    range.start + range.len() * part / parts..range.start + range.len() * (part + 1) / parts
}

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
    /// Where the sums of the pass are.
    #[inline(always)]
    fn slot(&self) -> usize {
        let panel = if self.task.sections > 1 { self.panel - self.task.panels.start } else { 0 };
        panel * self.task.passes() + (self.row - self.task.rows.start) / PASS_ROWS
    }

    /// Hands part `part` of the rows to the epilogue.
    #[inline(always)]
    fn store<E: Epilogue>(&self, part: usize, sums: &[Sums], epilogue: &E) {
        let rows = PASS_ROWS.min(self.task.rows.end - self.row);
        let first = part * PART_ROWS;
        if first < rows {
            let sums = &sums[self.slot()][first..rows.min(first + PART_ROWS)];
            epilogue.store::<true>(self.row + first, self.panel, sums);
        }
    }

    /// Adds a chunk of inputs to the sums of the pass, of one tile of rows or of `BOTH`, and stores those of the pass
    /// `late` meanwhile.
    ///
    /// # Safety
    /// The tile registers are configured.
    #[inline(always)]
    unsafe fn multiply<const BOTH: bool, E: Epilogue>(
        &self,
        chunk: &Range<usize>,
        sums: &mut [Sums],
        late: Option<Pass<'_>>,
        epilogue: &E,
    ) {
        let (upper, upper_bytes) = self.task.tiles.tile(self.row);
        let (lower, lower_bytes) = if BOTH { self.task.tiles.tile(self.row + TILE_ROWS) } else { (upper, upper_bytes) };
        let panel = self.task.weights.panel(self.panel);
        assert!(upper.len() == TILE_ROWS * upper_bytes && lower.len() == TILE_ROWS * lower_bytes);
        assert!(chunk.start <= chunk.end && chunk.end * LINE <= upper_bytes.min(lower_bytes));
        assert!(chunk.end * STEP_BYTES <= panel.len());
        // The compiler has no use for tile registers, so they keep their contents from one block of assembly to the
        // next.
        // SAFETY: the caller grants the registers; the sizes are as asserted.
        unsafe {
            match chunk.start {
                0 => asm!("tilezero tmm0", "tilezero tmm1", "tilezero tmm2", "tilezero tmm3", options(nostack)),
                _ => load::<BOTH>(&sums[self.slot()]),
            }
            for part in 0..PARTS {
                let steps = part_of(chunk, part, PARTS);
                if !steps.is_empty() {
                    let upper = (upper.as_ptr().add(steps.start * LINE), upper_bytes);
                    let lower = (lower.as_ptr().add(steps.start * LINE), lower_bytes);
                    add_steps::<BOTH>(steps.len(), upper, lower, panel.as_ptr().add(steps.start * STEP_BYTES));
                }
                if let Some(late) = &late {
                    late.store(part, sums, epilogue);
                }
            }
            store::<BOTH>(&mut sums[self.slot()]);
        }
    }
}

/// Loads the sums of one tile of rows or of `BOTH` into the tile registers.
///
/// # Safety
/// The tile registers are configured.
#[inline(always)]
unsafe fn load<const BOTH: bool>(sums: &Sums) {
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
unsafe fn store<const BOTH: bool>(sums: &mut Sums) {
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
unsafe fn add_steps<const BOTH: bool>(
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
