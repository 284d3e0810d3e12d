//! What an output path leads to: a file to replace, or a device, a pipe or an open descriptor to write into.

use std::fs;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// Links that are followed; Linux follows as many.
const MAX_LINKS: usize = 40;

/// What an output path leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OutputTarget {
    /// A regular file, or none yet, at this path, which is not a link.
    File(PathBuf),
    /// A device, a pipe, or anything else that has to be written into and must never be replaced.
    Stream(PathBuf),
    /// An open descriptor of this process, as named by `/dev/stdout`.
    Descriptor(i32),
}

impl OutputTarget {
    /// What `path` leads to, through all symbolic links.
    ///
    /// # Errors
    /// A directory, a block device, a chain of links that does not end, or a path that cannot be looked up.
    pub fn of(path: &Path) -> Result<Self> {
        let mut current = path.to_path_buf();
        for _ in 0..MAX_LINKS {
            if let Some(descriptor) = own_descriptor(&current) {
                return Ok(OutputTarget::Descriptor(descriptor));
            }
            let metadata = match fs::symlink_metadata(&current) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(OutputTarget::File(current)),
                metadata => metadata.map_err(Error::io("write", path))?,
            };
            let kind = metadata.file_type();
            if kind.is_symlink() {
                let link = fs::read_link(&current).map_err(Error::io("write", path))?;
                // Links of the kernel, such as those to the descriptors of another process, name no path.
                if is_descriptor_link(&current) {
                    return Ok(OutputTarget::Stream(current));
                }
                current = directory_of(&current).join(link);
            } else if kind.is_dir() {
                return Err(Error::file(path, "is a directory; name a file"));
            } else if kind.is_block_device() {
                return Err(Error::file(path, "is a block device, whose data would be overwritten; name a file"));
            } else if kind.is_file() {
                return Ok(OutputTarget::File(current));
            } else {
                return Ok(OutputTarget::Stream(current));
            }
        }
        Err(Error::file(path, "is a chain of symbolic links that does not end; name a file"))
    }
}

/// The directory that holds `path`.
pub(crate) fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// The number of the descriptor of this process that `path` names, as `/dev/fd/3` and `/proc/self/fd/3` do.
fn own_descriptor(path: &Path) -> Option<i32> {
    let number = path.file_name()?.to_str()?.parse().ok()?;
    let directory = fs::canonicalize(directory_of(path)).ok()?;
    let own = ["/proc/self/fd", "/proc/thread-self/fd", "/dev/fd"];
    own.iter().any(|own| fs::canonicalize(own).is_ok_and(|own| own == directory)).then_some(number)
}

/// Whether `path` is a link to an open descriptor of any process.
fn is_descriptor_link(path: &Path) -> bool {
    fs::canonicalize(directory_of(path))
        .is_ok_and(|directory| directory.starts_with("/proc") && directory.ends_with("fd"))
}
