//! Target `gate_journal`: see [`actbench_fuzz::gate_journal`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| actbench_fuzz::gate_journal(data));
