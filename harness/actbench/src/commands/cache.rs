//! `actbench cache`: pooled features of a run in a cache file, to be used from Python or by a later process.
//!
//! What `run --lazy-cache-disk` does for itself and throws away; here the file stays.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;

use super::halved;
use super::settings::SettingsArgs;
use super::stdout;
use crate::error::Result;
use crate::runner::interrupt;
use crate::workload::case::{CaseObserver, Method, Phase, Task};
use crate::workload::extract::{Extraction, plan};
use crate::workload::prepare::{LabelledTokens, Prepared, prepare};
use crate::workload::{deepest, device, layers_of, load_model, request, with_layers};
use actbench_activations::plan::{Acts, Progress, Rules};
use actbench_activations::tokens::TokenSet;

/// Write pooled features of the layers of a sweep to a cache file, or check the one that is there.
///
/// The file is safetensors: one tensor layer.N a layer, [n, h], training samples first. A write that was killed is gone
/// on with by the same command. A file that these settings wrote is checked, every byte of it, and kept; a file
/// of other settings is refused.
#[derive(Args, Clone, Debug)]
#[command(before_help = "Examples:\n  \
    actbench cache --out features.safetensors\n  \
    actbench cache --model ./smollm2 --dataset data.jsonl --sweep-layers 16 --out features.safetensors")]
pub struct CacheArgs {
    /// What is run.
    #[command(flatten)]
    pub settings: SettingsArgs,
    /// One layer, that of the task train, instead of those of the task sweep
    #[arg(long, default_value = "sweep", value_name = "TASK")]
    pub task: Task,
    /// The file
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
}

/// Runs the command.
///
/// # Errors
/// Bad settings or input, a file that is damaged or of other settings, or one that cannot be written.
pub fn cache(args: &CacheArgs) -> Result<()> {
    let config = args.settings.config(vec![args.task], vec![Method::LazyDisk], Some(1), 0);
    config.check()?;
    let prepared = prepare(request(&config, false))?;
    for warning in &prepared.warnings {
        eprintln!("warning: {warning}");
    }
    let config = with_layers(&config, &prepared);
    if let Some(note) = device::choose(&config, &prepared)?.note {
        eprintln!("note: {note}");
    }
    let deepest = deepest(&config, args.task);
    let layers = layers_of(&config, args.task);
    let observer: Arc<dyn CaseObserver> = Arc::new(Silent);
    let model = load_model(&prepared, &config, deepest, &observer)?;
    let how = Extraction {
        batch_size: config.batch_size,
        pool: config.pool,
        rules: Rules::all_but(&config.no_opt)?,
        cache_folder: None,
    };
    let samples = both_sides(&prepared);
    let n_tokens = samples.tokens.n_tokens();
    // From here on a partial file may be there, which Ctrl-C is to remove.
    interrupt::install()?;
    let plan = plan(&model, &samples, &layers, how)?.with_progress(Arc::new(|_: Progress| ()));
    let plan = plan.with_stop(interrupt::requested);
    let cached = plan.cache(Some(&args.out))?;
    halved::tell("cache", plan.stats().halvings);
    check(&cached)?;
    let tokens_run = plan.stats().tokens_total;
    stdout::line(format_args!(
        "{}: {}; ran the model on {tokens_run} of {n_tokens} tokens",
        args.out.display(),
        cached.signature()
    ));
    Ok(())
}

/// Training samples, then test samples.
fn both_sides(prepared: &Prepared) -> LabelledTokens {
    let sides = [&prepared.train, &prepared.test];
    let sequences = sides.iter().flat_map(|side| side.tokens.sequences.iter().cloned()).collect();
    let labels = sides.iter().flat_map(|side| side.labels.iter().copied()).collect();
    LabelledTokens { tokens: Arc::new(TokenSet { sequences }), labels }
}

/// Reads the whole file, layer by layer, so that every checksum is compared.
fn check(cached: &Acts) -> Result<()> {
    cached.iter_layers()?.try_for_each(|layer| layer.map(|_| ()))
}

/// Nobody listens.
struct Silent;

impl CaseObserver for Silent {
    fn phase(&self, _phase: Phase) {}
    fn progress(&self, _done: u64, _total: u64, _unit: &str) {}
    fn loaded(&self) {}
    fn measured(&self) {}
}
