//! GEMM in bf16 on the tile registers of AMX.
//!
//! A pass multiplies 32 rows by one panel of 32 outputs, in 2 x 2 tile registers of 16 x 16 accumulators. Rows are
//! loaded directly from the activations where they form whole tiles, otherwise from a padded copy. `tdpbf16ps`
//! accumulates each row of a tile separately in a fixed order, so the bits of a row depend on that row alone.
//!
//! An f32 activation is the exact sum of three bf16 terms of 8 significant bits each, and most model files store
//! weights in bf16. Three tile multiplications, each of whose products is exact, then give the result in f32, four
//! times as fast as fused multiply-adds and with half the memory for weights. (Henry, Tang and Heinecke, "Leveraging
//! the bfloat16 artificial intelligence datatype for higher-precision computations", 2019, split both operands.)

use std::cell::Cell;
use std::ops::Range;

use rayon::prelude::*;

use self::tiles::{ActivationTiles, PaddedCopy, TERMS};
use super::epilogue::{BF16, Epilogue};
use super::pack::{PANEL, PackedWeights, TILE_INPUTS};
use crate::cpu::aligned::AlignedBytes;
use crate::cpu::tensor::CpuTensor;
use crate::dtype::DType;
use crate::error::KernelError;

mod registers;
mod tiles;

pub(in crate::cpu) use registers::TileConfigGuard;

/// Rows of a tile.
const TILE_ROWS: usize = 16;

/// Rows of a pass.
const PASS_ROWS: usize = 2 * TILE_ROWS;

/// A cache line, and a row of a tile.
const LINE: usize = 64;

/// Bytes of a panel for one tile of inputs.
const STEP_BYTES: usize = TILE_INPUTS * PANEL * size_of::<u16>();

/// ActivationTiles of inputs that are multiplied with all rows of a block before the next ones: 36 KiB of a panel,
/// which stay in the L1 cache.
const CHUNK_STEPS: usize = 18;

/// ActivationTiles of inputs of a section. More inputs are processed in several sections, so that enough rows fit the
/// L2 cache. Between sections the accumulators are in memory.
const SECTION_STEPS: usize = 64;

/// Panels of a task with several sections: with a full block their accumulators take 512 KiB.
const SECTION_PANELS: usize = 16;

/// ActivationTiles of inputs times passes of a block: 1 MiB of activations, half of a 2 MiB L2 cache.
const BLOCK_STEPS: usize = 512;

/// The maximum number of passes of a block.
const MAX_BLOCK_PASSES: usize = 16;

/// Bytes of split f32 activations at a time: they stay in a shared cache together with the weights.
const SPLIT_BYTES: usize = 12 << 20;

/// Tasks per thread: few, because each configures the tile registers, but enough to balance unequal threads.
const TASKS_PER_THREAD: usize = 4;

/// The accumulators of a pass.
type PassAccumulators = [[f32; PANEL]; PASS_ROWS];

thread_local! {
    /// The accumulators of a task, kept between tasks so that the steady state does not allocate.
    static ACCUMULATORS: Cell<Option<AlignedBytes>> = const { Cell::new(None) };
}

/// Computes `x W^T` for the panels `panels` of the weights and passes the accumulators of each row and panel to `epilogue`.
///
/// # Safety
/// The process must be allowed to use AMX, and the processor must have all instructions of `Isa::Avx512Bf16`.
pub(super) unsafe fn matmul<E: Epilogue>(
    x: &CpuTensor,
    weights: &PackedWeights,
    panels: Range<usize>,
    epilogue: &E,
    scratch: &mut AlignedBytes,
) -> Result<(), KernelError> {
    let inputs = weights.panel_inputs();
    let at_once = rows_at_once(x.dtype(), x.rows(), inputs);
    for first in (0..x.rows()).step_by(at_once) {
        let rows = first..x.rows().min(first + at_once);
        // SAFETY: the caller guarantees the features.
        let tiles = unsafe { ActivationTiles::new(x, rows, inputs, scratch)? };
        matmul_tiles(&tiles, weights, &panels, epilogue)?;
    }
    Ok(())
}

/// Rows whose tiles are prepared at a time.
fn rows_at_once(dtype: DType, rows: usize, inputs: usize) -> usize {
    match dtype {
        DType::F32 => (SPLIT_BYTES / (TERMS * inputs * size_of::<u16>()).max(1) / PASS_ROWS).max(1) * PASS_ROWS,
        DType::Bf16 | DType::F16 => rows.max(1),
    }
}

/// Bytes of the working memory of [`matmul`].
pub(super) fn scratch_bytes(dtype: DType, rows: usize, columns: usize) -> usize {
    let inputs = columns.next_multiple_of(TILE_INPUTS);
    PaddedCopy::of(dtype, rows.min(rows_at_once(dtype, rows, inputs)), columns, inputs).bytes()
}

fn matmul_tiles<E: Epilogue>(
    tiles: &ActivationTiles<'_>,
    weights: &PackedWeights,
    panels: &Range<usize>,
    epilogue: &E,
) -> Result<(), KernelError> {
    let all = tiles.rows();
    let steps = weights.panel_inputs() / TILE_INPUTS;
    let sections = steps.div_ceil(SECTION_STEPS).max(1);
    let max_passes = (BLOCK_STEPS / (tiles.terms() * steps.div_ceil(sections)).max(1)).clamp(1, MAX_BLOCK_PASSES);
    let blocks = all.len().div_ceil(max_passes * PASS_ROWS).max(1);
    let block_rows = all.len().div_ceil(blocks).next_multiple_of(PASS_ROWS);
    let groups = (TASKS_PER_THREAD * rayon::current_num_threads()).div_ceil(blocks);
    let groups = if sections > 1 { groups.max(panels.len().div_ceil(SECTION_PANELS)) } else { groups };
    let groups = groups.clamp(1, panels.len().max(1));
    (0..blocks * groups).into_par_iter().try_for_each(|task| {
        let (block, group) = (task / groups, task % groups);
        let task = AmxTask {
            rows: (all.start + block * block_rows).min(all.end)..(all.start + (block + 1) * block_rows).min(all.end),
            panels: panels.start + panels.len() * group / groups..panels.start + panels.len() * (group + 1) / groups,
            sections,
            tiles,
            weights,
        };
        let mut accumulators = match ACCUMULATORS
            .take()
            .filter(|accumulators| accumulators.as_slice().len() >= task.kept_passes() * size_of::<PassAccumulators>())
        {
            Some(accumulators) => accumulators,
            None => AlignedBytes::zeroed("linear", task.kept_passes() * size_of::<PassAccumulators>())?,
        };
        // SAFETY: the caller of `ActivationTiles::new` guaranteed the features.
        unsafe { run(&task, bytemuck::cast_slice_mut(accumulators.as_mut_slice()), epilogue) };
        ACCUMULATORS.set(Some(accumulators));
        Ok(())
    })
}

/// A block of rows times a range of panels.
struct AmxTask<'a> {
    rows: Range<usize>,
    panels: Range<usize>,
    /// The number of sections of the inputs. Each section is processed for all rows and panels.
    sections: usize,
    tiles: &'a ActivationTiles<'a>,
    weights: &'a PackedWeights,
}

impl AmxTask<'_> {
    fn passes(&self) -> usize {
        self.rows.len().div_ceil(PASS_ROWS)
    }

    /// Whether a pass takes all inputs at once. Then its epilogue is done before the next pass stores accumulators, so that
    /// one place for them is enough. Places for all passes of a block would evict the panel from the L1 cache.
    fn is_one_chunk(&self) -> bool {
        self.weights.panel_inputs() <= CHUNK_STEPS * TILE_INPUTS
    }

    /// The number of passes whose accumulators are kept at the same time.
    fn kept_passes(&self) -> usize {
        match self.sections {
            _ if self.is_one_chunk() => 1,
            1 => self.passes(),
            _ => self.passes() * self.panels.len(),
        }
    }
}

/// Runs all passes of `task`. `accumulators` has at least `task.kept_passes()` elements.
///
/// # Safety
/// As [`matmul`].
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma,f16c")]
unsafe fn run<E: Epilogue>(task: &AmxTask<'_>, accumulators: &mut [PassAccumulators], epilogue: &E) {
    // SAFETY: the caller guarantees AMX.
    let _configured = unsafe { registers::TileConfigGuard::new() };
    let steps = task.weights.panel_inputs() / TILE_INPUTS;
    let mut completed: Option<AmxPass<'_>> = None;
    for section in 0..task.sections {
        let section = part_of(&(0..steps), section, task.sections);
        let chunks = section.len().div_ceil(CHUNK_STEPS).max(1);
        for panel in task.panels.clone() {
            for chunk in 0..chunks {
                let chunk = part_of(&section, chunk, chunks);
                for row in task.rows.clone().step_by(PASS_ROWS) {
                    let pass = AmxPass { task, panel, row };
                    // SAFETY: the tiles are configured.
                    unsafe {
                        if row + TILE_ROWS < task.rows.end {
                            pass.multiply::<true, E>(&chunk, accumulators, completed, epilogue);
                        } else {
                            pass.multiply::<false, E>(&chunk, accumulators, completed, epilogue);
                        }
                    }
                    completed = (chunk.end == steps).then_some(pass);
                }
            }
        }
    }
    if let Some(completed) = completed {
        for part in 0..PARTS {
            completed.store(part, accumulators, epilogue);
        }
    }
}

/// Part `part` of a range that is divided into `parts` nearly equal parts.
#[inline(always)]
fn part_of(range: &Range<usize>, part: usize, parts: usize) -> Range<usize> {
    range.start + range.len() * part / parts..range.start + range.len() * (part + 1) / parts
}

/// Parts of a chunk of inputs. After each part, the epilogue of the previous pass stores some of its rows, so that
/// stores overlap with tile multiplications.
const PARTS: usize = 8;

/// Rows that the epilogue stores after each part.
const PART_ROWS: usize = PASS_ROWS / PARTS;

/// Up to 32 rows times one panel.
#[derive(Clone, Copy)]
struct AmxPass<'a> {
    task: &'a AmxTask<'a>,
    panel: usize,
    row: usize,
}

impl AmxPass<'_> {
    /// The index of the accumulators of the pass.
    #[inline(always)]
    fn accumulator_index(&self) -> usize {
        if self.task.is_one_chunk() {
            return 0;
        }
        let panel = if self.task.sections > 1 { self.panel - self.task.panels.start } else { 0 };
        panel * self.task.passes() + (self.row - self.task.rows.start) / PASS_ROWS
    }

    /// Passes part `part` of the rows to the epilogue.
    #[inline(always)]
    fn store<E: Epilogue>(&self, part: usize, accumulators: &[PassAccumulators], epilogue: &E) {
        let rows = PASS_ROWS.min(self.task.rows.end - self.row);
        let first = part * PART_ROWS;
        if first < rows {
            let accumulators = &accumulators[self.accumulator_index()][first..rows.min(first + PART_ROWS)];
            epilogue.store::<BF16>(self.row + first, self.panel, accumulators);
        }
    }

    /// Multiplies a chunk of inputs and accumulates, for one tile of rows or for `BOTH`, while the epilogue stores the
    /// rows of the pass `completed`.
    ///
    /// # Safety
    /// The tile registers are configured.
    #[inline(always)]
    unsafe fn multiply<const BOTH: bool, E: Epilogue>(
        &self,
        chunk: &Range<usize>,
        accumulators: &mut [PassAccumulators],
        completed: Option<AmxPass<'_>>,
        epilogue: &E,
    ) {
        let tiles = self.task.tiles;
        let (upper, upper_bytes) = tiles.tile(self.row);
        let (lower, lower_bytes) = if BOTH { tiles.tile(self.row + TILE_ROWS) } else { (upper, upper_bytes) };
        let panel = self.task.weights.panel(self.panel);
        let before_last = (tiles.terms() - 1) * tiles.term_bytes();
        let has_tile = |rows: &[u8], row_bytes: usize| rows.len() >= before_last + TILE_ROWS * row_bytes;
        assert!(has_tile(upper, upper_bytes) && has_tile(lower, lower_bytes));
        assert!(chunk.start <= chunk.end && chunk.end * LINE <= upper_bytes.min(lower_bytes));
        assert!(chunk.end * STEP_BYTES <= panel.len());
        // SAFETY: the caller guarantees the registers; the sizes are as asserted.
        unsafe {
            match chunk.start {
                0 => registers::clear(),
                _ => registers::load::<BOTH>(&accumulators[self.accumulator_index()]),
            }
            for part in 0..PARTS {
                let steps = part_of(chunk, part, PARTS);
                // The smallest terms first, which rounds least.
                for term in (0..tiles.terms()).rev().filter(|_| !steps.is_empty()) {
                    let from = term * tiles.term_bytes() + steps.start * LINE;
                    let upper = (upper.as_ptr().add(from), upper_bytes);
                    let lower = (lower.as_ptr().add(from), lower_bytes);
                    registers::multiply_steps::<BOTH>(
                        steps.len(),
                        upper,
                        lower,
                        panel.as_ptr().add(steps.start * STEP_BYTES),
                    );
                }
                if let Some(completed) = &completed {
                    completed.store(part, accumulators, epilogue);
                }
            }
            registers::store::<BOTH>(&mut accumulators[self.accumulator_index()]);
        }
    }
}
