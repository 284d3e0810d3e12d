//! What happens to a row of sums before it is stored: bias, residual, SwiGLU. Each rounds once.

use std::marker::PhantomData;

use super::pack::PANEL;
use crate::cpu::math::silu;
use crate::cpu::tensor::{CpuTensor, Element};
use crate::dtype::DType;

/// Consumes the sums of some rows and one panel.
pub trait Epilogue: Sync {
    /// Stores what becomes of `sums`, those of rows `row..row + sums.len()` and of the outputs of panel `panel`.
    ///
    /// `DOTS` says that this is compiled into a function for processors with AVX-512 BF16, whose one instruction then
    /// rounds where the storage type is bf16. It takes subnormal sums for zero, as the products before it do.
    fn store<const DOTS: bool>(&self, row: usize, panel: usize, sums: &[[f32; PANEL]]);
}

/// An output tensor that tasks write in disjoint pieces.
pub struct OutputRows<'a, E> {
    start: *mut E,
    rows: usize,
    columns: usize,
    tensor: PhantomData<&'a mut CpuTensor>,
}

// SAFETY: tasks write disjoint pieces; see `OutputRows::piece`.
unsafe impl<E: Send> Sync for OutputRows<'_, E> {}

impl<'a, E: Element> OutputRows<'a, E> {
    /// Takes `tensor`, whose type must be `E`'s, for the time of an operation.
    pub fn new(tensor: &'a mut CpuTensor) -> Self {
        let (rows, columns) = (tensor.rows(), tensor.columns());
        let elements: &mut [E] = bytemuck::cast_slice_mut(tensor.bytes_mut());
        OutputRows { start: elements.as_mut_ptr(), rows, columns, tensor: PhantomData }
    }

    /// Columns `from..to` of row `row`, clipped to the tensor's width.
    ///
    /// # Safety
    /// No two threads may hold overlapping pieces at a time.
    #[inline(always)]
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn piece(&self, row: usize, from: usize, to: usize) -> &mut [E] {
        let to = to.min(self.columns);
        assert!(row < self.rows && from <= to, "output piece out of range");
        // SAFETY: the range lies inside the tensor, which is borrowed for `'a`; the caller keeps pieces disjoint.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(row * self.columns + from), to - from) }
    }
}

/// The first `N` of `values`, with zeros where there are fewer: loops over arrays vectorise, those over slices of
/// unknown length leave scalar tails.
#[inline(always)]
fn widened<E: Element, const N: usize>(values: &[E]) -> [f32; N] {
    let mut wide = [0.0; N];
    match values.first_chunk::<N>() {
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

/// Rounds `values`, a multiple of 16, into `out`, which may be shorter. For `DOTS` see [`Epilogue::store`].
#[inline(always)]
fn put<E: Element, const N: usize, const DOTS: bool>(values: [f32; N], out: &mut [E]) {
    match out.first_chunk_mut::<N>() {
        #[cfg(target_arch = "x86_64")]
        Some(out) if DOTS && E::DTYPE == DType::Bf16 => {
            for (values, out) in values.as_chunks::<16>().0.iter().zip(out.as_chunks_mut::<16>().0) {
                // SAFETY: whoever asks for `DOTS` has AVX-512 BF16.
                unsafe { round_16(values, out) };
            }
        }
        Some(out) => {
            for (out, value) in out.iter_mut().zip(&values) {
                *out = E::from_f32(*value);
            }
        }
        None => {
            for (out, value) in out.iter_mut().zip(&values) {
                let value = if DOTS && E::DTYPE == DType::Bf16 && value.is_subnormal() {
                    0.0f32.copysign(*value)
                } else {
                    *value
                };
                *out = E::from_f32(value);
            }
        }
    }
}

/// Rounds to `E`, which must be bf16.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512bf16")]
fn round_16<E: Element>(values: &[f32; 16], out: &mut [E; 16]) {
    use std::arch::x86_64::{__m256bh, __m256i, _mm256_storeu_si256, _mm512_cvtneps_pbh, _mm512_loadu_ps};
    const { assert!(size_of::<[half::bf16; 16]>() == size_of::<__m256i>()) };
    debug_assert!(E::DTYPE == DType::Bf16);
    // SAFETY: 16 values are read, and 16 elements of 2 bytes written.
    unsafe {
        let rounded = _mm512_cvtneps_pbh(_mm512_loadu_ps(values.as_ptr()));
        _mm256_storeu_si256(out.as_mut_ptr().cast(), std::mem::transmute::<__m256bh, __m256i>(rounded));
    }
}

/// Adds `terms` to `sums`, lane by lane.
#[inline(always)]
fn add<const N: usize>(mut sums: [f32; N], terms: &[f32; N]) -> [f32; N] {
    for (sum, term) in sums.iter_mut().zip(terms) {
        *sum += term;
    }
    sums
}

/// `out = sums + bias`.
pub struct Store<'a, E> {
    /// Where the result goes.
    pub out: OutputRows<'a, E>,
    /// One value an output.
    pub bias: Option<&'a [f32]>,
}

impl<E: Element> Epilogue for Store<'_, E> {
    #[inline(always)]
    fn store<const DOTS: bool>(&self, row: usize, panel: usize, sums: &[[f32; PANEL]]) {
        let from = panel * PANEL;
        let bias = self.bias.map(|bias| widened::<f32, PANEL>(&bias[from..]));
        for (offset, sums) in sums.iter().enumerate() {
            // SAFETY: each (row, panel) is one task's alone.
            let out = unsafe { self.out.piece(row + offset, from, from + PANEL) };
            put::<E, PANEL, DOTS>(bias.map_or(*sums, |bias| add(*sums, &bias)), out);
        }
    }
}

/// `stream = stream + (sums + bias)`.
pub struct AddToStream<'a, E> {
    /// The residual stream.
    pub stream: OutputRows<'a, E>,
    /// One value an output.
    pub bias: Option<&'a [f32]>,
}

impl<E: Element> Epilogue for AddToStream<'_, E> {
    #[inline(always)]
    fn store<const DOTS: bool>(&self, row: usize, panel: usize, sums: &[[f32; PANEL]]) {
        let from = panel * PANEL;
        let bias = self.bias.map(|bias| widened::<f32, PANEL>(&bias[from..]));
        for (offset, sums) in sums.iter().enumerate() {
            // SAFETY: each (row, panel) is one task's alone.
            let stream = unsafe { self.stream.piece(row + offset, from, from + PANEL) };
            let sums = bias.map_or(*sums, |bias| add(*sums, &bias));
            put::<E, PANEL, DOTS>(add(sums, &widened(stream)), stream);
        }
    }
}

/// `out = silu(gate sums + gate bias) * (up sums + up bias)`; a panel holds 16 gate and then 16 up outputs.
pub struct SwiGlu<'a, E> {
    /// Where the result goes.
    pub out: OutputRows<'a, E>,
    /// Gate biases, then up biases.
    pub bias: Option<(&'a [f32], &'a [f32])>,
}

impl<E: Element> Epilogue for SwiGlu<'_, E> {
    #[inline(always)]
    fn store<const DOTS: bool>(&self, row: usize, panel: usize, sums: &[[f32; PANEL]]) {
        const HALF: usize = PANEL / 2;
        let from = panel * HALF;
        let bias = self.bias.map(|(gate, up)| (widened::<f32, HALF>(&gate[from..]), widened(&up[from..])));
        for (offset, sums) in sums.iter().enumerate() {
            // SAFETY: each (row, panel) is one task's alone.
            let out = unsafe { self.out.piece(row + offset, from, from + HALF) };
            let (gates, ups) = sums.split_at(HALF);
            let (mut gates, mut ups) = (widened::<f32, HALF>(gates), widened::<f32, HALF>(ups));
            if let Some((gate, up)) = &bias {
                (gates, ups) = (add(gates, gate), add(ups, up));
            }
            let mut products = [0.0f32; HALF];
            for (product, (gate, up)) in products.iter_mut().zip(gates.iter().zip(&ups)) {
                *product = silu(*gate) * up;
            }
            put::<E, HALF, DOTS>(products, out);
        }
    }
}
