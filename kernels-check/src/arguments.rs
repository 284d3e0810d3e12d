//! The command line.

use std::path::PathBuf;

use clap::Parser;

use crate::timing::Sizes;

/// Checks every CUDA kernel on a GPU against its plain version and the CPU, and times it.
#[derive(Debug, Parser)]
#[command(
    name = "kernels-check",
    version,
    after_help = "Exit status: 0 every kernel passed, 1 a kernel failed, 2 nothing could be checked (and why), 130 interrupted: what was found until then is printed and written."
)]
pub struct Arguments {
    /// Number of the GPU, in the driver's order
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub device: usize,
    /// Run the kernels in the emulator on the CPU, and touch no GPU
    #[arg(long)]
    pub emulator: bool,
    /// Few and small shapes, and no timing
    #[arg(long)]
    pub quick: bool,
    /// Random shapes of each operation and type, beside the fixed ones [default: 12, with --quick 2]
    #[arg(long, value_name = "N")]
    pub shapes: Option<usize>,
    /// Seed of shapes and values
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub seed: u64,
    /// What is timed, on a GPU [default: large, with --quick none]
    #[arg(long, value_name = "SIZES")]
    pub times: Option<Sizes>,
    /// Folder of machine code with its manifest; without it `cubins` beside the
    /// program, if it is there, and else the cache of earlier runs and NVRTC
    #[arg(long, value_name = "DIR")]
    pub cubins: Option<PathBuf>,
    /// Write everything found to a file
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}
