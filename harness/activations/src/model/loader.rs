//! A block's weights, found by their names, checked, cut out of stacked tensors and prepared for the backend.

use std::cell::RefCell;

use actbench_kernels::{Backend, DType, HostTensor, KernelError};

use super::decoder::{DecoderBlock, Experts, FeedForward, Mlp, Norm, Projection, folds_norms};
use super::spec::{DecoderSpec, NormKind};
use super::tensor_names::Part;
use super::tensor_shapes::{PartShape, part_shape, part_view, stored_shape};
use super::tensors::embedding_name;
use super::weights::Weights;
use crate::error::{Error, Result};

/// Finds, checks and prepares weights.
pub(super) struct WeightLoader<'a, B: Backend> {
    backend: &'a B,
    spec: &'a DecoderSpec,
    weights: &'a Weights,
    dtype: DType,
    /// What was prepared since the last [`WeightLoader::verify`], in that order.
    unverified: RefCell<Vec<Prepared>>,
    /// The last stacked tensor, by name: its parts are asked for one after the other, and a synthetic one is generated each time.
    stacked: RefCell<Option<(String, HostTensor)>>,
}

/// Weights whose elements a backend may check later. Their tensors are found again for an error: held until then, synthetic
/// ones would take the memory of the whole model.
enum Prepared {
    /// An embedding table, by name, and its rows.
    Table(String, usize),
    /// A projection.
    Weight(Place, Part),
}

/// A block, or an expert of it: parts that are of no expert have the number 0.
#[derive(Clone, Copy)]
struct Place {
    layer: usize,
    expert: usize,
}

impl Place {
    fn block(layer: usize) -> Self {
        Place { layer, expert: 0 }
    }
}

/// A part of a stored tensor.
struct LocatedPart {
    /// The name of the stored tensor.
    name: String,
    /// The stored tensor, whose pages are released when the part is prepared.
    whole: HostTensor,
    part: HostTensor,
}

impl<'a, B: Backend> WeightLoader<'a, B> {
    /// Loads weights for `backend`, converted to `dtype`.
    pub(super) fn new(backend: &'a B, spec: &'a DecoderSpec, weights: &'a Weights, dtype: DType) -> Self {
        WeightLoader { backend, spec, weights, dtype, unverified: RefCell::default(), stacked: RefCell::new(None) }
    }

    /// The prepared embedding table.
    pub(super) fn embedding(&self) -> Result<B::Embedding> {
        let (name, table) = embedding_table(self.spec, self.weights)?;
        self.table(name, table)
    }

    /// The prepared table of learned positions, if the model has one.
    pub(super) fn positions(&self) -> Result<Option<B::Embedding>> {
        let Some((name, table)) = position_table(self.spec, self.weights)? else { return Ok(None) };
        self.table(name, table).map(Some)
    }

    fn table(&self, name: &str, table: HostTensor) -> Result<B::Embedding> {
        let prepared = self.backend.prepare_embedding(&table, self.dtype);
        let prepared = self.named([(name.to_owned(), &table)], prepared)?;
        self.unverified.borrow_mut().push(Prepared::Table(name.to_owned(), table.shape()[0]));
        self.weights.release(&table);
        Ok(prepared)
    }

    /// Waits until all weights prepared so far are on the device and checked.
    ///
    /// # Errors
    /// The first weight that is not finite; a failure of the device.
    pub(super) fn verify(&self) -> Result<()> {
        let unverified = self.unverified.take();
        self.backend.verify_weights().map_err(|error| match error {
            KernelError::NotFinite { .. } => {
                unverified.iter().find_map(|prepared| self.find_not_finite(prepared)).unwrap_or(Error::Kernel(error))
            }
            other => Error::from(other),
        })
    }

    /// The error for an element of `prepared` that is not finite, if there is one.
    fn find_not_finite(&self, prepared: &Prepared) -> Option<Error> {
        let (name, tensor) = match prepared {
            Prepared::Table(name, rows) => {
                (name.clone(), self.weights.tensor(name, &[*rows, self.spec.hidden_size]).ok()?)
            }
            Prepared::Weight(place, part) => {
                let located = self.weight(*place, *part).ok()?;
                (located.name, located.part)
            }
        };
        not_finite(self.weights, &name, &tensor, self.dtype)
    }

    /// The prepared weights of block `layer`. Pages of mapped weights are released once they are packed.
    pub(super) fn block(&self, layer: usize) -> Result<DecoderBlock<B>> {
        let here = Place::block(layer);
        let mut feed_forward = self.feed_forward(layer)?;
        let attention_norm = self.norm(layer, Part::AttentionNorm)?;
        let mut qkv = self.projection(here, &[Part::Query, Part::Key, Part::Value])?;
        let mlp_norm = self.norm(layer, Part::MlpNorm)?;
        let block = DecoderBlock {
            attention_norm: self.folded(attention_norm, &mut qkv)?,
            mlp_norm: match &mut feed_forward {
                FeedForward::Mlp(mlp) => self.folded(mlp_norm, &mut mlp.input)?,
                // Experts read gathered rows.
                FeedForward::Experts(_) => mlp_norm,
            },
            feed_forward,
            qkv,
            query_norm: self.scale(layer, Part::QueryNorm)?,
            key_norm: self.scale(layer, Part::KeyNorm)?,
            attention_output: self.projection(here, &[Part::AttentionOutput])?,
            attention_output_norm: self.scale(layer, Part::AttentionOutputNorm)?,
            mlp_output_norm: self.scale(layer, Part::MlpOutputNorm)?,
        };
        *self.stacked.borrow_mut() = None;
        Ok(block)
    }

    /// The MLP of block `layer`, or its experts.
    fn feed_forward(&self, layer: usize) -> Result<FeedForward<B>> {
        let Some(experts) = self.spec.experts_of(layer) else {
            return self.mlp(Place::block(layer), Part::Gate, Part::Up, Part::Down).map(FeedForward::Mlp);
        };
        let router = self.projection(Place::block(layer), &[Part::Router])?;
        let load = |expert| self.mlp(Place { layer, expert }, Part::ExpertGate, Part::ExpertUp, Part::ExpertDown);
        let mlps = (0..experts.n).map(load).collect::<Result<Vec<_>>>()?;
        Ok(FeedForward::Experts(Experts { router, mlps }))
    }

    fn mlp(&self, place: Place, gate: Part, up: Part, down: Part) -> Result<Mlp<B>> {
        Ok(Mlp { input: self.mlp_input(place, gate, up)?, down: self.projection(place, &[down])? })
    }

    /// The projection or projections before the MLP's activation.
    fn mlp_input(&self, place: Place, gate_part: Part, up_part: Part) -> Result<Projection<B>> {
        if !self.spec.mlp.gated {
            return self.projection(place, &[up_part]);
        }
        let (gate, up) = (self.weight(place, gate_part)?, self.weight(place, up_part)?);
        let prepared = self.backend.prepare_gated(&gate.part, &up.part, self.dtype);
        let weight = self.named([(gate.name, &gate.part), (up.name, &up.part)], prepared)?;
        self.unverified.borrow_mut().extend([gate_part, up_part].map(|part| Prepared::Weight(place, part)));
        self.weights.release(&gate.whole);
        self.weights.release(&up.whole);
        Ok(Projection { weight, bias: self.biases(place, &[gate_part, up_part])? })
    }

    fn module(&self, place: Place, part: Part) -> Result<String> {
        let missing = || Error::internal(format!("the family {} has no names for {part:?}", self.spec.family));
        self.spec.names.expert_module(place.layer, place.expert, part).ok_or_else(missing)
    }

    /// The tensor `name` of `shape`, which other parts share if `shared`.
    fn stored(&self, name: &str, shape: &[usize], shared: bool) -> Result<HostTensor> {
        if !shared {
            return self.weights.tensor(name, shape);
        }
        let mut stacked = self.stacked.borrow_mut();
        if let Some((_, tensor)) = stacked.as_ref().filter(|(last, _)| last == name) {
            return Ok(tensor.clone());
        }
        let tensor = self.weights.tensor(name, shape)?;
        *stacked = Some((name.to_owned(), tensor.clone()));
        Ok(tensor)
    }

    /// The weight of a projection, `[outputs, inputs]`.
    fn weight(&self, place: Place, part: Part) -> Result<LocatedPart> {
        let Some(PartShape::Projection { inputs, .. }) = part_shape(self.spec, place.layer, part) else {
            return Err(Error::internal(format!("a block of {} has no {part:?}", self.spec.family)));
        };
        let view = part_view(self.spec, place.layer, part);
        let name = format!("{}.weight", self.module(place, part)?);
        let whole = self.stored(&name, &stored_shape(self.spec, view.total(), inputs), view.widths.len() > 1)?;
        let part = view.cut(&whole)?;
        Ok(LocatedPart { name, whole, part })
    }

    /// A bias, which is zero if the file has none, as in transformers.
    fn bias(&self, name: &str, outputs: usize) -> Result<HostTensor> {
        if self.weights.contains(name) {
            return self.weights.tensor(name, &[outputs]);
        }
        Ok(HostTensor::from_f32(self.dtype, vec![outputs], &vec![0.0; outputs])?)
    }

    /// A norm of the residual stream, if the blocks have it.
    fn norm(&self, layer: usize, part: Part) -> Result<Option<Norm<B>>> {
        let Some(PartShape::Norm { width, bias }) = part_shape(self.spec, layer, part) else { return Ok(None) };
        let Some(scale) = self.scale(layer, part)? else { return Ok(None) };
        if !bias {
            return Ok(Some(Norm::Rms(scale)));
        }
        let name = format!("{}.bias", self.module(Place::block(layer), part)?);
        let bias = self.bias(&name, width)?;
        let prepared = self.backend.prepare_vector(std::slice::from_ref(&bias), self.dtype);
        Ok(Some(Norm::Layer { scale, bias: self.named([(name, &bias)], prepared)? }))
    }

    /// `norm`, with its weights in those of `reader`, the projection that reads its result, where the backend folds norms.
    fn folded(&self, norm: Option<Norm<B>>, reader: &mut Projection<B>) -> Result<Option<Norm<B>>> {
        match norm {
            Some(Norm::Rms(scale)) if folds_norms(self.backend, self.spec, self.dtype) => {
                self.named([], self.backend.fold_norm(&mut reader.weight, &scale))?;
                Ok(Some(Norm::Folded))
            }
            other => Ok(other),
        }
    }

    /// The weights of a norm, if the blocks have it.
    fn scale(&self, layer: usize, part: Part) -> Result<Option<B::Vector>> {
        let Some(PartShape::Norm { width, .. }) = part_shape(self.spec, layer, part) else { return Ok(None) };
        let name = format!("{}.weight", self.module(Place::block(layer), part)?);
        let stored = self.weights.tensor(&name, &[width])?;
        let (scale, dtype) = match self.spec.norm.kind {
            NormKind::Rms | NormKind::Layer => (stored, self.dtype),
            NormKind::RmsPlusOne => {
                // The stored weights are rounded, and the sum is kept in f32, as in transformers.
                let rounded = self.dtype.to_f32_vec(&self.dtype.from_f32_slice(&stored.to_f32_vec()));
                let sums: Vec<f32> = rounded.into_iter().map(|weight| 1.0 + weight).collect();
                (HostTensor::from_f32(DType::F32, vec![width], &sums)?, DType::F32)
            }
        };
        let prepared = self.backend.prepare_vector(std::slice::from_ref(&scale), dtype);
        self.named([(name, &scale)], prepared).map(Some)
    }

    /// One projection, or several stacked.
    fn projection(&self, place: Place, parts: &[Part]) -> Result<Projection<B>> {
        let located = parts.iter().map(|part| self.weight(place, *part)).collect::<Result<Vec<_>>>()?;
        let tensors: Vec<HostTensor> = located.iter().map(|located| located.part.clone()).collect();
        let names = located.iter().map(|located| located.name.clone());
        let weight = self.named(names.zip(&tensors), self.backend.prepare_linear(&tensors, self.dtype))?;
        self.unverified.borrow_mut().extend(parts.iter().map(|part| Prepared::Weight(place, *part)));
        for located in &located {
            self.weights.release(&located.whole);
        }
        Ok(Projection { weight, bias: self.biases(place, parts)? })
    }

    /// The biases of parts, one after the other, if the blocks have them.
    fn biases(&self, place: Place, parts: &[Part]) -> Result<Option<B::Vector>> {
        let mut names = Vec::new();
        let mut tensors = Vec::new();
        for part in parts {
            let shape = part_shape(self.spec, place.layer, *part);
            let Some(PartShape::Projection { bias: true, .. }) = shape else { return Ok(None) };
            let view = part_view(self.spec, place.layer, *part);
            let name = format!("{}.bias", self.module(place, *part)?);
            tensors.push(view.cut(&self.bias(&name, view.total())?)?);
            names.push(name);
        }
        let prepared = self.backend.prepare_vector(&tensors, self.dtype);
        self.named(names.into_iter().zip(&tensors), prepared).map(Some)
    }

    /// Names the tensor in the error of a weight that the backend refuses, since that is bad input. `parts` are the tensors
    /// that were prepared as one, by name.
    fn named<'t, T>(
        &self,
        parts: impl IntoIterator<Item = (String, &'t HostTensor)>,
        prepared: Result<T, KernelError>,
    ) -> Result<T> {
        prepared.map_err(|error| match error {
            KernelError::NotFinite { .. } => parts
                .into_iter()
                .find_map(|(name, tensor)| not_finite(self.weights, &name, tensor, self.dtype))
                // A backend may report earlier weights here.
                .or_else(|| self.unverified.borrow().iter().find_map(|prepared| self.find_not_finite(prepared)))
                .unwrap_or(Error::Kernel(error)),
            KernelError::Read { path, what } => Error::file(path, what),
            other => Error::from(other),
        })
    }
}

/// The embedding's name and its table, `[vocab_size, hidden_size]`.
///
/// # Errors
/// As [`Weights::tensor`].
pub(super) fn embedding_table(spec: &DecoderSpec, weights: &Weights) -> Result<(&'static str, HostTensor)> {
    let name = embedding_name(spec, weights);
    Ok((name, weights.tensor(name, &[spec.vocab_size, spec.hidden_size])?))
}

/// The name of the learned positions and their table, `[positions, hidden_size]`, if the model has them.
///
/// # Errors
/// As [`Weights::tensor`].
pub(super) fn position_table(spec: &DecoderSpec, weights: &Weights) -> Result<Option<(&'static str, HostTensor)>> {
    let named = spec.names.positions.zip(spec.embedding.learned_positions);
    named.map(|(name, rows)| Ok((name, weights.tensor(name, &[rows, spec.hidden_size])?))).transpose()
}

/// The error for the first element of `tensor` that is not finite in `dtype`, if there is one.
pub(super) fn not_finite(weights: &Weights, name: &str, tensor: &HostTensor, dtype: DType) -> Option<Error> {
    let values = tensor.to_f32_vec();
    let rounded = dtype.to_f32_vec(&dtype.from_f32_slice(&values));
    let element = rounded.iter().position(|value| !value.is_finite())?;
    let value = values[element];
    let what = if value.is_finite() {
        format!("is {value:e}, too large for {dtype}; pass --dtype bf16 or fp32")
    } else {
        format!("is {value}, but weights must be finite; download or convert the file again")
    };
    Some(Error::input(weights.origin(name), format!("tensor '{name}': element {element} {what}")))
}
