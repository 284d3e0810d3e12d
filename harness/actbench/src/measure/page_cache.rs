//! How much of a file is in the page cache. The rest is read from the disk on first use, which adds to the time of the first
//! case.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use memmap2::Mmap;

use super::MIB;
use super::conditions::{Kind, Warning};

/// Below this fraction the first use waits for the disk.
const MIN_RESIDENT_FRACTION: f64 = 0.9;

/// Reading files smaller than this, in bytes, takes no noticeable time.
const MIN_BYTES: u64 = 1 << 20;

/// Bytes of files and how many of them are in the page cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Residency {
    /// Size of the files.
    pub bytes: u64,
    /// Bytes in the page cache.
    pub resident: u64,
}

impl Residency {
    /// The residency of the file `path`, or of the files directly in the directory `path`; none if it is unknown. No file
    /// content is read.
    pub fn of(path: &Path) -> Option<Self> {
        let files: Vec<PathBuf> = if path.is_dir() {
            fs::read_dir(path).ok()?.flatten().map(|entry| entry.path()).filter(|path| path.is_file()).collect()
        } else {
            vec![path.to_path_buf()]
        };
        let each: Option<Vec<Residency>> = files.iter().map(|file| residency(file)).collect();
        Some(each?.into_iter().fold(Residency::default(), |sum, it| Residency {
            bytes: sum.bytes + it.bytes,
            resident: sum.resident + it.resident,
        }))
    }

    /// The fraction in the page cache; 1 for no bytes.
    pub fn fraction(self) -> f64 {
        if self.bytes == 0 { 1.0 } else { self.resident as f64 / self.bytes as f64 }
    }
}

/// The warning about the files at `path` before a run with `warmup` warm-up blocks.
pub fn warning(path: &Path, warmup: usize) -> Option<Warning> {
    judge(&path.display().to_string(), Residency::of(path)?, warmup)
}

fn judge(name: &str, files: Residency, warmup: usize) -> Option<Warning> {
    if files.bytes < MIN_BYTES || files.fraction() >= MIN_RESIDENT_FRACTION {
        return None;
    }
    let what = format!(
        "{:.0}% of the {:.0} MiB of {name} are in the page cache; the rest is read from the disk on first use",
        100.0 * files.fraction(),
        files.bytes as f64 / MIB
    );
    Some(match warmup {
        0 => Warning::new(
            Kind::PageCache,
            what,
            "keep --warmup at 1 or more, or read the files first: `cat FILES > /dev/null`",
        ),
        _ => Warning::note(Kind::PageCache, what, "none needed: the warm-up reads them, and its rows are discarded"),
    })
}

#[cfg(unix)]
fn residency(path: &Path) -> Option<Residency> {
    let file = File::open(path).ok()?;
    let bytes = file.metadata().ok()?.len();
    if bytes == 0 {
        return Some(Residency::default());
    }
    // SAFETY: the mapping is never read: only its address and length are used, so that a file which changes or shrinks
    // meanwhile does no harm.
    let map = unsafe { Mmap::map(&file) }.ok()?;
    // SAFETY: a plain system call without arguments that are pointers.
    let page = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).ok().filter(|page| *page > 0)?;
    let mut pages = vec![0u8; map.len().div_ceil(page)];
    // SAFETY: the mapping begins at a page and spans `map.len()` bytes, and `pages` has one byte for each of its pages,
    // as mincore(2) asks for.
    let status = unsafe { libc::mincore(map.as_ptr() as *mut libc::c_void, map.len(), pages.as_mut_ptr().cast()) };
    let resident = pages.iter().filter(|page| *page & 1 == 1).count() as u64 * page as u64;
    (status == 0).then(|| Residency { bytes, resident: resident.min(bytes) })
}

#[cfg(not(unix))]
fn residency(_path: &Path) -> Option<Residency> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::conditions::Level;

    #[test]
    fn missing_file_has_no_residency() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("weights"), vec![1u8; 100_000]).unwrap();
        fs::write(directory.path().join("empty"), b"").unwrap();
        let found = Residency::of(directory.path()).unwrap();
        assert_eq!(found.bytes, 100_000);
        assert!(found.resident <= found.bytes);
        assert_eq!(Residency::of(&directory.path().join("absent")), None);
        assert_eq!(Residency::default().fraction(), 1.0);
    }

    #[test]
    fn cold_file_is_a_warning_without_warmup() {
        let cold = Residency { bytes: 100 << 20, resident: 10 << 20 };
        let found = judge("model", cold, 0).unwrap();
        assert_eq!(found.level, Level::Warning);
        assert!(found.what.starts_with("10% of the 100 MiB of model"), "{}", found.what);
        assert_eq!(judge("model", cold, 1).unwrap().level, Level::Note);
        assert_eq!(judge("model", Residency { resident: 95 << 20, ..cold }, 0), None);
        assert_eq!(judge("model", Residency { bytes: 1000, resident: 0 }, 0), None);
    }
}
