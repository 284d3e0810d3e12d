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
        match self.bias {
            Some(bias) => {
                for ((out, value), bias) in out.iter_mut().zip(values).zip(&bias[from..]) {
                    *out = E::from_f32(value + bias);
                }
            }
            None => {
                for (out, value) in out.iter_mut().zip(values) {
                    *out = E::from_f32(*value);
                }
            }
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
    fn store(&self, row: usize, panel: usize, values: &[f32; PANEL]) {
        let from = panel * PANEL;
        // SAFETY: each (row, panel) is one task's alone.
        let stream = unsafe { self.stream.piece(row, from, from + PANEL) };
        match self.bias {
            Some(bias) => {
                for ((stream, value), bias) in stream.iter_mut().zip(values).zip(&bias[from..]) {
                    *stream = E::from_f32(stream.to_f32() + (value + bias));
                }
            }
            None => {
                for (stream, value) in stream.iter_mut().zip(values) {
                    *stream = E::from_f32(stream.to_f32() + value);
                }
            }
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
    fn store(&self, row: usize, panel: usize, values: &[f32; PANEL]) {
        const HALF: usize = PANEL / 2;
        let from = panel * HALF;
        // SAFETY: each (row, panel) is one task's alone.
        let out = unsafe { self.out.piece(row, from, from + HALF) };
        let mut sums = *values;
        if let Some((gate, up)) = self.bias {
            for (lane, (gate, up)) in gate[from..].iter().zip(&up[from..]).take(out.len()).enumerate() {
                sums[lane] += gate;
                sums[HALF + lane] += up;
            }
        }
        let mut products = [0.0f32; HALF];
        for lane in 0..HALF {
            products[lane] = silu(sums[lane]) * sums[HALF + lane];
        }
        for (out, product) in out.iter_mut().zip(products) {
            *out = E::from_f32(product);
        }
    }
}
