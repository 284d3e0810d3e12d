//! Target `model_config`: see [`actbench_fuzz::model_config`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| actbench_fuzz::model_config(data));
