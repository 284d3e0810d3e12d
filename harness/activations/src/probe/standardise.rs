//! Standardisation: every feature gets mean 0 and standard deviation 1 *on the training samples*, so that the penalty
//! of the probe weighs all features alike. The test samples are moved by the training statistics, never by their own.

use half::bf16;
use ndarray::{Array1, Array2, ArrayView2, CowArray, Ix2};

use super::products::{Vectorised, vectorised};
use crate::error::{Error, Result};

/// Below this a standard deviation is taken for this value, so that a constant feature becomes zeros instead of NaN.
pub const SMALLEST_STANDARD_DEVIATION: f64 = 1e-8;

/// A type that raw features are stored in.
pub trait Stored: Copy {
    /// The same value.
    fn widened(self) -> f32;
}

impl Stored for f32 {
    #[inline(always)]
    fn widened(self) -> f32 {
        self
    }
}

impl Stored for bf16 {
    #[inline(always)]
    fn widened(self) -> f32 {
        // The upper half of the same bits; the crate's own conversion branches for what is no number.
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }
}

/// Mean and standard deviation of each feature, measured on the training samples.
///
/// The statistics and the arithmetic are f64, whatever features are stored in. What comes out is rounded to f32, a 2^-24
/// of itself: far less than the rounding of the activations it is made of.
#[derive(Clone, Debug, PartialEq)]
pub struct Standardiser {
    mean: Array1<f64>,
    standard_deviation: Array1<f64>,
}

impl Standardiser {
    /// Measures `features` `[n, h]`: the mean, and the unbiased (divided by `n - 1`) standard deviation clamped from
    /// below at [`SMALLEST_STANDARD_DEVIATION`].
    ///
    /// In one pass over the differences to the first sample (Chan, Golub and LeVeque, "Algorithms for computing the
    /// sample variance", 1983: shifted data). These are exactly zero for a constant feature, so that its mean is that
    /// constant to the last bit and its standardised training values are zeros, not the rounding of the mean divided by
    /// [`SMALLEST_STANDARD_DEVIATION`]. The first sample is at most `sqrt(n)` deviations from the mean, hence the variance
    /// is right to `n` roundings however large the mean is.
    ///
    /// # Errors
    ///
    /// Fewer than two samples, no feature, or a value that is not finite (the message names its sample and column).
    pub fn fit<E: Stored>(features: ArrayView2<'_, E>) -> Result<Self> {
        let (samples, columns) = features.dim();
        if samples < 2 {
            return Err(Error::input(
                "training features",
                format!(
                    "{samples} sample(s), but a standard deviation needs at least 2; take more samples or a larger training fraction"
                ),
            ));
        }
        check_columns("training features", columns)?;
        let first: Vec<f64> = features.row(0).iter().map(|value| f64::from(value.widened())).collect();
        let mut moments = vec![[0.0_f64; 2 * LANES]; columns.div_ceil(LANES)];
        let rows = standard(features);
        vectorised(Moments { rows: rows.as_slice().unwrap_or_default(), first: &first, moments: &mut moments });
        let n = samples as f64;
        let mut mean = Array1::zeros(columns);
        let mut standard_deviation = Array1::zeros(columns);
        let mut finite = true;
        for (column, first) in first.iter().enumerate() {
            let (sum, squares) =
                (moments[column / LANES][column % LANES], moments[column / LANES][LANES + column % LANES]);
            // Neither can overflow with finite features.
            finite &= squares.is_finite();
            mean[column] = first + sum / n;
            let variance = ((squares - sum * (sum / n)) / (n - 1.0)).max(0.0);
            standard_deviation[column] = variance.sqrt().max(SMALLEST_STANDARD_DEVIATION);
        }
        if !finite {
            return Err(not_finite("training features", features));
        }
        Ok(Self { mean, standard_deviation })
    }

    /// Standardised `features` `[n, h]`, rounded to f32; a value beyond its range (of a feature that was constant in
    /// training, say) becomes the largest.
    ///
    /// # Errors
    ///
    /// Another number of columns than was measured, or a value that is not finite. `name` says in the message whose
    /// features they are.
    pub fn apply<E: Stored>(&self, name: &str, features: ArrayView2<'_, E>) -> Result<Array2<f32>> {
        if features.ncols() != self.mean.len() {
            return Err(Error::input(
                name,
                format!("{} columns, but the training features have {}", features.ncols(), self.mean.len()),
            ));
        }
        check_columns(name, features.ncols())?;
        let mean = self.mean.to_vec();
        let scale: Vec<f64> = self.standard_deviation.iter().map(|deviation| deviation.recip()).collect();
        let mut standardised = Array2::<f32>::zeros(features.dim());
        let rows = standard(features);
        let finite = vectorised(Standardised {
            rows: rows.as_slice().unwrap_or_default(),
            mean: &mean,
            scale: &scale,
            out: standardised.as_slice_mut().unwrap_or_default(),
        });
        if !finite {
            return Err(not_finite(name, features));
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

/// Columns whose sums lie together: the vectors of one step.
const LANES: usize = 16;

/// `features` with their rows one after another, copied if they were not.
fn standard<E: Stored>(features: ArrayView2<'_, E>) -> CowArray<'_, E, Ix2> {
    match features.is_standard_layout() {
        true => CowArray::from(features),
        false => CowArray::from(features.as_standard_layout().into_owned()),
    }
}

/// The pass of [`Standardiser::fit`].
struct Moments<'a, E> {
    rows: &'a [E],
    first: &'a [f64],
    moments: &'a mut [[f64; 2 * LANES]],
}

impl<E: Stored> Vectorised for Moments<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        for row in self.rows.chunks_exact(self.first.len()) {
            add_moments(self.moments, self.first, row);
        }
    }
}

/// The pass of [`Standardiser::apply`]; gives whether all values were finite.
struct Standardised<'a, E> {
    rows: &'a [E],
    mean: &'a [f64],
    scale: &'a [f64],
    out: &'a mut [f32],
}

impl<E: Stored> Vectorised for Standardised<'_, E> {
    type Output = bool;

    #[inline(always)]
    fn run(self) -> bool {
        let columns = self.mean.len();
        let mut finite = true;
        for (row, out) in self.rows.chunks_exact(columns).zip(self.out.chunks_exact_mut(columns)) {
            finite &= standardise_row(row, self.mean, self.scale, out);
        }
        finite
    }
}

/// Adds the row's differences to `first` and their squares: for each group of columns the sums, then the squares' sums.
#[inline(always)]
fn add_moments<E: Stored>(moments: &mut [[f64; 2 * LANES]], first: &[f64], row: &[E]) {
    let ((values, value_tail), (firsts, first_tail)) = (row.as_chunks::<LANES>(), first.as_chunks::<LANES>());
    for ((moments, values), firsts) in moments.iter_mut().zip(values).zip(firsts) {
        let differences: [f64; LANES] = std::array::from_fn(|lane| f64::from(values[lane].widened()) - firsts[lane]);
        for lane in 0..LANES {
            moments[lane] += differences[lane];
            moments[LANES + lane] += differences[lane] * differences[lane];
        }
    }
    if let Some(moments) = moments.get_mut(values.len()) {
        for (lane, (&value, first)) in value_tail.iter().zip(first_tail).enumerate() {
            let difference = f64::from(value.widened()) - first;
            moments[lane] += difference;
            moments[LANES + lane] += difference * difference;
        }
    }
}

/// Whether all values were finite.
#[inline(always)]
fn standardise_row<E: Stored>(row: &[E], mean: &[f64], scale: &[f64], out: &mut [f32]) -> bool {
    const LARGEST: f64 = f32::MAX as f64;
    let mut finite = true;
    for (((out, &value), mean), scale) in out.iter_mut().zip(row).zip(mean).zip(scale) {
        let value = value.widened();
        finite &= value.abs() <= f32::MAX;
        let standardised = (f64::from(value) - mean) * scale;
        *out = standardised.clamp(-LARGEST, LARGEST) as f32;
    }
    finite
}

fn check_columns(name: &str, columns: usize) -> Result<()> {
    match columns {
        0 => Err(Error::input(name, "no column, so there is nothing to train on")),
        _ => Ok(()),
    }
}

/// Says where the first value is that is NaN or infinite; `name` opens the message.
pub(super) fn not_finite<E: Stored>(name: &str, features: ArrayView2<'_, E>) -> Error {
    let found = features.indexed_iter().find(|(_, value)| !value.widened().is_finite());
    let what = match found {
        None => "a value is not finite".to_owned(),
        Some(((sample, column), value)) => format!(
            "sample {sample}, column {column} is {}; activations overflowed or were not computed, try a wider --dtype",
            value.widened()
        ),
    };
    Error::input(name, what)
}

#[cfg(test)]
mod tests {
    use ndarray::{Array2, Axis, array};

    use super::*;

    #[test]
    fn training_columns_get_mean_zero_and_unbiased_deviation_one() {
        let features = array![[1.0_f32, 10.0], [2.0, 30.0], [3.0, 50.0], [6.0, -10.0]];
        let standardiser = Standardiser::fit(features.view()).unwrap();
        assert_eq!(standardiser.mean(), &array![3.0, 20.0]);
        // Deviations -2 -1 0 3: squares 14, divided by 3.
        assert!((standardiser.standard_deviation()[0] - (14.0_f64 / 3.0).sqrt()).abs() < 1e-15);
        let out = standardiser.apply("training features", features.view()).unwrap();
        for column in out.mapv(f64::from).columns() {
            assert!(column.sum().abs() < 1e-6);
            assert!((column.mapv(|x| x * x).sum() / 3.0 - 1.0).abs() < 1e-6);
        }
    }

    #[test]
    fn test_samples_are_moved_by_training_statistics() {
        let standardiser = Standardiser::fit(array![[0.0_f32], [2.0]].view()).unwrap();
        let out = standardiser.apply("test features", array![[5.0_f32]].view()).unwrap();
        assert!((f64::from(out[[0, 0]]) - 4.0 / 2.0_f64.sqrt()).abs() < 1e-6);
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
    fn a_first_sample_far_out_and_many_columns_are_measured_as_by_two_passes() {
        for (samples, columns) in [(2, 1), (40, 16), (33, 37)] {
            let features = Array2::from_shape_fn((samples, columns), |(i, j)| match i {
                0 => 1000.0 + j as f32,
                _ => ((i * 7 + j * 13) % 29) as f32 / 8.0 - 300.0,
            });
            let standardiser = Standardiser::fit(features.view()).unwrap();
            let wide = features.mapv(f64::from);
            let (mean, deviation) = (wide.mean_axis(Axis(0)).unwrap(), wide.std_axis(Axis(0), 1.0));
            for column in 0..columns {
                assert!((standardiser.mean()[column] - mean[column]).abs() <= 1e-11);
                assert!(
                    (standardiser.standard_deviation()[column] - deviation[column]).abs() <= 1e-11 * deviation[column]
                );
            }
            let turned = features.t().as_standard_layout().into_owned();
            let by_columns = turned.t();
            assert_eq!(Standardiser::fit(by_columns).unwrap(), standardiser);
            let out = standardiser.apply("features", features.view()).unwrap();
            assert_eq!(standardiser.apply("features", by_columns).unwrap(), out);
        }
    }

    #[test]
    fn bf16_is_read_as_the_f32_it_stands_for() {
        let stored =
            Array2::from_shape_fn((21, 19), |(i, j)| bf16::from_f32(((i * 5 + j * 3) % 23) as f32 * 0.37 - 3.0));
        let wide = stored.mapv(bf16::to_f32);
        let (from_stored, from_wide) =
            (Standardiser::fit(stored.view()).unwrap(), Standardiser::fit(wide.view()).unwrap());
        assert_eq!(from_stored, from_wide);
        assert_eq!(from_stored.apply("", stored.view()).unwrap(), from_wide.apply("", wide.view()).unwrap());
        let mut broken = stored.clone();
        broken[[20, 18]] = bf16::NAN;
        assert!(Standardiser::fit(broken.view()).unwrap_err().to_string().contains("sample 20, column 18 is NaN"));
        assert!(from_stored.apply("test features", broken.view()).is_err());
    }

    #[test]
    fn a_value_beyond_the_range_is_the_largest() {
        let standardiser = Standardiser::fit(array![[1.0_f32], [1.0]].view()).unwrap();
        let out = standardiser.apply("test features", array![[1e38_f32], [-1e38]].view()).unwrap();
        assert_eq!(out, array![[f32::MAX], [-f32::MAX]]);
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
