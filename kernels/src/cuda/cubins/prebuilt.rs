//! A folder of cubins made before, for machines without a compiler: `<unit>.<architecture>.cubin` and `manifest.json`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Cubin, OPTIONS, Origin, error, source_digest, unit, write_whole};
use crate::cuda::Architecture;
use crate::cuda::sources::KernelSource;
use crate::error::KernelError;

/// The manifest's file.
const MANIFEST: &str = "manifest.json";

/// What the manifest says it is; the number counts its forms.
const FORMAT: &str = "actbench cubins 1";

/// What a folder holds.
#[derive(Debug, Serialize, Deserialize)]
struct Manifest {
    format: String,
    /// What compiled them, for people.
    compiler: String,
    /// What it was told beside the architecture.
    options: Vec<String>,
    cubins: Vec<Entry>,
}

/// One file of a folder.
#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    /// The source's name without its extension.
    unit: String,
    /// The architecture, such as `sm_90`.
    architecture: String,
    /// Digest of the source and what it includes.
    source: String,
    /// Digest of the cubin.
    cubin: String,
}

/// A folder of cubins, with its manifest read.
#[derive(Debug)]
pub struct Prebuilt {
    folder: PathBuf,
    manifest: Manifest,
}

impl Prebuilt {
    /// Reads the manifest of `folder`.
    ///
    /// # Errors
    /// No manifest, one of another form, or cubins made with other options than this program's.
    pub fn open(folder: &Path) -> Result<Self, KernelError> {
        let path = folder.join(MANIFEST);
        let refused = |why: String| {
            error(format!("{}: {why}; write the folder with scripts/check_cuda_kernels.sh --out", path.display()))
        };
        let text = std::fs::read(&path).map_err(|error| refused(error.to_string()))?;
        let manifest: Manifest = serde_json::from_slice(&text).map_err(|error| refused(error.to_string()))?;
        if manifest.format != FORMAT {
            return Err(refused(format!("format '{}' where '{FORMAT}' is read", manifest.format)));
        }
        if manifest.options != OPTIONS {
            return Err(refused(format!("compiled with {:?} where {OPTIONS:?} are needed", manifest.options)));
        }
        Ok(Prebuilt { folder: folder.to_path_buf(), manifest })
    }

    /// What compiled the folder, such as `NVRTC 13.0`.
    pub fn compiler(&self) -> &str {
        &self.manifest.compiler
    }

    /// The cubin of `source` for the highest architecture that runs on `device`, if the folder has one.
    ///
    /// # Errors
    /// One of another source, or a file that is not the one in the manifest.
    pub fn find(&self, source: &KernelSource, device: Architecture) -> Result<Option<Cubin>, KernelError> {
        let unit = unit(source);
        let mut fitting: Vec<(Architecture, &Entry)> = Vec::new();
        for entry in self.manifest.cubins.iter().filter(|entry| entry.unit == unit) {
            let architecture: Architecture = entry.architecture.parse()?;
            if architecture.runs_on(device) {
                fitting.push((architecture, entry));
            }
        }
        let Some((architecture, entry)) = fitting.into_iter().max_by_key(|(architecture, _)| *architecture) else {
            return Ok(None);
        };
        let path = self.folder.join(file_name(unit, architecture));
        let refused = |why: &str| Err(error(format!("{}: {why}", path.display())));
        if entry.source != source_digest(source) {
            return refused(&format!(
                "compiled from another {} than this program's; write the folder anew from the sources of this program",
                source.file
            ));
        }
        let bytes = std::fs::read(&path).map_err(|reason| error(format!("{}: {reason}", path.display())))?;
        if entry.cubin != blake3::hash(&bytes).to_hex().as_str() {
            return refused("not the file that the manifest names, cut off or changed; write the folder anew");
        }
        Ok(Some(Cubin { bytes, origin: Origin::Prebuilt(architecture) }))
    }
}

/// Writes `cubins` and their manifest to `folder`. Each file is whole or not there, and the manifest, which makes them
/// a folder of cubins, comes last.
///
/// # Errors
/// A file that cannot be written, with its name.
pub fn write_prebuilt(
    folder: &Path,
    compiler: &str,
    cubins: &[(&KernelSource, Architecture, Vec<u8>)],
) -> Result<(), KernelError> {
    // In one order, whatever the caller's, so that the same cubins are the same folder.
    let mut entries = BTreeMap::new();
    for (source, architecture, bytes) in cubins {
        let path = folder.join(file_name(unit(source), *architecture));
        write_whole(&path, &[bytes]).map_err(|reason| error(format!("{}: {reason}", path.display())))?;
        entries.insert(
            (unit(source), *architecture),
            Entry {
                unit: unit(source).to_owned(),
                architecture: architecture.to_string(),
                source: source_digest(source),
                cubin: blake3::hash(bytes).to_hex().to_string(),
            },
        );
    }
    let manifest = Manifest {
        format: FORMAT.to_owned(),
        compiler: compiler.to_owned(),
        options: OPTIONS.map(str::to_owned).to_vec(),
        cubins: entries.into_values().collect(),
    };
    let path = folder.join(MANIFEST);
    let mut text = serde_json::to_vec_pretty(&manifest).map_err(|reason| error(reason.to_string()))?;
    text.push(b'\n');
    write_whole(&path, &[&text]).map_err(|reason| error(format!("{}: {reason}", path.display())))
}

fn file_name(unit: &str, architecture: Architecture) -> String {
    format!("{unit}.{architecture}.cubin")
}
