//! Packing: weights once when a model is loaded, activations for each product.
//!
//! Weights `[out, in]` become panels of [`PANEL`] outputs. Inside a panel the elements lie in the order the
//! micro-kernels read them: for bf16 two consecutive inputs of one output share a 32-bit word, which is what dot
//! products of pairs and tiles want, and makes widening a shift or a mask; for f16 and f32 one input of all outputs follows the other. Activations become panels of
//! [`ROWS`] rows, in `f32`, one input of all rows after the other.

use half::{bf16, f16};
use rayon::prelude::*;

use crate::check::WeightShape;
use crate::cpu::aligned::AlignedBytes;
use crate::cpu::tensor::{CpuTensor, Element, with_element};
use crate::dtype::DType;
use crate::error::KernelError;
use crate::host::HostTensor;

/// Outputs of one panel: two 512-bit vectors of `f32`.
pub const PANEL: usize = 32;

/// Rows of one tile: with [`PANEL`] outputs its 24 accumulators and 3 operands fit 32 vector registers.
pub const ROWS: usize = 12;

/// Inputs of one tile of bf16: a cache line of an activation row.
pub(super) const TILE_INPUTS: usize = 32;

/// A weight matrix in panels.
pub struct PackedWeights {
    pub(super) dtype: DType,
    /// The type of the elements in the panels: `dtype`, or bf16 where that holds all of them.
    pub(super) stored: DType,
    out_features: usize,
    in_features: usize,
    gated: bool,
    panel_bytes: usize,
    data: AlignedBytes,
}

impl PackedWeights {
    /// Stacks matrices of equal `in_features` and packs them in `run`, or, for f32 with `narrow`, in bf16 where all of
    /// them are stored so already.
    ///
    /// # Errors
    /// Shapes that do not fit, or an element that is not finite once rounded to `run`.
    pub fn stacked(weights: &[HostTensor], run: DType, narrow: bool) -> Result<Self, KernelError> {
        let mut sources = Vec::new();
        for weight in weights {
            sources.extend(RowSource::all(weight, weights[0].shape())?);
        }
        Self::pack(&sources, run, narrow, false)
    }

    /// Packs a gate and an up projection so that both halves of a SwiGLU pair meet in one panel: the first half of a
    /// panel holds gate outputs, the second the up outputs of the same index.
    ///
    /// # Errors
    /// As [`PackedWeights::stacked`], or when the two shapes differ.
    pub fn gated(gate: &HostTensor, up: &HostTensor, run: DType, narrow: bool) -> Result<Self, KernelError> {
        if gate.shape() != up.shape() {
            return Err(KernelError::shape("gated linear", format!("gate {:?}, up {:?}", gate.shape(), up.shape())));
        }
        let gates: Vec<_> = RowSource::all(gate, gate.shape())?.collect();
        let ups: Vec<_> = RowSource::all(up, gate.shape())?.collect();
        let mut sources = Vec::with_capacity(2 * gates.len());
        let half_panel = PANEL / 2;
        for (gate_rows, up_rows) in gates.chunks(half_panel).zip(ups.chunks(half_panel)) {
            for rows in [gate_rows, up_rows] {
                sources.extend_from_slice(rows);
                sources.resize(sources.len().next_multiple_of(half_panel), RowSource::Padding);
            }
        }
        let mut packed = Self::pack(&sources, run, narrow, true)?;
        packed.out_features = gates.len();
        Ok(packed)
    }

    fn pack(sources: &[RowSource<'_>], run: DType, narrow: bool, gated: bool) -> Result<Self, KernelError> {
        let stored =
            if run == DType::F32 && narrow && sources.iter().all(RowSource::is_bf16) { DType::Bf16 } else { run };
        let in_features = sources.iter().find_map(RowSource::columns).unwrap_or(0);
        let panels = sources.len().div_ceil(PANEL);
        let panel_bytes = PANEL * Self::padded_inputs(stored, in_features) * stored.size();
        let mut data = AlignedBytes::zeroed("prepare linear", panels * panel_bytes)?;
        let non_finite = data
            .as_mut_slice()
            .par_chunks_mut(panel_bytes.max(1))
            .zip(sources.par_chunks(PANEL))
            .map(|(panel, rows)| {
                match stored == DType::Bf16 && pack_pairs_panel(rows, bytemuck::cast_slice_mut(panel)) {
                    true => None,
                    false => with_element!(stored, E => pack_panel::<E>(rows, bytemuck::cast_slice_mut(panel))),
                }
            })
            .find_map_first(|bad| bad);
        if let Some((index, value)) = non_finite {
            return Err(KernelError::NotFinite { op: "prepare linear", index, value });
        }
        Ok(PackedWeights { dtype: run, stored, out_features: sources.len(), in_features, gated, panel_bytes, data })
    }

    /// Inputs of a panel: whole tiles for bf16.
    fn padded_inputs(stored: DType, in_features: usize) -> usize {
        match stored {
            DType::Bf16 => in_features.next_multiple_of(TILE_INPUTS),
            DType::F16 | DType::F32 => in_features,
        }
    }

    /// Inputs a micro-kernel of fused multiply-adds walks through: even for bf16, whose pairs share a word.
    pub(super) fn inputs(&self) -> usize {
        match self.stored {
            DType::Bf16 => self.in_features.next_multiple_of(2),
            DType::F16 | DType::F32 => self.in_features,
        }
    }

    /// Inputs of a panel with its padding, which is zeros: a multiple of [`TILE_INPUTS`] for bf16.
    pub(super) fn panel_inputs(&self) -> usize {
        Self::padded_inputs(self.stored, self.in_features)
    }

    /// The number of panels.
    pub(super) fn panels(&self) -> usize {
        self.data.as_slice().len().checked_div(self.panel_bytes).unwrap_or(0)
    }

    /// The bytes of panel `panel`.
    pub(super) fn panel(&self, panel: usize) -> &[u8] {
        &self.data.as_slice()[panel * self.panel_bytes..(panel + 1) * self.panel_bytes]
    }

    /// The storage type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Whether the outputs are pairs of a gate and an up projection.
    pub fn is_gated(&self) -> bool {
        self.gated
    }

    /// What argument checks ask for.
    pub(crate) fn shape(&self) -> WeightShape {
        let PackedWeights { dtype, out_features, in_features, gated, .. } = *self;
        WeightShape { dtype, out_features, in_features, gated }
    }

    /// Memory taken, in bytes.
    pub fn bytes(&self) -> usize {
        self.data.as_slice().len()
    }

    /// The number of outputs of a product.
    pub fn out_features(&self) -> usize {
        self.out_features
    }

    /// The number of inputs of a product.
    pub fn in_features(&self) -> usize {
        self.in_features
    }
}

/// One row of a weight matrix, or none where a panel is not full.
#[derive(Clone, Copy)]
enum RowSource<'a> {
    Row { dtype: DType, bytes: &'a [u8], first_index: usize },
    Padding,
}

impl<'a> RowSource<'a> {
    /// The rows of a matrix whose inputs must match those of `like`.
    fn all(weight: &'a HostTensor, like: &[usize]) -> Result<impl Iterator<Item = RowSource<'a>>, KernelError> {
        let (&[_, columns], &[_, expected]) = (weight.shape(), like) else {
            return Err(KernelError::shape("prepare linear", format!("not a matrix: {:?}", weight.shape())));
        };
        if columns != expected || columns == 0 {
            return Err(KernelError::shape(
                "prepare linear",
                format!("{:?} does not stack on {like:?}: input features differ or are 0", weight.shape()),
            ));
        }
        let dtype = weight.dtype();
        Ok(weight.bytes().chunks_exact(columns * dtype.size()).enumerate().map(move |(row, bytes)| RowSource::Row {
            dtype,
            bytes,
            first_index: row * columns,
        }))
    }

    fn is_bf16(&self) -> bool {
        matches!(self, RowSource::Row { dtype: DType::Bf16, .. } | RowSource::Padding)
    }

    fn columns(&self) -> Option<usize> {
        match self {
            RowSource::Row { dtype, bytes, .. } => Some(bytes.len() / dtype.size()),
            RowSource::Padding => None,
        }
    }
}

/// Fills one panel of pairs from rows that are stored as bf16 already, with no conversion. Returns whether it did: not
/// where a row is of another type or of odd length, nor where an element is not finite.
fn pack_pairs_panel(rows: &[RowSource<'_>], panel: &mut [u32]) -> bool {
    /// Words of a row that are packed before the next row is looked at: a cache line.
    const BLOCK: usize = 16;
    let is_packable = |row: &RowSource<'_>| match row {
        RowSource::Row { dtype, bytes, .. } => *dtype == DType::Bf16 && bytes.len().is_multiple_of(size_of::<u32>()),
        RowSource::Padding => true,
    };
    if !rows.iter().all(is_packable) {
        return false;
    }
    let mut not_finite = 0;
    for (block, panel) in panel.chunks_mut(BLOCK * PANEL).enumerate() {
        for (lane, row) in rows.iter().enumerate() {
            let RowSource::Row { bytes, .. } = row else { continue };
            let words = bytes.as_chunks::<{ size_of::<u32>() }>().0;
            let from = (block * BLOCK).min(words.len());
            let words = &words[from..(from + BLOCK).min(words.len())];
            for (slot, word) in panel[lane..].iter_mut().step_by(PANEL).zip(words) {
                *slot = u32::from_ne_bytes(*word);
                // An exponent of all ones carries into the bit above it.
                not_finite |= ((*slot & 0x7f80_7f80) + 0x0080_0080) & 0x8000_8000;
            }
        }
    }
    not_finite == 0
}

/// Fills one panel and returns the first element that is not finite, with its index in its matrix.
fn pack_panel<E: Element>(rows: &[RowSource<'_>], panel: &mut [E]) -> Option<(usize, f32)> {
    let paired = E::DTYPE == DType::Bf16;
    let mut values = Vec::new();
    for (lane, source) in rows.iter().enumerate() {
        let RowSource::Row { dtype, bytes, first_index } = source else { continue };
        values.resize(bytes.len() / dtype.size(), 0.0);
        dtype.widen(bytes, &mut values);
        for (input, value) in values.iter().enumerate() {
            let element = E::from_f32(*value);
            if !element.to_f32().is_finite() {
                return Some((first_index + input, element.to_f32()));
            }
            let slot = if paired { (input / 2 * PANEL + lane) * 2 + input % 2 } else { input * PANEL + lane };
            panel[slot] = element;
        }
    }
    None
}

/// Packs rows `from..from + count` of `x` into `packed` and zeroes the padding inputs: `[panel][input][ROWS]` in `f32`,
/// or, of bf16 for dot products, `[panel][pair][ROWS]`.
pub(super) fn pack_activations(
    x: &CpuTensor,
    from: usize,
    count: usize,
    words: usize,
    pairs: bool,
    packed: &mut [u32],
) {
    packed.par_chunks_mut(words * ROWS).enumerate().for_each(|(panel, chunk)| {
        let first = panel * ROWS;
        let rows = ROWS.min(count.saturating_sub(first));
        match pairs {
            true => pack_pairs(x, from + first, rows, chunk),
            false => with_element!(x.dtype(), E => pack_rows::<E>(x, from + first, rows, chunk)),
        }
    });
}

fn pack_rows<E: Element>(x: &CpuTensor, from: usize, rows: usize, chunk: &mut [u32]) {
    for row in 0..rows {
        let source: &[E] = bytemuck::cast_slice(x.row(from + row));
        for (slot, value) in chunk[row..].iter_mut().step_by(ROWS).zip(source) {
            *slot = value.to_f32().to_bits();
        }
    }
    for slot in &mut chunk[x.columns() * ROWS..] {
        *slot = 0;
    }
}

/// The input with the even index lies in the lower half of a word, where `vdpbf16ps` has the first of a pair.
fn pack_pairs(x: &CpuTensor, from: usize, rows: usize, chunk: &mut [u32]) {
    for row in 0..rows {
        let source: &[u16] = bytemuck::cast_slice(x.row(from + row));
        let (pairs, single) = source.as_chunks::<2>();
        let single = single.first().map(|single| [*single, 0]);
        for (slot, [even, odd]) in chunk[row..].iter_mut().step_by(ROWS).zip(pairs.iter().chain(&single)) {
            *slot = u32::from(*even) | u32::from(*odd) << 16;
        }
    }
}

/// Reads input `input` of all outputs of a packed panel, widened; the micro-kernel that needs no vector type.
#[inline(always)]
pub(super) fn widen_inputs(dtype: DType, panel: &[u8], input: usize) -> [f32; PANEL] {
    let mut values = [0.0; PANEL];
    match dtype {
        DType::F32 => {
            let elements: &[f32] = bytemuck::cast_slice(panel);
            values.copy_from_slice(&elements[input * PANEL..(input + 1) * PANEL]);
        }
        DType::F16 => {
            let elements: &[f16] = bytemuck::cast_slice(panel);
            for (value, element) in values.iter_mut().zip(&elements[input * PANEL..]) {
                *value = element.to_f32();
            }
        }
        DType::Bf16 => {
            let elements: &[bf16] = bytemuck::cast_slice(panel);
            let pairs = &elements[input / 2 * PANEL * 2..];
            for (lane, value) in values.iter_mut().enumerate() {
                *value = Element::to_f32(pairs[lane * 2 + input % 2]);
            }
        }
    }
    values
}
