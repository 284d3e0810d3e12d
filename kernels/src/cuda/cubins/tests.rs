//! Prebuilt directories and the cache, with a compiler that counts its calls.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

/// Returns a text of source and architecture, and counts compilations.
#[derive(Default)]
struct CountingCompiler {
    compiled: AtomicUsize,
    absent: bool,
    version: &'static str,
}

impl CubinCompiler for CountingCompiler {
    fn version(&self) -> Result<String, KernelError> {
        if self.absent { Err(error("no compiler here".to_owned())) } else { Ok(self.version.to_owned()) }
    }

    fn compile(&self, source: &KernelSource, architecture: Architecture) -> Result<Vec<u8>, KernelError> {
        self.compiled.fetch_add(1, Ordering::Relaxed);
        Ok(format!("code of {} for {architecture}", source.file).into_bytes())
    }
}

const SM_90: Architecture = Architecture::new(90);

fn absent() -> CountingCompiler {
    CountingCompiler { absent: true, ..CountingCompiler::default() }
}

fn cached(directory: &Path) -> CubinDirectories {
    CubinDirectories { prebuilt: None, cache: Some(directory.to_path_buf()) }
}

fn prebuilt(directory: &Path) -> CubinDirectories {
    CubinDirectories { prebuilt: Some(directory.to_path_buf()), cache: None }
}

fn write(directory: &Path, architectures: &[u32]) {
    let cubins: Vec<_> = SOURCES
        .iter()
        .flat_map(|source| architectures.iter().map(move |number| (source, Architecture::new(*number))))
        .map(|(source, architecture)| {
            (source, architecture, CountingCompiler::default().compile(source, architecture).unwrap())
        })
        .collect();
    write_prebuilt(directory, "a compiler", &cubins).unwrap();
}

#[test]
fn compiled_cubin_is_cached() {
    let directory = tempfile::tempdir().unwrap();
    let (compiler, directories) = (CountingCompiler::default(), cached(&directory.path().join("made/when/needed")));
    for source in SOURCES {
        let first = find(&directories, &compiler, source, SM_90).unwrap();
        assert_eq!(first.origin, CubinOrigin::Compiled(None));
        let second = find(&directories, &compiler, source, SM_90).unwrap();
        assert_eq!((second.origin, second.bytes), (CubinOrigin::Cache, first.bytes));
    }
    assert_eq!(compiler.compiled.load(Ordering::Relaxed), SOURCES.len());
}

#[test]
fn architecture_version_and_source_are_cache_keys() {
    let directory = tempfile::tempdir().unwrap();
    let (compiler, directories) = (CountingCompiler::default(), cached(directory.path()));
    let changed = KernelSource { text: "// changed", ..SOURCES[0] };
    find(&directories, &compiler, &SOURCES[0], SM_90).unwrap();
    for (compiler, source, architecture) in [
        (&compiler, &SOURCES[0], Architecture::new(80)),
        (&CountingCompiler { version: "newer", ..CountingCompiler::default() }, &SOURCES[0], SM_90),
        (&compiler, &changed, SM_90),
    ] {
        let found = find(&directories, compiler, source, architecture).unwrap();
        assert_eq!(found.origin, CubinOrigin::Compiled(None), "{} {architecture}", source.text.len());
    }
}

#[test]
fn invalid_cache_files_are_compiled_again() {
    let directory = tempfile::tempdir().unwrap();
    let (compiler, directories) = (CountingCompiler::default(), cached(directory.path()));
    let whole = find(&directories, &compiler, &SOURCES[0], SM_90).unwrap().bytes;
    let path = cache::CacheEntry::new(directory.path(), &SOURCES[0], SM_90.code(), "").path().to_path_buf();
    let file = std::fs::read(&path).unwrap();
    let other = cache::CacheEntry::new(directory.path(), &SOURCES[1], SM_90.code(), "");
    other.write(b"other code").unwrap();
    let renamed = std::fs::read(other.path()).unwrap();
    let mut changed = file.clone();
    *changed.last_mut().unwrap() ^= 1;
    let longer = [file.as_slice(), b"x"].concat();
    for broken in [b"".as_slice(), &file[..10], &file[..100], &file[..file.len() - 1], &changed, &longer, &renamed] {
        std::fs::write(&path, broken).unwrap();
        let found = find(&directories, &compiler, &SOURCES[0], SM_90).unwrap();
        assert_eq!((found.origin, &found.bytes), (CubinOrigin::Compiled(None), &whole));
        assert_eq!(std::fs::read(&path).unwrap(), file, "the file is restored");
    }
    let left: Vec<_> = std::fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "temporary files stay behind: {left:?}");
}

#[test]
fn unwritable_cache_still_compiles() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("a file");
    std::fs::write(&file, "").unwrap();
    let found = find(&cached(&file.join("below it")), &CountingCompiler::default(), &SOURCES[0], SM_90).unwrap();
    assert!(
        matches!(&found.origin, CubinOrigin::Compiled(Some(why)) if why.contains("below it")),
        "{:?}",
        found.origin
    );
}

#[test]
fn prebuilt_cubins_serve_later_minor_versions() {
    let directory = tempfile::tempdir().unwrap();
    write(directory.path(), &[90, 80, 86]);
    for (device, expected) in [(80, 80), (86, 86), (87, 86), (90, 90)] {
        for source in SOURCES {
            let found = find(&prebuilt(directory.path()), &absent(), source, Architecture::new(device)).unwrap();
            assert_eq!(found.origin, CubinOrigin::Prebuilt(Architecture::new(expected)));
            assert_eq!(found.bytes, CountingCompiler::default().compile(source, Architecture::new(expected)).unwrap());
        }
    }
    assert_eq!(PrebuiltCubins::open(directory.path()).unwrap().compiler(), "a compiler");
}

#[test]
fn missing_architecture_is_compiled_or_named() {
    let directory = tempfile::tempdir().unwrap();
    write(directory.path(), &[80]);
    let found = find(&prebuilt(directory.path()), &CountingCompiler::default(), &SOURCES[0], SM_90).unwrap();
    assert_eq!(found.origin, CubinOrigin::Compiled(None));
    let error = find(&prebuilt(directory.path()), &absent(), &SOURCES[0], SM_90).unwrap_err().to_string();
    for word in ["no compiler here", "has none for sm_90", "--out"] {
        assert!(error.contains(word), "{error}");
    }
}

#[test]
fn directory_of_other_sources_is_rejected() {
    let directory = tempfile::tempdir().unwrap();
    write(directory.path(), &[90]);
    let changed = KernelSource { text: "// changed", ..SOURCES[0] };
    let error =
        find(&prebuilt(directory.path()), &CountingCompiler::default(), &changed, SM_90).unwrap_err().to_string();
    assert!(
        error.contains("add_weighted_rows.sm_90.cubin: was built from a different add_weighted_rows.cu"),
        "{error}"
    );
}

#[test]
fn damaged_directories_are_rejected_with_reason() {
    let rejected = |change: &dyn Fn(&Path), words: &[&str]| {
        let directory = tempfile::tempdir().unwrap();
        write(directory.path(), &[90]);
        change(directory.path());
        let found = find(&prebuilt(directory.path()), &CountingCompiler::default(), &SOURCES[0], SM_90);
        let error = found.unwrap_err().to_string();
        for word in words {
            assert!(error.contains(word), "'{word}' is not in: {error}");
        }
    };
    let manifest = |directory: &Path, from: &str, to: &str| {
        let text = std::fs::read_to_string(directory.join("manifest.json")).unwrap();
        assert!(text.contains(from));
        std::fs::write(directory.join("manifest.json"), text.replace(from, to)).unwrap();
    };
    let cubin = |directory: &Path| directory.join("add_weighted_rows.sm_90.cubin");
    rejected(&|directory| std::fs::remove_file(directory.join("manifest.json")).unwrap(), &["manifest.json", "--out"]);
    rejected(&|directory| manifest(directory, "{", "["), &["manifest.json", "--out"]);
    rejected(&|directory| manifest(directory, "cubins 1", "cubins 7"), &["cubins 7", "cubins 1"]);
    rejected(&|directory| manifest(directory, "--fmad=false", "--fmad=true"), &["--fmad=true", "--fmad=false"]);
    rejected(&|directory| manifest(directory, "sm_90", "sm_9x"), &["sm_9x"]);
    rejected(&|directory| std::fs::remove_file(cubin(directory)).unwrap(), &["add_weighted_rows.sm_90.cubin"]);
    rejected(
        &|directory| std::fs::write(cubin(directory), "code of").unwrap(),
        &["add_weighted_rows.sm_90.cubin", "truncated"],
    );
}

#[test]
fn concurrent_runs_never_read_partial_files() {
    let directory = tempfile::tempdir().unwrap();
    let expected = CountingCompiler::default().compile(&SOURCES[0], SM_90.code()).unwrap();
    let path = cache::CacheEntry::new(directory.path(), &SOURCES[0], SM_90.code(), "").path().to_path_buf();
    let found = |turns: usize| {
        (0..turns).for_each(|_| {
            let found = find(&cached(directory.path()), &CountingCompiler::default(), &SOURCES[0], SM_90).unwrap();
            assert_eq!(found.bytes, expected);
            assert!(matches!(found.origin, CubinOrigin::Cache | CubinOrigin::Compiled(None)), "{:?}", found.origin);
        });
    };
    std::thread::scope(|scope| {
        (0..4).for_each(|_| {
            scope.spawn(|| found(40));
        });
        // One thread removes and truncates the file while others read and write it.
        scope.spawn(|| {
            for turn in 0..40 {
                let _ = std::fs::remove_file(&path);
                let _ = std::fs::write(&path, &expected[..turn % expected.len()]);
                std::thread::yield_now();
            }
        });
    });
    found(1);
    assert_eq!(
        find(&cached(directory.path()), &CountingCompiler::default(), &SOURCES[0], SM_90).unwrap().origin,
        CubinOrigin::Cache
    );
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1, "temporary files stay behind");
}
