//! Target `suite_file`: see [`actbench_fuzz::suite_file`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| actbench_fuzz::suite_file(data));
