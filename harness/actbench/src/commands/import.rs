//! `actbench import`: a GGUF file becomes a model folder.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use crate::error::Result;
use actbench_activations::import::import_gguf;

/// Turns a GGUF file of a Llama model into a folder that `--model` takes: configuration, tokenizer, and weights in
/// bfloat16.
#[derive(Args, Clone, Debug)]
#[command(before_help = "Examples:\n  \
    actbench import model.gguf --out model")]
pub struct ImportArgs {
    /// The GGUF file.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// The folder to make.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Replace a model that is already in that folder.
    #[arg(long)]
    pub force: bool,
    /// Show no progress and no summary.
    #[arg(long, short)]
    pub quiet: bool,
}

/// Runs the command. Progress and summary go to standard error.
///
/// # Errors
/// See [`actbench_activations::import::import_gguf`].
pub fn import(args: &ImportArgs) -> Result<()> {
    let bar = if args.quiet { ProgressBar::hidden() } else { ProgressBar::new(0) };
    if let Ok(style) = ProgressStyle::with_template("importing {wide_bar} {pos}/{len} tensors") {
        bar.set_style(style);
    }
    // The tokenizer is converted first, without countable steps.
    bar.enable_steady_tick(Duration::from_millis(200));
    let summary = import_gguf(&args.file, &args.out, args.force, &mut |done, total| {
        bar.set_length(total as u64);
        bar.set_position(done as u64);
    });
    bar.finish_and_clear();
    let summary = summary?;
    if !args.quiet {
        eprintln!(
            "imported {}: {} blocks, {:.1} million parameters, into {}",
            summary.name.as_deref().unwrap_or("a model without a name"),
            summary.n_layers,
            summary.n_parameters as f64 / 1e6,
            args.out.display()
        );
    }
    Ok(())
}
