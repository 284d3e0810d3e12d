//! Copies of the two executables of a gate, made in the same way.
//!
//! How a program file lies in the page cache decides how many page faults its code takes: CPU time of a short case differed
//! by some percent between a program and an evicted copy of it. Two files that were just written lie there alike. Their paths
//! have the same length, so that the stacks of both programs begin alike too.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use pairgate::source::Side;
use pairgate::temporary::TemporaryDirectory;
use pairgate::{Error, Result};

/// How an executable that the kernel maps begins. A script is read by a program that both sides share.
const ELF_MAGIC: [u8; 4] = *b"\x7fELF";

/// The directory of CUDA kernels next to an executable.
const KERNELS: &str = "cubins";

/// Bytes that are written at once: the same for both files, because they may decide how the kernel caches a file.
const CHUNK_BYTES: usize = 1 << 20;

/// Executables that were copied; removed when this is dropped.
pub struct StagedExecutables {
    directory: TemporaryDirectory,
}

impl StagedExecutables {
    /// A directory for the copies in the system's temporary directory.
    ///
    /// # Errors
    /// That directory cannot be written to.
    pub fn create() -> Result<Self> {
        Ok(StagedExecutables { directory: TemporaryDirectory::create("actbench-gate-", None)? })
    }

    /// The copy of `executable` that is run for `side`; the file itself if it is a script.
    ///
    /// # Errors
    /// It cannot be read or copied.
    pub fn stage(&self, executable: &Path, side: Side) -> Result<PathBuf> {
        let mut file = File::open(executable).map_err(Error::io("open", executable))?;
        let mut chunk = vec![0u8; CHUNK_BYTES];
        let mut length = read_chunk(&mut file, &mut chunk).map_err(Error::io("read", executable))?;
        if !chunk[..length].starts_with(&ELF_MAGIC) {
            return Ok(executable.to_path_buf());
        }
        let directory = self.directory.path().join(side.to_string());
        fs::create_dir_all(&directory).map_err(Error::io("create", &directory))?;
        let path = directory.join("actbench");
        let mut copy = File::create(&path).map_err(Error::io("create", &path))?;
        while length > 0 {
            // Written and not cloned by the file system: a clone is not in the page cache.
            copy.write_all(&chunk[..length]).map_err(Error::io("write", &path))?;
            length = read_chunk(&mut file, &mut chunk).map_err(Error::io("read", executable))?;
        }
        let mode = file.metadata().map_err(Error::io("read", executable))?.permissions();
        copy.set_permissions(mode).map_err(Error::io("change the mode of", &path))?;
        // On the disk before the first pair, which would otherwise run while the kernel writes.
        copy.sync_all().map_err(Error::io("write", &path))?;
        // An executable looks for its CUDA kernels next to itself.
        let kernels = fs::canonicalize(executable).ok().and_then(|file| Some(file.parent()?.join(KERNELS)));
        if let Some(kernels) = kernels.filter(|kernels| kernels.is_dir()) {
            let link = directory.join(KERNELS);
            std::os::unix::fs::symlink(&kernels, &link).map_err(Error::io("create", &link))?;
        }
        Ok(path)
    }
}

/// Fills `chunk` as far as the file goes.
fn read_chunk(file: &mut File, chunk: &mut [u8]) -> std::io::Result<usize> {
    let mut length = 0;
    while length < chunk.len() {
        match file.read(&mut chunk[length..])? {
            0 => break,
            read => length += read,
        }
    }
    Ok(length)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn program_is_copied_and_script_is_not() {
        let parent = tempfile::tempdir().unwrap();
        let (program, script) = (parent.path().join("program"), parent.path().join("script"));
        let bytes: Vec<u8> = ELF_MAGIC.into_iter().chain((0..3 * CHUNK_BYTES / 2).map(|index| index as u8)).collect();
        fs::write(&program, &bytes).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(&script, "#!/bin/sh\n").unwrap();
        fs::create_dir(parent.path().join(KERNELS)).unwrap();
        fs::write(parent.path().join(KERNELS).join("manifest"), "kernels").unwrap();
        let staged = StagedExecutables::create().unwrap();
        assert_eq!(staged.stage(&script, Side::Base).unwrap(), script);
        let (base, head) = (staged.stage(&program, Side::Base).unwrap(), staged.stage(&program, Side::Head).unwrap());
        assert_eq!(base.as_os_str().len(), head.as_os_str().len());
        for copy in [&base, &head] {
            assert_eq!(fs::read(copy).unwrap(), bytes);
            assert_eq!(fs::metadata(copy).unwrap().permissions().mode() & 0o777, 0o755);
            assert_eq!(fs::read(copy.parent().unwrap().join(KERNELS).join("manifest")).unwrap(), b"kernels");
        }
        drop(staged);
        assert!(parent.path().join(KERNELS).join("manifest").exists(), "a link is removed and not its target");
        assert!(!base.exists() && !head.exists());
    }
}
