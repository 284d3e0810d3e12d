//! Target `result_file`: see [`actbench_fuzz::result_file`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| actbench_fuzz::result_file(data));
