//! The probe on machines without a usable driver. Each case has a process of its own, as a process loads one driver.
#![cfg(feature = "cuda")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used)]

use std::path::Path;

use actbench_kernels::cuda::driver::{DriverDevice, DriverOptions, probe};

#[path = "common/child_process.rs"]
mod child_process;

/// The test that prints the probe's answer in its children.
const TEST: &str = "missing_library_means_no_driver";

/// The prefix of the lines of the answer.
const ANSWER: &str = "ANSWER ";

/// The probe's answer in a child that finds the driver in the directory `libraries`.
fn probe_in_child(libraries: &Path, settings: &str) -> String {
    let mut command = child_process::command(TEST, "");
    let output = command.env("LD_LIBRARY_PATH", libraries).env("FAKE_DRIVER", settings).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let lines: Vec<&str> = text.lines().filter_map(|line| Some(line.split_once(ANSWER)?.1)).collect();
    lines.join("\n")
}

fn print_answer() {
    let found = match probe() {
        Ok(devices) => devices.iter().map(|facts| format!("{} {facts}", facts.ordinal)).collect::<Vec<_>>().join("; "),
        Err(unavailable) => unavailable.to_string(),
    };
    println!("\n{ANSWER}{found}");
    if let Err(error) = DriverDevice::open(7, &DriverOptions::default()) {
        println!("\n{ANSWER}{error}");
    }
}

#[test]
fn missing_library_means_no_driver() {
    if child_process::input().is_some() {
        return print_answer();
    }
    let empty = tempfile::tempdir().unwrap();
    let answer = probe_in_child(empty.path(), "");
    // On a machine with a driver the loader finds it in its default directories.
    if answer.contains("libcuda.so was not found") {
        insta::assert_snapshot!(answer, @r"
there is no CUDA driver: libcuda.so was not found
open on cuda:7: there is no CUDA driver: libcuda.so was not found
");
    }
    assert!(!answer.is_empty());
}

#[cfg(feature = "testing")]
mod with_fake_driver {
    use std::process::Command;

    use actbench_kernels::cuda::emulator::fake_driver_directory;

    use super::*;

    #[test]
    fn devices_are_listed_and_missing_one_named() {
        insta::assert_snapshot!(probe_in_child(fake_driver_directory(), "devices=2 memory=1073741824"), @r"
0 fake GPU (sm_90, 1024 MiB, driver 13.0); 1 fake GPU (sm_90, 1024 MiB, driver 13.0)
open on cuda:7: there is no CUDA device 7: the driver has 2, numbered from 0
");
    }

    #[test]
    fn driver_without_devices_reports_driver_error() {
        insta::assert_snapshot!(probe_in_child(fake_driver_directory(), "devices=0"), @r"
the CUDA driver has no device: CUDA_ERROR_NO_DEVICE (no CUDA-capable device is detected)
open on cuda:7: the CUDA driver has no device: CUDA_ERROR_NO_DEVICE (no CUDA-capable device is detected)
");
    }

    #[test]
    fn old_driver_error_has_both_versions() {
        insta::assert_snapshot!(probe_in_child(fake_driver_directory(), "version=12040"), @r"
the CUDA driver is too old: version 12.4; 12.8 or later is required
open on cuda:7: the CUDA driver is too old: version 12.4; 12.8 or later is required
");
    }

    #[test]
    fn library_without_functions_is_old_driver() {
        let directory = tempfile::tempdir().unwrap();
        // A shared library with the driver's name and a single function.
        let source = directory.path().join("other.c");
        std::fs::write(&source, "int cuDriverGetVersion(int* version) { *version = 11020; return 0; }\n").unwrap();
        let built = Command::new("cc")
            .args(["-shared", "-fPIC", "-o"])
            .arg(directory.path().join("libcuda.so"))
            .arg(&source)
            .status()
            .unwrap();
        assert!(built.success());
        insta::assert_snapshot!(probe_in_child(directory.path(), ""), @r"
the CUDA driver is too old: version 11.2 without cuInit; 12.8 or later is required
open on cuda:7: the CUDA driver is too old: version 11.2 without cuInit; 12.8 or later is required
");
    }
}
