//! Target `tokenizer`: see [`actbench_fuzz::tokenizer`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| actbench_fuzz::tokenizer(data));
