//! How much of a file is in memory already. What is not is read from the disk the first time that it is used, which then
//! shows in the time of whoever comes first.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use memmap2::Mmap;

use super::MEGABYTE;
use super::conditions::{Kind, Warning};

/// Below this share a first use waits for the disk.
const WARM: f64 = 0.9;

/// Files smaller than this, in bytes, are read in no time.
const SMALL: u64 = 1 << 20;

/// Bytes of files and how many of them are in the page cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Residency {
    /// All bytes.
    pub bytes: u64,
    /// Bytes of pages in memory.
    pub resident: u64,
}

impl Residency {
    /// Of the file `path`, or of all files right in the folder `path`; none where that cannot be told. Nothing is read.
    pub fn of(path: &Path) -> Option<Self> {
        let files: Vec<PathBuf> = match path.is_dir() {
            true => {
                fs::read_dir(path).ok()?.flatten().map(|entry| entry.path()).filter(|path| path.is_file()).collect()
            }
            false => vec![path.to_path_buf()],
        };
        let each: Option<Vec<Residency>> = files.iter().map(|file| of_file(file)).collect();
        Some(each?.into_iter().fold(Residency::default(), |sum, it| Residency {
            bytes: sum.bytes + it.bytes,
            resident: sum.resident + it.resident,
        }))
    }

    /// The share in memory; 1 of nothing.
    pub fn share(self) -> f64 {
        if self.bytes == 0 { 1.0 } else { self.resident as f64 / self.bytes as f64 }
    }
}

/// What to say of the files at `path` before a run with `warmup` blocks that are not counted.
pub fn warning(path: &Path, warmup: usize) -> Option<Warning> {
    judge(&path.display().to_string(), Residency::of(path)?, warmup)
}

fn judge(name: &str, files: Residency, warmup: usize) -> Option<Warning> {
    if files.bytes < SMALL || files.share() >= WARM {
        return None;
    }
    let what = format!(
        "{:.0}% of the {:.0} MB of {name} are in the page cache, the rest is read from the disk at its first use",
        100.0 * files.share(),
        files.bytes as f64 / MEGABYTE
    );
    Some(match warmup {
        0 => Warning::new(
            Kind::PageCache,
            what,
            "keep --warmup at 1 or more, or read the files before: `cat FILES > /dev/null`",
        ),
        _ => {
            Warning::note(Kind::PageCache, what, "nothing to do: the warm-up reads them, and its rows are not counted")
        }
    })
}

#[cfg(unix)]
fn of_file(path: &Path) -> Option<Residency> {
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
fn of_file(_path: &Path) -> Option<Residency> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::conditions::Level;

    #[test]
    fn a_file_just_written_is_in_memory_and_a_missing_one_is_not_known() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("weights"), vec![1u8; 100_000]).unwrap();
        fs::write(folder.path().join("empty"), b"").unwrap();
        let found = Residency::of(folder.path()).unwrap();
        assert_eq!(found.bytes, 100_000);
        assert!(found.resident <= found.bytes);
        assert_eq!(Residency::of(&folder.path().join("absent")), None);
        assert_eq!(Residency::default().share(), 1.0);
    }

    #[test]
    fn a_cold_file_matters_where_nothing_warms_it() {
        let cold = Residency { bytes: 100 << 20, resident: 10 << 20 };
        let found = judge("model", cold, 0).unwrap();
        assert_eq!(found.level, Level::Warning);
        assert!(found.what.starts_with("10% of the 100 MB of model"), "{}", found.what);
        assert_eq!(judge("model", cold, 1).unwrap().level, Level::Note);
        assert_eq!(judge("model", Residency { resident: 95 << 20, ..cold }, 0), None);
        assert_eq!(judge("model", Residency { bytes: 1000, resident: 0 }, 0), None);
    }
}
