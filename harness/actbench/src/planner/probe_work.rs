//! The unit in which the work of training probes is counted.

/// Work of training the probes of one layer for `cs` values of C: the square matrix of the smaller extent, its Cholesky
/// factor, and the passes over the features of each solver step for each C.
pub fn probe_work(samples: f64, features: f64, cs: usize) -> f64 {
    let smaller = samples.min(features);
    samples * features * smaller + smaller.powi(3) / 3.0 + samples * features * (40.0 + 60.0 * cs as f64)
}
