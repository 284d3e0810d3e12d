//! A block's weights, found by their Hugging Face names, checked and prepared for the backend.

use actbench_kernels::{Backend, DType, HostTensor, KernelError};

use super::config::ModelConfig;
use super::llama::{Block, Projection};
use super::weights::Weights;
use crate::error::{Error, Result};

/// Calls `visit(name, shape)` for each tensor of the embedding and the first `n_blocks` blocks, without the prefix
/// `model.`.
fn for_each_tensor(
    config: &ModelConfig,
    n_blocks: usize,
    visit: &mut dyn FnMut(&str, &[usize]) -> Result<()>,
) -> Result<()> {
    let (hidden, inner) = (config.hidden_size, config.intermediate_size);
    visit("embed_tokens.weight", &[config.vocab_size, hidden])?;
    for layer in 0..n_blocks {
        for norm in ["input_layernorm", "post_attention_layernorm"] {
            visit(&format!("layers.{layer}.{norm}.weight"), &[hidden])?;
        }
        for (module, part, outputs, inputs, bias) in [
            ("self_attn", "q_proj", config.query_width(), hidden, config.attention_bias),
            ("self_attn", "k_proj", config.kv_width(), hidden, config.attention_bias),
            ("self_attn", "v_proj", config.kv_width(), hidden, config.attention_bias),
            ("self_attn", "o_proj", hidden, config.query_width(), config.attention_bias),
            ("mlp", "gate_proj", inner, hidden, config.mlp_bias),
            ("mlp", "up_proj", inner, hidden, config.mlp_bias),
            ("mlp", "down_proj", hidden, inner, config.mlp_bias),
        ] {
            visit(&format!("layers.{layer}.{module}.{part}.weight"), &[outputs, inputs])?;
            if bias {
                visit(&format!("layers.{layer}.{module}.{part}.bias"), &[outputs])?;
            }
        }
    }
    Ok(())
}

/// Checks that each tensor of the first `n_blocks` blocks is there in the right shape. Reads headers alone.
///
/// # Errors
/// The first tensor that is missing or has another shape.
pub fn check_tensors(config: &ModelConfig, weights: &Weights, n_blocks: usize) -> Result<()> {
    for_each_tensor(config, n_blocks, &mut |name, shape| weights.check(&full_name(weights, name), shape))
}

/// The name in the file of a tensor of the decoder; files of a bare decoder lack the prefix `model.`.
fn full_name(weights: &Weights, name: &str) -> String {
    let prefixed = format!("model.{name}");
    if !weights.contains(&prefixed) && weights.contains(name) { name.to_owned() } else { prefixed }
}

/// Finds, checks and prepares weights by their Hugging Face names.
pub(super) struct Loader<'a, B: Backend> {
    pub(super) backend: &'a B,
    pub(super) config: &'a ModelConfig,
    pub(super) weights: &'a Weights,
    pub(super) dtype: DType,
}

impl<B: Backend> Loader<'_, B> {
    /// The prepared embedding table.
    pub(super) fn embedding(&self) -> Result<B::Embedding> {
        let table = self.tensor("embed_tokens.weight", &[self.config.vocab_size, self.config.hidden_size])?;
        Ok(self.backend.prepare_embedding(&table, self.dtype)?)
    }

    /// The prepared weights of block `layer`. Pages of mapped weights are let go once they are packed.
    pub(super) fn block(&self, layer: usize) -> Result<Block<B>> {
        let config = self.config;
        let (hidden, inner) = (config.hidden_size, config.intermediate_size);
        let (query, kv) = (config.query_width(), config.kv_width());
        let attention = format!("layers.{layer}.self_attn");
        let mlp = format!("layers.{layer}.mlp");
        let gate_name = format!("{mlp}.gate_proj");
        let up_name = format!("{mlp}.up_proj");
        let gate = self.tensor(&format!("{gate_name}.weight"), &[inner, hidden])?;
        let up = self.tensor(&format!("{up_name}.weight"), &[inner, hidden])?;
        let gate_up = self.named(&gate_name, self.backend.prepare_gated(&gate, &up, self.dtype))?;
        self.weights.release(&gate);
        self.weights.release(&up);
        Ok(Block {
            attention_norm: self.norm(&format!("layers.{layer}.input_layernorm"))?,
            query: self.projection(&attention, &[("q_proj", query)], hidden, config.attention_bias)?,
            key_value: self.projection(&attention, &[("k_proj", kv), ("v_proj", kv)], hidden, config.attention_bias)?,
            attention_output: self.projection(&attention, &[("o_proj", hidden)], query, config.attention_bias)?,
            mlp_norm: self.norm(&format!("layers.{layer}.post_attention_layernorm"))?,
            gate_up: Projection {
                weight: gate_up,
                bias: self.biases(&mlp, &[("gate_proj", inner), ("up_proj", inner)], config.mlp_bias)?,
            },
            down: self.projection(&mlp, &[("down_proj", hidden)], inner, config.mlp_bias)?,
        })
    }

    fn tensor(&self, name: &str, shape: &[usize]) -> Result<HostTensor> {
        self.weights.tensor(&full_name(self.weights, name), shape)
    }

    fn norm(&self, name: &str) -> Result<B::Vector> {
        let name = format!("{name}.weight");
        let scale = self.tensor(&name, &[self.config.hidden_size])?;
        self.named(&name, self.backend.prepare_vector(&[scale], self.dtype))
    }

    /// One projection, or several stacked, of `module`; `parts` are names and output widths.
    fn projection(&self, module: &str, parts: &[(&str, usize)], inputs: usize, bias: bool) -> Result<Projection<B>> {
        let tensors = parts
            .iter()
            .map(|(name, outputs)| self.tensor(&format!("{module}.{name}.weight"), &[*outputs, inputs]))
            .collect::<Result<Vec<_>>>()?;
        let weight = self.named(&parts_name(module, parts), self.backend.prepare_linear(&tensors, self.dtype))?;
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
            .map(|(name, outputs)| self.tensor(&format!("{module}.{name}.bias"), &[*outputs]))
            .collect::<Result<Vec<_>>>()?;
        self.named(&parts_name(module, parts), self.backend.prepare_vector(&tensors, self.dtype)).map(Some)
    }

    /// A weight that the backend refuses is bad input, and its name belongs in the message.
    fn named<T>(&self, name: &str, prepared: Result<T, KernelError>) -> Result<T> {
        prepared.map_err(|error| match error {
            KernelError::NotFinite { .. } => {
                Error::input(self.weights.origin(&full_name(self.weights, name)), format!("tensor {name}: {error}"))
            }
            other => Error::from(other),
        })
    }
}

fn parts_name(module: &str, parts: &[(&str, usize)]) -> String {
    let names: Vec<&str> = parts.iter().map(|part| part.0).collect();
    format!("{module}.{}", names.join("+"))
}
