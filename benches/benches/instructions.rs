//! The instruction counts of the gated primitives, by Valgrind's Callgrind through gungraun. They are reproducible,
//! so a difference of 0.1 % is a change. Valgrind does not support AVX-512, so the kernels run with AVX2 here.
//!
//! Needs `valgrind`, and `gungraun-runner` of this version in `PATH`; see `scripts/count_instructions.sh`.

#![allow(missing_docs, reason = "gungraun's macros make public items without documentation")]

use actbench_benches::primitives::{self, PreparedWork};
use gungraun::prelude::*;

/// Prepares the work; `done` reports an error after the measurement.
fn prepared(name: &str) -> PreparedWork {
    match primitives::prepare(name) {
        Ok(work) => (work, Ok(())),
        Err(error) => (Box::new(|| Ok(())), Err(error)),
    }
}

fn done(result: PreparedWork) {
    if let Err(error) = result.1 {
        eprintln!("error: {error}");
        std::process::exit(1);
    }
}

#[library_benchmark(setup = prepared, teardown = done)]
#[bench::pooling("pooling")]
#[bench::transforms("transforms")]
#[bench::cache_read("cache-read")]
#[bench::prefix_tree("prefix-tree")]
#[bench::planner("planner")]
fn primitive(prepared: PreparedWork) -> PreparedWork {
    primitives::once(prepared)
}

library_benchmark_group!(name = primitives_group, benchmarks = primitive);
main!(library_benchmark_groups = primitives_group);
