//! A block's weights, found by their Hugging Face names, checked and prepared for the backend.

use actbench_kernels::{Backend, DType, HostTensor, KernelError};

use super::config::ModelConfig;
use super::llama::{DecoderBlock, Projection};
use super::tensors::embedding_name;
use super::weights::Weights;
use crate::error::{Error, Result};

/// Finds, checks and prepares weights by their Hugging Face names.
pub(super) struct WeightLoader<'a, B: Backend> {
    pub(super) backend: &'a B,
    pub(super) config: &'a ModelConfig,
    pub(super) weights: &'a Weights,
    pub(super) dtype: DType,
}

impl<B: Backend> WeightLoader<'_, B> {
    /// The prepared embedding table.
    pub(super) fn embedding(&self) -> Result<B::Embedding> {
        let (name, table) = embedding_table(self.config, self.weights)?;
        let prepared = self.backend.prepare_embedding(&table, self.dtype);
        let prepared = self.named([(name.to_owned(), &table)], prepared)?;
        self.weights.release(&table);
        Ok(prepared)
    }

    /// The prepared weights of block `layer`. Pages of mapped weights are released once they are packed.
    pub(super) fn block(&self, layer: usize) -> Result<DecoderBlock<B>> {
        let config = self.config;
        let (hidden, inner) = (config.hidden_size, config.intermediate_size);
        let (query, kv) = (config.query_width(), config.kv_width());
        let attention = format!("model.layers.{layer}.self_attn");
        let mlp = format!("model.layers.{layer}.mlp");
        let gate_name = format!("{mlp}.gate_proj");
        let up_name = format!("{mlp}.up_proj");
        let gate = self.tensor(&format!("{gate_name}.weight"), &[inner, hidden])?;
        let up = self.tensor(&format!("{up_name}.weight"), &[inner, hidden])?;
        let parts = [(format!("{gate_name}.weight"), &gate), (format!("{up_name}.weight"), &up)];
        let gate_up = self.named(parts, self.backend.prepare_gated(&gate, &up, self.dtype))?;
        self.weights.release(&gate);
        self.weights.release(&up);
        Ok(DecoderBlock {
            attention_norm: self.norm(&format!("model.layers.{layer}.input_layernorm"))?,
            query: self.projection(&attention, &[("q_proj", query)], hidden, config.attention_bias)?,
            key_value: self.projection(&attention, &[("k_proj", kv), ("v_proj", kv)], hidden, config.attention_bias)?,
            attention_output: self.projection(&attention, &[("o_proj", hidden)], query, config.attention_bias)?,
            mlp_norm: self.norm(&format!("model.layers.{layer}.post_attention_layernorm"))?,
            gate_up: Projection {
                weight: gate_up,
                bias: self.biases(&mlp, &[("gate_proj", inner), ("up_proj", inner)], config.mlp_bias)?,
            },
            down: self.projection(&mlp, &[("down_proj", hidden)], inner, config.mlp_bias)?,
        })
    }

    fn tensor(&self, name: &str, shape: &[usize]) -> Result<HostTensor> {
        self.weights.tensor(name, shape)
    }

    /// A bias, which is zero if the file has none, as in transformers.
    fn bias(&self, name: &str, outputs: usize) -> Result<HostTensor> {
        if self.weights.contains(name) {
            return self.tensor(name, &[outputs]);
        }
        Ok(HostTensor::from_f32(self.dtype, vec![outputs], &vec![0.0; outputs])?)
    }

    fn norm(&self, name: &str) -> Result<B::Vector> {
        let name = format!("{name}.weight");
        let scale = self.tensor(&name, &[self.config.hidden_size])?;
        let prepared = self.backend.prepare_vector(std::slice::from_ref(&scale), self.dtype);
        self.named([(name, &scale)], prepared)
    }

    /// One projection, or several stacked, of `module`; `parts` are names and output widths.
    fn projection(&self, module: &str, parts: &[(&str, usize)], inputs: usize, bias: bool) -> Result<Projection<B>> {
        let tensors = parts
            .iter()
            .map(|(name, outputs)| self.tensor(&format!("{module}.{name}.weight"), &[*outputs, inputs]))
            .collect::<Result<Vec<_>>>()?;
        let names = parts.iter().map(|(name, _)| format!("{module}.{name}.weight"));
        let weight = self.named(names.zip(&tensors), self.backend.prepare_linear(&tensors, self.dtype))?;
        for tensor in &tensors {
            self.weights.release(tensor);
        }
        Ok(Projection { weight, bias: self.biases(module, parts, bias)? })
    }

    fn biases(&self, module: &str, parts: &[(&str, usize)], present: bool) -> Result<Option<B::Vector>> {
        if !present {
            return Ok(None);
        }
        let tensors = parts
            .iter()
            .map(|(name, outputs)| self.bias(&format!("{module}.{name}.bias"), *outputs))
            .collect::<Result<Vec<_>>>()?;
        let names = parts.iter().map(|(name, _)| format!("{module}.{name}.bias"));
        self.named(names.zip(&tensors), self.backend.prepare_vector(&tensors, self.dtype)).map(Some)
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
                .unwrap_or(Error::Kernel(error)),
            other => Error::from(other),
        })
    }
}

/// The embedding's name and its table, `[vocab_size, hidden_size]`.
///
/// # Errors
/// As [`Weights::tensor`].
pub(super) fn embedding_table(config: &ModelConfig, weights: &Weights) -> Result<(&'static str, HostTensor)> {
    let name = embedding_name(config, weights);
    Ok((name, weights.tensor(name, &[config.vocab_size, config.hidden_size])?))
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
