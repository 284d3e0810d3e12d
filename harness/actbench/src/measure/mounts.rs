//! The kind of storage that a directory is on.

use std::fs;
use std::path::Path;

/// Whether files in `directory` are kept in memory (tmpfs, ramfs), so that a cache "on disk" there saves no memory. False
/// if that is unknown.
pub fn is_in_memory(directory: &Path) -> bool {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let directory = fs::canonicalize(directory).unwrap_or_else(|_| directory.to_path_buf());
    matches!(file_system(&mounts, &directory), Some("tmpfs" | "ramfs"))
}

/// The type of the file system that `directory` is on: that of its longest mount point, the last mount among equals.
fn file_system<'a>(mounts: &'a str, directory: &Path) -> Option<&'a str> {
    let mut nearest: Option<(usize, &str)> = None;
    for line in mounts.lines() {
        let mut fields = line.split(' ');
        let (Some(_device), Some(point), Some(kind)) = (fields.next(), fields.next(), fields.next()) else { continue };
        // Spaces in mount points are written as octal escapes, see proc_mounts(5).
        let point = point.replace("\\040", " ");
        let depth = Path::new(&point).components().count();
        if directory.starts_with(&point) && nearest.is_none_or(|(nearest, _)| depth >= nearest) {
            nearest = Some((depth, kind));
        }
    }
    nearest.map(|(_, kind)| kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn longest_mount_point_of_whole_components_counts() {
        let mounts = "/dev/sda / ext4 rw 0 0\ntmpfs /tmp tmpfs rw 0 0\n/dev/sdb /tmp/big\\040disk xfs rw 0 0\n";
        assert_eq!(file_system(mounts, Path::new("/tmp/a")), Some("tmpfs"));
        assert_eq!(file_system(mounts, Path::new("/tmpfoo/a")), Some("ext4"));
        assert_eq!(file_system(mounts, Path::new("/tmp/big disk/a")), Some("xfs"));
        assert_eq!(file_system("", Path::new("/tmp")), None);
    }
}
