//! Epilogues: the operations on the accumulators of a matmul before they are stored. Each rounds once.

use std::marker::PhantomData;
use std::ops::Range;

use super::activation::ActivationFunction;
use super::pack::PANEL;
use super::prefetch::{LINE, prefetch};
use crate::cpu::tensor::{CpuTensor, Element};
use crate::dtype::DType;

/// No instructions for 16-bit types.
pub const PLAIN: u8 = 0;
/// AVX2 and F16C, which convert f16.
pub const F16C: u8 = 1;
/// AVX-512 BF16 besides [`F16C`]. Its instruction for rounding to bf16 treats subnormal values as zero, as the matmul
/// instructions do.
pub const BF16: u8 = 2;

/// Stores the accumulators of some rows and one panel.
pub trait Epilogue: Sync {
    /// Stores the result of `accumulators`, which belong to rows `row..row + accumulators.len()` and to the outputs of
    /// panel `panel`.
    ///
    /// `CONVERSIONS` are the instructions for 16-bit types of the processors that the caller is compiled for: [`PLAIN`],
    /// [`F16C`] or [`BF16`].
    fn store<const CONVERSIONS: u8>(&self, row: usize, panel: usize, accumulators: &[[f32; PANEL]]);

    /// Prefetches the lines of the output that [`Epilogue::store`] will write for `rows` rows. Without it, the epilogue of
    /// an output that no cache holds waits for memory, while the multiplications of its tile could hide that.
    fn prefetch(&self, row: usize, panel: usize, rows: usize);
}

/// An output tensor whose tasks write disjoint slices of rows.
pub struct OutputRows<'a, E> {
    start: *mut E,
    rows: usize,
    columns: usize,
    tensor: PhantomData<&'a mut CpuTensor>,
}

// SAFETY: tasks write disjoint slices; see `OutputRows::row_slice`.
unsafe impl<E: Send> Sync for OutputRows<'_, E> {}

impl<'a, E: Element> OutputRows<'a, E> {
    /// Borrows `tensor`, whose dtype must be `E`, for an operation.
    pub fn new(tensor: &'a mut CpuTensor) -> Self {
        let (rows, columns) = (tensor.rows(), tensor.columns());
        let elements: &mut [E] = bytemuck::cast_slice_mut(tensor.bytes_mut());
        OutputRows { start: elements.as_mut_ptr(), rows, columns, tensor: PhantomData }
    }

    /// Columns `from..to` of row `row`, clipped to the tensor's width.
    ///
    /// # Safety
    /// No two threads may have overlapping slices at the same time.
    #[inline(always)]
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn row_slice(&self, row: usize, from: usize, to: usize) -> &mut [E] {
        let to = to.min(self.columns);
        assert!(row < self.rows && from <= to, "output slice out of range");
        // SAFETY: the range lies inside the tensor, which is borrowed for `'a`; the caller keeps slices disjoint.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(row * self.columns + from), to - from) }
    }
}

impl<E: Element> OutputRows<'_, E> {
    /// Prefetches columns `from..from + columns` of `rows` rows.
    #[inline(always)]
    fn prefetch(&self, row: usize, rows: usize, from: usize, columns: usize) {
        for row in row..row + rows {
            let start = self.start.wrapping_add(row * self.columns + from).cast::<u8>();
            for line in (0..columns * size_of::<E>()).step_by(LINE) {
                prefetch::<true>(start.wrapping_add(line));
            }
        }
    }
}

/// The first `N` of `values` in `f32`, padded with zeros: loops over arrays vectorize, loops over slices of unknown
/// length have scalar tails. For `CONVERSIONS` see [`Epilogue::store`].
#[inline(always)]
fn widened<E: Element, const N: usize, const CONVERSIONS: u8>(values: &[E]) -> [f32; N] {
    let mut wide = [0.0; N];
    match values.first_chunk::<N>() {
        #[cfg(target_arch = "x86_64")]
        Some(values) if CONVERSIONS >= F16C && E::DTYPE != DType::F32 => {
            for (wide, values) in wide.as_chunks_mut::<8>().0.iter_mut().zip(values.as_chunks::<8>().0) {
                // SAFETY: the processor has AVX2 and F16C.
                unsafe { widen_8(values, wide) };
            }
        }
        Some(values) => {
            for (wide, value) in wide.iter_mut().zip(values) {
                *wide = value.to_f32();
            }
        }
        None => {
            for (wide, value) in wide.iter_mut().zip(values) {
                *wide = value.to_f32();
            }
        }
    }
    wide
}

/// Rounds `values`, a multiple of 16, into `out`, which may be shorter. For `CONVERSIONS` see [`Epilogue::store`].
#[inline(always)]
fn round_to<E: Element, const N: usize, const CONVERSIONS: u8>(values: [f32; N], out: &mut [E]) {
    match out.first_chunk_mut::<N>() {
        #[cfg(target_arch = "x86_64")]
        Some(out) if CONVERSIONS >= BF16 && E::DTYPE == DType::Bf16 => {
            for (values, out) in values.as_chunks::<16>().0.iter().zip(out.as_chunks_mut::<16>().0) {
                // SAFETY: the processor has AVX-512 BF16.
                unsafe { round_16(values, out) };
            }
        }
        #[cfg(target_arch = "x86_64")]
        Some(out) if CONVERSIONS >= F16C && E::DTYPE == DType::F16 => {
            for (values, out) in values.as_chunks::<8>().0.iter().zip(out.as_chunks_mut::<8>().0) {
                // SAFETY: the processor has F16C.
                unsafe { round_8_to_f16(values, out) };
            }
        }
        Some(out) => {
            for (out, value) in out.iter_mut().zip(&values) {
                *out = E::from_f32(*value);
            }
        }
        None => {
            for (out, value) in out.iter_mut().zip(&values) {
                let value = if CONVERSIONS >= BF16 && E::DTYPE == DType::Bf16 && value.is_subnormal() {
                    0.0f32.copysign(*value)
                } else {
                    *value
                };
                *out = E::from_f32(value);
            }
        }
    }
}

/// Rounds 16 values to `E`, which must be bf16.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512bf16")]
fn round_16<E: Element>(values: &[f32; 16], out: &mut [E; 16]) {
    use std::arch::x86_64::{__m256bh, __m256i, _mm256_storeu_si256, _mm512_cvtneps_pbh, _mm512_loadu_ps};
    const { assert!(size_of::<[half::bf16; 16]>() == size_of::<__m256i>()) };
    debug_assert!(E::DTYPE == DType::Bf16);
    // SAFETY: this reads 16 values and writes 16 elements of 2 bytes.
    unsafe {
        let rounded = _mm512_cvtneps_pbh(_mm512_loadu_ps(values.as_ptr()));
        _mm256_storeu_si256(out.as_mut_ptr().cast(), std::mem::transmute::<__m256bh, __m256i>(rounded));
    }
}

/// Rounds 8 values to `E`, which must be f16. The conversion of a single element checks the processor each time.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx2,f16c")]
fn round_8_to_f16<E: Element>(values: &[f32; 8], out: &mut [E; 8]) {
    use std::arch::x86_64::{__m128i, _MM_FROUND_TO_NEAREST_INT, _mm_storeu_si128, _mm256_cvtps_ph, _mm256_loadu_ps};
    const { assert!(size_of::<[half::f16; 8]>() == size_of::<__m128i>()) };
    debug_assert!(E::DTYPE == DType::F16);
    // SAFETY: this reads 8 values and writes 8 elements of 2 bytes.
    unsafe {
        let rounded = _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(_mm256_loadu_ps(values.as_ptr()));
        _mm_storeu_si128(out.as_mut_ptr().cast(), rounded);
    }
}

/// Widens 8 elements of `E`, which must be f16 or bf16. The compiler reads a row of the output element by element, because
/// the row is also written.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx2,f16c")]
fn widen_8<E: Element>(values: &[E; 8], wide: &mut [f32; 8]) {
    use std::arch::x86_64::{
        _mm_loadu_si128, _mm256_castsi256_ps, _mm256_cvtepu16_epi32, _mm256_cvtph_ps, _mm256_slli_epi32,
        _mm256_storeu_ps,
    };
    debug_assert!(size_of::<E>() == size_of::<u16>());
    // SAFETY: this reads 8 elements of 2 bytes and writes 8 values.
    unsafe {
        let values = _mm_loadu_si128(values.as_ptr().cast());
        let values = match E::DTYPE {
            DType::F16 => _mm256_cvtph_ps(values),
            _ => _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(values))),
        };
        _mm256_storeu_ps(wide.as_mut_ptr(), values);
    }
}

/// Adds two arrays element by element.
#[inline(always)]
fn add<const N: usize>(mut accumulators: [f32; N], terms: &[f32; N]) -> [f32; N] {
    for (acc, term) in accumulators.iter_mut().zip(terms) {
        *acc += term;
    }
    accumulators
}

/// `out = accumulators + bias`.
pub struct StoreEpilogue<'a, E> {
    /// The output, `[rows, out_features]`.
    pub out: OutputRows<'a, E>,
    /// One value for each output.
    pub bias: Option<&'a [f32]>,
}

impl<E: Element> Epilogue for StoreEpilogue<'_, E> {
    #[inline(always)]
    fn store<const CONVERSIONS: u8>(&self, row: usize, panel: usize, accumulators: &[[f32; PANEL]]) {
        let from = panel * PANEL;
        let bias = self.bias.map(|bias| widened::<f32, PANEL, PLAIN>(&bias[from..]));
        for (offset, accumulators) in accumulators.iter().enumerate() {
            // SAFETY: each (row, panel) belongs to one task.
            let out = unsafe { self.out.row_slice(row + offset, from, from + PANEL) };
            round_to::<E, PANEL, CONVERSIONS>(bias.map_or(*accumulators, |bias| add(*accumulators, &bias)), out);
        }
    }

    #[inline(always)]
    fn prefetch(&self, row: usize, panel: usize, rows: usize) {
        self.out.prefetch(row, rows, panel * PANEL, PANEL);
    }
}

/// `[query | key_value] = accumulators + bias`, of which the columns `columns` are stored.
pub struct QkvEpilogue<'a, E> {
    /// The queries, the first outputs.
    pub query: OutputRows<'a, E>,
    /// The other outputs.
    pub key_value: OutputRows<'a, E>,
    /// Columns of the queries.
    pub query_width: usize,
    /// The outputs that are stored.
    pub columns: Range<usize>,
    /// One value for each output.
    pub bias: Option<&'a [f32]>,
}

impl<E: Element> Epilogue for QkvEpilogue<'_, E> {
    #[inline(always)]
    fn store<const CONVERSIONS: u8>(&self, row: usize, panel: usize, accumulators: &[[f32; PANEL]]) {
        let from = panel * PANEL;
        let stored = from.max(self.columns.start)..(from + PANEL).min(self.columns.end);
        let boundary = self.query_width.clamp(stored.start, stored.end.max(stored.start));
        let bias = self.bias.map(|bias| widened::<f32, PANEL, PLAIN>(&bias[from..]));
        for (offset, accumulators) in accumulators.iter().enumerate() {
            let mut rounded = [E::from_f32(0.0); PANEL];
            round_to::<E, PANEL, CONVERSIONS>(
                bias.map_or(*accumulators, |bias| add(*accumulators, &bias)),
                &mut rounded,
            );
            let (queries, keys_values) = (stored.start..boundary, boundary..stored.end);
            if !queries.is_empty() {
                // SAFETY: each (row, panel) belongs to one task.
                let out = unsafe { self.query.row_slice(row + offset, queries.start, queries.end) };
                out.copy_from_slice(&rounded[queries.start - from..queries.end - from]);
            }
            if !keys_values.is_empty() {
                let (first, end) = (keys_values.start - self.query_width, keys_values.end - self.query_width);
                // SAFETY: as above.
                let out = unsafe { self.key_value.row_slice(row + offset, first, end) };
                out.copy_from_slice(&rounded[keys_values.start - from..keys_values.end - from]);
            }
        }
    }

    #[inline(always)]
    fn prefetch(&self, row: usize, panel: usize, rows: usize) {
        let from = panel * PANEL;
        // A panel with columns of both is prefetched in part: a prefetch is a hint.
        if from < self.query_width {
            self.query.prefetch(row, rows, from, PANEL.min(self.query_width - from));
        } else {
            self.key_value.prefetch(row, rows, from - self.query_width, PANEL);
        }
    }
}

/// `stream = stream + (accumulators + bias)`.
pub struct ResidualEpilogue<'a, E> {
    /// The residual stream, `[rows, out_features]`.
    pub stream: OutputRows<'a, E>,
    /// One value for each output.
    pub bias: Option<&'a [f32]>,
}

impl<E: Element> Epilogue for ResidualEpilogue<'_, E> {
    #[inline(always)]
    fn store<const CONVERSIONS: u8>(&self, row: usize, panel: usize, accumulators: &[[f32; PANEL]]) {
        let from = panel * PANEL;
        let bias = self.bias.map(|bias| widened::<f32, PANEL, PLAIN>(&bias[from..]));
        for (offset, accumulators) in accumulators.iter().enumerate() {
            // SAFETY: each (row, panel) belongs to one task.
            let stream = unsafe { self.stream.row_slice(row + offset, from, from + PANEL) };
            let accumulators = bias.map_or(*accumulators, |bias| add(*accumulators, &bias));
            round_to::<E, PANEL, CONVERSIONS>(add(accumulators, &widened::<E, PANEL, CONVERSIONS>(stream)), stream);
        }
    }

    #[inline(always)]
    fn prefetch(&self, row: usize, panel: usize, rows: usize) {
        self.stream.prefetch(row, rows, panel * PANEL, PANEL);
    }
}

/// `out = activation(accumulators + bias)`.
pub struct ActivatedEpilogue<'a, E, A> {
    /// The output, `[rows, out_features]`.
    pub out: OutputRows<'a, E>,
    /// One value for each output.
    pub bias: Option<&'a [f32]>,
    /// The activation.
    pub activation: PhantomData<A>,
}

impl<E: Element, A: ActivationFunction> Epilogue for ActivatedEpilogue<'_, E, A> {
    #[inline(always)]
    fn store<const CONVERSIONS: u8>(&self, row: usize, panel: usize, accumulators: &[[f32; PANEL]]) {
        let from = panel * PANEL;
        let bias = self.bias.map(|bias| widened::<f32, PANEL, PLAIN>(&bias[from..]));
        for (offset, accumulators) in accumulators.iter().enumerate() {
            // SAFETY: each (row, panel) belongs to one task.
            let out = unsafe { self.out.row_slice(row + offset, from, from + PANEL) };
            let mut values = bias.map_or(*accumulators, |bias| add(*accumulators, &bias));
            for value in &mut values {
                *value = A::apply(*value);
            }
            round_to::<E, PANEL, CONVERSIONS>(values, out);
        }
    }

    #[inline(always)]
    fn prefetch(&self, row: usize, panel: usize, rows: usize) {
        self.out.prefetch(row, rows, panel * PANEL, PANEL);
    }
}

/// `out = activation(gate + gate bias) * (up + up bias)`; a panel has 16 gate outputs and then 16 up outputs.
pub struct GatedEpilogue<'a, E, A> {
    /// The output, `[rows, out_features]`.
    pub out: OutputRows<'a, E>,
    /// Gate biases, then up biases.
    pub bias: Option<(&'a [f32], &'a [f32])>,
    /// The activation.
    pub activation: PhantomData<A>,
}

impl<E: Element, A: ActivationFunction> Epilogue for GatedEpilogue<'_, E, A> {
    #[inline(always)]
    fn store<const CONVERSIONS: u8>(&self, row: usize, panel: usize, accumulators: &[[f32; PANEL]]) {
        const HALF: usize = PANEL / 2;
        let from = panel * HALF;
        let bias = self
            .bias
            .map(|(gate, up)| (widened::<f32, HALF, PLAIN>(&gate[from..]), widened::<f32, HALF, PLAIN>(&up[from..])));
        for (offset, accumulators) in accumulators.iter().enumerate() {
            // SAFETY: each (row, panel) belongs to one task.
            let out = unsafe { self.out.row_slice(row + offset, from, from + HALF) };
            let (gates, ups) = accumulators.split_at(HALF);
            let (mut gates, mut ups) = (widened::<f32, HALF, PLAIN>(gates), widened::<f32, HALF, PLAIN>(ups));
            if let Some((gate, up)) = &bias {
                (gates, ups) = (add(gates, gate), add(ups, up));
            }
            let mut gated = [0.0f32; HALF];
            for (value, (gate, up)) in gated.iter_mut().zip(gates.iter().zip(&ups)) {
                *value = A::apply(*gate) * up;
            }
            round_to::<E, HALF, CONVERSIONS>(gated, out);
        }
    }

    #[inline(always)]
    fn prefetch(&self, row: usize, panel: usize, rows: usize) {
        self.out.prefetch(row, rows, panel * (PANEL / 2), PANEL / 2);
    }
}
