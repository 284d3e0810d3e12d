//! Machine code for the kernels: from a folder made before, from the cache of an earlier run, or compiled now.
//!
//! A cubin is used only if it is known to be made of this program's sources: the folder has a manifest that names their
//! digests, the cache is looked up by them. So neither an old folder nor a half-written file can give wrong results.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use super::Architecture;
use super::compiler::{self, OPTIONS};
use super::sources::{KernelSource, PRELUDE, SOURCES};
use crate::error::KernelError;

mod cache;
mod prebuilt;
#[cfg(test)]
mod tests;

pub use prebuilt::{Prebuilt, write_prebuilt};

/// Where cubins are looked for and kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CubinFolders {
    /// Cubins made before, with their manifest. A folder of other sources is refused.
    pub prebuilt: Option<PathBuf>,
    /// Where what is compiled is kept for the next run. Made when it is needed.
    pub cache: Option<PathBuf>,
}

impl CubinFolders {
    /// No folder made before, and the user's cache folder: `actbench/cubins` in `XDG_CACHE_HOME` (XDG Base Directory
    /// Specification: only if it is absolute) or in `~/.cache`. Nothing is kept where there is neither.
    pub fn of_user() -> Self {
        let variable = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let caches = variable("XDG_CACHE_HOME").or_else(|| Some(variable("HOME")?.join(".cache")));
        CubinFolders { prebuilt: None, cache: caches.map(|caches| caches.join("actbench").join("cubins")) }
    }

    /// The folder `cubins` beside the program, if it is one of machine code, and the user's cache folder.
    pub fn of_program() -> Self {
        let beside = || Some(std::env::current_exe().ok()?.parent()?.join("cubins"));
        let prebuilt = beside().filter(|folder| folder.join("manifest.json").is_file());
        CubinFolders { prebuilt, ..CubinFolders::of_user() }
    }
}

/// Where a cubin came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The folder of cubins made before, which has it for this architecture.
    Prebuilt(Architecture),
    /// The cache.
    Cache,
    /// Compiled now; with the reason if it could not be kept for the next run.
    Compiled(Option<String>),
}

/// Machine code of one source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cubin {
    /// What a driver loads: an ELF file.
    pub bytes: Vec<u8>,
    /// Where it came from.
    pub origin: Origin,
}

/// What makes a cubin where there is none yet.
pub trait Compiler: Sync {
    /// The compiler and its version, such as `NVRTC 13.0`.
    ///
    /// # Errors
    /// When there is no compiler.
    fn version(&self) -> Result<String, KernelError>;

    /// Machine code of `source` for `architecture`.
    ///
    /// # Errors
    /// No compiler, or a source that does not compile.
    fn compile(&self, source: &KernelSource, architecture: Architecture) -> Result<Vec<u8>, KernelError>;
}

/// The compiler of [`super::compiler`], which is looked for at run time.
pub struct Nvrtc;

impl Compiler for Nvrtc {
    fn version(&self) -> Result<String, KernelError> {
        compiler::version().map(|(major, minor)| format!("NVRTC {major}.{minor}"))
    }

    fn compile(&self, source: &KernelSource, architecture: Architecture) -> Result<Vec<u8>, KernelError> {
        compiler::compile(source, architecture).map(|compiled| compiled.cubin)
    }
}

/// Machine code of `source` that a `device` of this capability runs.
///
/// # Errors
/// A folder of other sources or of damaged files; no cubin anywhere and no compiler; a source that does not compile.
pub fn find(
    folders: &CubinFolders,
    compiler: &impl Compiler,
    source: &KernelSource,
    device: Architecture,
) -> Result<Cubin, KernelError> {
    let architecture = device.code();
    let mut lacking = String::new();
    if let Some(folder) = &folders.prebuilt {
        let prebuilt = Prebuilt::open(folder)?;
        if let Some(cubin) = prebuilt.find(source, device)? {
            return Ok(cubin);
        }
        lacking = format!("; {} has none for {device}", folder.display());
    }
    let version = compiler.version().map_err(|absent| {
        let next = "or name a folder of cubins that scripts/check_cuda_kernels.sh --out wrote";
        error(format!("{} for {architecture}: {absent}{lacking}, {next}", source.file))
    })?;
    let Some(folder) = &folders.cache else {
        return Ok(Cubin { bytes: compiler.compile(source, architecture)?, origin: Origin::Compiled(None) });
    };
    let entry = cache::Entry::new(folder, source, architecture, &version);
    if let Some(bytes) = entry.read() {
        return Ok(Cubin { bytes, origin: Origin::Cache });
    }
    let bytes = compiler.compile(source, architecture)?;
    // A folder that cannot be written costs the next run time and this one nothing.
    let kept = entry.write(&bytes).err().map(|error| format!("{}: {error}", folder.display()));
    Ok(Cubin { bytes, origin: Origin::Compiled(kept) })
}

/// Whether machine code of every source can be had for `device`: without making any, and without a device.
///
/// # Errors
/// What [`find`] would fail with, a source that does not compile apart.
pub fn obtainable(folders: &CubinFolders, compiler: &impl Compiler, device: Architecture) -> Result<(), KernelError> {
    let prebuilt = folders.prebuilt.as_deref().map(Prebuilt::open).transpose()?;
    for source in SOURCES {
        let is_there = prebuilt.as_ref().map(|folder| folder.find(source, device)).transpose()?.flatten().is_some();
        if !is_there {
            // One that compiles one source compiles all.
            return compiler.version().map(|_| ()).map_err(|absent| {
                error(format!("there is no machine code for {device}, and no compiler to make it: {absent}"))
            });
        }
    }
    Ok(())
}

/// A digest of everything that the compiler reads: the source and what it includes.
pub fn source_digest(source: &KernelSource) -> String {
    digest_of(&[source.file, source.text, PRELUDE.file, PRELUDE.text])
}

/// A digest of `parts`, which differs where a text moves from one part to the next.
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

/// Writes `parts` as the file `path`, whole or not at all.
fn write_whole(path: &Path, parts: &[&[u8]]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    let mut file = tempfile::Builder::new().prefix(".actbench-").suffix(".tmp").tempfile_in(folder)?;
    for part in parts {
        file.write_all(part)?;
    }
    // Readable by all, as other results are; temporary files are made for their owner alone.
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        file.as_file().set_permissions(std::fs::Permissions::from_mode(0o644))?;
    }
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    std::fs::File::open(folder)?.sync_all()
}
