//! A model's shape, read from Hugging Face's `config.json` and checked once.

use serde::Deserialize;
use serde_json::Value;

use crate::error::{Error, Result};

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
}

/// Scaling of the rotary frequencies.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RopeScaling {
    /// None.
    Default,
    /// All frequencies divided by `factor` (Chen et al. 2023).
    Linear {
        /// The divisor.
        factor: f64,
    },
    /// Low frequencies divided by `factor`, high ones kept, interpolated between (Llama 3.1).
    Llama3 {
        /// The divisor of the low frequencies.
        factor: f64,
        /// Wavelengths above `original_context / low_freq_factor` are low frequencies.
        low_freq_factor: f64,
        /// Wavelengths below `original_context / high_freq_factor` are high frequencies.
        high_freq_factor: f64,
        /// Positions the model was first trained on.
        original_context: f64,
    },
}

/// `config.json` as it is on disk; missing entries have transformers' defaults.
#[derive(Deserialize)]
struct RawConfig {
    vocab_size: usize,
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    hidden_act: Option<String>,
    rms_norm_eps: Option<f64>,
    rope_theta: Option<f64>,
    rope_scaling: Option<RawRope>,
    rope_parameters: Option<RawRope>,
    #[serde(default)]
    attention_bias: bool,
    #[serde(default)]
    mlp_bias: bool,
    partial_rotary_factor: Option<f64>,
    max_position_embeddings: Option<f64>,
}

/// `rope_scaling` (transformers 4) or `rope_parameters` (transformers 5).
#[derive(Deserialize)]
struct RawRope {
    #[serde(alias = "type")]
    rope_type: Option<String>,
    rope_theta: Option<f64>,
    factor: Option<f64>,
    low_freq_factor: Option<f64>,
    high_freq_factor: Option<f64>,
    original_max_position_embeddings: Option<f64>,
    partial_rotary_factor: Option<f64>,
}

impl ModelConfig {
    /// Parses and checks `text`; `origin` names the file in errors.
    ///
    /// # Errors
    /// Not JSON, another architecture, a missing or impossible entry, an unknown kind of rotary scaling.
    pub fn parse(text: &str, origin: &str) -> Result<Self> {
        let fail = |what: String| Error::input(origin, what);
        let value: Value = serde_json::from_str(text)
            .map_err(|error| fail(format!("not valid JSON: {error}; download the file again")))?;
        check_architecture(&value).map_err(fail)?;
        // `rope_scaling` may be spelled with both `type` and `rope_type`, which serde would take for a duplicate.
        let value = without_duplicate_rope_type(value);
        let raw: RawConfig = serde_json::from_value(value)
            .map_err(|error| fail(format!("not a Llama configuration: {error}; download the file again")))?;
        raw.validate().map_err(fail)
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

impl RopeScaling {
    /// The scaled frequency, radians a position.
    fn apply(self, frequency: f64) -> f64 {
        match self {
            RopeScaling::Default => frequency,
            RopeScaling::Linear { factor } => frequency / factor,
            RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_context } => {
                let wavelength = 2.0 * std::f64::consts::PI / frequency;
                if wavelength > original_context / low_freq_factor {
                    frequency / factor
                } else if wavelength < original_context / high_freq_factor {
                    frequency
                } else {
                    let smooth =
                        (original_context / wavelength - low_freq_factor) / (high_freq_factor - low_freq_factor);
                    (1.0 - smooth) * frequency / factor + smooth * frequency
                }
            }
        }
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

fn without_duplicate_rope_type(mut value: Value) -> Value {
    for key in ["rope_scaling", "rope_parameters"] {
        if let Some(Value::Object(rope)) = value.get_mut(key)
            && rope.contains_key("rope_type")
        {
            rope.remove("type");
        }
    }
    value
}

impl RawConfig {
    fn validate(self) -> Result<ModelConfig, String> {
        let n_kv_heads = self.num_key_value_heads.unwrap_or(self.num_attention_heads);
        // A larger extent can only come from a broken or hostile file. Products of two extents below it fit 64 bits.
        const MAX_EXTENT: usize = 1 << 24;
        for (name, extent) in [
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("num_hidden_layers", self.num_hidden_layers),
            ("num_attention_heads", self.num_attention_heads),
            ("num_key_value_heads", n_kv_heads),
        ] {
            if extent == 0 || extent > MAX_EXTENT {
                return Err(format!("{name} is {extent}, it must be between 1 and {MAX_EXTENT}"));
            }
        }
        if !self.num_attention_heads.is_multiple_of(n_kv_heads) {
            return Err(format!("{n_kv_heads} key/value heads do not divide {} query heads", self.num_attention_heads));
        }
        let head_dim = match self.head_dim {
            Some(head_dim) => head_dim,
            None if self.hidden_size.is_multiple_of(self.num_attention_heads) => {
                self.hidden_size / self.num_attention_heads
            }
            None => {
                return Err(format!(
                    "hidden_size {} is not a multiple of {} heads, and head_dim is missing",
                    self.hidden_size, self.num_attention_heads
                ));
            }
        };
        if head_dim == 0 || head_dim % 2 != 0 || head_dim > 1 << 14 {
            return Err(format!("head_dim is {head_dim}, it must be even and between 2 and 16384"));
        }
        if let Some(activation) = self.hidden_act.as_deref().filter(|name| !["silu", "swish"].contains(name)) {
            return Err(format!("hidden_act is '{activation}', only 'silu' is supported"));
        }
        let eps = self.rms_norm_eps.unwrap_or(1e-6);
        if !(0.0..1.0).contains(&eps) {
            return Err(format!("rms_norm_eps is {eps}, it must be between 0 and 1"));
        }
        let rope = self.rope_parameters.as_ref().or(self.rope_scaling.as_ref());
        let partial = self.partial_rotary_factor.or(rope.and_then(|rope| rope.partial_rotary_factor));
        if let Some(factor) = partial.filter(|factor| *factor != 1.0) {
            return Err(format!("partial_rotary_factor is {factor}, only 1 is supported"));
        }
        let rope_theta = self.rope_theta.or(rope.and_then(|rope| rope.rope_theta)).unwrap_or(10_000.0);
        positive("rope_theta", rope_theta)?;
        let rope_scaling = match rope {
            Some(rope) => rope.scaling(self.max_position_embeddings)?,
            None => RopeScaling::Default,
        };
        Ok(ModelConfig {
            vocab_size: self.vocab_size,
            hidden_size: self.hidden_size,
            intermediate_size: self.intermediate_size,
            n_layers: self.num_hidden_layers,
            n_heads: self.num_attention_heads,
            n_kv_heads,
            head_dim,
            rms_norm_eps: eps as f32,
            rope_theta,
            rope_scaling,
            attention_bias: self.attention_bias,
            mlp_bias: self.mlp_bias,
        })
    }
}

impl RawRope {
    fn scaling(&self, max_position_embeddings: Option<f64>) -> Result<RopeScaling, String> {
        let needed = |name: &str, value: Option<f64>| {
            let value = value.ok_or_else(|| format!("rope scaling has no {name}"))?;
            positive(name, value).map(|()| value)
        };
        match self.rope_type.as_deref().unwrap_or("default") {
            "default" => Ok(RopeScaling::Default),
            "linear" => Ok(RopeScaling::Linear { factor: needed("factor", self.factor)? }),
            "llama3" => {
                let low_freq_factor = needed("low_freq_factor", self.low_freq_factor)?;
                let high_freq_factor = needed("high_freq_factor", self.high_freq_factor)?;
                if high_freq_factor <= low_freq_factor {
                    return Err(format!(
                        "high_freq_factor {high_freq_factor} must be above low_freq_factor {low_freq_factor}"
                    ));
                }
                let original = self.original_max_position_embeddings.or(max_position_embeddings);
                Ok(RopeScaling::Llama3 {
                    factor: needed("factor", self.factor)?,
                    low_freq_factor,
                    high_freq_factor,
                    original_context: needed("original_max_position_embeddings", original)?,
                })
            }
            other => Err(format!("rope scaling '{other}' is unknown: use default, linear or llama3")),
        }
    }
}

fn positive(name: &str, value: f64) -> Result<(), String> {
    if value.is_finite() && value > 0.0 { Ok(()) } else { Err(format!("{name} is {value}, it must be positive")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: &str = r#""model_type": "llama", "vocab_size": 100, "hidden_size": 48, "intermediate_size": 96,
        "num_hidden_layers": 3, "num_attention_heads": 6, "rms_norm_eps": 1e-5"#;

    fn parse(more: &str) -> Result<ModelConfig> {
        let comma = if more.is_empty() { "" } else { "," };
        ModelConfig::parse(&format!("{{{BASE}{comma}{more}}}"), "config.json")
    }

    fn parse_error(more: &str) -> String {
        parse(more).unwrap_err().to_string()
    }

    #[test]
    fn missing_entries_default_as_in_transformers() {
        let config = parse("").unwrap();
        assert_eq!((config.n_kv_heads, config.head_dim, config.rope_theta), (6, 8, 10_000.0));
        assert_eq!(config.rope_scaling, RopeScaling::Default);
        assert!(!config.attention_bias && !config.mlp_bias);
    }

    #[test]
    fn rope_scaling_spellings_are_equivalent() {
        let inner = r#""factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64"#;
        let old = parse(&format!(
            r#""rope_theta": 500000.0, "rope_scaling": {{"type": "llama3", "rope_type": "llama3", {inner}}}"#
        ))
        .unwrap();
        let new = parse(&format!(r#""rope_parameters": {{"rope_theta": 500000.0, "rope_type": "llama3", {inner}}}"#))
            .unwrap();
        assert_eq!(old, new);
        assert_eq!(old.rope_theta, 500_000.0);
        assert!(matches!(old.rope_scaling, RopeScaling::Llama3 { factor, .. } if factor == 8.0));
        let linear = parse(r#""rope_scaling": {"type": "linear", "factor": 2.0}"#).unwrap();
        assert_eq!(linear.rope_frequencies()[0], 0.5);
    }

    #[test]
    fn llama3_scaling_has_three_bands() {
        let scaling =
            RopeScaling::Llama3 { factor: 8.0, low_freq_factor: 1.0, high_freq_factor: 4.0, original_context: 64.0 };
        let tau = 2.0 * std::f64::consts::PI;
        assert_eq!(scaling.apply(tau / 10.0), tau / 10.0);
        assert_eq!(scaling.apply(tau / 100.0), tau / 100.0 / 8.0);
        let middle = scaling.apply(tau / 32.0);
        assert!(middle > tau / 32.0 / 8.0 && middle < tau / 32.0);
    }

    #[test]
    fn impossible_configuration_is_refused_with_reason() {
        assert!(parse_error(r#""model_type": "gpt2""#).contains("unknown architecture 'gpt2'"));
        assert!(parse_error(r#""num_key_value_heads": 4"#).contains("do not divide"));
        assert!(parse_error(r#""num_hidden_layers": 0"#).contains("num_hidden_layers is 0"));
        assert!(parse_error(r#""head_dim": 7"#).contains("head_dim is 7"));
        assert!(parse_error(r#""hidden_act": "gelu""#).contains("gelu"));
        assert!(parse_error(r#""rope_scaling": {"rope_type": "yarn", "factor": 2.0}"#).contains("'yarn' is unknown"));
        assert!(parse_error(r#""rope_scaling": {"rope_type": "linear"}"#).contains("no factor"));
        assert!(parse_error(r#""vocab_size": 99999999999"#).contains("vocab_size"));
        let broken = ModelConfig::parse("{", "x/config.json").unwrap_err().to_string();
        assert!(broken.starts_with("x/config.json: not valid JSON"), "{broken}");
        let missing = ModelConfig::parse(r#"{"model_type": "llama"}"#, "c").unwrap_err().to_string();
        assert!(missing.contains("missing field"), "{missing}");
    }
}
