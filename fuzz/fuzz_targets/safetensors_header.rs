//! Target `safetensors_header`: see [`actbench_fuzz::safetensors_header`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| actbench_fuzz::safetensors_header(data));
