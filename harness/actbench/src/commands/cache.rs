//! `actbench cache`: writes pooled features of a run to a cache file, for use from Python or by a later process.
//!
//! `run --lazy-cache-disk` writes the same file and deletes it; here it is kept.

use std::ffi::OsString;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;

use super::extraction_progress::ExtractionProgress;
use super::extraction_setup::{ExtractionSetup, LayerSelectionArgs};
use super::halved;
use super::settings::ExtractionArgs;
use super::shard_flag::resolved;
use super::stdout;
use crate::case::{CaseObserver as _, Method, Phase};
use crate::error::{Error, Result};
use crate::own_output::refuse_dash;
use crate::runner::interrupt;
use crate::shard::ShardFlag;
use crate::shard::files::{self, ShardRecord};
use crate::shard::join::{Joined, join};
use crate::workload::extract::plan;
use actbench_activations::plan::Acts;
use actbench_activations::plan::sources::PlanSource;
use actbench_activations::tokens::TokenSequence;
use pairgate::atomic_file::OutputTarget;
use pairgate::process::interrupt::at_forced_exit;
use pairgate::stderr_line;

/// Write pooled features of the layers of a task to a cache file, or check an existing file.
///
/// The file is safetensors with one tensor layer.N per layer, [n, h], training samples first, and for each sample rows (its
/// index in the data set, from 0), labels and is_train; the entry settings of its metadata has model, data set, mask, seed and
/// others. scripts/actbench_files.py reads it. Ctrl-C keeps the finished samples, and the same command resumes an
/// interrupted write. An existing file of the same settings is verified completely and kept; a file of other settings is
/// rejected.
///
/// With --shard several processes or machines write one file each, and --merge joins them: the bytes are those of one process.
#[derive(Args, Clone, Debug)]
#[command(
    before_help = "Examples:\n  \
    actbench cache --out features.safetensors\n  \
    actbench cache --model ./smollm2 --dataset data.jsonl --layer 12 --out features.safetensors\n  \
    actbench cache --model ./smollm2 --dataset data.jsonl --shard 3/8 --out shards\n  \
    actbench cache --merge shards --out features.safetensors",
    after_help = "Exit status: 0 success, 1 out of memory, or the file cannot be written, 2 bad usage or input,\n\
    130 interrupted."
)]
pub struct CacheArgs {
    /// The work to extract features for.
    #[command(flatten)]
    pub extraction: ExtractionArgs,
    /// The layers.
    #[command(flatten)]
    pub selection: LayerSelectionArgs,
    /// Output file; with --shard the directory of the shards
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    /// Write only the I-th of N consecutive parts of the samples, to DIR/shard-I-of-N.safetensors where --out is DIR. auto: I and
    /// N from the launcher (Slurm arrays and srun, torchrun, Open MPI), auto/N: I alone, with tasks numbered from 0 (also indexed
    /// jobs of Kubernetes)
    #[arg(long, value_name = "I/N")]
    pub shard: Option<ShardFlag>,
    /// Join the shards in DIR, all of which must be complete and of the same settings
    #[arg(long, value_name = "DIR", conflicts_with_all = ["shard", "SampleArgs", "device_map", "threads", "LayerSelectionArgs"])]
    pub merge: Option<PathBuf>,
    /// Show no progress
    #[arg(long, short)]
    pub quiet: bool,
}

/// Runs the command.
///
/// # Errors
/// Bad settings or input, a file that is damaged or of other settings, or a file that cannot be written.
pub fn cache(args: &CacheArgs) -> Result<ExitCode> {
    interrupt::install()?;
    refuse_dash(&args.out, "--out")?;
    // Through links, which a rename would replace.
    let target = match OutputTarget::of(&args.out) {
        Ok(OutputTarget::File(path)) => path,
        // Refused by the writer of cache files, which names the reason.
        _ => args.out.clone(),
    };
    if let Some(directory) = &args.merge {
        return merge(directory, &target, args.quiet);
    }
    let shard = args.shard.map(|flag| resolved(flag, args.quiet)).transpose()?;
    // The path that is shown is the one given, not where a link leads.
    let (out, shown) = match shard {
        None => (target, args.out.clone()),
        // Before the model is read.
        Some(shard) => {
            let path = files::prepare_directory(&args.out, shard)?;
            (path.clone(), path)
        }
    };
    let setup = ExtractionSetup::load(&args.extraction, &args.selection, Method::LazyDisk, args.quiet)?;
    let partial = out.with_file_name(partial_name(&out));
    // A forced exit, in the middle of a long batch, keeps the finished samples as well.
    let of_forced_exit = partial.clone();
    let _note = at_forced_exit(move || {
        if let Some(kept) = kept(&of_forced_exit) {
            let _ = writeln!(std::io::stderr(), "note: {kept}");
        }
    });
    let tokens = setup.prepared.all_tokens();
    let mut n_tokens = tokens.n_tokens();
    let mut plan = plan(&setup.model, tokens.clone(), &setup.layers, setup.options())?;
    let mut table = setup.sample_table();
    if let Some(shard) = shard {
        let record = ShardRecord::of(shard, tokens.len(), plan.fingerprint()?)?;
        n_tokens = tokens.sequences().skip(record.first).take(record.len).map(TokenSequence::len).sum();
        plan = plan.slice_batch(record.first as i64..(record.first + record.len) as i64)?;
        table = record.table(&table)?;
    }
    let plan = plan.with_progress(setup.progress.sink());
    let plan = plan.with_interrupt(interrupt::requested);
    let cached = match plan.cache_with_table(&out, &table) {
        Err(error @ Error::Interrupted) => {
            setup.progress.finish();
            let Some(kept) = kept(&partial) else { return Err(error) };
            stderr_line!("error: interrupted; {kept}");
            return Ok(ExitCode::from(error.exit_code()));
        }
        cached => cached?,
    };
    setup.progress.finish();
    halved::warn("cache", plan.stats().halvings);
    check(&cached)?;
    if let Some(warning) = without_table(&cached, &shown)? {
        stderr_line!("warning: {warning}");
    }
    let tokens_run = plan.stats().tokens_total;
    stdout::line(format_args!(
        "{}: {}; ran the model on {tokens_run} of {n_tokens} tokens",
        shown.display(),
        cached.signature()
    ));
    Ok(ExitCode::SUCCESS)
}

/// Joins the shards in `directory` into the file `out`.
fn merge(directory: &Path, out: &Path, quiet: bool) -> Result<ExitCode> {
    let progress = ExtractionProgress::new(quiet);
    progress.phase(Phase::Extracting);
    let joined = join(directory, out, &progress.sink(), interrupt::requested);
    progress.finish();
    let Joined { acts, n_shards, existed } = joined?;
    if existed {
        check(&acts)?;
    }
    let what = if existed { "was complete already: the file of" } else { "joined from" };
    stdout::line(format_args!("{}: {}; {what} {n_shards} shards", out.display(), acts.signature()));
    Ok(ExitCode::SUCCESS)
}

/// The message on the partial file of an interrupted write, if there is one.
fn kept(partial: &Path) -> Option<String> {
    partial
        .exists()
        .then(|| format!("{} has the finished samples; the same command resumes the write", partial.display()))
}

/// The name under which a cache file is written; see the module `cache_file` of the engine.
fn partial_name(out: &Path) -> OsString {
    let mut name = OsString::from(".");
    name.push(out.file_name().unwrap_or_default());
    name.push(".partial");
    name
}

/// The warning about a file that an earlier version wrote, which is kept.
fn without_table(cached: &Acts, out: &Path) -> Result<Option<String>> {
    let PlanSource::CacheFile(file) = cached.source() else { return Ok(None) };
    Ok(file.sample_table()?.is_none().then(|| {
        format!(
            "{}: was written by an earlier version and has no rows, labels and is_train; delete it and run this command again \
             to have them",
            out.display()
        )
    }))
}

/// Reads the whole file layer by layer, which compares every checksum.
fn check(cached: &Acts) -> Result<()> {
    cached.iter_layers()?.try_for_each(|layer| layer.map(|_| ()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use actbench_activations::DType;
    use actbench_activations::plan::cache_file::SampleTable;
    use actbench_activations::plan::{ActTensor, Axes};

    #[test]
    fn file_without_table_is_kept_with_a_warning() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("cache");
        let acts =
            Acts::from_tensor(ActTensor::from_f32(Axes::BLH, &[2, 1, 1], DType::F32, [3], None, &[1.0, 2.0]).unwrap());
        let table = SampleTable { rows: vec![1, 0], labels: vec![0, 1], is_train: vec![1, 0], settings: String::new() };
        acts.save(&path).unwrap();
        let kept = acts.cache_with_table(&path, &table).unwrap();
        let warning = without_table(&kept, &path).unwrap().unwrap();
        assert!(warning.contains("rows, labels and is_train") && warning.contains("delete it"), "{warning}");
        std::fs::remove_file(&path).unwrap();
        let written = acts.cache_with_table(&path, &table).unwrap();
        assert_eq!(without_table(&written, &path).unwrap(), None);
    }
}
