//! GEMM with weights, `x W^T`, and its epilogues. M are the rows of `x`, N the outputs and K the inputs of the weights.
//!
//! The algorithm follows Goto and van de Geijn 2008. A block of activations is packed. Each task multiplies a chunk of
//! its rows by one weight panel, in blocks of inputs: all rows of the chunk, then the next block. Between blocks the
//! accumulators are in memory, so that each output is one chain of fused multiply-adds (see [`micro`]). AMX has a
//! blocking of its own (see `amx`).

use rayon::prelude::*;

use self::epilogue::Epilogue;
use self::micro::{MicroKernel, MicroTile};
use self::pack::{PANEL, ROWS, pack_activations};
use super::aligned::AlignedBytes;
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

pub use pack::PackedWeights;

/// Bytes of activations that are packed at once: they stay in a shared cache together with the weights.
const PACKED_BYTES: usize = 4 << 20;

/// Tiles of a task: their activations stay in the L2 cache from one panel to the next.
const TASK_TILES: usize = 16;

/// Rows of a task: a weight panel is read from memory once for all of them.
const TASK_ROWS: usize = TASK_TILES * ROWS;

/// Inputs of a block: 24 KiB of a panel in `f32`, which fit an L1 cache of 48 KiB together with the activations of a
/// tile. Even, because bf16 inputs are packed in pairs.
const BLOCK_INPUTS: usize = 192;

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
    #[cfg(target_arch = "x86_64")]
    if isa == Isa::Amx && weights.stored == DType::Bf16 {
        // SAFETY: this `Isa` comes from `Isa::detect`, which got the permission and found all lower features.
        return unsafe { amx::matmul(x, weights, epilogue, scratch) };
    }
    let dots = isa == Isa::Avx512Bf16 && weights.stored == DType::Bf16;
    let words = if dots { weights.inputs() / 2 } else { weights.inputs() };
    let row_bytes = words * size_of::<u32>();
    let block_rows = packed_rows(row_bytes, x.rows());
    if scratch.as_slice().len() < block_rows * row_bytes {
        scratch.replace("linear", block_rows * row_bytes)?;
    }
    for from in (0..x.rows()).step_by(block_rows.max(1)) {
        let count = block_rows.min(x.rows() - from);
        let used = count.next_multiple_of(ROWS) * words;
        let packed = &mut bytemuck::cast_slice_mut::<u8, u32>(scratch.as_mut_slice())[..used];
        pack_activations(x, from, count, words, dots, packed);
        let packed: &[u32] = packed;
        let chunks = count.div_ceil(TASK_ROWS);
        (0..weights.panels() * chunks).into_par_iter().for_each(|task| {
            // Panels vary fastest: consecutive tasks share a chunk of activations, which stays in cache.
            let (first, panel) = (task / weights.panels() * TASK_ROWS, task % weights.panels());
            let rows = TASK_ROWS.min(count - first);
            let task = PanelTask { panel, from, first, rows, packed, words, weights };
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

/// Rows of `row_bytes` each that are packed at once.
fn packed_rows(row_bytes: usize, rows: usize) -> usize {
    let block_rows = (PACKED_BYTES / row_bytes.max(1) / TASK_ROWS).max(1) * TASK_ROWS;
    block_rows.min(rows.next_multiple_of(ROWS))
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
    let row_bytes = words * size_of::<u32>();
    packed_rows(row_bytes, rows) * row_bytes
}

/// A chunk of rows times one weight panel.
struct PanelTask<'a> {
    panel: usize,
    /// First row of the packed block in `x`.
    from: usize,
    /// First row of the chunk in the packed block.
    first: usize,
    rows: usize,
    packed: &'a [u32],
    /// 32-bit words of a row in the packed block.
    words: usize,
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
    let inputs = task.weights.inputs();
    let panel = task.weights.panel(task.panel);
    let input_bytes = PANEL * task.weights.stored.size();
    // Inputs of a packed word: dot products take pairs.
    let word_inputs = if M::DOTS { 2 } else { 1 };
    let mut tiles: [MicroTile; TASK_TILES] = [[[0.0; PANEL]; ROWS]; TASK_TILES];
    for start in (0..inputs).step_by(BLOCK_INPUTS) {
        let block = BLOCK_INPUTS.min(inputs - start);
        let panel = &panel[start * input_bytes..(start + block) * input_bytes];
        for (first, tile) in (task.first..task.first + task.rows).step_by(ROWS).zip(&mut tiles) {
            let rows = ROWS.min(task.first + task.rows - first);
            let from = first * task.words + start / word_inputs * ROWS;
            let activations = &task.packed[from..from + block / word_inputs * ROWS];
            // SAFETY: `matmul` chose `M` by the detected features; `activations` and `panel` hold `block` inputs, an
            // even number for bf16 because `PackedWeights` pads to even numbers, and `1 <= rows <= ROWS`.
            unsafe { M::tile(task.weights.stored, block, rows, activations, panel, tile) };
        }
    }
    for (first, tile) in (task.first..task.first + task.rows).step_by(ROWS).zip(&tiles) {
        let rows = ROWS.min(task.first + task.rows - first);
        if M::DOTS {
            epilogue.store::<true>(task.from + first, task.panel, &tile[..rows]);
        } else {
            epilogue.store::<false>(task.from + first, task.panel, &tile[..rows]);
        }
    }
}
