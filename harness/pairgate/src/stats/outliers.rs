//! Flags observations that lie far from the others, and drops none: a slow observation alone cannot show whether the
//! method or the machine was slow.

use serde::{Deserialize, Serialize};

use super::summary::Summary;
use crate::error::Result;

/// Where an observation lies among the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outlier {
    /// More than three interquartile ranges below the lower quartile.
    LowSevere,
    /// More than one and a half below.
    LowMild,
    /// Not an outlier.
    None,
    /// More than one and a half above the upper quartile.
    HighMild,
    /// More than three above.
    HighSevere,
}

/// Tukey's fences ("Exploratory Data Analysis", 1977) of a series: 1.5 and 3 interquartile ranges beyond the
/// quartiles.
///
/// If half of the observations are equal the range is zero, and each different observation is an outlier. That is right
/// for values that should all be equal, such as allocated bytes, and misleading elsewhere.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OutlierFences {
    low_severe: f64,
    low_mild: f64,
    high_mild: f64,
    high_severe: f64,
}

impl OutlierFences {
    /// The fences of `values`, in any order.
    ///
    /// # Errors
    ///
    /// No value, or one that is not finite.
    pub fn of(values: &[f64]) -> Result<Self> {
        let Summary { lower_quartile, upper_quartile, .. } = Summary::of(values)?;
        let range = upper_quartile - lower_quartile;
        Ok(Self {
            low_severe: lower_quartile - 3.0 * range,
            low_mild: lower_quartile - 1.5 * range,
            high_mild: upper_quartile + 1.5 * range,
            high_severe: upper_quartile + 3.0 * range,
        })
    }

    /// The side and the distance of `value`.
    pub fn judge(&self, value: f64) -> Outlier {
        if value < self.low_severe {
            Outlier::LowSevere
        } else if value < self.low_mild {
            Outlier::LowMild
        } else if value > self.high_severe {
            Outlier::HighSevere
        } else if value > self.high_mild {
            Outlier::HighMild
        } else {
            Outlier::None
        }
    }
}

/// The flag of each of `values`, in their order.
///
/// # Errors
///
/// No value, or one that is not finite.
pub fn flag_outliers(values: &[f64]) -> Result<Vec<Outlier>> {
    let fences = OutlierFences::of(values)?;
    Ok(values.iter().map(|&value| fences.judge(value)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outliers_are_flagged_by_side_and_distance() {
        // Quartiles 2 and 4: fences at -4, -1, 7 and 10.
        let fences = OutlierFences::of(&[1.0, 2.0, 3.0, 4.0, 5.0]).unwrap();
        let flags = [-4.1, -4.0, -1.0, 3.0, 7.0, 7.1, 10.0, 10.1].map(|value| fences.judge(value));
        use Outlier::{HighMild, HighSevere, LowMild, LowSevere, None};
        assert_eq!(flags, [LowSevere, LowMild, None, None, None, HighMild, HighMild, HighSevere]);
    }

    #[test]
    fn no_observation_is_dropped_or_moved() {
        let flags = flag_outliers(&[100.0, 1.0, 2.0, 1.5, 1.2, 1.7, 1.1]).unwrap();
        assert_eq!(flags.len(), 7);
        assert_eq!(flags[0], Outlier::HighSevere);
        assert!(flags[1..].iter().all(|flag| *flag == Outlier::None));
    }

    #[test]
    fn different_value_among_equal_ones_is_flagged() {
        assert_eq!(flag_outliers(&[5.0, 5.0, 5.0, 5.0, 5.1]).unwrap()[4], Outlier::HighSevere);
        assert!(flag_outliers(&[5.0; 4]).unwrap().iter().all(|flag| *flag == Outlier::None));
    }

    #[test]
    fn empty_and_nan_series_are_refused() {
        assert!(flag_outliers(&[]).is_err());
        assert!(flag_outliers(&[1.0, f64::NAN]).is_err());
    }
}
