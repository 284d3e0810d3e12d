//! Single entries of `config.json`, with the defaults that a family gives.

use std::cell::RefCell;

use actbench_kernels::Activation;
use serde_json::{Map, Value};

use crate::python_json::{describe, number};

/// The entries of `config.json`.
pub(super) struct Entries<'a> {
    /// One model of the family, in messages: "a Llama".
    pub(super) title: &'static str,
    /// All keys.
    pub(super) map: &'a Map<String, Value>,
    warnings: RefCell<Vec<String>>,
}

/// A bound that a count of positions cannot reach.
const MAX_POSITIONS: usize = 1 << 40;

impl<'a> Entries<'a> {
    pub(super) fn new(title: &'static str, map: &'a Map<String, Value>) -> Self {
        Entries { title, map, warnings: RefCell::new(Vec::new()) }
    }

    /// Adds a warning: a whole clause, without the file's name.
    pub(super) fn warn(&self, warning: String) {
        self.warnings.borrow_mut().push(warning);
    }

    /// All warnings, in order.
    pub(super) fn into_warnings(self) -> Vec<String> {
        self.warnings.into_inner()
    }

    /// The value of `key`, unless it is missing or null.
    pub(super) fn given(&self, key: &str) -> Option<&'a Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    /// An extent that must be there.
    pub(super) fn extent(&self, key: &str) -> Result<usize, String> {
        // A larger extent can only come from a broken or hostile file. Products of two extents below it fit 64 bits.
        const MAX_EXTENT: usize = 1 << 24;
        let value = self.map.get(key).ok_or_else(|| format!("has no {key}; download the file again"))?;
        let extent = whole_number(key, value)?;
        if extent == 0 || extent > MAX_EXTENT {
            return Err(format!("{key} is {extent}, it must be between 1 and {MAX_EXTENT}"));
        }
        Ok(extent)
    }

    /// The key/value heads of `n_heads` query heads: `absent` where the key is missing, as many as query heads where it is null.
    pub(super) fn kv_heads(&self, n_heads: usize, absent: Option<usize>) -> Result<usize, String> {
        let n_kv_heads = match self.map.get("num_key_value_heads") {
            None => absent.unwrap_or(n_heads),
            Some(Value::Null) => n_heads,
            Some(_) => self.extent("num_key_value_heads")?,
        };
        if !n_heads.is_multiple_of(n_kv_heads) {
            return Err(format!("{n_kv_heads} key/value heads do not divide {n_heads} query heads"));
        }
        Ok(n_kv_heads)
    }

    /// The width of a head: `absent` where the key is missing, `hidden_size / n_heads` where there is no such default either.
    pub(super) fn head_dim(&self, hidden_size: usize, n_heads: usize, absent: Option<usize>) -> Result<usize, String> {
        match (self.map.get("head_dim"), absent) {
            (Some(value), absent) if absent.is_some() || !value.is_null() => {
                check_head_dim(whole_number("head_dim", value)?)
            }
            (None, Some(absent)) => Ok(absent),
            _ if hidden_size.is_multiple_of(n_heads) => check_head_dim(hidden_size / n_heads),
            _ => {
                Err(format!("hidden_size {hidden_size} is not a multiple of {n_heads} heads, and head_dim is missing"))
            }
        }
    }

    /// The width of a head in a family that has no key for it.
    ///
    /// # Errors
    /// Also a `head_dim` of another value: transformers would use it in one place and not in another.
    pub(super) fn head_dim_of_hidden(&self, hidden_size: usize, n_heads: usize) -> Result<usize, String> {
        if !hidden_size.is_multiple_of(n_heads) {
            return Err(format!("the hidden size {hidden_size} is not a multiple of {n_heads} heads"));
        }
        let head_dim = check_head_dim(hidden_size / n_heads)?;
        match self.given("head_dim") {
            Some(value) if number(value) != Some(head_dim as f64) => {
                Err(format!("head_dim is {}, but {} has heads of {head_dim} elements", describe(value), self.title))
            }
            _ => Ok(head_dim),
        }
    }

    /// A whole number, which can be 0; `absent` where the key is missing.
    pub(super) fn count(&self, key: &str, absent: usize) -> Result<usize, String> {
        self.map.get(key).map_or(Ok(absent), |value| whole_number(key, value))
    }

    /// A count of positions; `absent` where the key is missing.
    pub(super) fn positions(&self, key: &str, absent: usize) -> Result<usize, String> {
        let Some(value) = self.map.get(key) else { return Ok(absent) };
        let positions = whole_number(key, value)?;
        if positions == 0 || positions > MAX_POSITIONS {
            return Err(format!("{key} is {positions}, it must be between 1 and {MAX_POSITIONS}"));
        }
        Ok(positions)
    }

    /// The window of `key`, in tokens, a row's own position included; none where it is null, `absent` where the key is missing.
    pub(super) fn window(&self, key: &str, absent: Option<usize>) -> Result<Option<usize>, String> {
        match self.map.get(key) {
            None => Ok(absent),
            Some(Value::Null) => Ok(None),
            Some(_) => self.positions(key, MAX_POSITIONS).map(Some),
        }
    }

    /// For each layer whether its attention has a window, by `layer_types`; none where the key is missing or null.
    pub(super) fn sliding_layers(&self, n_layers: usize) -> Result<Option<Vec<bool>>, String> {
        let Some(value) = self.given("layer_types") else { return Ok(None) };
        let types = value.as_array().ok_or_else(|| format!("layer_types is {}, expected a list", describe(value)))?;
        if types.len() != n_layers {
            return Err(format!("layer_types has {} entries for {n_layers} layers", types.len()));
        }
        let slides = |kind: &Value| match kind.as_str() {
            Some("sliding_attention") => Ok(true),
            Some("full_attention") => Ok(false),
            _ => Err(format!(
                "layer_types has {}, only 'full_attention' and 'sliding_attention' are supported",
                describe(kind)
            )),
        };
        types.iter().map(slides).collect::<Result<Vec<bool>, String>>().map(Some)
    }

    /// The activation of `key`, by transformers' names; `absent` where the key is missing or null.
    pub(super) fn activation(&self, key: &str, absent: Activation) -> Result<Activation, String> {
        let Some(value) = self.given(key) else { return Ok(absent) };
        match value.as_str() {
            Some("silu" | "swish") => Ok(Activation::Silu),
            Some("gelu" | "gelu_python") => Ok(Activation::Gelu),
            // The last two write the constant of the formula in other ways.
            Some("gelu_pytorch_tanh" | "gelu_new" | "gelu_python_tanh" | "gelu_fast" | "gelu_accurate") => {
                Ok(Activation::GeluTanh)
            }
            _ => Err(format!("{key} is {}, only silu, gelu and its tanh form are supported", describe(value))),
        }
    }

    /// [`activation`](Self::activation) of a family that is only computed with SiLU.
    pub(super) fn silu(&self, key: &str) -> Result<Activation, String> {
        match self.given(key) {
            None => Ok(Activation::Silu),
            Some(Value::String(name)) if ["silu", "swish"].contains(&name.as_str()) => Ok(Activation::Silu),
            Some(Value::String(name)) => Err(format!("{key} is '{name}', only 'silu' is supported")),
            Some(value) => Err(format!("{key} is {}, only 'silu' is supported", describe(value))),
        }
    }

    /// The constant of norms; `absent` where the key is missing or null.
    pub(super) fn eps(&self, key: &str, absent: f64) -> Result<f32, String> {
        let Some(value) = self.given(key) else { return Ok(absent as f32) };
        match number(value) {
            Some(eps) if (0.0..1.0).contains(&eps) => Ok(eps as f32),
            _ => Err(format!("{key} is {}, it must be between 0 and 1", describe(value))),
        }
    }

    /// A positive number, if the key is there and not null.
    pub(super) fn positive(&self, key: &str) -> Result<Option<f64>, String> {
        self.given(key).map(|value| positive(key, value)).transpose()
    }

    /// A flag; `absent` where the key is missing.
    pub(super) fn flag(&self, key: &str, absent: bool) -> Result<bool, String> {
        match self.map.get(key) {
            None => Ok(absent),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(value) => Err(format!("{key} is {}, expected true or false", describe(value))),
        }
    }

    /// Refuses a flag that is set, with the reason.
    pub(super) fn refuse_flag(&self, key: &str, why: &str) -> Result<(), String> {
        match self.given(key) {
            None | Some(Value::Bool(false)) => Ok(()),
            Some(value) => Err(format!("{key} is {}: {why}", describe(value))),
        }
    }
}

fn check_head_dim(head_dim: usize) -> Result<usize, String> {
    if head_dim == 0 || !head_dim.is_multiple_of(2) || head_dim > 1 << 14 {
        return Err(format!("head_dim is {head_dim}, it must be even and between 2 and 16384"));
    }
    Ok(head_dim)
}

fn whole_number(key: &str, value: &Value) -> Result<usize, String> {
    let number = value.as_u64().and_then(|number| usize::try_from(number).ok());
    number.ok_or_else(|| format!("{key} is {}, expected a whole number", describe(value)))
}

/// The number `value`, which must be positive and finite; `name` is for the message.
pub(super) fn positive(name: &str, value: &Value) -> Result<f64, String> {
    match number(value) {
        Some(number) if number.is_finite() && number > 0.0 => Ok(number),
        Some(_) => Err(format!("{name} is {}, it must be positive", describe(value))),
        None => Err(format!("{name} is {}, expected a number", describe(value))),
    }
}
