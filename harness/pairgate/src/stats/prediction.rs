//! The prediction interval of the next run of a history: one more normal observation.
//!
//! The error within a run does not predict another run: machines drift between runs by more than they scatter within one.
//! The scatter of past runs includes both. With few runs the scatter itself is uncertain, which Student's distribution
//! accounts for (for instance Hahn and Meeker, "Statistical Intervals", 1991, 4.7).

use statrs::distribution::{ContinuousCDF, StudentsT};

use super::check_observations;
use crate::error::{Error, Result};

/// The mean of a history, and the distance from it that one more run may have.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Prediction {
    /// Runs of the history.
    pub n: usize,
    /// Their mean.
    pub mean: f64,
    /// Their standard deviation, with `n - 1`.
    pub deviation: f64,
    /// The scatter of one more run around the mean: `deviation sqrt(1 + 1/n)`.
    pub scale: f64,
    /// The distance above the mean that one more run exceeds with probability `1 - confidence`.
    pub margin: f64,
}

impl Prediction {
    /// From at least two runs, one-sided at `confidence`.
    ///
    /// # Errors
    /// Fewer than two runs, too many, a value that is not finite, or a confidence outside `0..1`.
    pub fn of(history: &[f64], confidence: f64) -> Result<Self> {
        check_observations("history", history)?;
        super::check_confidence(confidence)?;
        let n = history.len();
        if n < 2 {
            return Err(Error::input("history", format!("{n} runs; a scatter needs at least 2")));
        }
        let mean = history.iter().sum::<f64>() / n as f64;
        let squares: f64 = history.iter().map(|value| (value - mean) * (value - mean)).sum();
        let deviation = (squares / (n - 1) as f64).sqrt();
        let scale = deviation * (1.0 + 1.0 / n as f64).sqrt();
        Ok(Prediction { n, mean, deviation, scale, margin: student_quantile(confidence, n - 1)? * scale })
    }

    /// The value that one more run exceeds with probability `1 - confidence`.
    pub fn bound(&self) -> f64 {
        self.mean + self.margin
    }
}

/// The quantile of Student's distribution.
///
/// # Errors
/// No degrees of freedom, or a probability outside `0..1`.
pub fn student_quantile(probability: f64, degrees_of_freedom: usize) -> Result<f64> {
    super::check_confidence(probability)?;
    let distribution = StudentsT::new(0.0, 1.0, degrees_of_freedom as f64)
        .map_err(|error| Error::usage(format!("Student's distribution with {degrees_of_freedom} degrees: {error}")))?;
    Ok(distribution.inverse_cdf(probability))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_match_scipy() {
        // scipy.stats.t.ppf(probability, df)
        let goldens = [
            (0.99, 9, 2.821437925025809),
            (0.99, 1, 31.820515953773935),
            (0.99, 29, 2.4620213601504126),
            (0.95, 9, 1.833112932656237),
            (0.99, 199, 2.3452322311210203),
            (0.01, 9, -2.821437925025809),
        ];
        for (probability, degrees, expected) in goldens {
            let actual = student_quantile(probability, degrees).unwrap();
            assert!(
                (actual / expected - 1.0).abs() <= 1e-9,
                "t({probability}, {degrees}) = {actual} instead of {expected}"
            );
        }
        assert!(student_quantile(0.99, 0).is_err());
    }

    #[test]
    fn bound_matches_hand_computation() {
        let history = [9.0, 10.0, 11.0, 10.0, 9.0, 11.0, 10.0, 10.0, 9.0, 11.0];
        let prediction = Prediction::of(&history, 0.99).unwrap();
        assert_eq!((prediction.n, prediction.mean), (10, 10.0));
        // The squares add up to 6, so that the variance is 6 / 9.
        let expected = 10.0 + 2.821437925025809 * (6.0_f64 / 9.0 * 1.1).sqrt();
        assert!((prediction.bound() - expected).abs() <= 1e-9, "{}", prediction.bound());
        assert!(Prediction::of(&[1.0], 0.99).is_err());
        assert!(Prediction::of(&[1.0, f64::NAN], 0.99).is_err());
        assert!(Prediction::of(&[1.0, 2.0], 1.0).is_err());
    }
}
