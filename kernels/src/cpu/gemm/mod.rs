//! Products with weights, `x W^T`, and what is done with them before they are stored.
//!
//! The shape of the algorithm follows Goto and van de Geijn 2008 without a split of the inner dimension: a block of
//! activations is packed, then every task takes one weight panel and a chunk of rows and walks all inputs. Not
//! splitting the inner dimension keeps each output one chain of fused multiply-adds (see [`micro`]). Products of bf16
//! on tile registers have blocks of their own (see `amx`).

use rayon::prelude::*;

use self::epilogue::Epilogue;
use self::micro::{MicroKernel, Tile};
use self::pack::{PANEL, ROWS, pack_activations};
use super::aligned::AlignedBytes;
use super::isa::Isa;
use super::tensor::CpuTensor;
use crate::dtype::DType;
use crate::error::KernelError;

#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod dots;
pub mod epilogue;
mod micro;
pub mod pack;

pub use pack::PackedWeights;

/// Bytes of activations packed at once: what stays in a shared cache beside the weights.
const PACKED_BYTES: usize = 4 << 20;

/// Rows of one task: a weight panel read from memory is reused for this many.
const TASK_ROWS: usize = 8 * ROWS;

/// Computes `x W^T` and hands each row of each tile to `epilogue`.
///
/// `scratch` keeps the packed activations between calls.
pub fn multiply<E: Epilogue>(
    isa: Isa,
    x: &CpuTensor,
    weights: &PackedWeights,
    epilogue: &E,
    scratch: &mut AlignedBytes,
) -> Result<(), KernelError> {
    #[cfg(target_arch = "x86_64")]
    if isa == Isa::Amx && weights.dtype == DType::Bf16 {
        // SAFETY: this `Isa` comes from `Isa::detect`, which got the permission and saw all lower features.
        return unsafe { amx::multiply(x, weights, epilogue, scratch) };
    }
    let dots = isa == Isa::Avx512Bf16 && weights.dtype == DType::Bf16;
    let words = if dots { weights.inputs() / 2 } else { weights.inputs() };
    let row_bytes = words * size_of::<u32>();
    let block_rows = (PACKED_BYTES / row_bytes.max(1) / TASK_ROWS).max(1) * TASK_ROWS;
    let block_rows = block_rows.min(x.rows().next_multiple_of(ROWS));
    if scratch.as_slice().len() < block_rows * row_bytes {
        *scratch = AlignedBytes::zeroed("linear", block_rows * row_bytes)?;
    }
    for from in (0..x.rows()).step_by(block_rows.max(1)) {
        let count = block_rows.min(x.rows() - from);
        let used = count.next_multiple_of(ROWS) * words;
        let packed = &mut bytemuck::cast_slice_mut::<u8, u32>(scratch.as_mut_slice())[..used];
        pack_activations(x, from, count, words, dots, packed);
        let packed: &[u32] = packed;
        let chunks = count.div_ceil(TASK_ROWS);
        (0..weights.panels() * chunks).into_par_iter().for_each(|task| {
            let first = (task % chunks) * TASK_ROWS;
            let rows = TASK_ROWS.min(count - first);
            let task = Task { panel: task / chunks, from, first, rows, packed, words, weights };
            match isa {
                #[cfg(target_arch = "x86_64")]
                // SAFETY: an `Isa` above `Portable` comes from `Isa::detect`, which saw these features.
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

/// One weight panel times a chunk of rows.
struct Task<'a> {
    panel: usize,
    /// First row of the packed block in `x`.
    from: usize,
    /// First row of the chunk in the packed block.
    first: usize,
    rows: usize,
    packed: &'a [u32],
    /// Words of a row in the packed block.
    words: usize,
    weights: &'a PackedWeights,
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma,f16c")]
fn run_dots<E: Epilogue>(task: &Task<'_>, epilogue: &E) {
    run::<dots::Dots, E>(task, epilogue);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn run_avx512<E: Epilogue>(task: &Task<'_>, epilogue: &E) {
    run::<micro::Avx512, E>(task, epilogue);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
fn run_avx2<E: Epilogue>(task: &Task<'_>, epilogue: &E) {
    run::<micro::Avx2, E>(task, epilogue);
}

#[inline(always)]
fn run<M: MicroKernel, E: Epilogue>(task: &Task<'_>, epilogue: &E) {
    let inputs = task.weights.inputs();
    let panel = task.weights.panel(task.panel);
    let mut tile: Tile = [[0.0; PANEL]; ROWS];
    for first in (task.first..task.first + task.rows).step_by(ROWS) {
        let rows = ROWS.min(task.first + task.rows - first);
        let activations = &task.packed[first * task.words..(first + ROWS) * task.words];
        // SAFETY: `multiply` chose `M` by detection; `activations` and `panel` are whole panels of `inputs` inputs,
        // which `PackedWeights` keeps even for bf16, and `1 <= rows <= ROWS`.
        unsafe { M::tile(task.weights.dtype, inputs, rows, activations, panel, &mut tile) };
        match M::DOTS {
            true => epilogue.store::<true>(task.from + first, task.panel, &tile[..rows]),
            false => epilogue.store::<false>(task.from + first, task.panel, &tile[..rows]),
        }
    }
}
