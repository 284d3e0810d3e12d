//! `actbench cache`: writes pooled features of a run to a cache file, for use from Python or by a later process.
//!
//! `run --lazy-cache-disk` writes the same file and deletes it; here it is kept.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;

use super::extraction_setup::ExtractionSetup;
use super::halved;
use super::settings::SettingsArgs;
use super::stdout;
use crate::case::{Method, Task};
use crate::error::Result;
use crate::runner::interrupt;
use crate::workload::extract::plan;
use crate::workload::prepare::{LabeledTokens, Prepared};
use actbench_activations::plan::{Acts, Progress};
use actbench_activations::tokens::TokenSet;
use pairgate::atomic_file::OutputTarget;
use pairgate::process::interrupt::at_forced_exit;

/// Write pooled features of the layers of a task to a cache file, or check an existing file.
///
/// The file is safetensors with one tensor layer.N per layer, [n, h], training samples first. The same command resumes an
/// interrupted write. An existing file of the same settings is verified completely and kept; a file of other settings is
/// rejected.
#[derive(Args, Clone, Debug)]
#[command(before_help = "Examples:\n  \
    actbench cache --out features.safetensors\n  \
    actbench cache --model ./smollm2 --dataset data.jsonl --sweep-layers 16 --out features.safetensors")]
pub struct CacheArgs {
    /// The work to extract features for.
    #[command(flatten)]
    pub settings: SettingsArgs,
    /// Task that selects the layers: train has one, sweep several
    #[arg(long, default_value = "sweep", value_name = "TASK")]
    pub task: Task,
    /// Output file
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
}

/// Runs the command.
///
/// # Errors
/// Bad settings or input, a file that is damaged or of other settings, or a file that cannot be written.
pub fn cache(args: &CacheArgs) -> Result<()> {
    interrupt::install()?;
    let setup = ExtractionSetup::load(&args.settings, args.task, Method::LazyDisk)?;
    // Through links, which a rename would replace.
    let out = match OutputTarget::of(&args.out) {
        Ok(OutputTarget::File(path)) => path,
        // Refused by the writer of cache files, which names the reason.
        _ => args.out.clone(),
    };
    // A forced exit, in the middle of a long batch, leaves nothing either.
    let partial = out.with_file_name(partial_name(&out));
    let _removal = at_forced_exit(move || drop(std::fs::remove_file(partial)));
    let samples = both_sides(&setup.prepared);
    let n_tokens = samples.tokens.n_tokens();
    let plan = plan(&setup.model, &samples, &setup.layers, setup.options())?.with_progress(Arc::new(|_: Progress| ()));
    let plan = plan.with_interrupt(interrupt::requested);
    let cached = plan.cache(Some(&out))?;
    halved::warn("cache", plan.stats().halvings);
    check(&cached)?;
    let tokens_run = plan.stats().tokens_total;
    stdout::line(format_args!(
        "{}: {}; ran the model on {tokens_run} of {n_tokens} tokens",
        args.out.display(),
        cached.signature()
    ));
    Ok(())
}

/// The name under which a cache file is written; see the module `cache_file` of the engine.
fn partial_name(out: &Path) -> OsString {
    let mut name = OsString::from(".");
    name.push(out.file_name().unwrap_or_default());
    name.push(".partial");
    name
}

/// Training samples, then test samples.
fn both_sides(prepared: &Prepared) -> LabeledTokens {
    let sides = [&prepared.train, &prepared.test];
    let sequences = sides.iter().flat_map(|side| side.tokens.sequences.iter().cloned()).collect();
    let labels = sides.iter().flat_map(|side| side.labels.iter().copied()).collect();
    LabeledTokens { tokens: Arc::new(TokenSet { sequences }), labels }
}

/// Reads the whole file layer by layer, which compares every checksum.
fn check(cached: &Acts) -> Result<()> {
    cached.iter_layers()?.try_for_each(|layer| layer.map(|_| ()))
}
