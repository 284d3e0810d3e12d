//! Target `adapter`: see [`actbench_fuzz::adapter`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| actbench_fuzz::adapter(data));
