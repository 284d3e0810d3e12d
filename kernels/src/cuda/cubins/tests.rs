//! Folders of cubins and the cache, with a compiler that counts what it is asked.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::cuda::sources::SOURCES;

/// Makes text of source and architecture, and counts.
#[derive(Default)]
struct Counting {
    compiled: AtomicUsize,
    absent: bool,
    version: &'static str,
}

impl Compiler for Counting {
    fn version(&self) -> Result<String, KernelError> {
        if self.absent { Err(error("no compiler here".to_owned())) } else { Ok(self.version.to_owned()) }
    }

    fn compile(&self, source: &KernelSource, architecture: Architecture) -> Result<Vec<u8>, KernelError> {
        self.compiled.fetch_add(1, Ordering::Relaxed);
        Ok(format!("code of {} for {architecture}", source.file).into_bytes())
    }
}

const SM_90: Architecture = Architecture::new(90);

fn absent() -> Counting {
    Counting { absent: true, ..Counting::default() }
}

fn cached(folder: &Path) -> CubinFolders {
    CubinFolders { prebuilt: None, cache: Some(folder.to_path_buf()) }
}

fn prebuilt(folder: &Path) -> CubinFolders {
    CubinFolders { prebuilt: Some(folder.to_path_buf()), cache: None }
}

fn write(folder: &Path, architectures: &[u32]) {
    let cubins: Vec<_> = SOURCES
        .iter()
        .flat_map(|source| architectures.iter().map(move |number| (source, Architecture::new(*number))))
        .map(|(source, architecture)| {
            (source, architecture, Counting::default().compile(source, architecture).unwrap())
        })
        .collect();
    write_prebuilt(folder, "a compiler", &cubins).unwrap();
}

#[test]
fn what_was_compiled_once_is_read_the_next_time() {
    let folder = tempfile::tempdir().unwrap();
    let (compiler, folders) = (Counting::default(), cached(&folder.path().join("made/when/needed")));
    for source in SOURCES {
        let first = find(&folders, &compiler, source, SM_90).unwrap();
        assert_eq!(first.origin, Origin::Compiled(None));
        let second = find(&folders, &compiler, source, SM_90).unwrap();
        assert_eq!((second.origin, second.bytes), (Origin::Cache, first.bytes));
    }
    assert_eq!(compiler.compiled.load(Ordering::Relaxed), SOURCES.len());
}

#[test]
fn other_architectures_versions_and_sources_are_other_entries() {
    let folder = tempfile::tempdir().unwrap();
    let (compiler, folders) = (Counting::default(), cached(folder.path()));
    let changed = KernelSource { file: SOURCES[0].file, text: "// changed", only: None };
    find(&folders, &compiler, &SOURCES[0], SM_90).unwrap();
    for (compiler, source, architecture) in [
        (&compiler, &SOURCES[0], Architecture::new(80)),
        (&Counting { version: "newer", ..Counting::default() }, &SOURCES[0], SM_90),
        (&compiler, &changed, SM_90),
    ] {
        let found = find(&folders, compiler, source, architecture).unwrap();
        assert_eq!(found.origin, Origin::Compiled(None), "{} {architecture}", source.text.len());
    }
}

#[test]
fn files_that_are_cut_off_renamed_or_foreign_are_compiled_anew() {
    let folder = tempfile::tempdir().unwrap();
    let (compiler, folders) = (Counting::default(), cached(folder.path()));
    let whole = find(&folders, &compiler, &SOURCES[0], SM_90).unwrap().bytes;
    let path = cache::Entry::new(folder.path(), &SOURCES[0], SM_90.code(), "").path().to_path_buf();
    let file = std::fs::read(&path).unwrap();
    let other = cache::Entry::new(folder.path(), &SOURCES[1], SM_90.code(), "");
    other.write(b"other code").unwrap();
    let renamed = std::fs::read(other.path()).unwrap();
    let mut changed = file.clone();
    *changed.last_mut().unwrap() ^= 1;
    let longer = [file.as_slice(), b"x"].concat();
    for broken in [b"".as_slice(), &file[..10], &file[..100], &file[..file.len() - 1], &changed, &longer, &renamed] {
        std::fs::write(&path, broken).unwrap();
        let found = find(&folders, &compiler, &SOURCES[0], SM_90).unwrap();
        assert_eq!((found.origin, &found.bytes), (Origin::Compiled(None), &whole));
        assert_eq!(std::fs::read(&path).unwrap(), file, "the file is whole again");
    }
    let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "temporary files stay behind: {left:?}");
}

#[test]
fn a_cache_that_cannot_be_written_costs_only_the_next_run() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a file");
    std::fs::write(&file, "").unwrap();
    let found = find(&cached(&file.join("below it")), &Counting::default(), &SOURCES[0], SM_90).unwrap();
    assert!(matches!(&found.origin, Origin::Compiled(Some(why)) if why.contains("below it")), "{:?}", found.origin);
}

#[test]
fn a_prebuilt_folder_needs_no_compiler_and_serves_later_minor_versions() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), &[90, 80, 86]);
    for (device, expected) in [(80, 80), (86, 86), (87, 86), (90, 90)] {
        for source in SOURCES {
            let found = find(&prebuilt(folder.path()), &absent(), source, Architecture::new(device)).unwrap();
            assert_eq!(found.origin, Origin::Prebuilt(Architecture::new(expected)));
            assert_eq!(found.bytes, Counting::default().compile(source, Architecture::new(expected)).unwrap());
        }
    }
    assert_eq!(Prebuilt::open(folder.path()).unwrap().compiler(), "a compiler");
}

#[test]
fn an_architecture_that_the_folder_lacks_is_compiled_or_named() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), &[80]);
    let found = find(&prebuilt(folder.path()), &Counting::default(), &SOURCES[0], SM_90).unwrap();
    assert_eq!(found.origin, Origin::Compiled(None));
    let error = find(&prebuilt(folder.path()), &absent(), &SOURCES[0], SM_90).unwrap_err().to_string();
    for word in ["no compiler here", "has none for sm_90", "--out"] {
        assert!(error.contains(word), "{error}");
    }
}

#[test]
fn a_folder_of_other_sources_is_refused_though_a_compiler_is_there() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), &[90]);
    let changed = KernelSource { file: SOURCES[0].file, text: "// changed", only: None };
    let error = find(&prebuilt(folder.path()), &Counting::default(), &changed, SM_90).unwrap_err().to_string();
    assert!(error.contains("attention.sm_90.cubin: compiled from another attention.cu"), "{error}");
}

#[test]
fn damaged_folders_are_refused_with_the_file_and_the_reason() {
    let refused = |change: &dyn Fn(&Path), words: &[&str]| {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), &[90]);
        change(folder.path());
        let found = find(&prebuilt(folder.path()), &Counting::default(), &SOURCES[0], SM_90);
        let error = found.unwrap_err().to_string();
        for word in words {
            assert!(error.contains(word), "'{word}' is not in: {error}");
        }
    };
    let manifest = |folder: &Path, from: &str, to: &str| {
        let text = std::fs::read_to_string(folder.join("manifest.json")).unwrap();
        assert!(text.contains(from));
        std::fs::write(folder.join("manifest.json"), text.replace(from, to)).unwrap();
    };
    let cubin = |folder: &Path| folder.join("attention.sm_90.cubin");
    refused(&|folder| std::fs::remove_file(folder.join("manifest.json")).unwrap(), &["manifest.json", "--out"]);
    refused(&|folder| manifest(folder, "{", "["), &["manifest.json", "--out"]);
    refused(&|folder| manifest(folder, "cubins 1", "cubins 7"), &["cubins 7", "cubins 1"]);
    refused(&|folder| manifest(folder, "--fmad=false", "--fmad=true"), &["--fmad=true", "--fmad=false"]);
    refused(&|folder| manifest(folder, "sm_90", "sm_9x"), &["sm_9x"]);
    refused(&|folder| std::fs::remove_file(cubin(folder)).unwrap(), &["attention.sm_90.cubin"]);
    refused(&|folder| std::fs::write(cubin(folder), "code of").unwrap(), &["attention.sm_90.cubin", "cut off"]);
}

#[test]
fn programs_that_start_together_compile_each_for_themselves_and_never_read_half_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let expected = Counting::default().compile(&SOURCES[0], SM_90.code()).unwrap();
    let path = cache::Entry::new(folder.path(), &SOURCES[0], SM_90.code(), "").path().to_path_buf();
    let found = |turns: usize| {
        (0..turns).for_each(|_| {
            let found = find(&cached(folder.path()), &Counting::default(), &SOURCES[0], SM_90).unwrap();
            assert_eq!(found.bytes, expected);
            assert!(matches!(found.origin, Origin::Cache | Origin::Compiled(None)), "{:?}", found.origin);
        });
    };
    std::thread::scope(|scope| {
        (0..4).for_each(|_| {
            scope.spawn(|| found(40));
        });
        // The file goes away and breaks while others read and write it.
        scope.spawn(|| {
            for turn in 0..40 {
                let _ = std::fs::remove_file(&path);
                let _ = std::fs::write(&path, &expected[..turn % expected.len()]);
                std::thread::yield_now();
            }
        });
    });
    found(1);
    assert_eq!(find(&cached(folder.path()), &Counting::default(), &SOURCES[0], SM_90).unwrap().origin, Origin::Cache);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "temporary files stay behind");
}
