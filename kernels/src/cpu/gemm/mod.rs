//! GEMM with weights, `x W^T`, and its epilogues. M are the rows of `x`, N the outputs and K the inputs of the weights.
//!
//! The algorithm follows Goto and van de Geijn 2008. Activations are copied once, in blocks of inputs (see
//! [`packed_rows`]). Each task multiplies a chunk of rows by one weight panel, in blocks of inputs: all rows of the chunk,
//! then the next block. Between blocks the accumulators are in memory, so that each output is one chain of fused
//! multiply-adds (see [`micro`]). AMX has a blocking of its own (see `amx`).

use std::mem::MaybeUninit;
use std::ops::Range;

use rayon::prelude::*;

use self::epilogue::Epilogue;
use self::micro::{MicroKernel, MicroRow, TileBlock, WidePanel};
use self::pack::PANEL;
use self::packed_rows::{Blocking, PackedRows};
use self::prefetch::LinePrefetcher;
use super::aligned::AlignedBytes;
use super::cache::cache_sizes;
use super::isa::Isa;
use super::tensor::CpuTensor;
use crate::dtype::DType;
use crate::error::KernelError;

pub mod activation;
#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod dots;
pub mod epilogue;
mod micro;
pub mod pack;
mod packed_rows;
mod prefetch;
#[cfg(target_arch = "x86_64")]
mod vector;

#[cfg(target_arch = "x86_64")]
pub(in crate::cpu) use amx::TileConfigGuard;

pub use pack::PackedWeights;

/// The maximum number of rows of a task: a weight panel is read from memory once for all of them.
const TASK_ROWS: usize = 192;

/// Computes `x W^T` and passes the accumulators of each tile to `epilogue`.
///
/// `scratch` keeps the memory of the packed activations between calls.
///
/// # Errors
/// No memory for the packed activations.
pub fn matmul<E: Epilogue>(
    isa: Isa,
    x: &CpuTensor,
    weights: &PackedWeights,
    epilogue: &E,
    scratch: &mut AlignedBytes,
) -> Result<(), KernelError> {
    matmul_panels(isa, x, weights, 0..weights.panels(), epilogue, scratch)
}

/// [`matmul`] with the panels `panels` of the weights alone.
///
/// # Errors
/// No memory for the packed activations.
pub fn matmul_panels<E: Epilogue>(
    isa: Isa,
    x: &CpuTensor,
    weights: &PackedWeights,
    panels: Range<usize>,
    epilogue: &E,
    scratch: &mut AlignedBytes,
) -> Result<(), KernelError> {
    #[cfg(target_arch = "x86_64")]
    if isa == Isa::Amx && weights.stored == DType::Bf16 {
        // SAFETY: this `Isa` comes from `Isa::detect`, which got the permission and found all lower features.
        return unsafe { amx::matmul(x, weights, panels, epilogue, scratch) };
    }
    let dots = isa == Isa::Avx512Bf16 && weights.stored == DType::Bf16;
    let blocking = Blocking::new(if dots { weights.inputs() / 2 } else { weights.inputs() });
    let at_once = blocking.rows_at_once(x.rows());
    if scratch.as_slice().len() < at_once * blocking.row_bytes() {
        scratch.replace("linear", at_once * blocking.row_bytes())?;
    }
    for from in (0..x.rows()).step_by(at_once.max(1)) {
        let count = at_once.min(x.rows() - from);
        let packed = bytemuck::cast_slice_mut(scratch.as_mut_slice());
        let packed = PackedRows::new(isa, x, from..from + count, dots, blocking, packed);
        let chunks = row_chunks(count, blocking.row_bytes(), panels.len());
        (0..panels.len() * chunks).into_par_iter().for_each(|task| {
            // Panels vary fastest: consecutive tasks share a chunk of activations, which stays in cache.
            let (chunk, panel) = (task / panels.len(), panels.start + task % panels.len());
            let rows = part_of(count, chunk, chunks);
            let task = PanelTask { panel, from, rows, packed, weights };
            match isa {
                #[cfg(target_arch = "x86_64")]
                // SAFETY: an `Isa` above `Portable` comes from `Isa::detect`, which found these features.
                Isa::Avx512Bf16 if dots => unsafe { run_dots(&task, epilogue) },
                #[cfg(target_arch = "x86_64")]
                // SAFETY: as above.
                Isa::Avx512 | Isa::Avx512Bf16 | Isa::Amx => unsafe { run_avx512(&task, epilogue) },
                #[cfg(target_arch = "x86_64")]
                // SAFETY: as above.
                Isa::Avx2 => unsafe { run_avx2(&task, epilogue) },
                _ => run::<micro::Portable, E>(&task, epilogue),
            }
        });
    }
    Ok(())
}

/// The number of chunks of `count` rows of `row_bytes` each: the activations of a chunk take half of the L2 cache, from
/// one panel to the next. Few panels get more chunks, so that every thread has a task.
fn row_chunks(count: usize, row_bytes: usize, panels: usize) -> usize {
    /// Rows below which a task reads its panel too often.
    const MIN_ROWS: usize = 24;
    let limit = (cache_sizes().l2 / 2 / row_bytes.max(1)).clamp(MIN_ROWS, TASK_ROWS);
    let for_threads = rayon::current_num_threads().div_ceil(panels.max(1)).min(count / MIN_ROWS);
    count.div_ceil(limit).max(for_threads).max(1)
}

/// Part `part` of `len` rows that are divided into `parts` nearly equal parts.
#[inline(always)]
fn part_of(len: usize, part: usize, parts: usize) -> Range<usize> {
    len * part / parts..len * (part + 1) / parts
}

/// Bytes of the working memory of [`matmul`] for `rows` rows of `columns` elements of type `run`, and weights that are packed
/// as `stored`.
#[cfg_attr(not(target_arch = "x86_64"), expect(unused_variables, reason = "AMX alone packs by the run's type"))]
pub fn scratch_bytes(isa: Isa, run: DType, stored: DType, rows: usize, columns: usize) -> usize {
    #[cfg(target_arch = "x86_64")]
    if isa == Isa::Amx && stored == DType::Bf16 {
        return amx::scratch_bytes(run, rows, columns);
    }
    let inputs = if stored == DType::Bf16 { columns.next_multiple_of(2) } else { columns };
    let words = if isa == Isa::Avx512Bf16 && stored == DType::Bf16 { inputs / 2 } else { inputs };
    let blocking = Blocking::new(words);
    blocking.rows_at_once(rows) * blocking.row_bytes()
}

/// A chunk of rows times one weight panel.
struct PanelTask<'a> {
    panel: usize,
    /// First packed row in `x`.
    from: usize,
    /// Rows of the chunk, from the first packed one.
    rows: Range<usize>,
    packed: PackedRows<'a>,
    weights: &'a PackedWeights,
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma,f16c")]
fn run_dots<E: Epilogue>(task: &PanelTask<'_>, epilogue: &E) {
    run::<dots::Bf16Dots, E>(task, epilogue);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn run_avx512<E: Epilogue>(task: &PanelTask<'_>, epilogue: &E) {
    run::<micro::Avx512, E>(task, epilogue);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
fn run_avx2<E: Epilogue>(task: &PanelTask<'_>, epilogue: &E) {
    run::<micro::Avx2, E>(task, epilogue);
}

#[inline(always)]
fn run<M: MicroKernel, E: Epilogue>(task: &PanelTask<'_>, epilogue: &E) {
    let PanelTask { panel, from, rows, packed, weights } = task;
    let dtype = weights.stored;
    // Inputs of a packed word: dot products take pairs.
    let word_bytes = PANEL * dtype.size() * if M::DOTS { 2 } else { 1 };
    let tiles = rows.len().div_ceil(M::ROWS);
    let blocks = packed.blocking.blocks();
    let mut wide = WidePanel::uninit();
    let mut accumulators = [const { MaybeUninit::<MicroRow>::uninit() }; TASK_ROWS];
    for block in 0..blocks {
        let words = packed.blocking.block(block);
        let panel_block = &weights.panel(*panel)[words.start * word_bytes..words.end * word_bytes];
        let next_block: &[u8] = match block + 1 {
            next if next < blocks => {
                let words = packed.blocking.block(next);
                &weights.panel(*panel)[words.start * word_bytes..words.end * word_bytes]
            }
            _ if panel + 1 < weights.panels() => &weights.panel(panel + 1)[..packed.blocking.block(0).end * word_bytes],
            _ => &[],
        };
        for tile in 0..tiles {
            // Tiles of equal height: a last one of few rows could not fill the pipeline of multiply-adds.
            let tile_rows = part_of(rows.len(), tile, tiles);
            let step = TileBlock {
                dtype,
                words: words.len(),
                activations: packed.tile(block, rows.start + tile_rows.start..rows.start + tile_rows.end),
                panel: panel_block,
                is_first: block == 0,
                is_wide: tile > 0,
                next: LinePrefetcher::new(next_block, tile, tiles),
            };
            let row = from + rows.start + tile_rows.start;
            if block + 1 == blocks {
                epilogue.prefetch(row, *panel, tile_rows.len());
            }
            // With one block, all tiles share the accumulators, which stay in the L1 cache.
            let kept = if blocks == 1 { 0..tile_rows.len() } else { tile_rows.clone() };
            let kept = accumulators[kept].as_mut_ptr().cast::<MicroRow>();
            // SAFETY: `matmul` chose `M` by the detected features. A tile has 1 to `M::ROWS` rows, and so have its
            // activations and accumulators, which earlier blocks have initialized. The block of the panel has the words
            // of the block, an even number of inputs for bf16 because `PackedWeights` and `Blocking` make it one. The
            // first tile has widened the panel.
            unsafe { M::tile(&step, tile_rows.len(), &mut wide, kept) };
            if block + 1 == blocks {
                // SAFETY: the micro-kernel has initialized these rows.
                let accumulators = unsafe { std::slice::from_raw_parts(kept, tile_rows.len()) };
                match M::CONVERSIONS {
                    epilogue::BF16 => epilogue.store::<{ epilogue::BF16 }>(row, *panel, accumulators),
                    epilogue::F16C => epilogue.store::<{ epilogue::F16C }>(row, *panel, accumulators),
                    _ => epilogue.store::<{ epilogue::PLAIN }>(row, *panel, accumulators),
                }
            }
        }
    }
}
