//! Target `chat_template`: see [`actbench_fuzz::chat_template`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| actbench_fuzz::chat_template(data));
