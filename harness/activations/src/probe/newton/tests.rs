//! Newton's method compared with `linfa-logistic` and between its forms, and invariances of its result.

use ndarray::{Array2, Axis, concatenate};
use proptest::prelude::*;
use rayon::prelude::*;

use super::super::LinfaSolver;
use super::super::fit::{fit_path, fit_with};
use super::super::problem::Problem;
use super::*;

/// Features with a shared direction that predicts the label in part; both classes are present.
fn data(n: usize, h: usize, seed: usize, signal: f64) -> (Array2<f32>, Vec<u8>) {
    let value = |i: usize, j: usize| {
        let mixed =
            (i + 1).wrapping_mul(2_654_435_761).wrapping_add((j + 1).wrapping_mul(40_503)) ^ seed.wrapping_mul(97);
        ((mixed.wrapping_mul(mixed | 1) >> 7) % 2001) as f64 / 1000.0 - 1.0
    };
    let labels: Vec<u8> = (0..n).map(|i| (i % 2) as u8).collect();
    let features = Array2::from_shape_fn((n, h), |(i, j)| {
        (value(i, j) + 0.7 * value(i, h) + signal * f64::from(labels[i]) * ((j % 3) as f64 - 1.0)) as f32
    });
    (features, labels)
}

fn with_system<S: NewtonSystem>(problem: &Problem<'_>, system: &S) -> Solution {
    let squares = sum_of_squares(problem.features());
    let path = RegularizationPath { problem, squares, start: None, cs: &[problem.c()], max_iterations: 100 };
    path.solutions(system).swap_remove(0)
}

#[test]
fn all_forms_find_same_minimum() {
    for (n, h) in [(30, 50), (50, 30), (40, 40), (2, 5), (9, 1)] {
        for c in [0.01, 1.0, 100.0, 1e6] {
            let (features, labels) = data(n, h, 3, 0.4);
            let problem = Problem::new(features.view(), &labels, c).unwrap();
            let mut found = vec![
                ("dual", with_system(&problem, &DualSystem::<f64>::new(features.view()))),
                ("primal", with_system(&problem, &PrimalSystem::<f64>::new(features.view()))),
                ("conjugate", with_system(&problem, &ConjugateSystem::new(features.view()))),
            ];
            if MatrixPrecision::for_condition(sum_of_squares(features.view()), c) == MatrixPrecision::Single {
                // Only the form that the solver would select: without the penalty the matrix of the other one is
                // singular.
                found.push(if n < h {
                    ("single dual", with_system(&problem, &DualSystem::<f32>::new(features.view())))
                } else {
                    ("single primal", with_system(&problem, &PrimalSystem::<f32>::new(features.view())))
                });
            }
            for (form, Solution { parameters, iterations }) in found {
                let norm = problem.gradient_norm(&parameters);
                let tolerance = RELATIVE_GRADIENT * problem.gradient_norm(&problem.featureless());
                assert!(
                    norm <= tolerance + 1e-14,
                    "{form}, {n} x {h} at C {c}: gradient {norm:e} after {iterations:?}"
                );
                let few = iterations.is_some_and(|iterations| iterations < 60);
                assert!(few, "{form}, {n} x {h} at C {c}: {iterations:?} iterations");
            }
        }
    }
}

#[test]
fn separable_duplicated_and_constant_data_converge() {
    let (features, labels) = data(24, 60, 1, 5.0);
    let twice = concatenate![Axis(0), features, features];
    let labels_twice = [&labels[..], &labels[..]].concat();
    let opposed = [&labels[..], &labels.iter().map(|label| 1 - label).collect::<Vec<_>>()[..]].concat();
    let mut constant = features.clone();
    constant.column_mut(4).fill(0.0);
    for (features, labels) in [
        (&features, &labels),
        (&twice, &labels_twice),
        (&twice, &opposed),
        (&constant, &labels),
        (&(&features * 0.0), &labels),
    ] {
        let problem = Problem::new(features.view(), labels, 1.0).unwrap();
        for probe in fit_path(&NewtonSolver, &problem, &[100.0, 0.01, 1.0], 60).unwrap() {
            // The stopping criterion is relative to the gradient of the featureless probe.
            let featureless = problem.gradient_norm(&problem.featureless());
            assert!(probe.gradient_norm <= RELATIVE_GRADIENT * featureless + 1e-14, "{:e}", probe.gradient_norm);
        }
    }
}

#[test]
fn path_keeps_order_and_equals_single_fits() {
    let (features, labels) = data(40, 64, 5, 0.5);
    let problem = Problem::new(features.view(), &labels, 1.0).unwrap();
    let cs = [10.0, 0.1, 1.0, 0.1];
    let probes = fit_path(&NewtonSolver, &problem, &cs, 60).unwrap();
    for (probe, c) in probes.iter().zip(cs) {
        let single = fit_with(&NewtonSolver, &problem.with_c(c).unwrap(), None, 60).unwrap();
        assert!((probe.objective - single.objective).abs() <= 1e-9, "C {c}");
        assert!(probe.iterations.is_some_and(|iterations| iterations < 30));
    }
}

#[test]
fn iteration_limit_is_respected() {
    let (features, labels) = data(40, 64, 5, 0.5);
    let problem = Problem::new(features.view(), &labels, 10.0).unwrap();
    let mut last = f64::INFINITY;
    for limit in 1..4 {
        let probe = fit_with(&NewtonSolver, &problem, None, limit).unwrap();
        assert_eq!(probe.iterations, Some(limit));
        assert!(probe.objective < last);
        last = probe.objective;
    }
}

#[test]
fn bits_do_not_depend_on_thread_count() {
    let layers: Vec<_> = (0..8).map(|seed| data(48, 80, seed, 0.3)).collect();
    let fit_on = |threads: usize| -> Vec<Vec<Parameters>> {
        let fit = |(features, labels): &(Array2<f32>, Vec<u8>)| {
            let problem = Problem::new(features.view(), labels, 1.0).unwrap();
            let probes = fit_path(&NewtonSolver, &problem, &[0.1, 1.0, 10.0], 60).unwrap();
            probes.iter().map(|probe| probe.parameters()).collect()
        };
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| layers.par_iter().map(fit).collect())
    };
    let one = fit_on(1);
    for threads in [2, 3, 8] {
        assert!(one == fit_on(threads), "{threads} threads");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn linfa_finds_same_minimum(n in 4_usize..40, h in 1_usize..40, seed in 0_usize..1000, exponent in -2_i32..3) {
        let (features, labels) = data(n, h, seed, 0.5);
        let problem = Problem::new(features.view(), &labels, 10.0_f64.powi(exponent)).unwrap();
        let ours = fit_with(&NewtonSolver, &problem, None, 100).unwrap();
        let theirs = fit_with(&LinfaSolver, &problem, None, 5000).unwrap();
        let gap = (ours.objective - theirs.objective).abs() / ours.objective;
        prop_assert!(gap <= 1e-6, "{} {}", ours.objective, theirs.objective);
        prop_assert!(ours.objective <= theirs.objective * (1.0 + 1e-9));
    }

    #[test]
    fn permuted_features_permute_weights(n in 4_usize..30, h in 2_usize..40, seed in 0_usize..1000) {
        let (features, labels) = data(n, h, seed, 0.5);
        let order: Vec<usize> = (0..h).rev().collect();
        let permuted = features.select(Axis(1), &order);
        let fit = |features: &Array2<f32>| {
            fit_with(&NewtonSolver, &Problem::new(features.view(), &labels, 1.0).unwrap(), None, 100).unwrap()
        };
        let (probe, mirror) = (fit(&features), fit(&permuted));
        for (index, &column) in order.iter().enumerate() {
            prop_assert!((mirror.weights[index] - probe.weights[column]).abs() <= 1e-5);
        }
    }
}
