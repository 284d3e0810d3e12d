//! Names observations that lie far from the others, and drops none: a slow run is a fact about the method or the
//! machine, and which of the two it is cannot be told from the number.

use serde::{Deserialize, Serialize};

use super::summary::Summary;
use crate::error::Result;

/// Where an observation lies among the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outlier {
    /// More than three quartile distances below the lower quartile.
    LowSevere,
    /// More than one and a half below.
    LowMild,
    /// No outlier.
    None,
    /// More than one and a half above the upper quartile.
    HighMild,
    /// More than three above.
    HighSevere,
}

/// Tukey's fences ("Exploratory Data Analysis", 1977) of a series: 1.5 and 3 quartile distances beyond the quartiles.
///
/// Where half of the observations are equal the distance is zero, and each one that differs lies outside: right for
/// readings that should all be equal, such as allocated bytes, and worth knowing before reading much into it elsewhere.
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
        let distance = upper_quartile - lower_quartile;
        Ok(Self {
            low_severe: lower_quartile - 3.0 * distance,
            low_mild: lower_quartile - 1.5 * distance,
            high_mild: upper_quartile + 1.5 * distance,
            high_severe: upper_quartile + 3.0 * distance,
        })
    }

    /// Where `value` lies.
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

/// One judgement for each of `values`, in their order.
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
    fn far_observations_are_named_by_side_and_distance() {
        // Quartiles 2 and 4: fences at -4, -1, 7 and 10.
        let fences = OutlierFences::of(&[1.0, 2.0, 3.0, 4.0, 5.0]).unwrap();
        let judged = [-4.1, -4.0, -1.0, 3.0, 7.0, 7.1, 10.0, 10.1].map(|value| fences.judge(value));
        use Outlier::{HighMild, HighSevere, LowMild, LowSevere, None};
        assert_eq!(judged, [LowSevere, LowMild, None, None, None, HighMild, HighMild, HighSevere]);
    }

    #[test]
    fn none_is_dropped_and_the_order_kept() {
        let flags = flag_outliers(&[100.0, 1.0, 2.0, 1.5, 1.2, 1.7, 1.1]).unwrap();
        assert_eq!(flags.len(), 7);
        assert_eq!(flags[0], Outlier::HighSevere);
        assert!(flags[1..].iter().all(|flag| *flag == Outlier::None));
    }

    #[test]
    fn among_equal_readings_the_one_that_differs_is_named() {
        assert_eq!(flag_outliers(&[5.0, 5.0, 5.0, 5.0, 5.1]).unwrap()[4], Outlier::HighSevere);
        assert!(flag_outliers(&[5.0; 4]).unwrap().iter().all(|flag| *flag == Outlier::None));
    }

    #[test]
    fn what_cannot_be_judged_is_refused() {
        assert!(flag_outliers(&[]).is_err());
        assert!(flag_outliers(&[1.0, f64::NAN]).is_err());
    }
}
