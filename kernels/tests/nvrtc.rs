//! Kernels compiled by the real NVRTC as a run compiles them: kept in the cache, written to a folder and read back.
//!
//! Without the library each test says that it was skipped; `ACTBENCH_REQUIRE_NVRTC=1` makes that a failure, as in
//! `scripts/check_cuda_kernels.sh`, which brings the library. Nothing runs on a GPU.
#![cfg(feature = "cuda")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used)]

use std::io::Write as _;

use actbench_kernels::cuda::Architecture;
use actbench_kernels::cuda::compiler::{compile, version};
use actbench_kernels::cuda::cubins::{CubinFolders, Nvrtc, Origin, find, write_prebuilt};
use actbench_kernels::cuda::sources::{KernelSource, SOURCES};

/// A GPU of the machines that the kernels are for.
const SM_90: Architecture = Architecture::new(90);

/// Whether there is a compiler. Its absence is said, and a failure where it is required.
fn compiler_is_here(test: &str) -> bool {
    match version() {
        Ok(_) => true,
        Err(absent) => {
            assert!(std::env::var_os("ACTBENCH_REQUIRE_NVRTC").is_none(), "{absent}");
            // Written past the test harness, which shows what is printed of failures alone.
            let _ = std::io::stderr().write_all(format!("{test}: skipped: {absent}\n").as_bytes());
            false
        }
    }
}

/// The small sources: the others take seconds each.
fn small_sources() -> impl Iterator<Item = &'static KernelSource> {
    SOURCES.iter().filter(|source| ["gather_rows.cu", "rope.cu"].contains(&source.file))
}

/// Whether `cubin` is an ELF file for CUDA that names `kernel` among its symbols.
fn has_kernel(cubin: &[u8], kernel: &str) -> bool {
    // e_machine of CUDA is 190 (ELF machine registry); names end with NUL in the string table.
    let name = format!("{kernel}\0");
    cubin.starts_with(b"\x7fELF")
        && cubin.get(18..20) == Some(&[190, 0])
        && cubin.windows(name.len()).any(|window| window == name.as_bytes())
}

#[test]
fn what_is_compiled_is_kept_and_read_back() {
    if !compiler_is_here("what_is_compiled_is_kept_and_read_back") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let folders = CubinFolders { prebuilt: None, cache: Some(folder.path().to_path_buf()) };
    for source in small_sources() {
        let first = find(&folders, &Nvrtc, source, SM_90).unwrap();
        assert_eq!(first.origin, Origin::Compiled(None));
        assert!(source.kernels().all(|kernel| has_kernel(&first.bytes, kernel)), "{}", source.file);
        let second = find(&folders, &Nvrtc, source, SM_90).unwrap();
        assert_eq!(second.origin, Origin::Cache);
        assert!(second.bytes == first.bytes);
    }
    for entry in std::fs::read_dir(folder.path()).unwrap() {
        let path = entry.unwrap().path();
        let half = std::fs::metadata(&path).unwrap().len() / 2;
        std::fs::File::options().write(true).open(&path).unwrap().set_len(half).unwrap();
    }
    for source in small_sources() {
        let again = find(&folders, &Nvrtc, source, SM_90).unwrap();
        assert_eq!(again.origin, Origin::Compiled(None), "a file cut in half was used");
        assert_eq!(find(&folders, &Nvrtc, source, SM_90).unwrap().origin, Origin::Cache);
    }
}

#[test]
fn a_folder_of_cubins_is_that_of_the_compiler() {
    if !compiler_is_here("a_folder_of_cubins_is_that_of_the_compiler") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let cubins: Vec<_> = small_sources().map(|source| (source, SM_90, compile(source, SM_90).unwrap().cubin)).collect();
    write_prebuilt(folder.path(), "NVRTC", &cubins).unwrap();
    let folders = CubinFolders { prebuilt: Some(folder.path().to_path_buf()), cache: None };
    for (source, _, cubin) in &cubins {
        let found = find(&folders, &Nvrtc, source, SM_90).unwrap();
        assert_eq!(found.origin, Origin::Prebuilt(SM_90));
        assert!(found.bytes == *cubin);
    }
}

#[test]
fn what_does_not_compile_is_told_in_the_compilers_words() {
    if !compiler_is_here("what_does_not_compile_is_told_in_the_compilers_words") {
        return;
    }
    let broken = KernelSource {
        file: "broken.cu",
        text: "#include \"prelude.cuh\"\nKERNEL broken(nonsense x) {}\n",
        only: None,
    };
    let error = compile(&broken, SM_90).err().unwrap().to_string();
    assert!(error.contains("broken.cu") && error.contains("nonsense"), "{error}");
    let error = compile(&SOURCES[0], Architecture::new(1)).err().unwrap().to_string();
    assert!(error.contains("sm_1"), "{error}");
}
