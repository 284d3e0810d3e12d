//! What happens to a row of sums before it is stored: bias, residual, SwiGLU. Each rounds once.

use std::marker::PhantomData;

use super::pack::PANEL;
use crate::cpu::math::silu;
use crate::cpu::tensor::{CpuTensor, Element};

/// Consumes the sums of one row and one panel.
pub trait Epilogue: Sync {
    /// Stores what becomes of `values`, the sums of row `row` and of the outputs of panel `panel`.
    fn store(&self, row: usize, panel: usize, values: &[f32; PANEL]);
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

/// Rounds `values` into `out`, which may be shorter.
#[inline(always)]
fn put<E: Element, const N: usize>(values: [f32; N], out: &mut [E]) {
    // Loops and not `array::map`, which is compiled apart, without the vector instructions of its caller.
    let mut rounded = [E::zeroed(); N];
    for (rounded, value) in rounded.iter_mut().zip(&values) {
        *rounded = E::from_f32(*value);
    }
    match out.first_chunk_mut::<N>() {
        Some(out) => *out = rounded,
        None => out.copy_from_slice(&rounded[..out.len()]),
    }
}

/// `sums + bias`.
#[inline(always)]
fn biased<const N: usize>(mut sums: [f32; N], bias: Option<&[f32]>) -> [f32; N] {
    if let Some(bias) = bias {
        for (sum, bias) in sums.iter_mut().zip(widened::<f32, N>(bias)) {
            *sum += bias;
        }
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
    fn store(&self, row: usize, panel: usize, values: &[f32; PANEL]) {
        let from = panel * PANEL;
        // SAFETY: each (row, panel) is one task's alone.
        let out = unsafe { self.out.piece(row, from, from + PANEL) };
        put(biased(*values, self.bias.map(|bias| &bias[from..])), out);
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
    fn store(&self, row: usize, panel: usize, values: &[f32; PANEL]) {
        let from = panel * PANEL;
        // SAFETY: each (row, panel) is one task's alone.
        let stream = unsafe { self.stream.piece(row, from, from + PANEL) };
        let mut sums = biased(*values, self.bias.map(|bias| &bias[from..]));
        for (sum, stream) in sums.iter_mut().zip(widened::<E, PANEL>(stream)) {
            *sum += stream;
        }
        put(sums, stream);
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
    fn store(&self, row: usize, panel: usize, values: &[f32; PANEL]) {
        const HALF: usize = PANEL / 2;
        let from = panel * HALF;
        // SAFETY: each (row, panel) is one task's alone.
        let out = unsafe { self.out.piece(row, from, from + HALF) };
        let (gates, ups) = values.split_at(HALF);
        let gates = biased(widened::<f32, HALF>(gates), self.bias.map(|(gate, _)| &gate[from..]));
        let ups = biased(widened::<f32, HALF>(ups), self.bias.map(|(_, up)| &up[from..]));
        let mut products = [0.0f32; HALF];
        for (product, (gate, up)) in products.iter_mut().zip(gates.iter().zip(&ups)) {
            *product = silu(*gate) * up;
        }
        put(products, out);
    }
}
