//! The time of the gated primitives. `actbench gate --criterion` interleaves the executables of two builds, one
//! process per sample.

use std::error::Error;

use actbench_benches::criterion::short;
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

criterion_group! {
    name = benches;
    config = short();
    targets = all
}
criterion_main!(benches);
