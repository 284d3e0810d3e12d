//! Products of bf16 on the tile registers of AMX.
//!
//! A pass multiplies 32 rows by one panel of 32 outputs over all inputs, in 2 x 2 accumulators of 16 x 16 sums. Rows
//! are loaded straight from the activations where they consist of whole tiles, else from a padded copy. A row of a
//! tile is summed on its own, in an order that `tdpbf16ps` fixes, so its bits depend on nothing else.
//!
//! Activations of f32 are the exact sum of three numbers of bf16, of 8 bits each, and weights are stored as bf16 in most
//! files: three products of tiles then give the product in f32, each of whose terms is exact, four times as fast as fused
//! multiply-adds and from half the memory. (Henry, Tang and Heinecke, "Leveraging the bfloat16 artificial intelligence
//! datatype for higher-precision computations", 2019, split both sides.)

use std::cell::Cell;
use std::ops::Range;

use rayon::prelude::*;

use self::tiles::{TERMS, Tiles};
use super::epilogue::Epilogue;
use super::pack::{PANEL, PackedWeights, TILE_INPUTS};
use crate::cpu::aligned::AlignedBytes;
use crate::cpu::tensor::CpuTensor;
use crate::dtype::DType;
use crate::error::KernelError;

mod registers;
mod tiles;

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

/// Bytes of activations in f32 that are split at once: what stays in a shared cache beside the weights.
const SPLIT_BYTES: usize = 12 << 20;

/// Tasks a thread: few, because each sets up the tile registers, and enough to even out unequal threads.
const TASKS_PER_THREAD: usize = 4;

/// The sums of a pass before the epilogue.
type Sums = [[f32; PANEL]; PASS_ROWS];

thread_local! {
    /// The sums of a task, kept between tasks so that the steady state allocates nothing here.
    static SUMS: Cell<Option<AlignedBytes>> = const { Cell::new(None) };
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
    let inputs = weights.panel_inputs();
    let at_once = match x.dtype() {
        DType::F32 => (SPLIT_BYTES / (TERMS * inputs * size_of::<u16>()).max(1) / PASS_ROWS).max(1) * PASS_ROWS,
        DType::Bf16 | DType::F16 => x.rows().max(1),
    };
    for first in (0..x.rows()).step_by(at_once) {
        let rows = first..x.rows().min(first + at_once);
        // SAFETY: the caller grants the features.
        let tiles = unsafe { Tiles::new(x, rows, inputs, scratch)? };
        multiply_tiles(&tiles, weights, epilogue)?;
    }
    Ok(())
}

fn multiply_tiles<E: Epilogue>(tiles: &Tiles<'_>, weights: &PackedWeights, epilogue: &E) -> Result<(), KernelError> {
    let all = tiles.rows();
    let steps = weights.panel_inputs() / TILE_INPUTS;
    let sections = steps.div_ceil(SECTION_STEPS).max(1);
    let most_passes = (BLOCK_STEPS / (tiles.terms() * steps.div_ceil(sections)).max(1)).clamp(1, BLOCK_PASSES);
    let blocks = all.len().div_ceil(most_passes * PASS_ROWS).max(1);
    let block_rows = all.len().div_ceil(blocks).next_multiple_of(PASS_ROWS);
    let panels = weights.panels();
    let groups = (TASKS_PER_THREAD * rayon::current_num_threads()).div_ceil(blocks);
    let groups = if sections > 1 { groups.max(panels.div_ceil(SECTION_PANELS)) } else { groups };
    let groups = groups.clamp(1, panels.max(1));
    (0..blocks * groups).into_par_iter().try_for_each(|task| {
        let (block, group) = (task / groups, task % groups);
        let task = Task {
            rows: (all.start + block * block_rows).min(all.end)..(all.start + (block + 1) * block_rows).min(all.end),
            panels: panels * group / groups..panels * (group + 1) / groups,
            sections,
            tiles,
            weights,
        };
        let mut sums = match SUMS.take().filter(|sums| sums.as_slice().len() >= task.slots() * size_of::<Sums>()) {
            Some(sums) => sums,
            None => AlignedBytes::zeroed("linear", task.slots() * size_of::<Sums>())?,
        };
        // SAFETY: whoever made `tiles` granted the features.
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
    let _configured = unsafe { registers::Configured::new() };
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
        let tiles = self.task.tiles;
        let (upper, upper_bytes) = tiles.tile(self.row);
        let (lower, lower_bytes) = if BOTH { tiles.tile(self.row + TILE_ROWS) } else { (upper, upper_bytes) };
        let panel = self.task.weights.panel(self.panel);
        let before_last = (tiles.terms() - 1) * tiles.term_bytes();
        let held = |rows: &[u8], row_bytes: usize| rows.len() >= before_last + TILE_ROWS * row_bytes;
        assert!(held(upper, upper_bytes) && held(lower, lower_bytes));
        assert!(chunk.start <= chunk.end && chunk.end * LINE <= upper_bytes.min(lower_bytes));
        assert!(chunk.end * STEP_BYTES <= panel.len());
        // SAFETY: the caller grants the registers; the sizes are as asserted.
        unsafe {
            match chunk.start {
                0 => registers::clear(),
                _ => registers::load::<BOTH>(&sums[self.slot()]),
            }
            for part in 0..PARTS {
                let steps = part_of(chunk, part, PARTS);
                // The smallest terms first: their sums are then rounded least.
                for term in (0..tiles.terms()).rev().filter(|_| !steps.is_empty()) {
                    let from = term * tiles.term_bytes() + steps.start * LINE;
                    let upper = (upper.as_ptr().add(from), upper_bytes);
                    let lower = (lower.as_ptr().add(from), lower_bytes);
                    registers::add_steps::<BOTH>(
                        steps.len(),
                        upper,
                        lower,
                        panel.as_ptr().add(steps.start * STEP_BYTES),
                    );
                }
                if let Some(late) = &late {
                    late.store(part, sums, epilogue);
                }
            }
            registers::store::<BOTH>(&mut sums[self.slot()]);
        }
    }
}
