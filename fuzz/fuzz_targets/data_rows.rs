//! Target `data_rows`: see [`actbench_fuzz::data_rows`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| actbench_fuzz::data_rows(data));
