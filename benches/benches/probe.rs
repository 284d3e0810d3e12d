//! The probes of a sweep: 16 layers, three values of C, 480 training and 120 test samples, with both solvers
//! (elements are probes). The layers run sequentially on one thread, so that the times do not depend on the number of
//! cores.

use std::error::Error;
use std::hint::black_box;

use actbench_activations::probe::{LinfaSolver, NewtonSolver, Solver, SplitFeatures};
use actbench_benches::criterion::short;
use actbench_benches::{is_smoke_run, skip_on_error};
use criterion::{Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use ndarray::{Array1, Array2, s};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Training and test samples: 600 rows with the default training fraction.
const SAMPLES: (usize, usize) = (480, 120);

/// The defaults of `--sweep-cs` and `--sweep-max-iter`.
const CS: [f64; 3] = [0.1, 1.0, 10.0];
const MAX_ITERATIONS: usize = 60;

/// Features and labels of one layer.
struct LabeledFeatures {
    features: Array2<f32>,
    labels: Vec<u8>,
}

/// An approximately standard normal number: the sum of twelve uniform ones, which needs no library of distributions.
fn normal(rng: &mut ChaCha8Rng) -> f32 {
    (0..12).map(|_| rng.random::<f32>()).sum::<f32>() - 6.0
}

/// Features similar to those of a residual stream: 48 shared directions of decreasing strength, one of which predicts
/// the label; independent noise per feature; scales that differ by orders of magnitude; means larger than the
/// deviations.
fn labeled_features(seed: u64, columns: usize) -> LabeledFeatures {
    const DIRECTIONS: usize = 48;
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let samples = SAMPLES.0 + SAMPLES.1;
    let labels: Vec<u8> = (0..samples).map(|sample| (sample % 2) as u8).collect();
    let mut latent = Array2::from_shape_simple_fn((samples, DIRECTIONS), || normal(&mut rng));
    for (value, &label) in latent.column_mut(DIRECTIONS / 2).iter_mut().zip(&labels) {
        *value += f32::from(label);
    }
    let mixing = Array2::from_shape_fn((DIRECTIONS, columns), |(i, _)| normal(&mut rng) / (1.0 + i as f32).sqrt());
    let noise = Array2::from_shape_simple_fn((samples, columns), || 0.3 * normal(&mut rng));
    let scale = Array1::from_shape_simple_fn(columns, || normal(&mut rng).exp());
    let mean = Array1::from_shape_simple_fn(columns, || 3.0 * normal(&mut rng));
    LabeledFeatures { features: (latent.dot(&mixing) + noise) * scale + mean, labels }
}

/// Standardizes, trains and scores, like `train_eval_s` of a sweep. Returns the sum of the AUROCs.
fn sweep(layers: &[LabeledFeatures], solver: &dyn Solver) -> actbench_activations::Result<f64> {
    let mut sum = 0.0;
    for LabeledFeatures { features, labels } in layers {
        let (train, test) = (features.slice(s![..SAMPLES.0, ..]), features.slice(s![SAMPLES.0.., ..]));
        let split = SplitFeatures::standardized(train, &labels[..SAMPLES.0], test, &labels[SAMPLES.0..])?;
        sum += split.score_path(solver, &CS, MAX_ITERATIONS)?.iter().map(|outcome| outcome.auroc).sum::<f64>();
    }
    Ok(sum)
}

fn sweeps(criterion: &mut Criterion) -> Result<(), Box<dyn Error>> {
    let n_layers = if is_smoke_run() { 1 } else { 16 };
    let mut group = criterion.benchmark_group("sweep");
    // A sweep with linfa takes seconds, so ten samples, criterion's minimum.
    group.sample_size(10).sampling_mode(SamplingMode::Flat);
    group.throughput(Throughput::Elements((n_layers * CS.len()) as u64));
    for columns in [576, 2048] {
        let layers: Vec<LabeledFeatures> = (0..n_layers as u64).map(|seed| labeled_features(seed, columns)).collect();
        for solver in [&NewtonSolver as &dyn Solver, &LinfaSolver] {
            sweep(&layers[..1], solver)?;
            group.bench_function(format!("{}/{columns}", solver.name()), |bencher| {
                bencher.iter(|| sweep(black_box(&layers), solver));
            });
        }
    }
    group.finish();
    Ok(())
}

fn all(criterion: &mut Criterion) {
    skip_on_error(sweeps(criterion));
}

criterion_group! {
    name = benches;
    config = short();
    targets = all
}
criterion_main!(benches);
