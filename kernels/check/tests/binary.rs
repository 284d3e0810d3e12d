//! The binary: without a device, on the emulator, and on the fake driver.
#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used)]

use std::path::Path;
use std::time::Duration;

use assert_cmd::Command;

/// The binary, isolated from this machine's libraries and cache.
fn binary(libraries: &Path) -> Command {
    let mut command = Command::cargo_bin("kernels-check").unwrap();
    command.env("LD_LIBRARY_PATH", libraries).env("XDG_CACHE_HOME", libraries).env_remove("FAKE_DRIVER");
    // A run takes seconds: a hang fails the test.
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
fn missing_device_is_one_line_error() {
    let empty = tempfile::tempdir().unwrap();
    let (status, out, stderr) = run(&mut binary(empty.path()));
    // A machine with a driver has it on the loader's default path.
    if stderr.contains("libcuda.so was not found") {
        assert_eq!((status, out.as_str(), stderr.lines().count()), (2, "", 1), "{stderr}");
        assert!(stderr.contains("--emulator"), "{stderr}");
    }
}

#[test]
fn wrong_arguments_exit_with_status_2() {
    let empty = tempfile::tempdir().unwrap();
    let (status, _, stderr) = run(binary(empty.path()).args(["--times", "huge"]));
    assert!(status == 2 && stderr.contains("huge") && stderr.contains("large"), "{status} {stderr}");
}

#[cfg(not(feature = "emulator"))]
#[test]
fn missing_emulator_names_the_build_feature() {
    let empty = tempfile::tempdir().unwrap();
    let (status, _, stderr) = run(binary(empty.path()).arg("--emulator"));
    assert!(status == 2 && stderr.contains("--features emulator"), "{status} {stderr}");
}

#[cfg(feature = "testing")]
mod with_the_emulator {
    use std::io::{BufRead as _, BufReader};
    use std::process::Stdio;

    use super::*;
    use actbench_kernels::cuda::Architecture;
    use actbench_kernels::cuda::cubins::write_prebuilt;
    use actbench_kernels::cuda::emulator::{FAKE_DRIVER_CUBIN, fake_driver_directory};
    use actbench_kernels::cuda::registry::{self, SOURCES};

    /// The binary on the fake driver, with a directory of machine code.
    fn on_fake_driver(directory: &Path, settings: &str) -> Command {
        let cubins: Vec<_> =
            SOURCES.iter().map(|source| (source, Architecture::new(90), FAKE_DRIVER_CUBIN.to_vec())).collect();
        write_prebuilt(directory, "the tests", &cubins).unwrap();
        let mut command = binary(fake_driver_directory());
        command.env("FAKE_DRIVER", settings).arg("--cubins").arg(directory).args(["--quick", "--shapes", "0"]);
        command
    }

    fn json(path: &Path) -> serde_json::Value {
        serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
    }

    #[test]
    fn emulator_run_reports_every_kernel() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("found.json");
        let mut command = binary(directory.path());
        let (status, out, stderr) = run(command.args(["--emulator", "--quick", "--json"]).arg(&file));
        assert_eq!(status, 0, "{out}{stderr}");
        assert!(
            out.ends_with("every kernel passed\n") && out.contains("the kernels ran in the emulator, not on a GPU"),
            "{out}"
        );
        let found = json(&file);
        assert_eq!(found["passed"], true);
        assert_eq!(found["report"]["emulated"], true);
        assert!(found["report"]["timings"].is_null());
        let kernels = found["report"]["found"]["kernels"].as_object().unwrap();
        let mut names: Vec<&str> = registry::kernels().map(|kernel| kernel.name).collect();
        names.sort_unstable();
        assert_eq!(kernels.keys().map(String::as_str).collect::<Vec<_>>(), names);
        for (name, kernel) in kernels {
            assert!(kernel["cases"].as_u64() > Some(0) && kernel["failed"] == 0, "{name}: {kernel}");
            assert!(kernel["rows_alone"].as_u64() > Some(0), "{name}: {kernel}");
        }
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1, "temporary files stay behind");
    }

    #[test]
    fn seed_determines_shapes_and_output() {
        let directory = tempfile::tempdir().unwrap();
        let found = |seed: &str| {
            run(binary(directory.path()).args(["--emulator", "--quick", "--shapes", "1", "--seed", seed])).1
        };
        let first = found("3");
        assert_eq!(first, found("3"));
        assert_ne!(first, found("4"));
    }

    #[test]
    fn driver_run_checks_times_and_compares() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("found.json");
        let mut command = on_fake_driver(directory.path(), "");
        let (status, out, stderr) = run(command.args(["--times", "small", "--json"]).arg(&file));
        assert_eq!(status, 0, "{out}{stderr}");
        let found = json(&file);
        let report = &found["report"];
        assert_eq!((&found["passed"], &report["emulated"]), (&true.into(), &false.into()));
        assert!(out.contains("fake GPU (sm_90") && out.contains("19 of sm_90 from"), "{out}");
        // The fake driver executes the kernels in the emulator, so there are no differences.
        assert!(out.contains("results compared with the emulator are bit-identical"), "{out}");
        let timed = report["timings"]["kernels"].as_array().unwrap();
        let names: Vec<&str> = timed.iter().map(|timing| timing["kernel"].as_str().unwrap()).collect();
        for kernel in [
            "linear_bf16",
            "linear_mma_bf16",
            "linear_wgmma_bf16",
            "linear_qkv_wgmma_bf16",
            "attention_mma_f16_64",
            "rms_norm_bf16",
            "rms_norm_wide_bf16",
            "rms_norm_residual_wide_bf16",
            "rms_norm_heads_wide_bf16",
            "layer_norm_bf16",
            "add_embedding_wide_bf16",
            "add_weighted_rows_wide_bf16",
            "route_bf16",
            "linear_gated_wgmma_bf16",
            "pool_bf16",
        ] {
            assert!(names.contains(&kernel), "{names:?}");
        }
        for timing in timed {
            assert!(timing["milliseconds"].as_f64() > Some(0.0), "{timing}");
            assert!(timing["share_of_copy"].as_f64() > Some(0.0), "{timing}");
            let kernel = registry::named(timing["kernel"].as_str().unwrap()).unwrap();
            assert!(!kernel.operation.is_gemm() || timing["share_of_best_product"].as_f64() <= Some(1.0), "{timing}");
        }
    }

    #[test]
    fn mutants_fail_with_kernel_and_symptom() {
        for (mutant, words) in [
            ("linear_unwritten_output", ["FAILED linear_bf16: linear bf16", "NaN where the CPU has"]),
            ("mma_row_beyond_the_end", ["FAILED linear_mma_f16: linear f16", "wrote outside its argument 7"]),
            ("wgmma_unwritten_last_box", ["FAILED linear_wgmma_bf16: linear bf16", "NaN where the CPU has"]),
            ("pool_tail_off_by_one", ["FAILED pool_f32: ", "where the CPU has"]),
            (
                "flash_row_before_its_window_is_nan",
                ["FAILED attention_mma_bf16_64: attention bf16", "NaN where the CPU has"],
            ),
            ("flash_row_sum_not_rescaled", ["FAILED attention_mma_bf16_", "where the plain kernel has"]),
        ] {
            let directory = tempfile::tempdir().unwrap();
            let (status, out, stderr) = run(&mut on_fake_driver(directory.path(), &format!("mutant={mutant}")));
            assert_eq!(status, 1, "{mutant}: {out}{stderr}");
            assert!(words.iter().all(|word| out.contains(word)), "{mutant}: {out}");
            // A failed launch has no result to compare.
            let compares = words[1].contains("where");
            assert_eq!(out.contains("Differences from the emulator"), compares, "{mutant}: {out}");
            assert!(out.ends_with("\nFAILED\n"), "{mutant}: {out}");
        }
    }

    #[test]
    fn lost_device_ends_run_with_its_error() {
        let directory = tempfile::tempdir().unwrap();
        let (status, out, _) = run(&mut on_fake_driver(directory.path(), "break=rope_f16"));
        assert_eq!(status, 1, "{out}");
        for words in
            ["FAILED remaining cases were not run", "rope_f16 on 3 x 1 x 1 blocks", "CUDA_ERROR_ILLEGAL_ADDRESS"]
        {
            assert!(out.contains(words), "'{words}' is not in {out}");
        }
        assert!(out.contains("FAILED rope_bf16: never launched"), "{out}");
    }

    #[test]
    fn errors_before_checks_are_one_line() {
        let directory = tempfile::tempdir().unwrap();
        let mut errors = Vec::new();
        for (settings, arguments) in
            [("devices=0", [].as_slice()), ("devices=2", &["--device", "2"]), ("version=11080", &[])]
        {
            let (status, out, error) = run(on_fake_driver(directory.path(), settings).args(arguments));
            assert_eq!((status, out.as_str()), (2, ""));
            errors.push(error);
        }
        std::fs::write(directory.path().join("manifest.json"), "").unwrap();
        let mut broken = binary(fake_driver_directory());
        let (status, _, error) = run(broken.env("FAKE_DRIVER", "").arg("--cubins").arg(directory.path()));
        assert_eq!(status, 2);
        errors.push(error.replace(directory.path().to_str().unwrap(), "DIRECTORY"));
        insta::assert_snapshot!(errors.concat(), @r"
kernels-check: the CUDA driver has no device: CUDA_ERROR_NO_DEVICE (no CUDA-capable device is detected); --emulator checks the kernels on the CPU
kernels-check: open on cuda:2: there is no CUDA device 2: the driver has 2, numbered from 0
kernels-check: the CUDA driver is too old: version 11.8; 12.8 or later is required; --emulator checks the kernels on the CPU
kernels-check: find kernels on cuda: DIRECTORY/manifest.json: EOF while parsing a value at line 1 column 0; write the directory with scripts/check_cuda_kernels.sh --out
");
    }

    #[test]
    fn interrupted_run_prints_and_writes_partial_results() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("found.json");
        let mut child = std::process::Command::new(assert_cmd::cargo::cargo_bin("kernels-check"))
            .args(["--emulator", "--shapes", "1000", "--json"])
            .arg(&file)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // A progress line appears without a flag.
        let mut line = String::new();
        BufReader::new(child.stderr.take().unwrap()).read_line(&mut line).unwrap();
        assert!(line.contains(" cases, the last one "), "{line}");
        let ended = std::process::Command::new("sh").args(["-c", &format!("kill -TERM {}", child.id())]).status();
        assert!(ended.unwrap().success());
        let output = child.wait_with_output().unwrap();
        let out = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(130), "{out}");
        assert!(
            out.contains("\nFAILED remaining cases were not run: interrupted\n") && out.ends_with("\nFAILED\n"),
            "{out}"
        );
        assert!(!out.contains("never launched"), "{out}");
        let found = json(&file);
        assert_eq!((&found["passed"], &found["report"]["interrupted"]), (&false.into(), &true.into()));
        let kernels = found["report"]["found"]["kernels"].as_object().unwrap();
        assert!(kernels.values().any(|kernel| kernel["cases"].as_u64() > Some(0)), "{found}");
        assert!(found["report"]["found"]["cases"].as_u64() < Some(10_000), "{found}");
    }

    #[test]
    fn unwritable_file_error_has_path() {
        let directory = tempfile::tempdir().unwrap();
        let mut command = binary(directory.path());
        let arguments = ["--emulator", "--quick", "--shapes", "0", "--json", "/nowhere/found.json"];
        let (status, _, stderr) = run(command.args(arguments));
        assert!(status == 2 && stderr.contains("/nowhere/found.json"), "{stderr}");
    }
}
