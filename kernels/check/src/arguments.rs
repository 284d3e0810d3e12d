//! The command line.

use std::path::PathBuf;

use clap::Parser;

use crate::timing::Sizes;

/// Checks every CUDA kernel on a GPU against the plain kernel and the CPU, and times it.
#[derive(Debug, Parser)]
#[command(
    name = "kernels-check",
    version,
    after_help = "Exit status: 0 every kernel passed, 1 a kernel failed, 2 no check could run, 130 interrupted (partial results are printed and written)."
)]
pub struct Arguments {
    /// Number of the GPU, in the driver's order
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub device: usize,
    /// Run the kernels in the emulator on the CPU, without a GPU
    #[arg(long)]
    pub emulator: bool,
    /// Check few and small shapes, without timing
    #[arg(long)]
    pub quick: bool,
    /// Random shapes for each operation and type, in addition to the fixed ones [default: 12, with --quick 2]
    #[arg(long, value_name = "N")]
    pub shapes: Option<usize>,
    /// Seed of shapes and values
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub seed: u64,
    /// Sizes to time, on a GPU [default: large, with --quick none]
    #[arg(long, value_name = "SIZES")]
    pub times: Option<Sizes>,
    /// Directory of prebuilt machine code; by default `cubins` next to the binary
    /// if it exists, otherwise the cache of earlier runs and NVRTC
    #[arg(long, value_name = "DIR")]
    pub cubins: Option<PathBuf>,
    /// Write all results to a file
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}
