//! Reports of made-up result files.
