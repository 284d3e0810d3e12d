//! Target `matrix_file`: see [`actbench_fuzz::matrix_file`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| actbench_fuzz::matrix_file(data));
