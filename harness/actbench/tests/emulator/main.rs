//! Everything that runs on a GPU, on emulated GPUs and over the fake driver: forward passes, device maps, memory, profiles.
#![cfg(feature = "testing")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // Test helpers may panic like tests.

#[path = "../common_cli/mod.rs"]
mod common_cli;
#[path = "../../../../kernels/tests/fake_driver/mod.rs"]
mod fake_driver;
#[path = "../../../activations/tests/golden_support/mod.rs"]
mod golden_support;
#[path = "../runner_support/mod.rs"]
mod runner_support;
#[path = "../../../activations/tests/shared_prefixes/mod.rs"]
mod shared_prefixes;

mod device_map;
mod goldens;
mod graphs;
mod out_of_memory;
mod parent;
mod profile;
mod same_bits;
