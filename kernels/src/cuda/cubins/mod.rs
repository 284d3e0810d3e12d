//! Machine code for the kernels: from a prebuilt directory, from the cache of an earlier run, or compiled now.
//!
//! A cubin is used only if it was compiled from the sources in this binary: the manifest of a directory has their digests,
//! and the cache is keyed by them. So an outdated directory or a truncated file cannot give wrong results.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use super::Architecture;
use super::compiler::{self, OPTIONS};
use super::registry::{KernelSource, SOURCES};
use super::sources::HEADERS;
use crate::error::KernelError;

mod cache;
mod prebuilt;
#[cfg(test)]
mod tests;

pub use prebuilt::{PrebuiltCubins, write_prebuilt};

/// The directories of cubins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CubinDirectories {
    /// Prebuilt cubins with their manifest. A directory of other sources is rejected.
    pub prebuilt: Option<PathBuf>,
    /// The cache of compiled cubins, created when needed.
    pub cache: Option<PathBuf>,
}

impl CubinDirectories {
    /// No prebuilt directory, and the user's cache directory: `actbench/cubins` in `XDG_CACHE_HOME` (XDG Base Directory
    /// Specification: only if it is absolute) or in `~/.cache`. Without either there is no cache.
    pub fn of_user() -> Self {
        let variable = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let caches = variable("XDG_CACHE_HOME").or_else(|| Some(variable("HOME")?.join(".cache")));
        CubinDirectories { prebuilt: None, cache: caches.map(|caches| caches.join("actbench").join("cubins")) }
    }

    /// The directory `cubins` next to the binary, if it has a manifest, and the user's cache directory.
    pub fn of_executable() -> Self {
        let next_to_binary = || Some(std::env::current_exe().ok()?.parent()?.join("cubins"));
        let prebuilt = next_to_binary().filter(|directory| directory.join("manifest.json").is_file());
        CubinDirectories { prebuilt, ..CubinDirectories::of_user() }
    }
}

/// The origin of a cubin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CubinOrigin {
    /// The prebuilt directory, compiled for this architecture.
    Prebuilt(Architecture),
    /// The cache of an earlier run.
    Cache,
    /// Compiled now, with the error if it could not be cached.
    Compiled(Option<String>),
}

/// Machine code of one source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cubin {
    /// An ELF file for the driver.
    pub bytes: Vec<u8>,
    /// Its origin.
    pub origin: CubinOrigin,
}

/// A compiler of kernel sources.
pub trait CubinCompiler: Sync {
    /// The compiler and its version, such as `NVRTC 13.0`.
    ///
    /// # Errors
    /// The compiler is missing.
    fn version(&self) -> Result<String, KernelError>;

    /// Machine code of `source` for `architecture`.
    ///
    /// # Errors
    /// The compiler is missing, or the source does not compile.
    fn compile(&self, source: &KernelSource, architecture: Architecture) -> Result<Vec<u8>, KernelError>;
}

/// NVRTC, loaded at run time.
pub struct Nvrtc;

impl CubinCompiler for Nvrtc {
    fn version(&self) -> Result<String, KernelError> {
        compiler::version().map(|(major, minor)| format!("NVRTC {major}.{minor}"))
    }

    fn compile(&self, source: &KernelSource, architecture: Architecture) -> Result<Vec<u8>, KernelError> {
        compiler::compile(source, architecture).map(|compiled| compiled.cubin)
    }
}

/// Machine code of `source` for a `device` of this capability.
///
/// # Errors
/// A prebuilt directory of other sources or with damaged files; no cubin and no compiler; a source that does not compile.
pub fn find(
    directories: &CubinDirectories,
    compiler: &impl CubinCompiler,
    source: &KernelSource,
    device: Architecture,
) -> Result<Cubin, KernelError> {
    let architecture = device.code();
    let mut missing = String::new();
    if let Some(directory) = &directories.prebuilt {
        let prebuilt = PrebuiltCubins::open(directory)?;
        if let Some(cubin) = prebuilt.find(source, device)? {
            return Ok(cubin);
        }
        missing = format!("; {} has none for {device}", directory.display());
    }
    let version = compiler.version().map_err(|absent| {
        let next = "or use a directory of cubins that scripts/check_cuda_kernels.sh --out wrote";
        error(format!("{} for {architecture}: {absent}{missing}, {next}", source.file))
    })?;
    let Some(directory) = &directories.cache else {
        return Ok(Cubin { bytes: compiler.compile(source, architecture)?, origin: CubinOrigin::Compiled(None) });
    };
    let entry = cache::CacheEntry::new(directory, source, architecture, &version);
    if let Some(bytes) = entry.read() {
        return Ok(Cubin { bytes, origin: CubinOrigin::Cache });
    }
    let bytes = compiler.compile(source, architecture)?;
    // Without a writable cache only the next run is slower.
    let cache_error = entry.write(&bytes).err().map(|error| format!("{}: {error}", directory.display()));
    Ok(Cubin { bytes, origin: CubinOrigin::Compiled(cache_error) })
}

/// Checks that machine code of every source is available for `device`, without compiling and without a device.
///
/// # Errors
/// Those of [`find`], except sources that do not compile.
pub fn check_available(
    directories: &CubinDirectories,
    compiler: &impl CubinCompiler,
    device: Architecture,
) -> Result<(), KernelError> {
    let prebuilt = directories.prebuilt.as_deref().map(PrebuiltCubins::open).transpose()?;
    for source in SOURCES {
        let is_prebuilt =
            prebuilt.as_ref().map(|directory| directory.find(source, device)).transpose()?.flatten().is_some();
        if !is_prebuilt {
            // A compiler for one source compiles all.
            return compiler
                .version()
                .map(|_| ())
                .map_err(|absent| error(format!("no machine code for {device}, and no compiler: {absent}")));
        }
    }
    Ok(())
}

/// A digest of everything that the compiler reads: the source and the headers.
pub fn source_digest(source: &KernelSource) -> String {
    let mut parts = vec![source.file, source.text];
    parts.extend(HEADERS.iter().flat_map(|header| [header.file, header.text]));
    digest_of(&parts)
}

/// A digest of `parts` and their boundaries.
fn digest_of(parts: &[&str]) -> String {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    hasher.finalize().to_hex().to_string()
}

/// The name of a source without its extension, and of its cubins.
fn unit(source: &KernelSource) -> &'static str {
    source.file.strip_suffix(".cu").unwrap_or(source.file)
}

fn error(message: String) -> KernelError {
    KernelError::Device { op: "find kernels", device: "cuda".to_owned(), message }
}

/// Writes `parts` to the file `path` atomically.
fn write_atomically(path: &Path, parts: &[&[u8]]) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(directory)?;
    let mut file = tempfile::Builder::new().prefix(".actbench-").suffix(".tmp").tempfile_in(directory)?;
    for part in parts {
        file.write_all(part)?;
    }
    // Readable by all like other results; temporary files are readable by their owner alone.
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        file.as_file().set_permissions(std::fs::Permissions::from_mode(0o644))?;
    }
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    std::fs::File::open(directory)?.sync_all()
}
