//! Criterion benchmarks of the backend operations.

fn main() {}
