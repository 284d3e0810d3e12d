//! Standardization: every feature gets mean 0 and standard deviation 1 *on the training samples*, so that the penalty
//! of the probe applies equally to all features. Test samples are transformed with the training statistics, never
//! with their own.

use half::bf16;
use ndarray::{Array1, Array2, ArrayView2, CowArray, Ix2};

use super::simd::{SimdLoop, run_simd};
use crate::error::{Error, Result};

/// The divisor of a feature that is constant in training: its training values become zeros instead of NaN, and its
/// test values their differences to the constant.
pub const CONSTANT_FEATURE_SCALE: f64 = 1.0;

/// An element type of raw features.
pub trait FeatureElement: Copy {
    /// Converts the value exactly.
    fn widen(self) -> f32;
}

impl FeatureElement for f32 {
    #[inline(always)]
    fn widen(self) -> f32 {
        self
    }
}

impl FeatureElement for bf16 {
    #[inline(always)]
    fn widen(self) -> f32 {
        // The upper half of the bits. The conversion of the crate `half` has a branch for NaN.
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }
}

/// Mean and standard deviation of each feature, measured on the training samples.
///
/// Statistics and arithmetic use f64 for all element types. The result is rounded to f32, with a relative error of
/// 2^-24: far below the rounding error of the activations.
#[derive(Clone, Debug, PartialEq)]
pub struct Standardizer {
    mean: Array1<f64>,
    standard_deviation: Array1<f64>,
}

impl Standardizer {
    /// Measures `features` `[n, h]`: the mean, and the standard deviation with the divisor `n - 1`, or
    /// [`CONSTANT_FEATURE_SCALE`] for a constant feature.
    ///
    /// A feature counts as constant if its variance is within the rounding error of a feature with its mean, which is the
    /// bound of scikit-learn's `StandardScaler` (`_is_constant_feature`). The bound is relative: features multiplied by a
    /// power of two have the same standardized values to the last bit. scikit-learn's divisor is `n`; the other divisor
    /// multiplies all standardized values by the same factor.
    ///
    /// One pass over the differences to the first sample (Chan, Golub and LeVeque, "Algorithms for computing the
    /// sample variance", 1983: shifted data). The differences are exactly zero for a constant feature, so its mean is
    /// exact and its standardized training values are zeros, not rounding errors. The first sample is at most `sqrt(n)` deviations from the mean, so the variance is
    /// exact to `n` roundings for any mean.
    ///
    /// # Errors
    ///
    /// Fewer than two samples, no columns, or a value that is not finite (the message names its sample and column).
    pub fn fit<E: FeatureElement>(features: ArrayView2<'_, E>) -> Result<Self> {
        let (samples, columns) = features.dim();
        if samples < 2 {
            return Err(Error::input(
                "training features",
                format!(
                    "{samples} sample(s), but a standard deviation needs at least 2; use more samples or a larger training fraction"
                ),
            ));
        }
        check_columns("training features", columns)?;
        let first: Vec<f64> = features.row(0).iter().map(|value| f64::from(value.widen())).collect();
        let mut moments = vec![[0.0_f64; 2 * LANES]; columns.div_ceil(LANES)];
        let rows = row_major(features);
        run_simd(MomentsLoop { rows: rows.as_slice().unwrap_or_default(), first: &first, moments: &mut moments });
        let n = samples as f64;
        let mut mean = Array1::zeros(columns);
        let mut standard_deviation = Array1::zeros(columns);
        let mut finite = true;
        for (column, first) in first.iter().enumerate() {
            let (sum, squares) =
                (moments[column / LANES][column % LANES], moments[column / LANES][LANES + column % LANES]);
            // Finite features cannot overflow the sums in f64, so this detects a NaN or an infinity.
            finite &= squares.is_finite();
            mean[column] = first + sum / n;
            let squares = (squares - sum * (sum / n)).max(0.0);
            standard_deviation[column] = if is_constant(squares / n, mean[column], n) {
                CONSTANT_FEATURE_SCALE
            } else {
                (squares / (n - 1.0)).sqrt()
            };
        }
        if !finite {
            return Err(not_finite("training features", features));
        }
        Ok(Self { mean, standard_deviation })
    }

    /// Standardizes `features` `[n, h]` and rounds to f32. A value beyond the range of f32 (for example of a feature
    /// that was constant in training) is clamped.
    ///
    /// # Errors
    ///
    /// Another number of columns than in training, or a value that is not finite. `name` starts the message.
    pub fn apply<E: FeatureElement>(&self, name: &str, features: ArrayView2<'_, E>) -> Result<Array2<f32>> {
        if features.ncols() != self.mean.len() {
            return Err(Error::input(
                name,
                format!("{} columns, but the training features have {}", features.ncols(), self.mean.len()),
            ));
        }
        check_columns(name, features.ncols())?;
        let mean = self.mean.to_vec();
        let scale: Vec<f64> = self.standard_deviation.iter().map(|deviation| deviation.recip()).collect();
        let mut standardized = Array2::<f32>::zeros(features.dim());
        let rows = row_major(features);
        let finite = run_simd(StandardizeLoop {
            rows: rows.as_slice().unwrap_or_default(),
            mean: &mean,
            scale: &scale,
            out: standardized.as_slice_mut().unwrap_or_default(),
        });
        if !finite {
            return Err(not_finite(name, features));
        }
        Ok(standardized)
    }

    /// The training mean of each feature, `[h]`.
    pub fn mean(&self) -> &Array1<f64> {
        &self.mean
    }

    /// The training standard deviation of each feature, `[h]`; [`CONSTANT_FEATURE_SCALE`] for a constant one.
    pub fn standard_deviation(&self) -> &Array1<f64> {
        &self.standard_deviation
    }
}

/// Whether `n` values with this `variance` (divisor `n`) and `mean` cannot be distinguished from equal ones: the bound of the
/// rounding error of a variance in f64 by Chan, Golub and LeVeque (1983), as scikit-learn applies it.
fn is_constant(variance: f64, mean: f64, n: f64) -> bool {
    variance <= n * f64::EPSILON * variance + (n * mean * f64::EPSILON).powi(2)
}

/// Columns per vector step; their sums are adjacent in memory.
const LANES: usize = 16;

/// `features` in row-major layout, copied if necessary.
fn row_major<E: FeatureElement>(features: ArrayView2<'_, E>) -> CowArray<'_, E, Ix2> {
    if features.is_standard_layout() {
        CowArray::from(features)
    } else {
        CowArray::from(features.as_standard_layout().into_owned())
    }
}

/// The loop of [`Standardizer::fit`].
struct MomentsLoop<'a, E> {
    rows: &'a [E],
    first: &'a [f64],
    moments: &'a mut [[f64; 2 * LANES]],
}

impl<E: FeatureElement> SimdLoop for MomentsLoop<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        for row in self.rows.chunks_exact(self.first.len()) {
            add_moments(self.moments, self.first, row);
        }
    }
}

/// The loop of [`Standardizer::apply`]. Returns whether all values were finite.
struct StandardizeLoop<'a, E> {
    rows: &'a [E],
    mean: &'a [f64],
    scale: &'a [f64],
    out: &'a mut [f32],
}

impl<E: FeatureElement> SimdLoop for StandardizeLoop<'_, E> {
    type Output = bool;

    #[inline(always)]
    fn run(self) -> bool {
        let columns = self.mean.len();
        let mut finite = true;
        for (row, out) in self.rows.chunks_exact(columns).zip(self.out.chunks_exact_mut(columns)) {
            finite &= standardize_row(row, self.mean, self.scale, out);
        }
        finite
    }
}

/// Adds the differences between `row` and `first`, and their squares. For each group of columns, `moments` has the
/// sums, then the sums of squares.
#[inline(always)]
fn add_moments<E: FeatureElement>(moments: &mut [[f64; 2 * LANES]], first: &[f64], row: &[E]) {
    let ((values, value_tail), (firsts, first_tail)) = (row.as_chunks::<LANES>(), first.as_chunks::<LANES>());
    for ((moments, values), firsts) in moments.iter_mut().zip(values).zip(firsts) {
        let differences: [f64; LANES] = std::array::from_fn(|lane| f64::from(values[lane].widen()) - firsts[lane]);
        for lane in 0..LANES {
            moments[lane] += differences[lane];
            moments[LANES + lane] += differences[lane] * differences[lane];
        }
    }
    if let Some(moments) = moments.get_mut(values.len()) {
        for (lane, (&value, first)) in value_tail.iter().zip(first_tail).enumerate() {
            let difference = f64::from(value.widen()) - first;
            moments[lane] += difference;
            moments[LANES + lane] += difference * difference;
        }
    }
}

/// Standardizes one row. Returns whether all values were finite.
#[inline(always)]
fn standardize_row<E: FeatureElement>(row: &[E], mean: &[f64], scale: &[f64], out: &mut [f32]) -> bool {
    const LARGEST: f64 = f32::MAX as f64;
    let mut finite = true;
    for (((out, &value), mean), scale) in out.iter_mut().zip(row).zip(mean).zip(scale) {
        let value = value.widen();
        finite &= value.abs() <= f32::MAX;
        let standardized = (f64::from(value) - mean) * scale;
        *out = standardized.clamp(-LARGEST, LARGEST) as f32;
    }
    finite
}

fn check_columns(name: &str, columns: usize) -> Result<()> {
    if columns == 0 { Err(Error::input(name, "no columns to train on")) } else { Ok(()) }
}

/// An error that names the first NaN or infinite value. `name` starts the message.
pub(super) fn not_finite<E: FeatureElement>(name: &str, features: ArrayView2<'_, E>) -> Error {
    let found = features.indexed_iter().find(|(_, value)| !value.widen().is_finite());
    let what = match found {
        None => "a value is not finite".to_owned(),
        Some(((sample, column), value)) => format!(
            "sample {sample}, column {column} is {}; the activations overflowed or were not computed; try a wider --dtype",
            value.widen()
        ),
    };
    Error::input(name, what)
}

#[cfg(test)]
mod tests {
    use ndarray::{Array2, Axis, array};

    use super::*;

    #[test]
    fn training_columns_get_zero_mean_unit_deviation() {
        let features = array![[1.0_f32, 10.0], [2.0, 30.0], [3.0, 50.0], [6.0, -10.0]];
        let standardizer = Standardizer::fit(features.view()).unwrap();
        assert_eq!(standardizer.mean(), &array![3.0, 20.0]);
        // Deviations -2 -1 0 3: squares 14, divided by 3.
        assert!((standardizer.standard_deviation()[0] - (14.0_f64 / 3.0).sqrt()).abs() < 1e-15);
        let out = standardizer.apply("training features", features.view()).unwrap();
        for column in out.mapv(f64::from).columns() {
            assert!(column.sum().abs() < 1e-6);
            assert!((column.mapv(|x| x * x).sum() / 3.0 - 1.0).abs() < 1e-6);
        }
    }

    #[test]
    fn test_samples_use_training_statistics() {
        let standardizer = Standardizer::fit(array![[0.0_f32], [2.0]].view()).unwrap();
        let out = standardizer.apply("test features", array![[5.0_f32]].view()).unwrap();
        assert!((f64::from(out[[0, 0]]) - 4.0 / 2.0_f64.sqrt()).abs() < 1e-6);
    }

    #[test]
    fn constant_column_becomes_exact_zeros() {
        let features = Array2::from_elem((777, 2), 0.1_f32);
        let standardizer = Standardizer::fit(features.view()).unwrap();
        assert_eq!(standardizer.standard_deviation()[0], CONSTANT_FEATURE_SCALE);
        let out = standardizer.apply("training features", features.view()).unwrap();
        assert!(out.iter().all(|&x| x == 0.0));
    }

    #[test]
    fn scaled_features_have_the_same_standardized_bits() {
        let features = Array2::from_shape_fn((40, 19), |(i, j)| ((i * 7 + j * 13) % 29) as f32 / 8.0 - 1.0);
        let unscaled = Standardizer::fit(features.view()).unwrap().apply("features", features.view()).unwrap();
        for power in -60..=60 {
            let scaled = &features * 2.0_f32.powi(power);
            let standardizer = Standardizer::fit(scaled.view()).unwrap();
            let out = standardizer.apply("features", scaled.view()).unwrap();
            let bits = |values: &Array2<f32>| values.mapv(f32::to_bits);
            assert_eq!(bits(&out), bits(&unscaled), "2^{power}");
        }
    }

    #[test]
    fn large_mean_keeps_standard_deviation() {
        let features = array![[1.0e6_f32 - 1.0], [1.0e6], [1.0e6 + 1.0]];
        let standardizer = Standardizer::fit(features.view()).unwrap();
        assert!((standardizer.standard_deviation()[0] - 1.0).abs() < 1e-9);
    }

    #[test]
    fn one_pass_statistics_match_two_passes() {
        for (samples, columns) in [(2, 1), (40, 16), (33, 37)] {
            let features = Array2::from_shape_fn((samples, columns), |(i, j)| match i {
                0 => 1000.0 + j as f32,
                _ => ((i * 7 + j * 13) % 29) as f32 / 8.0 - 300.0,
            });
            let standardizer = Standardizer::fit(features.view()).unwrap();
            let wide = features.mapv(f64::from);
            let (mean, deviation) = (wide.mean_axis(Axis(0)).unwrap(), wide.std_axis(Axis(0), 1.0));
            for column in 0..columns {
                assert!((standardizer.mean()[column] - mean[column]).abs() <= 1e-11);
                assert!(
                    (standardizer.standard_deviation()[column] - deviation[column]).abs() <= 1e-11 * deviation[column]
                );
            }
            let turned = features.t().as_standard_layout().into_owned();
            let by_columns = turned.t();
            assert_eq!(Standardizer::fit(by_columns).unwrap(), standardizer);
            let out = standardizer.apply("features", features.view()).unwrap();
            assert_eq!(standardizer.apply("features", by_columns).unwrap(), out);
        }
    }

    #[test]
    fn bf16_features_equal_widened_f32() {
        let stored =
            Array2::from_shape_fn((21, 19), |(i, j)| bf16::from_f32(((i * 5 + j * 3) % 23) as f32 * 0.37 - 3.0));
        let wide = stored.mapv(bf16::to_f32);
        let (from_stored, from_wide) =
            (Standardizer::fit(stored.view()).unwrap(), Standardizer::fit(wide.view()).unwrap());
        assert_eq!(from_stored, from_wide);
        assert_eq!(from_stored.apply("", stored.view()).unwrap(), from_wide.apply("", wide.view()).unwrap());
        let mut broken = stored.clone();
        broken[[20, 18]] = bf16::NAN;
        assert!(Standardizer::fit(broken.view()).unwrap_err().to_string().contains("sample 20, column 18 is NaN"));
        assert!(from_stored.apply("test features", broken.view()).is_err());
    }

    #[test]
    fn value_beyond_f32_range_is_clamped() {
        let standardizer = Standardizer::fit(array![[1e-10_f32], [2e-10]].view()).unwrap();
        let out = standardizer.apply("test features", array![[1e38_f32], [-1e38]].view()).unwrap();
        assert_eq!(out, array![[f32::MAX], [-f32::MAX]]);
    }

    #[test]
    fn invalid_features_are_rejected_with_location() {
        let one = Standardizer::fit(array![[1.0_f32, 2.0]].view()).unwrap_err();
        assert_eq!(one.exit_code(), 2);
        assert!(one.to_string().contains("needs at least 2"), "{one}");
        let nan = Standardizer::fit(array![[1.0_f32, 2.0], [3.0, f32::NAN]].view()).unwrap_err();
        assert!(nan.to_string().contains("sample 1, column 1 is NaN"), "{nan}");
        let standardizer = Standardizer::fit(array![[1.0_f32, 2.0], [3.0, 4.0]].view()).unwrap();
        let inf = standardizer.apply("test features", array![[f32::INFINITY, 0.0]].view()).unwrap_err();
        assert!(inf.to_string().starts_with("test features: sample 0, column 0 is inf"), "{inf}");
        let narrow = standardizer.apply("test features", array![[0.0_f32]].view()).unwrap_err();
        assert!(narrow.to_string().contains("1 columns"), "{narrow}");
        assert!(Standardizer::fit(Array2::<f32>::zeros((3, 0)).view()).is_err());
    }
}
