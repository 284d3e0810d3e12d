//! The micro-kernels: one tile of a few rows by [`PANEL`] outputs, accumulated over a block of inputs.
//!
//! In every variant, an output is one `f32` accumulator that is updated by fused multiply-adds in the order of the
//! inputs. Between two blocks of inputs it is in memory, which does not round. The bits of an output therefore do not
//! depend on the number of rows, on the row's index in the tile or on the instruction set. The bf16 instructions of
//! `dots` and `amx` have fixed orders of their own.
//!
//! Widening f16 and bf16 takes the ports of the multiply-adds, a tenth of the time of a tile. The first tile that uses a
//! block of a panel therefore stores the widened weights, which overlaps with its arithmetic, and the others load them.

use std::mem::MaybeUninit;

use super::epilogue::{F16C, PLAIN};
use super::pack::{PANEL, widen_inputs};
use super::packed_rows::STRIDE;
use super::prefetch::LinePrefetcher;
#[cfg(target_arch = "x86_64")]
use super::vector::{Vector, Widen};
use crate::dtype::DType;

/// Steps of a panel in one iteration of a loop: the counters would take ports of the multiply-adds.
#[cfg(target_arch = "x86_64")]
const UNROLL: usize = 4;

/// The accumulators of a row of a tile.
pub(super) type MicroRow = [f32; PANEL];

/// A block of a panel in `f32`, `[input][output]`.
#[repr(C, align(64))]
pub(super) struct WidePanel([[MaybeUninit<f32>; PANEL]; STRIDE]);

impl WidePanel {
    /// A block with unspecified contents.
    #[inline(always)]
    pub(super) fn uninit() -> Self {
        WidePanel([[MaybeUninit::uninit(); PANEL]; STRIDE])
    }

    #[inline(always)]
    fn as_mut_ptr(&mut self) -> *mut f32 {
        self.0.as_mut_ptr().cast()
    }
}

/// The operands of one call of [`MicroKernel::tile`].
pub(super) struct TileBlock<'a> {
    /// The type of `panel`.
    pub(super) dtype: DType,
    /// Words of a row in the block: inputs, or pairs of inputs for dot products.
    pub(super) words: usize,
    /// Rows of activations, [`STRIDE`] words apart.
    pub(super) activations: &'a [u32],
    /// The block of the panel, 64-byte aligned.
    pub(super) panel: &'a [u8],
    /// Whether the block is the first one, before which the accumulators are zero.
    pub(super) is_first: bool,
    /// Whether an earlier call has stored the widened block.
    pub(super) is_wide: bool,
    /// A part of the next block of weights, which the micro-kernel prefetches into the L2 cache.
    pub(super) next: LinePrefetcher,
}

/// A micro-kernel for one instruction set.
pub(super) trait MicroKernel {
    /// Whether activations are packed as pairs of bf16 and the kernel is compiled with AVX-512 BF16.
    const DOTS: bool = false;

    /// The instructions for 16-bit types that the kernel is compiled with: see [`Epilogue::store`](super::epilogue::Epilogue::store).
    const CONVERSIONS: u8;

    /// The maximum number of rows of a tile.
    const ROWS: usize;

    /// Multiplies a block of inputs and accumulates to the `rows` rows at `tile`. Widened weights are stored to `wide`, or
    /// loaded from there with [`TileBlock::is_wide`].
    ///
    /// # Safety
    /// The processor must have the kernel's instructions. `1 <= rows <= ROWS`; `activations` holds `rows` rows; `panel`
    /// holds `words` inputs, an even number for bf16, or `words` pairs for [`MicroKernel::DOTS`]; `words <= STRIDE`.
    /// `tile` has `rows` rows, which are initialized unless the block is the first one. With [`TileBlock::is_wide`],
    /// `wide` was stored by a call with the same `panel`.
    unsafe fn tile(block: &TileBlock<'_>, rows: usize, wide: &mut WidePanel, tile: *mut MicroRow);
}

/// Plain Rust, for processors without another variant.
pub(super) struct Portable;

impl MicroKernel for Portable {
    const CONVERSIONS: u8 = PLAIN;
    const ROWS: usize = 12;

    #[inline(always)]
    unsafe fn tile(block: &TileBlock<'_>, rows: usize, _: &mut WidePanel, tile: *mut MicroRow) {
        let activations: &[f32] = bytemuck::cast_slice(block.activations);
        if block.is_first {
            // SAFETY: the caller grants `rows` rows, and zeros are `f32`.
            unsafe { tile.write_bytes(0, rows) };
        }
        // SAFETY: the caller grants `rows` rows, which are initialized now.
        let tile = unsafe { std::slice::from_raw_parts_mut(tile, rows) };
        for input in 0..block.words {
            let weights = widen_inputs(block.dtype, block.panel, input);
            for (row, x) in tile.iter_mut().zip(activations[input..].iter().step_by(STRIDE)) {
                for (acc, weight) in row.iter_mut().zip(&weights) {
                    *acc = x.mul_add(*weight, *acc);
                }
            }
        }
    }
}

/// Calls `$kernel::<R>`, or `$kernel::<R, M>` for `$kernel::<M>`, for the run-time number of rows.
#[cfg(target_arch = "x86_64")]
macro_rules! by_rows {
    ($rows:expr, $kernel:ident $(::<$mode:ident>)?, $arguments:tt, $($count:literal)*) => {
        by_rows!(@arms $rows, $kernel, [$($mode)?], $arguments, $($count)*)
    };
    (@arms $rows:expr, $kernel:ident, $mode:tt, $arguments:tt, $($count:literal)*) => {
        match $rows {
            $($count => by_rows!(@call $kernel, $count, $mode, $arguments),)*
            _ => {}
        }
    };
    (@call $kernel:ident, $count:literal, [], $arguments:tt) => { $kernel::<$count> $arguments };
    (@call $kernel:ident, $count:literal, [$mode:ident], $arguments:tt) => { $kernel::<$count, $mode> $arguments };
}
#[cfg(target_arch = "x86_64")]
pub(super) use by_rows;

#[cfg(target_arch = "x86_64")]
pub(super) use avx2::Avx2;
#[cfg(target_arch = "x86_64")]
pub(super) use avx512::Avx512;

/// Multiplies a block of inputs and accumulates to `R` rows of two vectors at `tile`, [`PANEL`] elements apart. Stores
/// widened weights to `wide`.
///
/// # Safety
/// As [`MicroKernel::tile`], with `R` rows and the outputs to which `step`, `wide` and `tile` point.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn multiply_block<const R: usize, W: Widen>(
    block: &TileBlock<'_>,
    mut step: *const u8,
    mut wide: *mut f32,
    tile: *mut f32,
) {
    let mut x: *const f32 = block.activations.as_ptr().cast();
    // SAFETY: the caller grants the instructions, `R` rows of `words` activations and `words` inputs of the panel.
    unsafe {
        let mut accumulators = [[W::Vector::splat(0.0); 2]; R];
        if !block.is_first {
            for (row, acc) in accumulators.iter_mut().enumerate() {
                let row = tile.add(row * PANEL);
                *acc = [W::Vector::load(row), W::Vector::load(row.add(W::Vector::COUNT))];
            }
        }
        let mut next = block.next;
        let steps = block.words / W::INPUTS;
        for _ in 0..steps / UNROLL {
            next.advance::<UNROLL>();
            for _ in 0..UNROLL {
                multiply_step::<R, W>(&mut accumulators, &mut x, &mut step, &mut wide);
            }
        }
        for _ in 0..steps % UNROLL {
            multiply_step::<R, W>(&mut accumulators, &mut x, &mut step, &mut wide);
        }
        for (row, acc) in accumulators.iter().enumerate() {
            let row = tile.add(row * PANEL);
            acc[0].store(row);
            acc[1].store(row.add(W::Vector::COUNT));
        }
    }
}

/// Multiplies a step of a panel, and advances the pointers.
///
/// # Safety
/// As [`multiply_block`].
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn multiply_step<const R: usize, W: Widen>(
    accumulators: &mut [[W::Vector; 2]; R],
    x: &mut *const f32,
    step: &mut *const u8,
    wide: &mut *mut f32,
) {
    // SAFETY: the caller grants the step, its activations and its place in `wide`.
    unsafe {
        for odd in 0..W::INPUTS {
            let weights = W::widen(*step, odd);
            if W::WIDENS {
                weights[0].store(*wide);
                weights[1].store(wide.add(W::Vector::COUNT));
                *wide = wide.add(PANEL);
            }
            for (row, acc) in accumulators.iter_mut().enumerate() {
                let value = W::Vector::splat(*x.add(row * STRIDE));
                acc[0] = value.multiply_add(weights[0], acc[0]);
                acc[1] = value.multiply_add(weights[1], acc[1]);
            }
            *x = x.add(1);
        }
        *step = step.add(W::BYTES);
    }
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    use super::*;
    use std::arch::x86_64::*;

    /// AVX-512: 12 x 2 accumulators of 16 lanes, which with 3 operands fit 32 registers.
    pub(in super::super) struct Avx512;

    struct WidenF32x16;
    struct WidenF16x16;
    struct WidenBf16x16;

    impl Widen for WidenF32x16 {
        type Vector = __m512;
        const INPUTS: usize = 1;
        const BYTES: usize = PANEL * 4;
        const WIDENS: bool = false;
        #[inline(always)]
        unsafe fn widen(step: *const u8, _odd: usize) -> [__m512; 2] {
            // SAFETY: the caller grants a whole aligned step.
            unsafe { [_mm512_load_ps(step.cast()), _mm512_load_ps(step.add(64).cast())] }
        }
    }

    impl Widen for WidenF16x16 {
        type Vector = __m512;
        const INPUTS: usize = 1;
        const BYTES: usize = PANEL * 2;
        #[inline(always)]
        unsafe fn widen(step: *const u8, _odd: usize) -> [__m512; 2] {
            // SAFETY: the caller grants a whole aligned step.
            unsafe {
                let halves = _mm512_load_si512(step.cast());
                [
                    _mm512_cvtph_ps(_mm512_castsi512_si256(halves)),
                    _mm512_cvtph_ps(_mm512_extracti64x4_epi64::<1>(halves)),
                ]
            }
        }
    }

    impl Widen for WidenBf16x16 {
        type Vector = __m512;
        const INPUTS: usize = 2;
        const BYTES: usize = PANEL * 4;
        #[inline(always)]
        unsafe fn widen(step: *const u8, odd: usize) -> [__m512; 2] {
            // SAFETY: the caller grants a whole aligned step.
            unsafe {
                let words = [_mm512_load_si512(step.cast()), _mm512_load_si512(step.add(64).cast())];
                if odd == 0 {
                    words.map(|word| _mm512_castsi512_ps(_mm512_slli_epi32::<16>(word)))
                } else {
                    let upper = _mm512_set1_epi32(0xffff_0000_u32 as i32);
                    words.map(|word| _mm512_castsi512_ps(_mm512_and_si512(word, upper)))
                }
            }
        }
    }

    impl MicroKernel for Avx512 {
        const CONVERSIONS: u8 = F16C;
        const ROWS: usize = 12;

        #[inline(always)]
        unsafe fn tile(block: &TileBlock<'_>, rows: usize, wide: &mut WidePanel, tile: *mut MicroRow) {
            let wide = wide.as_mut_ptr();
            // SAFETY: the caller grants the features and the sizes.
            unsafe {
                match block.dtype {
                    DType::F32 => {
                        let panel = block.panel.as_ptr();
                        by_rows!(rows, accumulate::<WidenF32x16>, (block, panel, wide, tile), 1 2 3 4 5 6 7 8 9 10 11 12)
                    }
                    _ if block.is_wide => {
                        let panel = wide.cast_const().cast();
                        by_rows!(rows, accumulate::<WidenF32x16>, (block, panel, wide, tile), 1 2 3 4 5 6 7 8 9 10 11 12)
                    }
                    DType::F16 => {
                        let panel = block.panel.as_ptr();
                        by_rows!(rows, accumulate::<WidenF16x16>, (block, panel, wide, tile), 1 2 3 4 5 6 7 8 9 10 11 12)
                    }
                    DType::Bf16 => {
                        let panel = block.panel.as_ptr();
                        by_rows!(rows, accumulate::<WidenBf16x16>, (block, panel, wide, tile), 1 2 3 4 5 6 7 8 9 10 11 12)
                    }
                }
            }
        }
    }

    /// # Safety
    /// As [`MicroKernel::tile`], with `R` rows. `step` points to the block of the panel, and `wide` to a [`WidePanel`].
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
    unsafe fn accumulate<const R: usize, W: Widen>(
        block: &TileBlock<'_>,
        step: *const u8,
        wide: *mut f32,
        tile: *mut MicroRow,
    ) {
        // SAFETY: the caller grants the sizes, and a row of a tile has two vectors.
        unsafe { multiply_block::<R, W>(block, step, wide, tile.cast()) }
    }
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use super::*;
    use std::arch::x86_64::*;

    /// AVX2: 6 x 2 accumulators of 8 lanes, which with 3 operands fit 16 registers. A tile takes two passes.
    pub(in super::super) struct Avx2;

    /// Outputs of a pass.
    const PASS_COLUMNS: usize = 16;

    struct WidenF32x8;
    struct WidenF16x8;
    struct WidenBf16x8;

    impl Widen for WidenF32x8 {
        type Vector = __m256;
        const INPUTS: usize = 1;
        const BYTES: usize = PANEL * 4;
        const WIDENS: bool = false;
        #[inline(always)]
        unsafe fn widen(step: *const u8, _odd: usize) -> [__m256; 2] {
            // SAFETY: the caller grants 16 outputs.
            unsafe { [_mm256_loadu_ps(step.cast()), _mm256_loadu_ps(step.add(32).cast())] }
        }
    }

    impl Widen for WidenF16x8 {
        type Vector = __m256;
        const INPUTS: usize = 1;
        const BYTES: usize = PANEL * 2;
        #[inline(always)]
        unsafe fn widen(step: *const u8, _odd: usize) -> [__m256; 2] {
            // SAFETY: the caller grants 16 outputs.
            unsafe {
                [_mm256_cvtph_ps(_mm_loadu_si128(step.cast())), _mm256_cvtph_ps(_mm_loadu_si128(step.add(16).cast()))]
            }
        }
    }

    impl Widen for WidenBf16x8 {
        type Vector = __m256;
        const INPUTS: usize = 2;
        const BYTES: usize = PANEL * 4;
        #[inline(always)]
        unsafe fn widen(step: *const u8, odd: usize) -> [__m256; 2] {
            // SAFETY: the caller grants 16 outputs.
            unsafe {
                let words = [_mm256_loadu_si256(step.cast()), _mm256_loadu_si256(step.add(32).cast())];
                if odd == 0 {
                    words.map(|word| _mm256_castsi256_ps(_mm256_slli_epi32::<16>(word)))
                } else {
                    let upper = _mm256_set1_epi32(0xffff_0000_u32 as i32);
                    words.map(|word| _mm256_castsi256_ps(_mm256_and_si256(word, upper)))
                }
            }
        }
    }

    impl MicroKernel for Avx2 {
        const CONVERSIONS: u8 = F16C;
        const ROWS: usize = 6;

        #[inline(always)]
        unsafe fn tile(block: &TileBlock<'_>, rows: usize, wide: &mut WidePanel, tile: *mut MicroRow) {
            let wide = wide.as_mut_ptr();
            let panel = block.panel.as_ptr();
            // SAFETY: the caller grants the features and the sizes.
            unsafe {
                match block.dtype {
                    DType::F32 => passes::<WidenF32x8>(block, rows, panel, wide, tile),
                    _ if block.is_wide => passes::<WidenF32x8>(block, rows, wide.cast_const().cast(), wide, tile),
                    DType::F16 => passes::<WidenF16x8>(block, rows, panel, wide, tile),
                    DType::Bf16 => passes::<WidenBf16x8>(block, rows, panel, wide, tile),
                }
            }
        }
    }

    /// # Safety
    /// As [`MicroKernel::tile`]. `panel` points to the block of the panel, and `wide` to a [`WidePanel`].
    #[inline(always)]
    unsafe fn passes<W: Widen>(
        block: &TileBlock<'_>,
        rows: usize,
        panel: *const u8,
        wide: *mut f32,
        tile: *mut MicroRow,
    ) {
        for column in (0..PANEL).step_by(PASS_COLUMNS) {
            // SAFETY: the caller grants the features and the sizes; the columns lie inside the tile.
            unsafe {
                let (panel, wide) = (panel.add(column * (W::BYTES / PANEL)), wide.add(column));
                let tile = tile.cast::<f32>().add(column);
                by_rows!(rows, accumulate::<W>, (block, panel, wide, tile), 1 2 3 4 5 6)
            }
        }
    }

    /// # Safety
    /// As [`passes`], for `R` rows and the 16 outputs to which `step`, `wide` and `tile` point.
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn accumulate<const R: usize, W: Widen>(
        block: &TileBlock<'_>,
        step: *const u8,
        wide: *mut f32,
        tile: *mut f32,
    ) {
        // SAFETY: the caller grants the sizes.
        unsafe { multiply_block::<R, W>(block, step, wide, tile) }
    }
}
