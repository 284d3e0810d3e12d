//! `actbench import`: converts a GGUF file to a model directory.

use std::path::PathBuf;

use clap::Args;

use crate::error::Result;
use crate::own_output::refuse_dash;
use crate::runner::interrupt;
use actbench_activations::import::import_with_bar;
use pairgate::stderr_line;

/// Convert a GGUF file to a directory for `--model`.
///
/// Supported architectures are llama, qwen2, qwen3, gemma, gemma2, gemma3, phi3, gptneox and gpt2.
///
/// The directory has the configuration, the tokenizer, and the weights without rounding: half precision and bfloat16
/// stay as they are, quantized weights become single precision and need four bytes each.
#[derive(Args, Clone, Debug)]
#[command(before_help = "Examples:\n  \
    actbench import model.gguf --out model")]
pub struct ImportArgs {
    /// GGUF file to read
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Directory to create
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Replace a model that is already in the directory
    #[arg(long)]
    pub force: bool,
    /// Print neither progress nor summary
    #[arg(long, short)]
    pub quiet: bool,
}

/// Converts the file; progress and summary go to standard error.
///
/// # Errors
/// See [`actbench_activations::import::import_gguf`].
pub fn import(args: &ImportArgs) -> Result<()> {
    interrupt::install()?;
    refuse_dash(&args.out, "--out")?;
    let summary = import_with_bar(&args.file, &args.out, args.force, args.quiet)?;
    if !args.quiet {
        stderr_line!(
            "imported {}: {} blocks, {:.1} million parameters, {:.1} MiB of weights, into {}",
            summary.name.as_deref().unwrap_or("a model without a name"),
            summary.n_layers,
            summary.n_parameters as f64 / 1e6,
            summary.n_bytes as f64 / f64::from(1 << 20),
            args.out.display()
        );
    }
    Ok(())
}
