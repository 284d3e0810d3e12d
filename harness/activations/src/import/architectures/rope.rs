//! Rotary settings of architectures other than `llama`.

use serde_json::{Value as Json, json};

use super::keys::ModelKeys;
use crate::error::Result;

/// The value of `rope_scaling` in `config.json`; null without scaling.
///
/// # Errors
/// An unsupported kind of scaling, or an invalid parameter.
pub(super) fn read_scaling(keys: &ModelKeys<'_>) -> Result<Json> {
    let factor = match keys.number("rope.scaling.factor")? {
        Some(factor) => Some(factor),
        None => keys.number("rope.scale_linear")?,
    };
    // llama.cpp takes a factor of 0 as absent.
    let factor = match factor.filter(|&factor| factor != 0.0 && factor != 1.0) {
        Some(factor) if !(factor.is_finite() && factor > 0.0) => {
            return keys.fail(format!("has the invalid rotary scaling factor {factor}"));
        }
        factor => factor,
    };
    match (keys.text("rope.scaling.type")?, factor) {
        (Some("none"), _) | (None | Some("linear" | "yarn"), None) => Ok(Json::Null),
        (None | Some("linear"), Some(factor)) => Ok(json!({"rope_type": "linear", "factor": factor})),
        (Some("yarn"), Some(factor)) => read_yarn(keys, factor),
        (Some(other), _) => keys.fail(format!("has rotary scaling of type '{other}', which is not supported")),
    }
}

fn read_yarn(keys: &ModelKeys<'_>, factor: f64) -> Result<Json> {
    // 0 turns the interpolation off; the values that keep it pass the check of all keys.
    if keys.number("rope.scaling.yarn_ext_factor")? == Some(0.0) {
        return keys.fail("has YaRN scaling with the extrapolation factor 0, which is not supported");
    }
    // The converter writes Hugging Face's factor, which replaces the one of YaRN; llama.cpp multiplies both.
    if keys.number("rope.scaling.yarn_attn_factor")?.is_some() {
        return keys.fail("has YaRN scaling with an attention factor (yarn_attn_factor), which is not supported");
    }
    let mut scaling = json!({"rope_type": "yarn", "factor": factor});
    if let Some(original) = keys.count("rope.scaling.original_context_length")? {
        scaling["original_max_position_embeddings"] = original.into();
    }
    for (name, key) in [("yarn_beta_fast", "beta_fast"), ("yarn_beta_slow", "beta_slow")] {
        if let Some(beta) = keys.positive(&format!("rope.scaling.{name}"))? {
            scaling[key] = beta.into();
        }
    }
    Ok(scaling)
}

/// The fraction of a head of `head_dim` elements that Hugging Face multiplies with `head_dim` and rounds down to
/// `rotary_dim`.
pub(super) fn rotated_fraction(rotary_dim: usize, head_dim: usize) -> f64 {
    let fraction = rotary_dim as f64 / head_dim as f64;
    // A quotient that was rounded down can give one element less.
    if (fraction * head_dim as f64) as usize == rotary_dim {
        fraction
    } else {
        (rotary_dim as f64 + 0.5) / head_dim as f64
    }
}

/// The divisors of the frequencies in the tensor `name`, if the file has it.
///
/// # Errors
/// Another number of divisors than `pairs`, or divisors that are not positive.
pub(super) fn read_divisors(keys: &ModelKeys<'_>, name: &str, pairs: usize) -> Result<Option<Json>> {
    let Some(tensor) = keys.gguf.find_tensor(name) else { return Ok(None) };
    if tensor.shape != [pairs] {
        return keys.fail(format!("tensor '{name}' has shape {:?}, expected [{pairs}]", tensor.shape));
    }
    let mut divisors = vec![0.0; pairs];
    tensor.kind.dequantize(keys.gguf.blocks(tensor), &mut divisors);
    if !divisors.iter().all(|divisor| divisor.is_finite() && *divisor > 0.0) {
        return keys.fail(format!("tensor '{name}' has divisors that are not positive"));
    }
    // As with metadata: the number nearest to the shortest decimal form is the one that its author wrote.
    Ok(Some(divisors.iter().map(|divisor| divisor.to_string().parse::<f64>().unwrap_or(f64::from(*divisor))).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fraction_gives_rotated_elements_back() {
        for head_dim in (2..=512).step_by(2) {
            for rotary_dim in (2..=head_dim).step_by(2) {
                let fraction = rotated_fraction(rotary_dim, head_dim);
                assert!(fraction > 0.0 && fraction <= 1.0);
                assert_eq!((head_dim as f64 * fraction) as usize, rotary_dim, "of {head_dim}");
            }
        }
    }
}
