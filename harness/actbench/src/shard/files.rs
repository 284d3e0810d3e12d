//! The cache files of shards: their names in a directory, and what each records about the whole it is a part of.
//!
//! Each file describes itself, so that no two tasks write the same file and nothing is locked across machines.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::Shard;
use crate::error::{Error, Result};
use actbench_activations::plan::PlanFingerprint;
use actbench_activations::plan::cache_file::SampleTable;

/// The entry of the settings of a cache file that makes it a shard.
const ENTRY: &str = "shard";

/// What a shard records about the whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardRecord {
    /// Number of the shard, from 1 on.
    pub index: usize,
    /// Number of shards.
    pub count: usize,
    /// Its first sample in the whole.
    pub first: usize,
    /// Its number of samples.
    pub len: usize,
    /// The number of samples of the whole.
    pub of: usize,
    /// The fingerprint of the whole, which the joined file gets.
    pub whole: PlanFingerprint,
}

impl ShardRecord {
    /// The record of `shard` of a whole of `n_samples` samples.
    ///
    /// # Errors
    /// More shards than samples.
    pub fn of(shard: Shard, n_samples: usize, whole: PlanFingerprint) -> Result<Self> {
        if shard.count > n_samples {
            return Err(Error::usage(format!(
                "--shard {shard}: there are {n_samples} samples; use at most as many shards"
            )));
        }
        let items = shard.items(n_samples);
        let Shard { index, count } = shard;
        Ok(ShardRecord { index, count, first: items.start, len: items.len(), of: n_samples, whole })
    }

    /// The shard.
    pub fn shard(&self) -> Shard {
        Shard { index: self.index, count: self.count }
    }

    /// The part of the table `whole` that belongs to the shard, with this record in its settings.
    ///
    /// # Errors
    /// Settings that are not a JSON object.
    pub fn table(&self, whole: &SampleTable) -> Result<SampleTable> {
        let samples = self.first..self.first + self.len;
        let mut settings: Map<String, Value> = serde_json::from_str(&whole.settings)
            .map_err(|error| Error::internal(format!("the settings cannot be read: {error}")))?;
        let record = serde_json::to_value(self)
            .map_err(|error| Error::internal(format!("a shard's record cannot be serialized: {error}")))?;
        settings.insert(ENTRY.to_owned(), record);
        Ok(SampleTable {
            rows: whole.rows[samples.clone()].to_vec(),
            labels: whole.labels[samples.clone()].to_vec(),
            is_train: whole.is_train[samples].to_vec(),
            settings: Value::Object(settings).to_string(),
        })
    }

    /// The record in the settings of a file, and the settings of the whole as the file of one process has them; none if the
    /// file is not that of a shard.
    pub fn read(settings: &str) -> Option<(Self, String)> {
        let mut settings: Map<String, Value> = serde_json::from_str(settings).ok()?;
        let record: ShardRecord = serde_json::from_value(settings.shift_remove(ENTRY)?).ok()?;
        let (shard, end) = (record.shard(), record.first.checked_add(record.len)?);
        let is_valid = shard.index >= 1 && shard.index <= shard.count && shard.items(record.of) == (record.first..end);
        is_valid.then(|| (record, Value::Object(settings).to_string()))
    }
}

/// `shard-03-of-12.safetensors`: in the order of the shards where names are sorted.
pub fn file_name(shard: Shard) -> String {
    let digits = shard.count.to_string().len();
    format!("shard-{:0digits$}-of-{}.safetensors", shard.index, shard.count)
}

/// The shard of a file name.
fn shard_of(name: &str) -> Option<Shard> {
    let (index, count) = name.strip_prefix("shard-")?.strip_suffix(".safetensors")?.split_once("-of-")?;
    let shard = Shard { index: index.parse().ok()?, count: count.parse().ok()? };
    (file_name(shard) == name).then_some(shard)
}

/// The files of shards in `directory`, in the order of their names.
///
/// # Errors
/// The directory cannot be read.
pub fn in_directory(directory: &Path) -> Result<Vec<(Shard, PathBuf)>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(directory).map_err(Error::io("read", directory))? {
        let path = entry.map_err(Error::io("read", directory))?.path();
        if let Some(shard) = path.file_name().and_then(|name| shard_of(name.to_str()?)) {
            found.insert(path, shard);
        }
    }
    Ok(found.into_iter().map(|(path, shard)| (shard, path)).collect())
}

/// Creates `directory` if it is missing, and gives the path of the file of `shard` in it.
///
/// # Errors
/// A directory that has shards of another number, or that cannot be created.
pub fn prepare_directory(directory: &Path, shard: Shard) -> Result<PathBuf> {
    fs::create_dir_all(directory).map_err(Error::io("create", directory))?;
    match in_directory(directory)?.into_iter().find(|(other, _)| other.count != shard.count) {
        None => Ok(directory.join(file_name(shard))),
        Some((other, path)) => Err(Error::usage(format!(
            "--shard {shard}: {} is the file of shard {other}; divide the samples into {} shards, or use another directory",
            path.display(),
            other.count
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_sorted_and_read_again() {
        let names: Vec<String> = (1..=12).map(|index| file_name(Shard { index, count: 12 })).collect();
        assert_eq!(names[2], "shard-03-of-12.safetensors");
        assert!(names.is_sorted());
        assert!(names.iter().enumerate().all(|(place, name)| shard_of(name).unwrap().index == place + 1));
        for other in [
            "shard-3-of-12.safetensors",
            ".shard-03-of-12.safetensors.partial",
            "shard-03-of-12",
            "features.safetensors",
        ] {
            assert_eq!(shard_of(other), None, "{other}");
        }
    }

    #[test]
    fn record_is_read_again_and_leaves_the_settings_of_the_whole() {
        let table = SampleTable {
            rows: vec![4, 2, 0],
            labels: vec![1, 0, 1],
            is_train: vec![1, 1, 0],
            settings: "{\"model\":\"a\",\"seed\":\"0\"}".to_owned(),
        };
        let mut whole = PlanFingerprint::default();
        whole.set("model", "b");
        let record = ShardRecord::of(Shard { index: 2, count: 2 }, 3, whole.clone()).unwrap();
        let part = record.table(&table).unwrap();
        assert_eq!((part.rows.as_slice(), part.is_train.as_slice()), (&[2, 0][..], &[1, 0][..]));
        assert_eq!(ShardRecord::read(&part.settings), Some((record.clone(), table.settings.clone())));
        assert_eq!(ShardRecord::read(&table.settings), None);
        let invalid = ShardRecord { first: 0, ..record };
        assert_eq!(ShardRecord::read(&invalid.table(&table).unwrap().settings), None);
        assert!(ShardRecord::of(Shard { index: 1, count: 4 }, 3, whole).unwrap_err().to_string().contains("3 samples"));
    }
}
