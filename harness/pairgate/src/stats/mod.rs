//! The statistics of repeated measurements: pure functions of the numbers given, with no clock, file or hidden seed.
//!
//! The unit is a pair of observations that were measured next to each other. [`ratio`] estimates the ratio of pairs with a
//! confidence interval, from the median of the Walsh averages ([`hodges_lehmann`]) of the log-ratios and the exact null
//! distribution of the signed-rank statistic ([`signed_rank`]). Both are valid for any symmetric distribution, and the
//! log-ratios of timings are much closer to a symmetric distribution than to a normal one. [`holm`] adjusts p-values for
//! several tests. [`summary`] and [`outliers`] describe one series, of which outliers are named and kept; [`trend`] tests
//! for drift, [`change_points`] finds where the distribution changes, [`prediction`] bounds the next value, and
//! [`rank_sum`] estimates the shift between two unpaired series.

pub mod change_points;
pub mod hodges_lehmann;
pub mod holm;
pub mod outliers;
pub mod prediction;
pub mod rank_sum;
pub mod ratio;
pub mod signed_rank;
pub mod summary;
pub mod trend;

#[cfg(test)]
mod tests;

pub use hodges_lehmann::{ConfidenceInterval, WalshAverages};
pub use holm::holm;
pub use outliers::{Outlier, OutlierFences};
pub use ratio::RatioEstimate;
pub use signed_rank::{SignedRankDistribution, SignedRankTest};
pub use summary::Summary;
pub use trend::Trend;

use crate::error::{Error, Result};

/// The most observations for which exact distributions and all Walsh averages are computed: half a million averages,
/// and a distribution that takes about a second to compute.
pub const MAX_OBSERVATIONS: usize = 1000;

/// Refuses more than [`MAX_OBSERVATIONS`] and values that are not finite; `name` opens the message.
fn check_observations(name: &str, values: &[f64]) -> Result<()> {
    if values.len() > MAX_OBSERVATIONS {
        return Err(Error::usage(format!(
            "{name}: {} observations, but exact statistics are limited to {MAX_OBSERVATIONS}; summarize within processes first",
            values.len()
        )));
    }
    match values.iter().position(|value| !value.is_finite()) {
        Some(index) => Err(Error::input(name, format!("observation {index} is {}", values[index]))),
        None => Ok(()),
    }
}

/// Refuses a confidence outside `0..1`.
fn check_confidence(confidence: f64) -> Result<()> {
    if confidence > 0.0 && confidence < 1.0 {
        Ok(())
    } else {
        Err(Error::usage(format!("confidence is {confidence}; it must lie between 0 and 1, usually 0.95")))
    }
}
