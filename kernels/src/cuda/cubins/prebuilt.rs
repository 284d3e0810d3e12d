//! A directory of prebuilt cubins, for machines without a compiler: `<unit>.<architecture>.cubin` and `manifest.json`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Cubin, CubinOrigin, OPTIONS, error, source_digest, unit, write_atomically};
use crate::cuda::Architecture;
use crate::cuda::registry::KernelSource;
use crate::error::KernelError;

/// The manifest's file name.
const MANIFEST: &str = "manifest.json";

/// The format of the manifest; the number is its version.
const FORMAT: &str = "actbench cubins 1";

/// The contents of a directory.
#[derive(Debug, Serialize, Deserialize)]
struct CubinManifest {
    format: String,
    /// The compiler, for information.
    compiler: String,
    /// The compiler options besides the architecture.
    options: Vec<String>,
    cubins: Vec<ManifestEntry>,
}

/// One file of a directory.
#[derive(Debug, Serialize, Deserialize)]
struct ManifestEntry {
    /// The source's name without its extension.
    unit: String,
    /// The architecture, such as `sm_90`.
    architecture: String,
    /// Digest of the source and the headers.
    source: String,
    /// Digest of the cubin.
    cubin: String,
}

/// A directory of prebuilt cubins with its manifest.
#[derive(Debug)]
pub struct PrebuiltCubins {
    directory: PathBuf,
    manifest: CubinManifest,
}

impl PrebuiltCubins {
    /// Reads the manifest of `directory`.
    ///
    /// # Errors
    /// No manifest, another format, or cubins compiled with other options than this binary's.
    pub fn open(directory: &Path) -> Result<Self, KernelError> {
        let path = directory.join(MANIFEST);
        let rejected = |why: String| {
            error(format!("{}: {why}; write the directory with scripts/check_cuda_kernels.sh --out", path.display()))
        };
        let text = std::fs::read(&path).map_err(|error| rejected(error.to_string()))?;
        let manifest: CubinManifest = serde_json::from_slice(&text).map_err(|error| rejected(error.to_string()))?;
        if manifest.format != FORMAT {
            return Err(rejected(format!("format '{}', expected '{FORMAT}'", manifest.format)));
        }
        if manifest.options != OPTIONS {
            return Err(rejected(format!("compiled with {:?}, expected {OPTIONS:?}", manifest.options)));
        }
        Ok(PrebuiltCubins { directory: directory.to_path_buf(), manifest })
    }

    /// The compiler of the directory, such as `NVRTC 13.0`.
    pub fn compiler(&self) -> &str {
        &self.manifest.compiler
    }

    /// The cubin of `source` for the highest architecture that runs on `device`, if the directory has one.
    ///
    /// # Errors
    /// A cubin of another source, or a file that differs from the manifest.
    pub fn find(&self, source: &KernelSource, device: Architecture) -> Result<Option<Cubin>, KernelError> {
        let unit = unit(source);
        let mut compatible: Vec<(Architecture, &ManifestEntry)> = Vec::new();
        for entry in self.manifest.cubins.iter().filter(|entry| entry.unit == unit) {
            let architecture: Architecture = entry.architecture.parse()?;
            if architecture.runs_on(device) {
                compatible.push((architecture, entry));
            }
        }
        let Some((architecture, entry)) = compatible.into_iter().max_by_key(|(architecture, _)| *architecture) else {
            return Ok(None);
        };
        let path = self.directory.join(file_name(unit, architecture));
        let rejected = |why: &str| Err(error(format!("{}: {why}", path.display())));
        if entry.source != source_digest(source) {
            return rejected(&format!(
                "was built from a different {}; rebuild the cubin directory from the sources of this binary",
                source.file
            ));
        }
        let bytes = std::fs::read(&path).map_err(|reason| error(format!("{}: {reason}", path.display())))?;
        if entry.cubin != blake3::hash(&bytes).to_hex().as_str() {
            return rejected("differs from the manifest: truncated or changed; rebuild the cubin directory");
        }
        Ok(Some(Cubin { bytes, origin: CubinOrigin::Prebuilt(architecture) }))
    }
}

/// Writes `cubins` and their manifest to `directory`. Each file is written atomically, the manifest last.
///
/// # Errors
/// A file that cannot be written, with its path.
pub fn write_prebuilt(
    directory: &Path,
    compiler: &str,
    cubins: &[(&KernelSource, Architecture, Vec<u8>)],
) -> Result<(), KernelError> {
    // Sorted, so that the same cubins give the same manifest.
    let mut entries = BTreeMap::new();
    for (source, architecture, bytes) in cubins {
        let path = directory.join(file_name(unit(source), *architecture));
        write_atomically(&path, &[bytes]).map_err(|reason| error(format!("{}: {reason}", path.display())))?;
        entries.insert(
            (unit(source), *architecture),
            ManifestEntry {
                unit: unit(source).to_owned(),
                architecture: architecture.to_string(),
                source: source_digest(source),
                cubin: blake3::hash(bytes).to_hex().to_string(),
            },
        );
    }
    let manifest = CubinManifest {
        format: FORMAT.to_owned(),
        compiler: compiler.to_owned(),
        options: OPTIONS.map(str::to_owned).to_vec(),
        cubins: entries.into_values().collect(),
    };
    let path = directory.join(MANIFEST);
    let mut text = serde_json::to_vec_pretty(&manifest).map_err(|reason| error(reason.to_string()))?;
    text.push(b'\n');
    write_atomically(&path, &[&text]).map_err(|reason| error(format!("{}: {reason}", path.display())))
}

fn file_name(unit: &str, architecture: Architecture) -> String {
    format!("{unit}.{architecture}.cubin")
}
