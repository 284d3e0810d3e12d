//! Standardisation: every feature gets mean 0 and standard deviation 1 *on the training samples*, so that the penalty
//! of the probe weighs all features alike. The test samples are moved by the training statistics, never by their own.

use ndarray::{Array1, Array2, ArrayView2, Axis, Zip};

use crate::error::{Error, Result};

/// Below this a standard deviation is taken for this value, so that a constant feature becomes zeros instead of NaN.
pub const SMALLEST_STANDARD_DEVIATION: f64 = 1e-8;

/// Mean and standard deviation of each feature, measured on the training samples.
///
/// Features are f32, the statistics f64. A sum of fewer than 2^29 equal f32 values is exact in f64, so the mean of a
/// constant feature is that constant to the last bit and its standardised training values are exactly zero; in f32 the
/// rounding of the mean, divided by [`SMALLEST_STANDARD_DEVIATION`], would come out as large made-up features.
#[derive(Clone, Debug, PartialEq)]
pub struct Standardiser {
    mean: Array1<f64>,
    standard_deviation: Array1<f64>,
}

impl Standardiser {
    /// Measures `features` `[n, h]`: the mean, and the unbiased (divided by `n - 1`) standard deviation clamped from
    /// below at [`SMALLEST_STANDARD_DEVIATION`].
    ///
    /// # Errors
    ///
    /// Fewer than two samples, no feature, or a value that is not finite (the message names its sample and column).
    pub fn fit(features: ArrayView2<'_, f32>) -> Result<Self> {
        let (samples, columns) = features.dim();
        if samples < 2 {
            return Err(Error::input(
                "training features",
                format!(
                    "{samples} sample(s), but a standard deviation needs at least 2; take more samples or a larger training fraction"
                ),
            ));
        }
        check_features("training features", features)?;
        // Row by row, because features lie in memory row by row.
        let mut mean = Array1::<f64>::zeros(columns);
        for row in features.axis_iter(Axis(0)) {
            Zip::from(&mut mean).and(row).for_each(|sum, &value| *sum += f64::from(value));
        }
        mean /= samples as f64;
        // A second pass over the deviations: sum of squares minus square of the sum cancels when the mean is large
        // against the spread, as it is for the outlier features of language models.
        let mut squares = Array1::<f64>::zeros(columns);
        for row in features.axis_iter(Axis(0)) {
            Zip::from(&mut squares).and(row).and(&mean).for_each(|sum, &value, &mean| {
                let deviation = f64::from(value) - mean;
                *sum += deviation * deviation;
            });
        }
        let standard_deviation =
            squares.mapv(|sum| (sum / (samples - 1) as f64).sqrt().max(SMALLEST_STANDARD_DEVIATION));
        Ok(Self { mean, standard_deviation })
    }

    /// Standardised `features` `[n, h]`, as f64.
    ///
    /// # Errors
    ///
    /// Another number of columns than was measured, or a value that is not finite. `name` says in the message whose
    /// features they are.
    pub fn apply(&self, name: &str, features: ArrayView2<'_, f32>) -> Result<Array2<f64>> {
        if features.ncols() != self.mean.len() {
            return Err(Error::input(
                name,
                format!("{} columns, but the training features have {}", features.ncols(), self.mean.len()),
            ));
        }
        check_features(name, features)?;
        let mut standardised = Array2::<f64>::zeros(features.dim());
        for (mut out, row) in standardised.axis_iter_mut(Axis(0)).zip(features.axis_iter(Axis(0))) {
            Zip::from(&mut out)
                .and(row)
                .and(&self.mean)
                .and(&self.standard_deviation)
                .for_each(|out, &value, &mean, &deviation| *out = (f64::from(value) - mean) / deviation);
        }
        Ok(standardised)
    }

    /// Training mean of each feature, `[h]`.
    pub fn mean(&self) -> &Array1<f64> {
        &self.mean
    }

    /// Clamped training standard deviation of each feature, `[h]`.
    pub fn standard_deviation(&self) -> &Array1<f64> {
        &self.standard_deviation
    }
}

/// Refuses a matrix without columns and values that are NaN or infinite; `name` opens the message.
pub(super) fn check_features<F: Copy + Into<f64>>(name: &str, features: ArrayView2<'_, F>) -> Result<()> {
    if features.ncols() == 0 {
        return Err(Error::input(name, "no column, so there is nothing to train on"));
    }
    if all_within(features, f64::MAX) {
        return Ok(());
    }
    let found = features.indexed_iter().find(|(_, value)| {
        let value: f64 = (**value).into();
        !value.is_finite()
    });
    match found {
        None => Ok(()),
        Some(((sample, column), value)) => {
            let value: f64 = (*value).into();
            Err(Error::input(
                name,
                format!(
                    "sample {sample}, column {column} is {value}; activations overflowed or were not computed, try a wider --dtype"
                ),
            ))
        }
    }
}

/// Whether every value has at most the size of `largest`; not so for a NaN. Row by row without an early end, which
/// compilers make vector code of.
pub(super) fn all_within<F: Copy + Into<f64>>(features: ArrayView2<'_, F>, largest: f64) -> bool {
    let within = |value: &F| {
        let value: f64 = (*value).into();
        value.abs() <= largest
    };
    features.outer_iter().all(|row| row.iter().fold(true, |all, value| all & within(value)))
}

#[cfg(test)]
mod tests {
    use ndarray::{Array2, array};

    use super::*;

    #[test]
    fn training_columns_get_mean_zero_and_unbiased_deviation_one() {
        let features = array![[1.0_f32, 10.0], [2.0, 30.0], [3.0, 50.0], [6.0, -10.0]];
        let standardiser = Standardiser::fit(features.view()).unwrap();
        assert_eq!(standardiser.mean(), &array![3.0, 20.0]);
        // Deviations -2 -1 0 3: squares 14, divided by 3.
        assert!((standardiser.standard_deviation()[0] - (14.0_f64 / 3.0).sqrt()).abs() < 1e-15);
        let out = standardiser.apply("training features", features.view()).unwrap();
        for column in out.columns() {
            assert!(column.sum().abs() < 1e-12);
            assert!((column.mapv(|x| x * x).sum() / 3.0 - 1.0).abs() < 1e-12);
        }
    }

    #[test]
    fn test_samples_are_moved_by_training_statistics() {
        let standardiser = Standardiser::fit(array![[0.0_f32], [2.0]].view()).unwrap();
        let out = standardiser.apply("test features", array![[5.0_f32]].view()).unwrap();
        assert!((out[[0, 0]] - 4.0 / 2.0_f64.sqrt()).abs() < 1e-12);
    }

    #[test]
    fn a_constant_column_becomes_exact_zeros() {
        let features = Array2::from_elem((777, 2), 0.1_f32);
        let standardiser = Standardiser::fit(features.view()).unwrap();
        assert_eq!(standardiser.standard_deviation()[0], SMALLEST_STANDARD_DEVIATION);
        let out = standardiser.apply("training features", features.view()).unwrap();
        assert!(out.iter().all(|&x| x == 0.0));
    }

    #[test]
    fn a_large_mean_does_not_swallow_the_spread() {
        let features = array![[1.0e6_f32 - 1.0], [1.0e6], [1.0e6 + 1.0]];
        let standardiser = Standardiser::fit(features.view()).unwrap();
        assert!((standardiser.standard_deviation()[0] - 1.0).abs() < 1e-9);
    }

    #[test]
    fn refusals_say_what_and_where() {
        let one = Standardiser::fit(array![[1.0_f32, 2.0]].view()).unwrap_err();
        assert_eq!(one.exit_code(), 2);
        assert!(one.to_string().contains("needs at least 2"), "{one}");
        let nan = Standardiser::fit(array![[1.0_f32, 2.0], [3.0, f32::NAN]].view()).unwrap_err();
        assert!(nan.to_string().contains("sample 1, column 1 is NaN"), "{nan}");
        let standardiser = Standardiser::fit(array![[1.0_f32, 2.0], [3.0, 4.0]].view()).unwrap();
        let inf = standardiser.apply("test features", array![[f32::INFINITY, 0.0]].view()).unwrap_err();
        assert!(inf.to_string().starts_with("test features: sample 0, column 0 is inf"), "{inf}");
        let narrow = standardiser.apply("test features", array![[0.0_f32]].view()).unwrap_err();
        assert!(narrow.to_string().contains("1 columns"), "{narrow}");
        assert!(Standardiser::fit(Array2::<f32>::zeros((3, 0)).view()).is_err());
    }
}
