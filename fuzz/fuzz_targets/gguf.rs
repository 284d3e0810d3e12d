//! Target `gguf`: see [`actbench_fuzz::gguf`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| actbench_fuzz::gguf(data));
