//! The gated primitives in time. `actbench gate --criterion` runs the programs of two builds in turn, a process a sample.

use std::error::Error;
use std::time::Duration;

use actbench_benches::primitives::{PRIMITIVES, prepare};
use actbench_benches::skip_on_error;
use criterion::{Criterion, criterion_group, criterion_main};

fn all(criterion: &mut Criterion) {
    for primitive in PRIMITIVES {
        let bench = |criterion: &mut Criterion| -> Result<(), Box<dyn Error>> {
            let mut work = prepare(primitive.name)?;
            work()?;
            criterion.bench_function(primitive.name, |bencher| bencher.iter(&mut work));
            Ok(())
        };
        skip_on_error(bench(criterion));
    }
}

fn short() -> Criterion {
    Criterion::default()
        .sample_size(10)
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
