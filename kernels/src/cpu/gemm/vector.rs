//! Vectors of `f32` of the instruction sets, and weights that are widened to them: what the micro-kernels on fused
//! multiply-adds differ in.

use std::arch::x86_64::*;

/// A vector of `f32`.
///
/// # Safety
/// All functions need a processor with the vector's instructions and, of AVX2, FMA; pointers are to `COUNT` elements.
pub(super) trait Vector: Copy {
    const COUNT: usize;
    unsafe fn splat(value: f32) -> Self;
    unsafe fn load(from: *const f32) -> Self;
    unsafe fn store(self, to: *mut f32);
    /// `self * factor + addend`, rounded once.
    unsafe fn multiply_add(self, factor: Self, addend: Self) -> Self;
}

impl Vector for __m512 {
    const COUNT: usize = 16;

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        // SAFETY: the caller grants the instructions.
        unsafe { _mm512_set1_ps(value) }
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller grants the elements.
        unsafe { _mm512_loadu_ps(from) }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller grants the elements.
        unsafe { _mm512_storeu_ps(to, self) }
    }

    #[inline(always)]
    unsafe fn multiply_add(self, factor: Self, addend: Self) -> Self {
        // SAFETY: the caller grants the instructions.
        unsafe { _mm512_fmadd_ps(self, factor, addend) }
    }
}

impl Vector for __m256 {
    const COUNT: usize = 8;

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        // SAFETY: the caller grants the instructions.
        unsafe { _mm256_set1_ps(value) }
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller grants the elements.
        unsafe { _mm256_loadu_ps(from) }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller grants the elements.
        unsafe { _mm256_storeu_ps(to, self) }
    }

    #[inline(always)]
    unsafe fn multiply_add(self, factor: Self, addend: Self) -> Self {
        // SAFETY: the caller grants the instructions.
        unsafe { _mm256_fmadd_ps(self, factor, addend) }
    }
}

/// Two vectors of widened weights for input `2 * step + odd`, or `step` where inputs are not paired.
pub(super) trait Widen {
    /// The vectors.
    type Vector: Vector;
    /// Inputs of a step.
    const INPUTS: usize;
    /// Bytes of a step of a panel.
    const BYTES: usize;
    /// Whether elements are widened.
    const WIDENS: bool = true;
    /// # Safety
    /// The processor has the vector's instructions and F16C. `step` points to the outputs of two vectors in a step of a
    /// panel, which for vectors of 16 is a whole step and 64-byte aligned.
    unsafe fn widen(step: *const u8, odd: usize) -> [Self::Vector; 2];
}
