//! Rotary frequencies (Su et al. 2021) and their scalings for long contexts, as in transformers' `modeling_rope_utils`.
//!
//! Everything is computed in `f64` and rounded to the `f32` that the angles are computed in.

use std::f64::consts::PI;

/// One rotary table: the frequencies of its pairs of elements.
#[derive(Clone, Debug, PartialEq)]
pub struct RopeSpec {
    /// Base of the frequencies.
    pub theta: f64,
    /// The first elements of each head that are rotated; even.
    pub rotary_dim: usize,
    /// What is done to the frequencies for long contexts.
    pub scaling: RopeScaling,
}

/// What is done to the frequencies for long contexts.
#[derive(Clone, Debug, PartialEq)]
pub enum RopeScaling {
    /// Nothing.
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
    /// A base that grows with rows that are longer than the context (dynamic NTK scaling); shorter rows have the plain one.
    Dynamic {
        /// The factor of the growth.
        factor: f64,
        /// The longest row, in tokens, that has the plain frequencies.
        max_positions: usize,
    },
    /// Interpolation between kept and divided frequencies by the number of rotations in the context (YaRN, Peng et al. 2023).
    Yarn {
        /// The divisor of the low frequencies.
        factor: f64,
        /// Positions the model was first trained on.
        original_context: f64,
        /// From so many rotations on a frequency is kept.
        beta_fast: f64,
        /// Below so many rotations a frequency is divided.
        beta_slow: f64,
        /// Whether the bounds of the interpolation are rounded to whole pairs.
        truncate: bool,
        /// The factor of cosines and sines.
        attention_factor: f64,
    },
    /// A divisor for each frequency, one set for short rows and one for long rows (LongRoPE, Ding et al. 2024).
    LongRope {
        /// Divisors for rows of up to `original_context` tokens; one a pair.
        short_factor: Vec<f64>,
        /// Divisors for longer rows.
        long_factor: Vec<f64>,
        /// Positions the model was first trained on.
        original_context: f64,
        /// The factor of cosines and sines.
        attention_factor: f64,
    },
}

impl RopeScaling {
    /// The scaled frequency of pair `pair` of a table of `theta` and `rotary_dim`, radians a position.
    fn apply(&self, frequency: f64, pair: usize, theta: f64, rotary_dim: usize) -> f64 {
        match self {
            RopeScaling::Default | RopeScaling::Dynamic { .. } => frequency,
            RopeScaling::Linear { factor } => frequency / factor,
            RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_context } => {
                let wavelength = 2.0 * PI / frequency;
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
            RopeScaling::Yarn { factor, original_context, beta_fast, beta_slow, truncate, .. } => {
                let dim = rotary_dim as f64;
                // The pair that makes so many rotations in the original context.
                let pair_of =
                    |rotations: f64| dim * (original_context / (rotations * 2.0 * PI)).ln() / (2.0 * theta.ln());
                let (mut low, mut high) = (pair_of(*beta_fast), pair_of(*beta_slow));
                if *truncate {
                    (low, high) = (low.floor(), high.ceil());
                }
                // The bound is `dim - 1` in transformers, although there are only `dim / 2` pairs.
                (low, high) = (low.max(0.0), high.min(dim - 1.0));
                if low == high {
                    high += 0.001;
                }
                let divided = ((pair as f64 - low) / (high - low)).clamp(0.0, 1.0);
                frequency / factor * divided + frequency * (1.0 - divided)
            }
            RopeScaling::LongRope { short_factor, .. } => short_factor.get(pair).map_or(f64::NAN, |by| frequency / by),
        }
    }
}

impl RopeSpec {
    /// The frequencies, `rotary_dim / 2` of them, in radians a position: those of rows up to [`RopeSpec::longest_row`].
    pub fn frequencies(&self) -> Vec<f32> {
        (0..self.rotary_dim / 2)
            .map(|pair| {
                let frequency = self.theta.powf(-((2 * pair) as f64) / self.rotary_dim as f64);
                self.scaling.apply(frequency, pair, self.theta, self.rotary_dim) as f32
            })
            .collect()
    }

    /// The factor of cosines and sines (YaRN, LongRoPE); 1 for the others.
    pub fn attention_factor(&self) -> f32 {
        match &self.scaling {
            RopeScaling::Yarn { attention_factor, .. } | RopeScaling::LongRope { attention_factor, .. } => {
                *attention_factor as f32
            }
            RopeScaling::Default
            | RopeScaling::Linear { .. }
            | RopeScaling::Llama3 { .. }
            | RopeScaling::Dynamic { .. } => 1.0,
        }
    }

    /// The longest row, in tokens, that has these frequencies, and what a longer one would have; none where all rows have them.
    pub fn longest_row(&self) -> Option<(usize, String)> {
        match &self.scaling {
            RopeScaling::Dynamic { factor, max_positions } => {
                let why = format!(
                    "a longer one has a base of the rotary frequencies of its own (dynamic NTK, factor {factor})"
                );
                Some((*max_positions, why))
            }
            RopeScaling::LongRope { short_factor, long_factor, original_context, .. }
                if short_factor != long_factor =>
            {
                let why = "a longer one has the rotary frequencies of long_factor (LongRoPE)".to_owned();
                Some((*original_context as usize, why))
            }
            RopeScaling::LongRope { .. }
            | RopeScaling::Default
            | RopeScaling::Linear { .. }
            | RopeScaling::Llama3 { .. }
            | RopeScaling::Yarn { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(found: f64, expected: f64) {
        assert!((found - expected).abs() <= 1e-12 * expected.abs(), "{found} for {expected}");
    }

    #[test]
    fn plain_and_linear_frequencies_are_powers_of_the_base() {
        let plain = RopeSpec { theta: 10_000.0, rotary_dim: 8, scaling: RopeScaling::Default };
        assert_eq!(plain.frequencies(), [1.0, 0.1, 0.01, 0.001]);
        assert_eq!(plain.attention_factor(), 1.0);
        assert_eq!(plain.longest_row(), None);
        let linear = RopeSpec { scaling: RopeScaling::Linear { factor: 2.0 }, ..plain };
        assert_eq!(linear.frequencies(), [0.5, 0.05, 0.005, 0.0005]);
    }

    #[test]
    fn llama3_scaling_has_three_bands() {
        let scaling =
            RopeScaling::Llama3 { factor: 8.0, low_freq_factor: 1.0, high_freq_factor: 4.0, original_context: 64.0 };
        let apply = |frequency: f64| scaling.apply(frequency, 0, 10_000.0, 8);
        let tau = 2.0 * PI;
        assert_eq!(apply(tau / 10.0), tau / 10.0);
        assert_eq!(apply(tau / 100.0), tau / 100.0 / 8.0);
        let middle = apply(tau / 32.0);
        assert!(middle > tau / 32.0 / 8.0 && middle < tau / 32.0);
    }

    /// With a base of `e`, 8 elements and a context of `2 pi e`, pair 0 makes `e` rotations and pair 4 makes one.
    #[test]
    fn yarn_interpolates_between_the_two_rotation_counts() {
        let e = std::f64::consts::E;
        let yarn = |beta_slow: f64| RopeScaling::Yarn {
            factor: 4.0,
            original_context: 2.0 * PI * e,
            beta_fast: e,
            beta_slow,
            truncate: false,
            attention_factor: 1.25,
        };
        let apply = |scaling: &RopeScaling, pair: usize| scaling.apply(1.0, pair, e, 8);
        // Pair 2 is halfway between 1 and 1/4.
        let scaling = yarn(1.0);
        close(apply(&scaling, 0), 1.0);
        close(apply(&scaling, 2), 0.625);
        close(apply(&scaling, 4), 0.25);
        // Equal bounds: a step.
        let step = yarn(e);
        close(apply(&step, 0), 1.0);
        close(apply(&step, 1), 0.25);
        let spec = RopeSpec { theta: e, rotary_dim: 8, scaling };
        assert_eq!(spec.attention_factor(), 1.25);
        assert_eq!(spec.longest_row(), None);
    }

    /// Recomputed with the formula of Peng et al. in Python, for a base of 10,000 and 8 elements: low is
    /// max(floor(-0.196), 0) = 0, high is ceil(1.309) = 2.
    #[test]
    fn yarn_rounds_its_bounds_to_whole_pairs() {
        let scaling = RopeScaling::Yarn {
            factor: 4.0,
            original_context: 128.0,
            beta_fast: 32.0,
            beta_slow: 1.0,
            truncate: true,
            attention_factor: 1.0,
        };
        let spec = RopeSpec { theta: 10_000.0, rotary_dim: 8, scaling };
        let expected = [1.0, 0.1 * 0.625, 0.01 / 4.0, 0.001 / 4.0];
        for (found, expected) in spec.frequencies().into_iter().zip(expected) {
            assert!((f64::from(found) - expected).abs() <= 1e-7 * expected, "{found} for {expected}");
        }
    }

    #[test]
    fn longrope_divides_each_frequency_and_ends_at_the_original_context() {
        let scaling = RopeScaling::LongRope {
            short_factor: vec![1.0, 2.0],
            long_factor: vec![4.0, 8.0],
            original_context: 4096.0,
            attention_factor: 1.19,
        };
        let spec = RopeSpec { theta: 100.0, rotary_dim: 4, scaling };
        assert_eq!(spec.frequencies(), [1.0, 0.05]);
        assert_eq!(spec.attention_factor(), 1.19);
        let (longest, why) = spec.longest_row().unwrap();
        assert_eq!(longest, 4096);
        assert!(why.contains("long_factor"), "{why}");
        let same = RopeScaling::LongRope {
            short_factor: vec![1.0, 2.0],
            long_factor: vec![1.0, 2.0],
            original_context: 4096.0,
            attention_factor: 1.0,
        };
        assert_eq!(RopeSpec { scaling: same, ..spec }.longest_row(), None);
    }

    #[test]
    fn dynamic_scaling_is_plain_up_to_the_context() {
        let scaling = RopeScaling::Dynamic { factor: 2.0, max_positions: 256 };
        let spec = RopeSpec { theta: 10_000.0, rotary_dim: 8, scaling };
        assert_eq!(spec.frequencies(), [1.0, 0.1, 0.01, 0.001]);
        let (longest, why) = spec.longest_row().unwrap();
        assert_eq!(longest, 256);
        assert!(why.contains("dynamic NTK, factor 2"), "{why}");
    }
}
