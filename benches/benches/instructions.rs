//! The gated primitives in instructions, counted by Valgrind's Callgrind through gungraun: the same every time, so that a
//! tenth of a per cent is a change. Valgrind knows no AVX-512, so the kernels run with AVX2 here.
//!
//! Needs `valgrind`, and `gungraun-runner` of this version in `PATH`; see `scripts/count_instructions.sh`.

#![allow(missing_docs, reason = "gungraun's macros make public items without documentation")]

use actbench_benches::primitives::{self, Prepared};
use gungraun::prelude::*;

/// An input that cannot be made ends the benchmark with its reason.
fn prepared(name: &str) -> Prepared {
    match primitives::prepare(name) {
        Ok(work) => (work, Ok(())),
        Err(error) => (Box::new(|| Ok(())), Err(error)),
    }
}

fn done(result: Prepared) {
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
fn primitive(prepared: Prepared) -> Prepared {
    primitives::once(prepared)
}

library_benchmark_group!(name = primitives_group, benchmarks = primitive);
main!(library_benchmark_groups = primitives_group);
