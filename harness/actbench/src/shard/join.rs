//! Joins the cache files of shards into the file that one process would have written, byte for byte.

use std::path::{Path, PathBuf};

use super::Shard;
use super::files::{ShardRecord, file_name, in_directory};
use crate::error::{Error, Result};
use actbench_activations::plan::cache_file::{CacheFile, CacheWriter, SampleTable};
use actbench_activations::plan::{Acts, PlanFingerprint, Progress, ProgressSink};

/// Bytes of activations that are copied at a time.
const COPY_BYTES: usize = 64 << 20;

/// The file of a whole.
pub struct Joined {
    /// The activations in it.
    pub acts: Acts,
    /// The number of shards.
    pub n_shards: usize,
    /// Whether the file was there already.
    pub existed: bool,
}

/// A shard that was opened and fits the others.
struct CheckedShard {
    path: PathBuf,
    record: ShardRecord,
    file: CacheFile,
    table: SampleTable,
    /// The settings of the whole.
    settings: String,
}

/// Joins the shards in `directory` into the file `out`. An existing file of the same whole is kept.
///
/// # Errors
/// A shard that is missing, incomplete, damaged or of another extraction, which is named with the difference; an existing file
/// of something else; a file that cannot be read or written; an interrupt, which leaves no file.
pub fn join(directory: &Path, out: &Path, progress: &ProgressSink, interrupted: fn() -> bool) -> Result<Joined> {
    let shards = checked(directory)?;
    let (first, n_shards) = (&shards[0], shards.len());
    let whole = &first.record.whole;
    let table = table_of(&shards);
    if out.try_exists().map_err(Error::io("find", out))? {
        check_existing(out, whole, &table)?;
        return Ok(Joined { acts: Acts::load(out)?, n_shards, existed: true });
    }
    let signature = first.file.signature().with_samples(first.record.of);
    let samples_at_a_time = (COPY_BYTES / signature.sample_bytes().max(1)).max(1);
    let mut writer = CacheWriter::create(out, signature, whole.clone(), Some(&table))?;
    let mut done = 0;
    for shard in &shards {
        for part in Acts::load(&shard.path)?.iter_batches(samples_at_a_time)? {
            if interrupted() {
                return Err(Error::Interrupted);
            }
            let part = part?;
            let n_samples = part.signature().n_samples;
            let positions: Vec<(usize, usize)> = (0..n_samples).map(|sample| (done + sample, sample)).collect();
            writer.put(&positions, &part)?;
            done += n_samples;
            progress(Progress { done: done as u64, total: first.record.of as u64, unit: "samples" });
        }
    }
    writer.finish()?;
    Ok(Joined { acts: Acts::load(out)?, n_shards, existed: false })
}

/// All shards of `directory` in order, at least one.
fn checked(directory: &Path) -> Result<Vec<CheckedShard>> {
    let found = in_directory(directory)?;
    let Some((Shard { count, .. }, first_path)) = found.first() else {
        return Err(Error::file(directory, "has no file of a shard, such as shard-1-of-4.safetensors"));
    };
    if let Some((other, path)) = found.iter().find(|(shard, _)| shard.count != *count) {
        return Err(Error::file(
            directory,
            format!(
                "has shards of {count} ({}) and of {} ({}); move one kind to another directory",
                first_path.display(),
                other.count,
                path.display()
            ),
        ));
    }
    let missing: Vec<Shard> = (1..=*count)
        .map(|index| Shard { index, count: *count })
        .filter(|wanted| !found.iter().any(|(shard, _)| shard == wanted))
        .collect();
    if let Some(next) = missing.first() {
        let names: Vec<String> = missing.iter().map(|shard| shard.index.to_string()).collect();
        return Err(Error::file(
            directory,
            format!(
                "lacks {} of {count} shards: {}; run them with --shard {next} and so on",
                missing.len(),
                names.join(", ")
            ),
        ));
    }
    let mut shards: Vec<CheckedShard> = Vec::with_capacity(found.len());
    for (shard, path) in found {
        let opened = opened(shard, path)?;
        if let Some(first) = shards.first() {
            check_same_whole(first, &opened)?;
        }
        shards.push(opened);
    }
    Ok(shards)
}

/// Opens the file of a shard and checks that it is what its name and its record say.
fn opened(shard: Shard, path: PathBuf) -> Result<CheckedShard> {
    let file = CacheFile::open(&path)?;
    let table = file.sample_table()?.unwrap_or_default();
    let Some((record, settings)) = ShardRecord::read(&table.settings) else {
        return Err(Error::file(
            &path,
            "is not the file of a shard: its settings have no record of one; move it elsewhere",
        ));
    };
    if record.shard() != shard {
        return Err(Error::file(
            &path,
            format!(
                "is the file of shard {}; it was {} before it was renamed",
                record.shard(),
                file_name(record.shard())
            ),
        ));
    }
    let part = |name| (file.fingerprint().get(name), record.whole.get(name));
    let differs = ["model", "layers", "pool", "dtype"].into_iter().find(|name| part(name).0 != part(name).1);
    if file.signature().n_samples != record.len || differs.is_some() {
        return Err(Error::file(&path, "differs from its own record of the whole; delete it and extract it again"));
    }
    Ok(CheckedShard { path, record, file, table, settings })
}

/// Refuses a shard of another extraction than the first one's, and names the difference.
fn check_same_whole(first: &CheckedShard, other: &CheckedShard) -> Result<()> {
    let of_others = |what: String| {
        let advice = "extract one of the two again, or move it to another directory";
        Err(Error::file(
            &other.path,
            format!("is a shard of another extraction than {}: {what}; {advice}", first.path.display()),
        ))
    };
    if let Some(differences) = first.record.whole.describe_differences(&other.record.whole, ["that", "this"]) {
        return of_others(differences);
    }
    let same_shape = *first.file.signature() == other.file.signature().with_samples(first.record.len);
    if !same_shape || first.record.of != other.record.of {
        return of_others(format!("{} and {}", first.file.signature(), other.file.signature()));
    }
    Ok(())
}

/// The table of the whole, with the settings of the first shard.
fn table_of(shards: &[CheckedShard]) -> SampleTable {
    let mut whole = SampleTable { settings: shards[0].settings.clone(), ..SampleTable::default() };
    for CheckedShard { table, .. } in shards {
        whole.rows.extend(&table.rows);
        whole.labels.extend(&table.labels);
        whole.is_train.extend(&table.is_train);
    }
    whole
}

/// Refuses an existing file that is not the one of the whole.
fn check_existing(out: &Path, whole: &PlanFingerprint, table: &SampleTable) -> Result<()> {
    let file = CacheFile::open(out)?;
    file.check_fingerprint(whole, "shards")?;
    match file.sample_table()?.map(|own| own.difference(table)) {
        Some(None) => Ok(()),
        Some(Some(column)) => Err(Error::file(
            out,
            format!("has the tokens of the shards, but other {column}; delete it or use another path"),
        )),
        None => Err(Error::file(out, "has no rows, labels and is_train; delete it or use another path")),
    }
}
