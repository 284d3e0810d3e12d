//! The micro-kernels: one tile of up to [`ROWS`] rows by [`PANEL`] outputs, accumulated over a block of inputs.
//!
//! In every variant, an output is one `f32` accumulator that is updated by fused multiply-adds in the order of the
//! inputs. Between two blocks of inputs it is in memory, which does not round. The bits of an output therefore do not
//! depend on the number of rows, on the row's index in the tile or on the instruction set. The bf16 instructions of
//! `dots` and `amx` have fixed orders of their own.

use super::pack::{PANEL, ROWS, widen_inputs};
use crate::dtype::DType;

/// The accumulators of a tile.
pub(super) type MicroTile = [[f32; PANEL]; ROWS];

/// A micro-kernel for one instruction set.
pub(super) trait MicroKernel {
    /// Whether activations are packed as pairs of bf16 and the kernel is compiled with AVX-512 BF16.
    const DOTS: bool = false;

    /// Multiplies a block of inputs and accumulates to the first `rows` rows of `tile`.
    ///
    /// # Safety
    /// The processor must have the kernel's instructions. `activations` holds `inputs * ROWS` bit patterns of `f32`, or
    /// half as many pairs of bf16 for [`MicroKernel::DOTS`], and `panel` `inputs * PANEL` elements of `dtype`, 64-byte
    /// aligned; `inputs` is even for bf16; `1 <= rows <= ROWS`.
    unsafe fn tile(dtype: DType, inputs: usize, rows: usize, activations: &[u32], panel: &[u8], tile: &mut MicroTile);
}

/// Plain Rust, for processors without another variant.
pub(super) struct Portable;

impl MicroKernel for Portable {
    #[inline(always)]
    unsafe fn tile(dtype: DType, inputs: usize, rows: usize, activations: &[u32], panel: &[u8], tile: &mut MicroTile) {
        let activations: &[f32] = bytemuck::cast_slice(activations);
        for (input, x) in activations.chunks_exact(ROWS).enumerate().take(inputs) {
            let weights = widen_inputs(dtype, panel, input);
            for (row, x) in tile[..rows].iter_mut().zip(x) {
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

#[cfg(target_arch = "x86_64")]
mod avx512 {
    use super::*;
    use std::arch::x86_64::*;

    /// AVX-512: 12 x 2 accumulators of 16 lanes.
    pub(in super::super) struct Avx512;

    /// Two vectors of widened weights for input `2 * step + odd`, or `step` where inputs are not paired.
    trait Widen16 {
        /// Inputs of a step.
        const INPUTS: usize;
        /// Bytes of a step of a panel.
        const BYTES: usize;
        /// # Safety
        /// The processor has AVX-512 F, and `step` points to a 64-byte aligned step of a panel.
        unsafe fn widen(step: *const u8, odd: usize) -> [__m512; 2];
    }

    struct WidenF32x16;
    struct WidenF16x16;
    struct WidenBf16x16;

    impl Widen16 for WidenF32x16 {
        const INPUTS: usize = 1;
        const BYTES: usize = PANEL * 4;
        #[inline(always)]
        unsafe fn widen(step: *const u8, _odd: usize) -> [__m512; 2] {
            // SAFETY: the caller grants a whole aligned step.
            unsafe { [_mm512_load_ps(step.cast()), _mm512_load_ps(step.add(64).cast())] }
        }
    }

    impl Widen16 for WidenF16x16 {
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

    impl Widen16 for WidenBf16x16 {
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
        #[inline(always)]
        unsafe fn tile(
            dtype: DType,
            inputs: usize,
            rows: usize,
            activations: &[u32],
            panel: &[u8],
            tile: &mut MicroTile,
        ) {
            let activations: &[f32] = bytemuck::cast_slice(activations);
            // SAFETY: the caller grants the features and the sizes.
            unsafe {
                match dtype {
                    DType::F32 => {
                        by_rows!(rows, accumulate::<WidenF32x16>, (inputs, activations, panel, tile), 1 2 3 4 5 6 7 8 9 10 11 12)
                    }
                    DType::F16 => {
                        by_rows!(rows, accumulate::<WidenF16x16>, (inputs, activations, panel, tile), 1 2 3 4 5 6 7 8 9 10 11 12)
                    }
                    DType::Bf16 => {
                        by_rows!(rows, accumulate::<WidenBf16x16>, (inputs, activations, panel, tile), 1 2 3 4 5 6 7 8 9 10 11 12)
                    }
                }
            }
        }
    }

    /// # Safety
    /// As [`MicroKernel::tile`], with `R` rows.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
    unsafe fn accumulate<const R: usize, W: Widen16>(
        inputs: usize,
        activations: &[f32],
        panel: &[u8],
        tile: &mut MicroTile,
    ) {
        let mut accumulators = [[_mm512_setzero_ps(); 2]; R];
        let mut x = activations.as_ptr();
        let mut step = panel.as_ptr();
        // SAFETY: the caller grants `inputs * ROWS` activations and `inputs * PANEL` weights; a row of a tile has two
        // vectors.
        unsafe {
            for (row, acc) in tile.iter().zip(&mut accumulators) {
                *acc = [_mm512_loadu_ps(row.as_ptr()), _mm512_loadu_ps(row.as_ptr().add(16))];
            }
            for _ in 0..inputs / W::INPUTS {
                for odd in 0..W::INPUTS {
                    let weights = W::widen(step, odd);
                    for (row, acc) in accumulators.iter_mut().enumerate() {
                        let value = _mm512_set1_ps(*x.add(row));
                        acc[0] = _mm512_fmadd_ps(value, weights[0], acc[0]);
                        acc[1] = _mm512_fmadd_ps(value, weights[1], acc[1]);
                    }
                    x = x.add(ROWS);
                }
                step = step.add(W::BYTES);
            }
            for (row, acc) in tile.iter_mut().zip(&accumulators) {
                _mm512_storeu_ps(row.as_mut_ptr(), acc[0]);
                _mm512_storeu_ps(row.as_mut_ptr().add(16), acc[1]);
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use super::*;
    use std::arch::x86_64::*;

    /// AVX2: 6 x 2 accumulators of 8 lanes, so a tile takes four passes.
    pub(in super::super) struct Avx2;

    /// Rows of a pass: 12 accumulators, 2 weights and 1 activation fit 16 registers.
    const PASS_ROWS: usize = 6;
    /// Outputs of a pass.
    const PASS_COLUMNS: usize = 16;

    /// Two vectors of widened weights, as in the AVX-512 variant.
    trait Widen8 {
        const INPUTS: usize;
        const BYTES: usize;
        /// Bytes of an output in a step.
        const LANE_BYTES: usize;
        /// # Safety
        /// The processor has AVX2 and F16C, and `step` points to 16 outputs of a step of a panel.
        unsafe fn widen(step: *const u8, odd: usize) -> [__m256; 2];
    }

    struct WidenF32x8;
    struct WidenF16x8;
    struct WidenBf16x8;

    impl Widen8 for WidenF32x8 {
        const INPUTS: usize = 1;
        const BYTES: usize = PANEL * 4;
        const LANE_BYTES: usize = 4;
        #[inline(always)]
        unsafe fn widen(step: *const u8, _odd: usize) -> [__m256; 2] {
            // SAFETY: the caller grants 16 outputs.
            unsafe { [_mm256_loadu_ps(step.cast()), _mm256_loadu_ps(step.add(32).cast())] }
        }
    }

    impl Widen8 for WidenF16x8 {
        const INPUTS: usize = 1;
        const BYTES: usize = PANEL * 2;
        const LANE_BYTES: usize = 2;
        #[inline(always)]
        unsafe fn widen(step: *const u8, _odd: usize) -> [__m256; 2] {
            // SAFETY: the caller grants 16 outputs.
            unsafe {
                [_mm256_cvtph_ps(_mm_loadu_si128(step.cast())), _mm256_cvtph_ps(_mm_loadu_si128(step.add(16).cast()))]
            }
        }
    }

    impl Widen8 for WidenBf16x8 {
        const INPUTS: usize = 2;
        const BYTES: usize = PANEL * 4;
        const LANE_BYTES: usize = 4;
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
        #[inline(always)]
        unsafe fn tile(
            dtype: DType,
            inputs: usize,
            rows: usize,
            activations: &[u32],
            panel: &[u8],
            tile: &mut MicroTile,
        ) {
            let activations: &[f32] = bytemuck::cast_slice(activations);
            // SAFETY: the caller grants the features and the sizes.
            unsafe {
                match dtype {
                    DType::F32 => passes::<WidenF32x8>(inputs, rows, activations, panel, tile),
                    DType::F16 => passes::<WidenF16x8>(inputs, rows, activations, panel, tile),
                    DType::Bf16 => passes::<WidenBf16x8>(inputs, rows, activations, panel, tile),
                }
            }
        }
    }

    /// # Safety
    /// As [`MicroKernel::tile`].
    #[inline(always)]
    unsafe fn passes<W: Widen8>(inputs: usize, rows: usize, activations: &[f32], panel: &[u8], tile: &mut MicroTile) {
        for first_row in (0..rows).step_by(PASS_ROWS) {
            for first_column in (0..PANEL).step_by(PASS_COLUMNS) {
                let origin = (first_row, first_column);
                // SAFETY: the caller grants the features and the sizes; the origin lies inside the tile.
                unsafe {
                    by_rows!((rows - first_row).min(PASS_ROWS), accumulate::<W>, (inputs, origin, activations, panel, tile), 1 2 3 4 5 6)
                }
            }
        }
    }

    /// # Safety
    /// As [`MicroKernel::tile`], for `R` rows and 16 outputs from `origin` on.
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn accumulate<const R: usize, W: Widen8>(
        inputs: usize,
        origin: (usize, usize),
        activations: &[f32],
        panel: &[u8],
        tile: &mut MicroTile,
    ) {
        let mut accumulators = [[_mm256_setzero_ps(); 2]; R];
        // SAFETY: the caller grants `inputs * ROWS` activations and `inputs * PANEL` weights.
        unsafe {
            for (row, acc) in tile[origin.0..].iter().zip(&mut accumulators) {
                *acc = [_mm256_loadu_ps(row[origin.1..].as_ptr()), _mm256_loadu_ps(row[origin.1 + 8..].as_ptr())];
            }
            let mut x = activations.as_ptr().add(origin.0);
            let mut step = panel.as_ptr().add(origin.1 * W::LANE_BYTES);
            for _ in 0..inputs / W::INPUTS {
                for odd in 0..W::INPUTS {
                    let weights = W::widen(step, odd);
                    for (row, acc) in accumulators.iter_mut().enumerate() {
                        let value = _mm256_set1_ps(*x.add(row));
                        acc[0] = _mm256_fmadd_ps(value, weights[0], acc[0]);
                        acc[1] = _mm256_fmadd_ps(value, weights[1], acc[1]);
                    }
                    x = x.add(ROWS);
                }
                step = step.add(W::BYTES);
            }
            for (row, acc) in tile[origin.0..].iter_mut().zip(&accumulators) {
                _mm256_storeu_ps(row[origin.1..].as_mut_ptr(), acc[0]);
                _mm256_storeu_ps(row[origin.1 + 8..].as_mut_ptr(), acc[1]);
            }
        }
    }
}
