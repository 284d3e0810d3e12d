//! Kernels compiled with NVRTC as in a run: stored in the cache, written to a directory and read back.
//!
//! Without the library each test is skipped with a message; `ACTBENCH_REQUIRE_NVRTC=1` makes that a failure, as in
//! `scripts/check_cuda_kernels.sh`, which installs the library. Nothing runs on a GPU.
#![cfg(feature = "cuda")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used)]

use std::io::Write as _;

use actbench_kernels::cuda::Architecture;
use actbench_kernels::cuda::compiler::{compile, version};
use actbench_kernels::cuda::cubins::{CubinDirectories, CubinOrigin, Nvrtc, find, write_prebuilt};
use actbench_kernels::cuda::registry::{KernelSource, SOURCES};

/// The architecture of an H100.
const SM_90: Architecture = Architecture::new(90);

/// Whether NVRTC is available. Its absence is printed, and a failure where it is required.
fn has_compiler(test: &str) -> bool {
    match version() {
        Ok(_) => true,
        Err(absent) => {
            assert!(std::env::var_os("ACTBENCH_REQUIRE_NVRTC").is_none(), "{absent}");
            // Written directly, as the test harness shows the output of failed tests only.
            let _ = std::io::stderr().write_all(format!("{test}: skipped: {absent}\n").as_bytes());
            false
        }
    }
}

/// The sources that compile in less than a second.
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
fn compiled_cubins_are_cached_and_read_back() {
    if !has_compiler("compiled_cubins_are_cached_and_read_back") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let directories = CubinDirectories { prebuilt: None, cache: Some(directory.path().to_path_buf()) };
    for source in small_sources() {
        let first = find(&directories, &Nvrtc, source, SM_90).unwrap();
        assert_eq!(first.origin, CubinOrigin::Compiled(None));
        assert!(source.kernels().all(|kernel| has_kernel(&first.bytes, kernel.name)), "{}", source.file);
        let second = find(&directories, &Nvrtc, source, SM_90).unwrap();
        assert_eq!(second.origin, CubinOrigin::Cache);
        assert!(second.bytes == first.bytes);
    }
    for entry in std::fs::read_dir(directory.path()).unwrap() {
        let path = entry.unwrap().path();
        let half = std::fs::metadata(&path).unwrap().len() / 2;
        std::fs::File::options().write(true).open(&path).unwrap().set_len(half).unwrap();
    }
    for source in small_sources() {
        let again = find(&directories, &Nvrtc, source, SM_90).unwrap();
        assert_eq!(again.origin, CubinOrigin::Compiled(None), "a truncated file was used");
        assert_eq!(find(&directories, &Nvrtc, source, SM_90).unwrap().origin, CubinOrigin::Cache);
    }
}

#[test]
fn prebuilt_cubins_equal_compiled_ones() {
    if !has_compiler("prebuilt_cubins_equal_compiled_ones") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let cubins: Vec<_> = small_sources().map(|source| (source, SM_90, compile(source, SM_90).unwrap().cubin)).collect();
    write_prebuilt(directory.path(), "NVRTC", &cubins).unwrap();
    let directories = CubinDirectories { prebuilt: Some(directory.path().to_path_buf()), cache: None };
    for (source, _, cubin) in &cubins {
        let found = find(&directories, &Nvrtc, source, SM_90).unwrap();
        assert_eq!(found.origin, CubinOrigin::Prebuilt(SM_90));
        assert!(found.bytes == *cubin);
    }
}

#[test]
fn compile_error_quotes_the_compiler() {
    if !has_compiler("compile_error_quotes_the_compiler") {
        return;
    }
    let text = "#include \"types.cuh\"\nKERNEL broken(nonsense x) {}\n";
    let broken = KernelSource { file: "broken.cu", text, only: None, parameters: 1, groups: &[] };
    let error = compile(&broken, SM_90).err().unwrap().to_string();
    assert!(error.contains("broken.cu") && error.contains("nonsense"), "{error}");
    let error = compile(&SOURCES[0], Architecture::new(1)).err().unwrap().to_string();
    assert!(error.contains("sm_1"), "{error}");
}
