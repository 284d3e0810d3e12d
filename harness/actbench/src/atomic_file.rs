//! Files that appear whole or not at all, and whether a file can be written.

use std::io::Write;
use std::path::Path;

use crate::error::{Error, Result};

/// Prefix of temporary files. `matrix` removes files with the prefix `.actbench-` that a killed process left.
const TEMPORARY_PREFIX: &str = ".actbench-";

/// Writes a file under a temporary name in its directory, and renames it once its bytes are on the disk.
///
/// # Errors
/// The directory cannot be written to; an existing file is then unchanged.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let directory = directory_of(path);
    let write = || -> std::io::Result<()> {
        let mut file = tempfile::Builder::new().prefix(TEMPORARY_PREFIX).tempfile_in(directory)?;
        file.write_all(bytes)?;
        // Temporary files are readable by their owner alone; results are readable by all.
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            file.as_file().set_permissions(std::fs::Permissions::from_mode(0o644))?;
        }
        file.as_file().sync_all()?;
        file.persist(path).map_err(|error| error.error)?;
        std::fs::File::open(directory)?.sync_all()
    };
    write().map_err(Error::io("write", path))
}

/// Checks that the file `description`, which `flag` names, can be written to `path`, before hours are spent on its content.
///
/// # Errors
/// The path is a directory, or its directory does not exist or cannot be written to.
pub fn check_writable(path: &Path, flag: &str, description: &str) -> Result<()> {
    if path.is_dir() {
        return Err(Error::file(path, format!("is a directory; {flag} needs a file name for {description}")));
    }
    let directory = directory_of(path);
    match tempfile::Builder::new().prefix(TEMPORARY_PREFIX).tempfile_in(directory) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(Error::file(
            path,
            format!(
                "cannot be written ({flag}): the directory {} does not exist; create it or use another path",
                directory.display()
            ),
        )),
        // The message of the error names the temporary file, which the user has never seen; the kind is enough.
        Err(error) => Err(Error::file(path, format!("cannot be written ({flag}): {}; use another path", error.kind()))),
    }
}

fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(directory) if !directory.as_os_str().is_empty() => directory,
        _ => Path::new("."),
    }
}
