//! Probes compared with scikit-learn (`scripts/make_probe_goldens.py`) and with their definition.

use std::path::PathBuf;

use ndarray::{Array1, Array2, ArrayView2, Axis, array};
use proptest::prelude::*;
use safetensors::{Dtype, SafeTensors};

use super::problem::CONVERGED_GRADIENT_NORM;
use super::{LinfaSolver, NewtonSolver, Parameters, Problem, SplitFeatures, Standardizer, auroc, fit, fit_with};

const CASES: [&str; 9] = [
    "more_samples",
    "more_samples_first_one",
    "more_features",
    "correlated",
    "mostly_ones",
    "mostly_zeros",
    "constant_column",
    "separable",
    "wide",
];

fn golden_path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/probe").join(name)
}

fn numbers<T: bytemuck::AnyBitPattern>(file: &SafeTensors<'_>, name: &str, dtype: Dtype) -> (Vec<usize>, Vec<T>) {
    let tensor = file.tensor(name).unwrap();
    assert_eq!(tensor.dtype(), dtype, "{name}");
    let values = tensor.data().chunks_exact(size_of::<T>()).map(bytemuck::pod_read_unaligned).collect();
    (tensor.shape().to_vec(), values)
}

/// Standardized features are f32 here and f64 in the golden file, so the objective, its gradient and the decisions can
/// differ by this. It is a tenth of the documented accuracy. Areas must not differ.
const ROUNDED_FEATURES: f64 = 1e-7;

/// A case of the golden file; fitted values have one entry per element of `cs`.
struct GoldenProbe {
    name: &'static str,
    train: Array2<f32>,
    train_labels: Vec<u8>,
    test: Array2<f32>,
    test_labels: Vec<u8>,
    cs: Vec<f64>,
    weights: Array2<f64>,
    bias: Vec<f64>,
    objective: Vec<f64>,
    decision: Array2<f64>,
    auroc: Vec<f64>,
}

fn goldens() -> Vec<GoldenProbe> {
    let bytes = std::fs::read(golden_path("probes.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let f32s = |name: String| {
        let (shape, values) = numbers::<f32>(&file, &name, Dtype::F32);
        Array2::from_shape_vec((shape[0], shape[1]), values).unwrap()
    };
    let f64s = |name: String| numbers::<f64>(&file, &name, Dtype::F64);
    let matrix = |name: String| {
        let (shape, values) = f64s(name);
        Array2::from_shape_vec((shape[0], shape[1]), values).unwrap()
    };
    CASES
        .iter()
        .map(|name| GoldenProbe {
            name,
            train: f32s(format!("{name}.train")),
            train_labels: numbers(&file, &format!("{name}.train_labels"), Dtype::U8).1,
            test: f32s(format!("{name}.test")),
            test_labels: numbers(&file, &format!("{name}.test_labels"), Dtype::U8).1,
            cs: f64s("cs".to_owned()).1,
            weights: matrix(format!("{name}.weights")),
            bias: f64s(format!("{name}.bias")).1,
            objective: f64s(format!("{name}.objective")).1,
            decision: matrix(format!("{name}.decision")),
            auroc: f64s(format!("{name}.auroc")).1,
        })
        .collect()
}

impl GoldenProbe {
    fn standardized_train(&self) -> Array2<f32> {
        let standardizer = Standardizer::fit(self.train.view()).unwrap();
        standardizer.apply("training features", self.train.view()).unwrap()
    }

    fn split(&self) -> SplitFeatures<'_> {
        SplitFeatures::standardized(self.train.view(), &self.train_labels, self.test.view(), &self.test_labels).unwrap()
    }
}

fn assert_close(actual: f64, expected: f64, tolerance: f64, what: &str) {
    let difference = (actual - expected).abs();
    assert!(difference <= tolerance, "{what}: {actual} instead of {expected}, {difference:e} > {tolerance:e}");
}

/// A column with the scale that scikit-learn's `StandardScaler` gives it, with the divisor `n - 1`.
#[derive(serde::Deserialize)]
struct GoldenScale {
    name: String,
    values: Vec<f32>,
    scale: f64,
}

#[test]
fn scales_match_scikit_learn_at_any_magnitude() {
    let text = std::fs::read_to_string(golden_path("scales.json")).unwrap();
    let goldens: Vec<GoldenScale> = serde_json::from_str(&text).unwrap();
    assert!(goldens.len() > 30);
    for golden in goldens {
        let column = Array2::from_shape_vec((golden.values.len(), 1), golden.values).unwrap();
        let standardizer = Standardizer::fit(column.view()).unwrap();
        let scale = standardizer.standard_deviation()[0];
        assert!((scale / golden.scale - 1.0).abs() <= 1e-9, "{}: {scale} instead of {}", golden.name, golden.scale);
        let out = standardizer.apply("features", column.view()).unwrap();
        let squares: f64 = out.iter().map(|value| f64::from(*value).powi(2)).sum();
        let is_constant = column.iter().all(|value| *value == column[[0, 0]]);
        let expected = if is_constant { 0.0 } else { (column.nrows() - 1) as f64 };
        assert!((squares - expected).abs() <= 1e-5 * expected, "{}: {squares}", golden.name);
    }
}

#[test]
fn converged_fits_match_scikit_learn() {
    for golden in goldens() {
        let split = golden.split();
        for (i, &c) in golden.cs.iter().enumerate() {
            let what = format!("{} at C {c}", golden.name);
            let outcome = split.score(c, 5000).unwrap();
            assert!(outcome.probe.converged, "{what}: gradient {:e}", outcome.probe.gradient_norm);
            let expected = golden.weights.row(i);
            let largest = expected.iter().fold(0.0_f64, |largest, weight| largest.max(weight.abs()));
            for (j, (&weight, &reference)) in outcome.probe.weights.iter().zip(expected).enumerate() {
                // The second term applies to weights that are nearly zero compared with the others.
                let tolerance = 1e-3 * reference.abs() + 1e-5 * largest;
                assert_close(weight, reference, tolerance, &format!("{what}, weight {j}"));
            }
            let tolerance = 1e-3 * golden.bias[i].abs() + 1e-5 * largest;
            assert_close(outcome.probe.bias, golden.bias[i], tolerance, &format!("{what}, bias"));
            assert_close(outcome.probe.objective, golden.objective[i], ROUNDED_FEATURES, &format!("{what}, objective"));
            assert_close(outcome.auroc, golden.auroc[i], 1e-9, &format!("{what}, AUROC"));
            assert_eq!((outcome.n_train, outcome.n_test), (golden.train.nrows(), golden.test.nrows()));
        }
    }
}

#[test]
fn reference_minimum_has_same_objective_zero_gradient() {
    for golden in goldens() {
        let features = golden.standardized_train();
        for (i, &c) in golden.cs.iter().enumerate() {
            let problem = Problem::new(features.view(), &golden.train_labels, c).unwrap();
            let minimum = Parameters { weights: golden.weights.row(i).to_owned(), bias: golden.bias[i] };
            assert_close(problem.objective(&minimum), golden.objective[i], ROUNDED_FEATURES, golden.name);
            assert_close(problem.gradient_norm(&minimum), 0.0, ROUNDED_FEATURES, golden.name);
        }
    }
}

#[test]
fn reference_weights_give_reference_decisions() {
    for golden in goldens() {
        let standardizer = Standardizer::fit(golden.train.view()).unwrap();
        let test = standardizer.apply("test features", golden.test.view()).unwrap();
        let features = golden.standardized_train();
        let mut probe = fit(features.view(), &golden.train_labels, 1.0, 1).unwrap();
        for i in 0..golden.cs.len() {
            probe.weights = golden.weights.row(i).to_owned();
            probe.bias = golden.bias[i];
            let decision = probe.decision_function(test.view()).unwrap();
            for (&actual, &expected) in decision.iter().zip(golden.decision.row(i)) {
                assert_close(actual, expected, 10.0 * ROUNDED_FEATURES * (1.0 + expected.abs()), golden.name);
            }
            let area = auroc(&decision.to_vec(), &golden.test_labels).unwrap();
            assert_close(area, golden.auroc[i], 1e-9, golden.name);
        }
    }
}

#[test]
fn default_iteration_limits_give_converged_area() {
    for golden in goldens() {
        let split = golden.split();
        for (i, &c) in golden.cs.iter().enumerate() {
            for limit in [60, 100] {
                let outcome = split.score(c, limit).unwrap();
                assert!(outcome.probe.weights.iter().all(|weight| weight.is_finite()));
                // Above the minimum, up to the rounding of the features, and close to it.
                let excess = outcome.probe.objective - golden.objective[i];
                assert!(
                    (-ROUNDED_FEATURES..=0.02).contains(&excess),
                    "{} at C {c}, limit {limit}: {excess:e}",
                    golden.name
                );
                assert_close(outcome.auroc, golden.auroc[i], 0.02, &format!("{} at C {c}, limit {limit}", golden.name));
            }
        }
    }
}

#[test]
fn single_iteration_is_usable_but_not_converged() {
    for golden in goldens() {
        let outcome = golden.split().score(1.0, 1).unwrap();
        assert!(outcome.probe.objective.is_finite() && !outcome.probe.converged);
    }
}

#[test]
fn areas_with_ties_match_scikit_learn() {
    let text = std::fs::read_to_string(golden_path("auroc.json")).unwrap();
    let cases: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
    assert!(cases.len() >= 5);
    for (index, case) in cases.iter().enumerate() {
        let scores: Vec<f64> = serde_json::from_value(case["scores"].clone()).unwrap();
        let labels: Vec<u8> = serde_json::from_value(case["labels"].clone()).unwrap();
        let expected = case["auroc"].as_f64().unwrap();
        assert_close(auroc(&scores, &labels).unwrap(), expected, 1e-9, &format!("case {index}"));
    }
}

#[test]
fn flipped_labels_flip_sign_of_weights() {
    for golden in goldens() {
        let features = golden.standardized_train();
        let flipped: Vec<u8> = golden.train_labels.iter().map(|label| 1 - label).collect();
        let probe = fit(features.view(), &golden.train_labels, 1.0, 5000).unwrap();
        let mirror = fit(features.view(), &flipped, 1.0, 5000).unwrap();
        for (a, b) in probe.weights.iter().zip(&mirror.weights) {
            assert_close(*a, -b, 1e-5, golden.name);
        }
        assert_close(probe.bias, -mirror.bias, 1e-5, golden.name);
    }
}

#[test]
fn start_at_minimum_stays_there() {
    for golden in goldens() {
        let features = golden.standardized_train();
        let problem = Problem::new(features.view(), &golden.train_labels, 1.0).unwrap();
        let probe = fit_with(&LinfaSolver, &problem, None, 5000).unwrap();
        let again = fit_with(&LinfaSolver, &problem, Some(&probe.parameters()), 1).unwrap();
        assert!(again.converged, "{}", golden.name);
        assert!(again.objective <= probe.objective);
        // A start at a neighboring C gives a lower objective after three iterations than a start at zero.
        let next = problem.with_c(0.5).unwrap();
        let warm = fit_with(&LinfaSolver, &next, Some(&probe.parameters()), 3).unwrap();
        let cold = fit_with(&LinfaSolver, &next, None, 3).unwrap();
        assert!(warm.objective < cold.objective, "{}", golden.name);
    }
}

#[test]
fn single_score_equals_path_of_one_c() {
    let golden = goldens().remove(0);
    let single = golden.split().score(1.0, 100).unwrap();
    let path = golden.split().score_path(&NewtonSolver, &[1.0], 100).unwrap().remove(0);
    assert_eq!(single.auroc, path.auroc);
    assert_eq!(single.probe.weights, path.probe.weights);
}

fn message(result: crate::Result<impl std::fmt::Debug>) -> String {
    let error = result.unwrap_err();
    assert_eq!(error.exit_code(), 2, "{error}");
    error.to_string()
}

#[test]
fn invalid_problem_is_rejected_with_location() {
    let x = array![[0.0, 1.0], [1.0, 0.0], [0.5, 0.25]];
    let y = [0, 1, 1];
    assert!(message(fit(x.view(), &[1, 1, 1], 1.0, 10)).contains("one class only (all 3 are 1)"));
    assert!(message(fit(x.view(), &[0, 1], 1.0, 10)).contains("3 samples, but 2 labels"));
    assert!(message(fit(x.view(), &[0, 1, 3], 1.0, 10)).contains("sample 2 has label 3"));
    for c in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e300] {
        assert!(message(fit(x.view(), &y, c, 10)).starts_with("C is "));
    }
    assert!(message(fit(x.view(), &y, 1.0, 0)).contains("at least 1 iteration"));
    let nan = array![[0.0, 1.0], [1.0, f32::NAN], [0.5, 0.25]];
    assert!(message(fit(nan.view(), &y, 1.0, 10)).contains("sample 1, column 1 is NaN"));
    let large = array![[0.0, 1.0], [1.0, 0.0], [-1e5, 0.25]];
    assert!(message(fit(large.view(), &y, 1.0, 10)).contains("sample 2, column 0 is -1e5"));
    let probe = fit(x.view(), &y, 1.0, 10).unwrap();
    assert!(message(probe.decision_function(array![[1.0]].view())).contains("1 columns"));
    let problem = Problem::new(x.view(), &y, 1.0).unwrap();
    let short = Parameters { weights: Array1::zeros(1), bias: 0.0 };
    assert!(message(fit_with(&LinfaSolver, &problem, Some(&short), 10)).contains("1 weights"));
}

#[test]
fn invalid_split_is_rejected_with_side() {
    let train = array![[0.0_f32, 1.0], [1.0, 0.0], [0.5, 0.25]];
    let test = array![[0.0_f32, 1.0], [1.0, 0.0]];
    let run = |train: ArrayView2<'_, f32>, y: &[u8], test: ArrayView2<'_, f32>, z: &[u8]| {
        message(SplitFeatures::standardized(train, y, test, z).and_then(|split| split.score(1.0, 10)))
    };
    assert!(run(train.view(), &[0, 1, 1], test.view(), &[1, 1]).starts_with("test labels: one class only"));
    assert!(run(train.view(), &[0, 0, 0], test.view(), &[0, 1]).starts_with("training labels: one class only"));
    assert!(run(train.view(), &[0, 1], test.view(), &[0, 1]).contains("3 samples, but 2 labels"));
    let mut bad = test.clone();
    bad[[1, 0]] = f32::NAN;
    assert!(run(train.view(), &[0, 1, 1], bad.view(), &[0, 1]).contains("test features: sample 1, column 0 is NaN"));
    let narrow = test.slice_axis(Axis(1), (0..1).into());
    assert!(run(train.view(), &[0, 1, 1], narrow, &[0, 1]).contains("1 columns"));
}

/// Problems of small shapes with repeated rows and columns, features up to `6 * 10^scale`, and `C` over its whole
/// range.
fn problems(scale: std::ops::Range<i32>) -> impl Strategy<Value = (Array2<f32>, Vec<u8>, f64)> {
    (2_usize..14, 1_usize..9, -8_i32..9, scale).prop_flat_map(|(n, h, exponent, scale)| {
        let values = prop::collection::vec(-6_i32..7, n * h);
        let labels = prop::collection::vec(0_u8..2, n);
        (values, labels).prop_map(move |(values, mut labels)| {
            labels[0] = 1 - labels[n - 1];
            let factor = 10.0_f32.powi(scale);
            let features = values.into_iter().map(|value| value as f32 * factor).collect();
            (Array2::from_shape_vec((n, h), features).unwrap(), labels, 10.0_f64.powi(exponent))
        })
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn valid_problem_gives_finite_probe_or_error((features, labels, c) in problems(-3..4), limit in 1_usize..120) {
        let problem = Problem::new(features.view(), &labels, c).unwrap();
        match fit_with(&LinfaSolver, &problem, None, limit) {
            Ok(probe) => {
                prop_assert!(probe.parameters().is_finite());
                prop_assert!(probe.objective <= problem.objective(&problem.featureless()) + 1e-12);
                prop_assert_eq!(probe.converged, probe.gradient_norm <= CONVERGED_GRADIENT_NORM);
            }
            Err(error) => prop_assert!(error.to_string().contains("logistic regression failed"), "{}", error),
        }
    }

    #[test]
    fn ordinary_problem_converges((features, labels, _) in problems(-3..1), exponent in -2_i32..3) {
        let probe = fit(features.view(), &labels, 10.0_f64.powi(exponent), 5000).unwrap();
        prop_assert!(probe.converged, "gradient {:e}", probe.gradient_norm);
    }

    #[test]
    fn gradient_matches_finite_difference(
        (features, labels, _) in problems(-3..1),
        direction in prop::collection::vec(-1.0_f64..1.0, 9),
        bias in -1.0_f64..1.0,
    ) {
        let problem = Problem::new(features.view(), &labels, 0.7).unwrap();
        let weights = Array1::from_iter(direction.iter().take(features.ncols()).map(|x| 0.3 * x));
        let parameters_at = |step: f64| Parameters { weights: &weights * (1.0 + step), bias: bias * (1.0 + step) };
        let (by_weights, by_bias) = problem.gradient(&parameters_at(0.0));
        let slope = by_weights.dot(&weights) + by_bias * bias;
        let step = 1e-5;
        let difference = (problem.objective(&parameters_at(step)) - problem.objective(&parameters_at(-step))) / (2.0 * step);
        prop_assert!((slope - difference).abs() <= 1e-6 * (1.0 + slope.abs()), "{} {}", slope, difference);
    }
}
