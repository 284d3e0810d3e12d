//! What is said of a machine without a usable driver: in processes of their own, as a driver is looked for once.
#![cfg(feature = "cuda")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used)]

use std::path::Path;
use std::process::Command;

use actbench_kernels::cuda::driver::{DriverDevice, DriverOptions, probe};

/// What the process below prints its answer behind.
const MARK: &str = "ANSWER ";

/// Runs [`asked_alone`] in a process of its own.
fn ask(libraries: &Path, settings: &str) -> String {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "asked_alone", "--ignored", "--nocapture"])
        .env("LD_LIBRARY_PATH", libraries)
        .env("FAKE_DRIVER", settings)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let lines: Vec<&str> = text.lines().filter_map(|line| Some(line.split_once(MARK)?.1)).collect();
    lines.join("\n")
}

/// Not a test: what the tests ask a process of its own.
#[test]
#[ignore = "run by the other tests"]
fn asked_alone() {
    let found = match probe() {
        Ok(devices) => devices.iter().map(|facts| format!("{} {facts}", facts.ordinal)).collect::<Vec<_>>().join("; "),
        Err(absence) => absence.to_string(),
    };
    println!("\n{MARK}{found}");
    if let Err(error) = DriverDevice::open(7, &DriverOptions::default()) {
        println!("\n{MARK}{error}");
    }
}

#[test]
fn without_the_library_there_is_no_driver() {
    let empty = tempfile::tempdir().unwrap();
    let told = ask(empty.path(), "");
    // A machine with a driver has it where the loader always looks.
    if told.contains("libcuda.so was not found") {
        insta::assert_snapshot!(told, @r"
there is no CUDA driver here: libcuda.so was not found
open on cuda:7: there is no CUDA driver here: libcuda.so was not found
");
    }
    assert!(!told.is_empty());
}

#[cfg(feature = "testing")]
mod with_the_fake_driver {
    use super::*;
    use actbench_kernels::cuda::emulator::fake_driver_directory;

    #[test]
    fn devices_are_listed_and_one_beyond_them_is_named() {
        insta::assert_snapshot!(ask(fake_driver_directory(), "devices=2 memory=1073741824"), @r"
0 fake GPU (sm_90, 1024 MiB, driver 13.0); 1 fake GPU (sm_90, 1024 MiB, driver 13.0)
open on cuda:7: there is no CUDA device 7: the driver has 2, counted from 0
");
    }

    #[test]
    fn a_driver_without_devices_is_told_in_its_own_words() {
        insta::assert_snapshot!(ask(fake_driver_directory(), "devices=0"), @r"
the CUDA driver has no device: CUDA_ERROR_NO_DEVICE (no CUDA-capable device is detected)
open on cuda:7: the CUDA driver has no device: CUDA_ERROR_NO_DEVICE (no CUDA-capable device is detected)
");
    }

    #[test]
    fn an_old_driver_is_told_with_its_version_and_the_needed_one() {
        insta::assert_snapshot!(ask(fake_driver_directory(), "version=12040"), @r"
the CUDA driver is too old: version 12.4; 12.8 or later is needed
open on cuda:7: the CUDA driver is too old: version 12.4; 12.8 or later is needed
");
    }

    #[test]
    fn a_library_without_the_functions_is_an_old_driver_and_no_panic() {
        let folder = tempfile::tempdir().unwrap();
        // A shared library of another kind under the driver's name.
        let source = folder.path().join("other.c");
        std::fs::write(&source, "int cuDriverGetVersion(int* version) { *version = 11020; return 0; }\n").unwrap();
        let built = Command::new("cc")
            .args(["-shared", "-fPIC", "-o"])
            .arg(folder.path().join("libcuda.so"))
            .arg(&source)
            .status()
            .unwrap();
        assert!(built.success());
        insta::assert_snapshot!(ask(folder.path(), ""), @r"
the CUDA driver is too old: version 11.2 without cuInit; 12.8 or later is needed
open on cuda:7: the CUDA driver is too old: version 11.2 without cuInit; 12.8 or later is needed
");
    }
}
