//! Criterion settings that the benchmarks share.
//!
//! Criterion's defaults of 100 samples and eight seconds per benchmark would take nine minutes for `ops` alone. Ten
//! samples are the minimum that criterion accepts. Plots would need a library that nothing else here uses.

use std::time::Duration;

use ::criterion::Criterion;
use ::criterion::measurement::Measurement;

/// Ten samples, 0.3 s of warm-up and 1 s of measurement, for work on the CPU that repeats well.
pub fn short() -> Criterion {
    configured(Criterion::default(), 300, 1000)
}

/// Ten samples with a warm-up and a measurement of the given lengths, in milliseconds, and no plots.
pub fn configured<M: Measurement>(criterion: Criterion<M>, warm_up_ms: u64, measurement_ms: u64) -> Criterion<M> {
    criterion
        .sample_size(10)
        .warm_up_time(Duration::from_millis(warm_up_ms))
        .measurement_time(Duration::from_millis(measurement_ms))
        .without_plots()
}
