//! The probes of a sweep: 16 layers, three values of C, 480 training and 120 test samples, by both solvers (elements are
//! probes). Layers one after another on one thread, so that the figures are the work and not the cores.

use std::error::Error;
use std::hint::black_box;
use std::time::Duration;

use actbench_activations::probe::{LinfaSolver, NewtonSolver, Solver, SplitFeatures};
use actbench_benches::{is_smoke_run, skip_on_error};
use criterion::{Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use ndarray::{Array1, Array2, s};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Training and test samples: 600 rows by the default share.
const SAMPLES: (usize, usize) = (480, 120);

/// The defaults of `--sweep-cs` and `--sweep-max-iter`.
const CS: [f64; 3] = [0.1, 1.0, 10.0];
const MAX_ITERATIONS: usize = 60;

/// One layer's features and labels.
struct Layer {
    features: Array2<f32>,
    labels: Vec<u8>,
}

/// A standard normal number: the sum of twelve uniform ones, which needs no library of distributions.
fn normal(rng: &mut ChaCha8Rng) -> f32 {
    (0..12).map(|_| rng.random::<f32>()).sum::<f32>() - 6.0
}

/// Features like a residual stream's: 48 shared directions of falling strength, one of them carrying the label, noise of
/// each feature's own, scales that differ by orders of magnitude, and means larger than the spread.
fn layer(seed: u64, columns: usize) -> Layer {
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
    Layer { features: (latent.dot(&mixing) + noise) * scale + mean, labels }
}

/// Standardises, trains and scores: what `train_eval_s` of a sweep measures. Gives the sum of the areas.
fn sweep(layers: &[Layer], solver: &dyn Solver) -> actbench_activations::Result<f64> {
    let mut sum = 0.0;
    for Layer { features, labels } in layers {
        let (train, test) = (features.slice(s![..SAMPLES.0, ..]), features.slice(s![SAMPLES.0.., ..]));
        let split = SplitFeatures::standardised(train, &labels[..SAMPLES.0], test, &labels[SAMPLES.0..])?;
        sum += split.score_path(solver, &CS, MAX_ITERATIONS)?.iter().map(|outcome| outcome.auroc).sum::<f64>();
    }
    Ok(sum)
}

fn sweeps(criterion: &mut Criterion) -> Result<(), Box<dyn Error>> {
    let n_layers = if is_smoke_run() { 1 } else { 16 };
    let mut group = criterion.benchmark_group("sweep");
    // A whole sweep by linfa takes seconds: ten of each are enough and as few as there may be.
    group.sample_size(10).sampling_mode(SamplingMode::Flat);
    group.throughput(Throughput::Elements((n_layers * CS.len()) as u64));
    for columns in [576, 2048] {
        let layers: Vec<Layer> = (0..n_layers as u64).map(|seed| layer(seed, columns)).collect();
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

/// Plots would need a library that nothing else here does.
fn short() -> Criterion {
    Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .without_plots()
}

criterion_group! {
    name = benches;
    config = short();
    targets = all
}
criterion_main!(benches);
