//! Converts the scaling of rotary frequencies from a GGUF file to Hugging Face's parameters.
//!
//! A file of the Llama 3.1 family does not store its four parameters. It has a tensor `rope_freqs.weight` with the
//! divisor of each frequency, which was computed from them. This module recovers the parameters from the divisors and
//! accepts them only if they reproduce the tensor.

use serde_json::{Value, json};

use super::gguf::{GgufFile, GgufTensor};
use crate::error::{Error, Result};

/// A scaling of rotary frequencies.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum GgufRopeScaling {
    /// Divides all frequencies by this factor.
    Linear(f64),
    /// Scales long wavelengths fully, short ones not at all, and interpolates between.
    Llama3(Llama3Parameters),
}

/// The parameters of Llama 3.1's scaling, with Hugging Face's names.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Llama3Parameters {
    /// The divisor of low frequencies.
    pub factor: f64,
    /// Wavelengths above the original context length divided by this are scaled fully.
    pub low_freq_factor: f64,
    /// Wavelengths below the original context length divided by this are not scaled.
    pub high_freq_factor: f64,
    /// The context length of the pretraining.
    pub original_max_position_embeddings: usize,
}

impl GgufRopeScaling {
    /// The value of `rope_scaling` in `config.json`.
    pub fn to_json(&self) -> Value {
        match self {
            GgufRopeScaling::Linear(factor) => json!({"rope_type": "linear", "factor": factor}),
            GgufRopeScaling::Llama3(parameters) => json!({
                "rope_type": "llama3",
                "factor": parameters.factor,
                "low_freq_factor": parameters.low_freq_factor,
                "high_freq_factor": parameters.high_freq_factor,
                "original_max_position_embeddings": parameters.original_max_position_embeddings,
            }),
        }
    }
}

/// The scaling that the file declares, if any.
///
/// # Errors
/// An unsupported kind of scaling.
pub fn read_rope_scaling(
    gguf: &GgufFile,
    head_dim: usize,
    rope_theta: f64,
    max_positions: usize,
) -> Result<Option<GgufRopeScaling>> {
    let fail = |what: String| Err(Error::file(gguf.path(), what));
    let kind = gguf.optional("llama.rope.scaling.type", "a string", |value| value.as_str())?;
    let factor = match gguf.optional_number("llama.rope.scaling.factor")? {
        Some(factor) => Some(factor),
        None => gguf.optional_number("llama.rope.scale_linear")?,
    };
    let factor = factor.filter(|&factor| factor != 0.0 && factor != 1.0);
    let linear = match (kind, factor) {
        (Some("none"), _) | (None | Some("linear"), None) => None,
        (None | Some("linear"), Some(factor)) if factor.is_finite() && factor > 0.0 => {
            Some(GgufRopeScaling::Linear(factor))
        }
        (None | Some("linear"), Some(factor)) => {
            return fail(format!("has the invalid rotary scaling factor {factor}"));
        }
        (Some(other), _) => return fail(format!("has rotary scaling of type '{other}', which is not supported")),
    };
    let Some(tensor) = gguf.find_tensor("rope_freqs.weight") else {
        return Ok(linear);
    };
    let factors = read_factors(gguf, tensor, head_dim)?;
    if factors.iter().all(|&factor| factor == 1.0) {
        return Ok(linear);
    }
    let original = gguf.optional_count("llama.rope.scaling.original_context_length")?;
    match (linear, solve(&factors, head_dim, rope_theta, original.unwrap_or(max_positions.min(8192)))) {
        (None, Some(parameters)) => Ok(Some(GgufRopeScaling::Llama3(parameters))),
        _ => fail(
            "has a tensor 'rope_freqs.weight' that does not follow the formula of Llama 3.1, the only supported one"
                .to_owned(),
        ),
    }
}

fn read_factors(gguf: &GgufFile, tensor: &GgufTensor, head_dim: usize) -> Result<Vec<f32>> {
    if tensor.shape != [head_dim / 2] {
        let what = format!("tensor 'rope_freqs.weight' has shape {:?}, expected [{}]", tensor.shape, head_dim / 2);
        return Err(Error::file(gguf.path(), what));
    }
    let mut factors = vec![0.0; head_dim / 2];
    tensor.kind.dequantize(gguf.blocks(tensor), &mut factors);
    Ok(factors)
}

/// The divisor of frequency `index`, as Hugging Face computes it for `rope_type` `llama3`.
fn llama3_factor(parameters: &Llama3Parameters, index: usize, head_dim: usize, rope_theta: f64) -> f64 {
    let wavelength = wavelength(index, head_dim, rope_theta);
    let original = parameters.original_max_position_embeddings as f64;
    if wavelength < original / parameters.high_freq_factor {
        1.0
    } else if wavelength > original / parameters.low_freq_factor {
        parameters.factor
    } else {
        let smooth = (original / wavelength - parameters.low_freq_factor)
            / (parameters.high_freq_factor - parameters.low_freq_factor);
        1.0 / ((1.0 - smooth) / parameters.factor + smooth)
    }
}

/// The wavelength of frequency `index`, in positions.
fn wavelength(index: usize, head_dim: usize, rope_theta: f64) -> f64 {
    std::f64::consts::TAU * rope_theta.powf(2.0 * index as f64 / head_dim as f64)
}

/// The parameters that produce `factors`, if there are any.
///
/// The formula has three unknowns in addition to the factor, but multiplying all three by one number gives the same
/// factors, so the original context length is given. With `1/f = (1-s)/F + s`, the interpolation weight `s` of each
/// frequency between the bounds is linear in the reciprocal wavelength; slope and intercept give the bounds.
fn solve(factors: &[f32], head_dim: usize, rope_theta: f64, original: usize) -> Option<Llama3Parameters> {
    let factor = f64::from(factors.iter().copied().fold(1.0, f32::max));
    let smooth = |value: f32| (1.0 / f64::from(value) - 1.0 / factor) / (1.0 - 1.0 / factor);
    let between: Vec<(f64, f64)> = factors
        .iter()
        .enumerate()
        .filter(|&(_, &value)| 1.0 < value && f64::from(value) < factor)
        .map(|(index, &value)| (1.0 / wavelength(index, head_dim, rope_theta), smooth(value)))
        .collect();
    let bounds = match (between.first(), between.last()) {
        (Some(first), Some(last)) if between.len() >= 2 => {
            let slope = (first.1 - last.1) / (first.0 - last.0);
            let intercept = first.1 - slope * first.0;
            let width = original as f64 / slope;
            Some((-intercept * width, width * (1.0 - intercept)))
        }
        // Too few frequencies lie between the bounds to compute them: try those of all models published so far.
        _ => Some((1.0, 4.0)),
    };
    let (low, high) = bounds?;
    // The tensor has single precision, so bounds that were round numbers have rounding errors.
    let round = |value: f64| (value * 1000.0).round() / 1000.0;
    let parameters = Llama3Parameters {
        factor,
        low_freq_factor: round(low),
        high_freq_factor: round(high),
        original_max_position_embeddings: original,
    };
    let fits = factors.iter().enumerate().all(|(index, &value)| {
        let computed = llama3_factor(&parameters, index, head_dim, rope_theta);
        (computed - f64::from(value)).abs() <= 1e-3 * computed.abs()
    });
    fits.then_some(parameters)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LLAMA_3_2: Llama3Parameters = Llama3Parameters {
        factor: 32.0,
        low_freq_factor: 1.0,
        high_freq_factor: 4.0,
        original_max_position_embeddings: 8192,
    };

    fn factors(parameters: &Llama3Parameters, head_dim: usize) -> Vec<f32> {
        (0..head_dim / 2).map(|index| llama3_factor(parameters, index, head_dim, 500_000.0) as f32).collect()
    }

    #[test]
    fn llama3_parameters_are_recovered_from_factors() {
        for (head_dim, factor) in [(64, 32.0), (128, 8.0)] {
            let parameters = Llama3Parameters { factor, ..LLAMA_3_2 };
            let solved = solve(&factors(&parameters, head_dim), head_dim, 500_000.0, 8192);
            assert_eq!(solved, Some(parameters));
        }
    }

    #[test]
    fn factors_match_published_formula() {
        // Computed by hand: with theta 500000 and width 64, frequency 0 has a wavelength of 2 pi positions (short),
        // frequency 31 in 2 pi 500000^(31/32) = 2.08e6 (long), frequency 16 in 2 pi 707.1 = 4442.9 (between 2048 and
        // 8192): smooth = (8192/4442.9 - 1)/3 = 0.28128, 1/((1 - 0.28128)/32 + 0.28128) = 3.2925.
        let factors = factors(&LLAMA_3_2, 64);
        assert_eq!((factors[0], factors[31]), (1.0, 32.0));
        assert!((factors[16] - 3.2925).abs() < 1e-3, "{}", factors[16]);
    }

    #[test]
    fn factors_of_other_formula_are_rejected() {
        let mut factors = factors(&LLAMA_3_2, 64);
        factors[3] = 1.5;
        assert_eq!(solve(&factors, 64, 500_000.0, 8192), None);
        factors[3] = f32::NAN;
        assert_eq!(solve(&factors, 64, 500_000.0, 8192), None);
    }
}
