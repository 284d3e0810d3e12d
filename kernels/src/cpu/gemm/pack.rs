//! Packing of weights, once when a model is loaded.
//!
//! Weights `[out_features, in_features]` are packed as panels of [`PANEL`] outputs, in the order in which the
//! micro-kernels read them. For f16 and f32 a panel is `[input][output]`. For bf16 it is `[input pair][output][2]`: two
//! consecutive inputs of an output share a 32-bit word, which is the layout of the dot products and of AMX, and makes
//! widening a shift or a mask.

use half::{bf16, f16};
use rayon::prelude::*;

use crate::check::WeightShape;
use crate::cpu::aligned::AlignedBytes;
use crate::cpu::tensor::{Element, with_element};
use crate::dtype::DType;
use crate::error::KernelError;
use crate::host::HostTensor;

/// Outputs of a panel: two 512-bit vectors of `f32`.
pub const PANEL: usize = 32;

/// Inputs of an AMX tile of bf16: a cache line of a row of activations.
pub(super) const TILE_INPUTS: usize = 32;

/// A weight matrix in panels, with its logical shape `[out_features, in_features]`.
pub struct PackedWeights {
    pub(super) dtype: DType,
    /// The dtype of the panels: `dtype`, or bf16 if all elements are exact in it.
    pub(super) stored: DType,
    out_features: usize,
    in_features: usize,
    gated: bool,
    panel_bytes: usize,
    data: AlignedBytes,
}

impl PackedWeights {
    /// Stacks matrices of equal `in_features` and packs them in `run`; for f32 with `narrow`, in bf16 if all of them
    /// are stored in bf16.
    ///
    /// # Errors
    /// Shapes that do not match, or an element that is not finite after rounding to `run`.
    pub fn stacked(weights: &[HostTensor], run: DType, narrow: bool) -> Result<Self, KernelError> {
        let mut sources = Vec::new();
        for weight in weights {
            sources.extend(RowSource::all(weight, weights[0].shape())?);
        }
        Self::pack(&sources, run, narrow, false)
    }

    /// Packs a gate and an up projection so that the two values of a SwiGLU output are in one panel: the first half of
    /// a panel has gate outputs, the second half the up outputs with the same indices.
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
                if stored == DType::Bf16 && pack_pairs_panel(rows, bytemuck::cast_slice_mut(panel)) {
                    None
                } else {
                    with_element!(stored, E => pack_panel::<E>(rows, bytemuck::cast_slice_mut(panel)))
                }
            })
            .find_map_first(|non_finite| non_finite);
        if let Some((index, value)) = non_finite {
            return Err(KernelError::NotFinite { op: "prepare linear", index, value });
        }
        Ok(PackedWeights { dtype: run, stored, out_features: sources.len(), in_features, gated, panel_bytes, data })
    }

    /// Inputs of a panel: whole AMX tiles for bf16.
    fn padded_inputs(stored: DType, in_features: usize) -> usize {
        match stored {
            DType::Bf16 => in_features.next_multiple_of(TILE_INPUTS),
            DType::F16 | DType::F32 => in_features,
        }
    }

    /// Inputs that a micro-kernel reads: even for bf16, whose pairs share a word.
    pub(super) fn inputs(&self) -> usize {
        match self.stored {
            DType::Bf16 => self.in_features.next_multiple_of(2),
            DType::F16 | DType::F32 => self.in_features,
        }
    }

    /// Inputs of a panel with its padding of zeros: a multiple of [`TILE_INPUTS`] for bf16.
    #[cfg(target_arch = "x86_64")]
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

    /// The shape for argument checks.
    pub(crate) fn shape(&self) -> WeightShape {
        let PackedWeights { dtype, out_features, in_features, gated, .. } = *self;
        WeightShape { dtype, out_features, in_features, gated }
    }

    /// The size of the panels in bytes.
    pub fn bytes(&self) -> usize {
        self.data.as_slice().len()
    }

    /// Columns of the output: for gated weights, the rows of each of the two projections.
    pub fn out_features(&self) -> usize {
        self.out_features
    }
}

/// A row of a weight matrix, or the padding of a partial panel.
#[derive(Clone, Copy)]
enum RowSource<'a> {
    Row { dtype: DType, bytes: &'a [u8], first_index: usize },
    Padding,
}

impl<'a> RowSource<'a> {
    /// The rows of a matrix, whose number of columns must be that of the shape `like`.
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

/// Fills a panel of pairs from rows that are stored as bf16, without conversion. Returns false, with unspecified
/// contents of the panel, if a row has another dtype or an odd length, or if an element is not finite.
fn pack_pairs_panel(rows: &[RowSource<'_>], panel: &mut [u32]) -> bool {
    /// Words of a row that are packed before the next row: a cache line.
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
                // Adding one to an exponent of all ones (infinity or NaN) carries into the bit above it.
                not_finite |= ((*slot & 0x7f80_7f80) + 0x0080_0080) & 0x8000_8000;
            }
        }
    }
    not_finite == 0
}

/// Fills a panel. Returns the first element that is not finite, with its index in its matrix.
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

/// Input `input` of all outputs of a packed panel, widened.
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
