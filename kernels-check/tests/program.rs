//! The program as a user meets it: without a device, on the emulator, and over the stand-in for a GPU's driver.
#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used)]

use std::path::Path;
use std::time::Duration;

use assert_cmd::Command;

/// The program, with nothing of this machine's around it.
fn program(libraries: &Path) -> Command {
    let mut command = Command::cargo_bin("kernels-check").unwrap();
    command.env("LD_LIBRARY_PATH", libraries).env("XDG_CACHE_HOME", libraries).env_remove("STAND_IN_DRIVER");
    // It takes seconds. What never ends is a failure here, and not the end of the patience of whoever runs the tests.
    command.timeout(Duration::from_secs(600));
    command
}

/// Status, standard output and standard error.
fn run(command: &mut Command) -> (i32, String, String) {
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
}

#[test]
fn without_a_device_it_says_why_in_one_line() {
    let empty = tempfile::tempdir().unwrap();
    let (status, out, told) = run(&mut program(empty.path()));
    // A machine with a driver has it where the loader always looks.
    if told.contains("libcuda.so was not found") {
        assert_eq!((status, out.as_str(), told.lines().count()), (2, "", 1), "{told}");
        assert!(told.contains("--emulator"), "{told}");
    }
}

#[test]
fn wrong_arguments_are_the_status_of_a_run_that_could_not_be() {
    let empty = tempfile::tempdir().unwrap();
    let (status, _, told) = run(program(empty.path()).args(["--times", "huge"]));
    assert!(status == 2 && told.contains("huge") && told.contains("large"), "{status} {told}");
}

#[cfg(not(feature = "emulator"))]
#[test]
fn without_the_emulator_it_says_how_to_build_with_it() {
    let empty = tempfile::tempdir().unwrap();
    let (status, _, told) = run(program(empty.path()).arg("--emulator"));
    assert!(status == 2 && told.contains("--features emulator"), "{status} {told}");
}

#[cfg(feature = "emulator")]
mod with_the_emulator {
    use std::io::{BufRead as _, BufReader};
    use std::process::Stdio;

    use super::*;
    use actbench_kernels::cuda::Architecture;
    use actbench_kernels::cuda::cubins::write_prebuilt;
    use actbench_kernels::cuda::emulator::{STAND_IN_CUBIN, stand_in_folder};
    use actbench_kernels::cuda::sources::{KernelSource, SOURCES};

    /// The program on the stand-in driver, with a folder of machine code.
    fn on_stand_in(folder: &Path, settings: &str) -> Command {
        let cubins: Vec<_> =
            SOURCES.iter().map(|source| (source, Architecture::new(90), STAND_IN_CUBIN.to_vec())).collect();
        write_prebuilt(folder, "the tests", &cubins).unwrap();
        let mut command = program(stand_in_folder());
        command.env("STAND_IN_DRIVER", settings).arg("--cubins").arg(folder).args(["--quick", "--shapes", "0"]);
        command
    }

    fn json(path: &Path) -> serde_json::Value {
        serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
    }

    #[test]
    fn every_kernel_passes_on_the_emulator_and_is_in_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("found.json");
        let mut command = program(folder.path());
        let (status, out, told) = run(command.args(["--emulator", "--quick", "--json"]).arg(&file));
        assert_eq!(status, 0, "{out}{told}");
        assert!(out.ends_with("every kernel passed\n") && out.contains("no kernel ran on a GPU"), "{out}");
        let found = json(&file);
        assert_eq!(found["passed"], true);
        assert_eq!(found["report"]["emulated"], true);
        assert!(found["report"]["timings"].is_null());
        let kernels = found["report"]["found"]["kernels"].as_object().unwrap();
        let mut names: Vec<&str> = SOURCES.iter().flat_map(KernelSource::kernels).collect();
        names.sort_unstable();
        assert_eq!(kernels.keys().map(String::as_str).collect::<Vec<_>>(), names);
        for (name, kernel) in kernels {
            assert!(kernel["cases"].as_u64() > Some(0) && kernel["failed"] == 0, "{name}: {kernel}");
            assert!(kernel["rows_alone"].as_u64() > Some(0), "{name}: {kernel}");
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "temporary files stay behind");
    }

    #[test]
    fn the_same_seed_finds_the_same_and_another_one_other_shapes() {
        let folder = tempfile::tempdir().unwrap();
        let found =
            |seed: &str| run(program(folder.path()).args(["--emulator", "--quick", "--shapes", "1", "--seed", seed])).1;
        let first = found("3");
        assert_eq!(first, found("3"));
        assert_ne!(first, found("4"));
    }

    #[test]
    fn a_driver_is_checked_timed_and_compared_with_the_emulator() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("found.json");
        let mut command = on_stand_in(folder.path(), "");
        let (status, out, told) = run(command.args(["--times", "small", "--json"]).arg(&file));
        assert_eq!(status, 0, "{out}{told}");
        let found = json(&file);
        let report = &found["report"];
        assert_eq!((&found["passed"], &report["emulated"]), (&true.into(), &false.into()));
        assert!(out.contains("stand-in for a GPU (sm_90") && out.contains("11 of sm_90 from"), "{out}");
        // The stand-in executes the kernels by the emulator, so there is nothing to differ.
        assert!(out.contains("results compared with the emulator have its bits"), "{out}");
        let timed = report["timings"]["kernels"].as_array().unwrap();
        let names: Vec<&str> = timed.iter().map(|timing| timing["kernel"].as_str().unwrap()).collect();
        for kernel in [
            "linear_bf16",
            "linear_mma_bf16",
            "linear_wgmma_bf16",
            "attention_mma_f16_64",
            "rms_norm_bf16",
            "rms_norm_wide_bf16",
            "pool_bf16",
        ] {
            assert!(names.contains(&kernel), "{names:?}");
        }
        for timing in timed {
            assert!(timing["milliseconds"].as_f64() > Some(0.0), "{timing}");
            assert!(timing["share_of_copy"].as_f64() > Some(0.0), "{timing}");
            let is_product = timing["kernel"].as_str().unwrap().starts_with("linear");
            assert!(!is_product || timing["share_of_best_product"].as_f64() <= Some(1.0), "{timing}");
        }
    }

    #[test]
    fn planted_faults_of_every_kind_fail_and_are_named() {
        for (fault, words) in [
            ("linear_unwritten_output", ["FAILED linear_bf16: linear bf16", "NaN where the CPU has"]),
            ("mma_row_beyond_the_end", ["FAILED linear_mma_f16: linear f16", "wrote outside its argument 6"]),
            ("wgmma_unwritten_output", ["FAILED linear_wgmma_bf16: linear bf16", "NaN where the CPU has"]),
            ("pool_tail_off_by_one", ["FAILED pool_f32: ", "where the CPU has"]),
            ("flash_old_sum_not_corrected", ["FAILED attention_mma_bf16_", "where the plain kernel has"]),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let (status, out, told) = run(&mut on_stand_in(folder.path(), &format!("fault={fault}")));
            assert_eq!(status, 1, "{fault}: {out}{told}");
            assert!(words.iter().all(|word| out.contains(word)), "{fault}: {out}");
            // A launch that is refused leaves nothing to compare.
            let compares = words[1].contains("where");
            assert_eq!(out.contains("What differs from the emulator"), compares, "{fault}: {out}");
            assert!(out.ends_with("\nFAILED\n"), "{fault}: {out}");
        }
    }

    #[test]
    fn a_device_that_is_lost_ends_the_run_and_says_to_what() {
        let folder = tempfile::tempdir().unwrap();
        let (status, out, _) = run(&mut on_stand_in(folder.path(), "break=rope_f16"));
        assert_eq!(status, 1, "{out}");
        for words in ["FAILED the rest was not run", "rope_f16 on 3 x 1 x 1 blocks", "CUDA_ERROR_ILLEGAL_ADDRESS"] {
            assert!(out.contains(words), "'{words}' is not in {out}");
        }
        assert!(out.contains("FAILED rope_bf16: never launched"), "{out}");
    }

    #[test]
    fn what_hinders_a_run_is_told_in_one_line() {
        let folder = tempfile::tempdir().unwrap();
        let mut told = Vec::new();
        for (settings, arguments) in
            [("devices=0", [].as_slice()), ("devices=2", &["--device", "2"]), ("version=11080", &[])]
        {
            let (status, out, error) = run(on_stand_in(folder.path(), settings).args(arguments));
            assert_eq!((status, out.as_str()), (2, ""));
            told.push(error);
        }
        std::fs::write(folder.path().join("manifest.json"), "").unwrap();
        let mut broken = program(stand_in_folder());
        let (status, _, error) = run(broken.env("STAND_IN_DRIVER", "").arg("--cubins").arg(folder.path()));
        assert_eq!(status, 2);
        told.push(error.replace(folder.path().to_str().unwrap(), "FOLDER"));
        insta::assert_snapshot!(told.concat(), @r"
kernels-check: the CUDA driver has no device: CUDA_ERROR_NO_DEVICE (no CUDA-capable device is detected); --emulator checks the kernels on the CPU
kernels-check: open on cuda:2: there is no CUDA device 2: the driver has 2, numbered from 0
kernels-check: the CUDA driver is too old: version 11.8; 12.8 or later is required; --emulator checks the kernels on the CPU
kernels-check: find kernels on cuda: FOLDER/manifest.json: EOF while parsing a value at line 1 column 0; write the folder with scripts/check_cuda_kernels.sh --out
");
    }

    #[test]
    fn a_run_that_is_told_to_end_prints_and_writes_what_it_has_found() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("found.json");
        let mut child = std::process::Command::new(assert_cmd::cargo::cargo_bin("kernels-check"))
            .args(["--emulator", "--shapes", "1000", "--json"])
            .arg(&file)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // It says how far it is without being asked.
        let mut told = String::new();
        BufReader::new(child.stderr.take().unwrap()).read_line(&mut told).unwrap();
        assert!(told.contains(" cases, the last one "), "{told}");
        let ended = std::process::Command::new("sh").args(["-c", &format!("kill -TERM {}", child.id())]).status();
        assert!(ended.unwrap().success());
        let output = child.wait_with_output().unwrap();
        let out = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(130), "{out}");
        assert!(out.contains("\nFAILED the rest was not run: interrupted\n") && out.ends_with("\nFAILED\n"), "{out}");
        assert!(!out.contains("never launched"), "{out}");
        let found = json(&file);
        assert_eq!((&found["passed"], &found["report"]["interrupted"]), (&false.into(), &true.into()));
        let kernels = found["report"]["found"]["kernels"].as_object().unwrap();
        assert!(kernels.values().any(|kernel| kernel["cases"].as_u64() > Some(0)), "{found}");
        assert!(found["report"]["found"]["cases"].as_u64() < Some(10_000), "{found}");
    }

    #[test]
    fn a_file_that_cannot_be_written_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let mut command = program(folder.path());
        let arguments = ["--emulator", "--quick", "--shapes", "0", "--json", "/nowhere/found.json"];
        let (status, _, told) = run(command.args(arguments));
        assert!(status == 2 && told.contains("/nowhere/found.json"), "{told}");
    }
}
