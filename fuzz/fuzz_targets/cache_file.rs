//! Target `cache_file`: see [`actbench_fuzz::cache_file`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| actbench_fuzz::cache_file(data));
