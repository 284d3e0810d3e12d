//! A model's shape, read from Hugging Face's `config.json` and checked once.
//!
//! `json` reads the file as Python does, `rope` its rotary settings, and `keys` judges the keys that are not part of the shape.

mod json;
mod keys;
mod rope;
#[cfg(test)]
mod tests;

use std::path::Path;

use serde_json::{Map, Value};

pub use rope::RopeScaling;

use crate::error::{Error, Result};
use crate::lfs;
use json::{describe, number};

/// The shape of a Llama model, valid by construction: every extent is positive and heads divide as they must.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    /// Token ids are below this.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width between the gate/up and the down projection.
    pub intermediate_size: usize,
    /// Decoder blocks.
    pub n_layers: usize,
    /// Query heads.
    pub n_heads: usize,
    /// Key/value heads; divides `n_heads`.
    pub n_kv_heads: usize,
    /// Elements of one head; even. Not always `hidden_size / n_heads`.
    pub head_dim: usize,
    /// Added to the mean square in the norms.
    pub rms_norm_eps: f32,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// What is done to the rotary frequencies for long contexts.
    pub rope_scaling: RopeScaling,
    /// Whether the query, key, value and output projections have biases.
    pub attention_bias: bool,
    /// Whether the gate, up and down projections have biases.
    pub mlp_bias: bool,
    /// Whether the embedding and the LM head are one matrix.
    pub tie_word_embeddings: bool,
    /// Positions the model was trained on. Longer sequences are computed too, as in transformers.
    pub max_position_embeddings: usize,
}

impl ModelConfig {
    /// Parses and checks `text`; `origin` names the file in errors. Keys that transformers' Llama ignores although they matter are
    /// warnings.
    ///
    /// # Errors
    /// Not JSON, another architecture, a missing or impossible entry, or a key that asks for another forward pass.
    pub fn parse(text: &str, origin: &str) -> Result<Self> {
        let (config, warnings) = Self::read(text, origin)?;
        for warning in warnings {
            tracing::warn!("{origin}: {warning}");
        }
        Ok(config)
    }

    /// [`parse`](Self::parse) with the warnings as text, each without its origin.
    fn read(text: &str, origin: &str) -> Result<(Self, Vec<String>)> {
        let fail = |what: String| Error::input(origin, what);
        lfs::reject_pointer(Path::new(origin), text.as_bytes())?;
        let value =
            json::parse(text).map_err(|error| fail(format!("not valid JSON: {error}; download the file again")))?;
        check_architecture(&value).map_err(fail)?;
        let map = value.as_object().ok_or_else(|| fail("not an object; download the file again".to_owned()))?;
        keys::refuse_unsupported(map).map_err(fail)?;
        Entries(map).config().map_err(fail)
    }

    /// Columns of the query projection's output.
    pub fn query_width(&self) -> usize {
        self.n_heads * self.head_dim
    }

    /// Columns of the key projection's output.
    pub fn kv_width(&self) -> usize {
        self.n_kv_heads * self.head_dim
    }

    /// Operations of one token through one block's projections, two a multiply-add.
    pub fn linear_flops_per_block(&self) -> u64 {
        let attention = self.hidden_size * (2 * self.query_width() + 2 * self.kv_width());
        let mlp = 3 * self.hidden_size * self.intermediate_size;
        2 * (attention + mlp) as u64
    }

    /// The rotary frequencies, `head_dim / 2` of them, in radians a position.
    ///
    /// Formulas as in transformers' `modeling_rope_utils`, computed in `f64` and rounded to the `f32` that the
    /// angles are computed in.
    pub fn rope_frequencies(&self) -> Vec<f32> {
        (0..self.head_dim / 2)
            .map(|pair| {
                let frequency = self.rope_theta.powf(-((2 * pair) as f64) / self.head_dim as f64);
                self.rope_scaling.apply(frequency) as f32
            })
            .collect()
    }
}

fn check_architecture(value: &Value) -> Result<(), String> {
    let architectures: Vec<&str> =
        value["architectures"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let model_type = value["model_type"].as_str();
    let known = ["LlamaForCausalLM", "LlamaModel"];
    let by_class = architectures.iter().any(|class| known.contains(class));
    if model_type == Some("llama") || (model_type.is_none() && by_class) {
        return Ok(());
    }
    let found = model_type.map(str::to_owned).unwrap_or_else(|| architectures.join(", "));
    let found = if found.is_empty() { "none named".to_owned() } else { format!("'{found}'") };
    Err(format!("unknown architecture {found}: only Llama models ('model_type': 'llama') are supported"))
}

/// The entries of `config.json`; missing ones have transformers' defaults.
struct Entries<'a>(&'a Map<String, Value>);

impl Entries<'_> {
    fn config(&self) -> Result<(ModelConfig, Vec<String>), String> {
        let n_heads = self.extent("num_attention_heads")?;
        let n_kv_heads = match self.0.get("num_key_value_heads") {
            None | Some(Value::Null) => n_heads,
            Some(_) => self.extent("num_key_value_heads")?,
        };
        let hidden_size = self.extent("hidden_size")?;
        if !n_heads.is_multiple_of(n_kv_heads) {
            return Err(format!("{n_kv_heads} key/value heads do not divide {n_heads} query heads"));
        }
        let head_dim = self.head_dim(hidden_size, n_heads)?;
        self.check_activation()?;
        let max_position_embeddings = self.max_position_embeddings()?;
        let rope = rope::read(self.0, max_position_embeddings)?;
        let config = ModelConfig {
            vocab_size: self.extent("vocab_size")?,
            hidden_size,
            intermediate_size: self.extent("intermediate_size")?,
            n_layers: self.extent("num_hidden_layers")?,
            n_heads,
            n_kv_heads,
            head_dim,
            rms_norm_eps: self.eps()? as f32,
            rope_theta: rope.theta,
            rope_scaling: rope.scaling,
            attention_bias: self.flag("attention_bias")?,
            mlp_bias: self.flag("mlp_bias")?,
            tie_word_embeddings: self.flag("tie_word_embeddings")?,
            max_position_embeddings,
        };
        let shape = keys::Shape { config: self.0, head_dim, max_positions: max_position_embeddings };
        Ok((config, rope.warnings.into_iter().chain(keys::ignored(&shape)).collect()))
    }

    fn extent(&self, key: &str) -> Result<usize, String> {
        // A larger extent can only come from a broken or hostile file. Products of two extents below it fit 64 bits.
        const MAX_EXTENT: usize = 1 << 24;
        let value = self.0.get(key).ok_or_else(|| format!("has no {key}; download the file again"))?;
        let extent = whole_number(key, value)?;
        if extent == 0 || extent > MAX_EXTENT {
            return Err(format!("{key} is {extent}, it must be between 1 and {MAX_EXTENT}"));
        }
        Ok(extent)
    }

    fn head_dim(&self, hidden_size: usize, n_heads: usize) -> Result<usize, String> {
        let head_dim = match self.0.get("head_dim") {
            Some(value) if !value.is_null() => whole_number("head_dim", value)?,
            _ if hidden_size.is_multiple_of(n_heads) => hidden_size / n_heads,
            _ => {
                return Err(format!(
                    "hidden_size {hidden_size} is not a multiple of {n_heads} heads, and head_dim is missing"
                ));
            }
        };
        if head_dim == 0 || head_dim % 2 != 0 || head_dim > 1 << 14 {
            return Err(format!("head_dim is {head_dim}, it must be even and between 2 and 16384"));
        }
        Ok(head_dim)
    }

    fn max_position_embeddings(&self) -> Result<usize, String> {
        // transformers' default for a Llama, and a bound that a count of positions cannot reach.
        const DEFAULT: usize = 2048;
        const MAX_POSITIONS: usize = 1 << 40;
        let Some(value) = self.0.get("max_position_embeddings") else { return Ok(DEFAULT) };
        let positions = whole_number("max_position_embeddings", value)?;
        if positions == 0 || positions > MAX_POSITIONS {
            return Err(format!("max_position_embeddings is {positions}, it must be between 1 and {MAX_POSITIONS}"));
        }
        Ok(positions)
    }

    fn check_activation(&self) -> Result<(), String> {
        match self.0.get("hidden_act") {
            None | Some(Value::Null) => Ok(()),
            Some(Value::String(name)) if ["silu", "swish"].contains(&name.as_str()) => Ok(()),
            Some(Value::String(name)) => Err(format!("hidden_act is '{name}', only 'silu' is supported")),
            Some(value) => Err(format!("hidden_act is {}, only 'silu' is supported", describe(value))),
        }
    }

    fn eps(&self) -> Result<f64, String> {
        let Some(value) = self.0.get("rms_norm_eps").filter(|value| !value.is_null()) else { return Ok(1e-6) };
        match number(value) {
            Some(eps) if (0.0..1.0).contains(&eps) => Ok(eps),
            _ => Err(format!("rms_norm_eps is {}, it must be between 0 and 1", describe(value))),
        }
    }

    fn flag(&self, key: &str) -> Result<bool, String> {
        match self.0.get(key) {
            None => Ok(false),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(value) => Err(format!("{key} is {}, expected true or false", describe(value))),
        }
    }
}

fn whole_number(key: &str, value: &Value) -> Result<usize, String> {
    let number = value.as_u64().and_then(|number| usize::try_from(number).ok());
    number.ok_or_else(|| format!("{key} is {}, expected a whole number", describe(value)))
}
