//! The files of an adapter of PEFT: which must be there, and the tensors in them.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use actbench_kernels::{DType, HostTensor};
use bytes::Bytes;
use memmap2::Mmap;
use safetensors::tensor::Dtype;

use super::super::weights::header::read_header;
use super::merge::AdapterTensor;
use crate::error::{Error, Result};
use crate::lfs;

/// The configuration.
const CONFIG: &str = "adapter_config.json";
/// The weights.
const WEIGHTS: &str = "adapter_model.safetensors";
/// The weights in the older format.
const PICKLED: &str = "adapter_model.bin";

/// The largest configuration that is read.
const MAX_CONFIG: u64 = 10_000_000;

/// An adapter's files.
pub(super) struct AdapterFiles {
    /// The configuration's path.
    pub(super) config_path: PathBuf,
    /// The configuration's bytes.
    pub(super) config: Bytes,
    /// The path of the weights.
    pub(super) path: PathBuf,
    /// The bytes of the weights.
    pub(super) file: Bytes,
    /// The tensors by name.
    pub(super) tensors: BTreeMap<String, AdapterTensor>,
}

impl AdapterFiles {
    /// Reads the configuration and maps the weights of the adapter in `dir`. The files must not be changed while they are mapped.
    ///
    /// # Errors
    /// A file that is missing or damaged, or a tensor of another type than F32, F16 and BF16.
    pub(super) fn open(dir: &Path) -> Result<Self> {
        if !dir.is_dir() {
            return Err(Error::file(dir, "no such directory: --adapter takes the directory of an adapter of PEFT"));
        }
        let (config_path, path) = (dir.join(CONFIG), dir.join(WEIGHTS));
        if !config_path.exists() {
            return Err(Error::file(dir, format!("has no {CONFIG}, so it does not contain an adapter of PEFT")));
        }
        let size = config_path.metadata().map_err(Error::io("read", &config_path))?.len();
        if size > MAX_CONFIG {
            return Err(Error::file(&config_path, format!("is {size} bytes, too many for a configuration")));
        }
        let config = Bytes::from(std::fs::read(&config_path).map_err(Error::io("read", &config_path))?);
        lfs::reject_pointer(&config_path, &config)?;
        if !path.exists() {
            return Err(Error::file(dir, no_weights(dir)));
        }
        let file = map(&path)?;
        lfs::reject_pointer(&path, &file)?;
        let (data, entries) = read_header(&path, &file)?;
        let mut tensors = BTreeMap::new();
        for (stored, info) in entries {
            let dtype = match info.dtype {
                Dtype::F32 => DType::F32,
                Dtype::F16 => DType::F16,
                Dtype::BF16 => DType::Bf16,
                other => {
                    let what = format!(
                        "tensor '{stored}' is stored as {other}; only F32, F16 and BF16 adapters are supported"
                    );
                    return Err(Error::file(&path, what));
                }
            };
            let (begin, end) = info.data_offsets;
            let tensor = HostTensor::new(dtype, info.shape, file.slice(data + begin..data + end))?;
            tensors.insert(stored.clone(), AdapterTensor { stored, tensor });
        }
        Ok(AdapterFiles { config_path, config, path, file, tensors })
    }
}

/// The bytes of a file, mapped.
fn map(path: &Path) -> Result<Bytes> {
    let file = File::open(path).map_err(Error::io("open", path))?;
    // SAFETY: the map is only read. `AdapterFiles::open` documents that the files must not be changed meanwhile, as
    // `Weights::open` does for those of the base model.
    let map = unsafe { Mmap::map(&file) }.map_err(Error::io("map", path))?;
    Ok(Bytes::from_owner(map))
}

/// The error for a directory without safetensors.
fn no_weights(dir: &Path) -> String {
    if dir.join(PICKLED).exists() {
        return format!(
            "has {PICKLED} and no {WEIGHTS}; pickled weights are not read: save the adapter again with PEFT \
             (save_pretrained with safe_serialization=True)"
        );
    }
    format!("has no {WEIGHTS}")
}
