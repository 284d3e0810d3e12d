//! `--device-map` on emulated GPUs and over the fake driver: equal features on every device, close to those of the CPU, and
//! figures of device memory and transfers.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::common_cli::ModelDirectory;
use crate::runner_support::Sandbox;
use actbench::case::{CaseSpec, DeviceMap, Injection, Method, RunConfig, Task};
use actbench_kernels::cuda::Architecture;
use actbench_kernels::cuda::cubins::write_prebuilt;
use actbench_kernels::cuda::emulator::{FAKE_DRIVER_CUBIN, fake_driver_directory};
use actbench_kernels::cuda::registry::SOURCES;
use safetensors::SafeTensors;
use serde_json::Value;

const LAYERS: usize = 4;
const SAMPLES: usize = 12;
const HIDDEN: usize = 16;

/// A sandbox with a model of four blocks.
fn sandbox() -> (Sandbox, String) {
    let sandbox = Sandbox::new();
    let model = ModelDirectory::with_layers(LAYERS).write(&sandbox).display().to_string();
    (sandbox, model)
}

fn settings(model: &str) -> Vec<&str> {
    let samples = "--samples 12 --dataset embedded:short --sweep-layers 4 --threads 1";
    samples.split(' ').chain(["--model", model]).collect()
}

/// Asserts that a command succeeded; shows its standard error otherwise.
#[track_caller]
fn succeeded(output: &Output) {
    assert!(output.status.success(), "{}: {}", output.status, String::from_utf8_lossy(&output.stderr));
}

/// Pooled features `[samples, layers, hidden]` that `actbench features` writes with `arguments`.
fn pooled(sandbox: &Sandbox, model: &str, cuda: &str, arguments: &str) -> Vec<f32> {
    let out = sandbox.path("features.safetensors");
    let arguments: Vec<&str> = arguments.split_whitespace().collect();
    let command = [&["features", "--out", out.to_str().unwrap()], &settings(model)[..], &arguments[..]].concat();
    succeeded(&sandbox.command(&command).env("ACTBENCH_CUDA", cuda).output().unwrap());
    features_of(&out)
}

fn features_of(file: &Path) -> Vec<f32> {
    let bytes = fs::read(file).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let pooled = tensors.tensor("pooled").unwrap();
    assert_eq!(pooled.shape(), [SAMPLES, LAYERS, HIDDEN]);
    pooled.data().chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect()
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

#[test]
fn device_map_batches_and_rules_keep_feature_bits() {
    let (sandbox, model) = sandbox();
    let expected = pooled(&sandbox, &model, "emulator:1", "--device-map cuda --method eager");
    assert!(expected.iter().all(|value| value.is_finite()) && expected.iter().any(|value| *value != 0.0));
    for arguments in [
        "--device-map cuda",
        "--device-map cuda:2 --batch-size 1",
        "--device-map auto --batch-size 3 --no-opt prefix",
        "--device-map cuda --no-opt packing",
        "--device-map cuda --no-opt all",
        "--device-map balanced",
        "--device-map balanced --method eager --batch-size 5",
        "--device-map balanced --batch-size 2 --no-opt mask",
        "--device-map replicas:2",
        "--device-map replicas:3 --batch-size 2",
        "--device-map replicas:3 --method eager --batch-size 2",
        "--device-map replicas:2 --no-opt pooling",
    ] {
        let got = pooled(&sandbox, &model, "emulator:3", arguments);
        assert!(bits(&got) == bits(&expected), "{arguments}");
    }
}

#[test]
fn gpu_features_are_close_to_the_cpu() {
    let (sandbox, model) = sandbox();
    for (dtype, tolerance) in [("fp32", 1e-4), ("bf16", 2e-2), ("fp16", 2e-2)] {
        let extract =
            |cuda: &str, map: &str| pooled(&sandbox, &model, cuda, &format!("--device-map {map} --dtype {dtype}"));
        let (cpu, gpu) = (extract("none", "cpu"), extract("emulator:1", "cuda"));
        for (row, (cpu, gpu)) in cpu.chunks(HIDDEN).zip(gpu.chunks(HIDDEN)).enumerate() {
            let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|value| value * value).sum::<f64>().sqrt();
            let size = norm(&mut cpu.iter().map(|value| f64::from(*value)));
            let error = norm(&mut cpu.iter().zip(gpu).map(|(a, b)| f64::from(*a) - f64::from(*b)));
            assert!(error <= tolerance * size && size > 0.0, "{dtype}, row {row}: {error} of {size}");
        }
    }
}

/// `actbench run` with eager and lazy, and its result file.
fn run(sandbox: &Sandbox, model: &str, cuda: &str, arguments: &str) -> (Output, Value) {
    let common = "run --warmup 0 --repetitions 1 --sweep-cs 1 --train-max-iter 20 --sweep-max-iter 20";
    let arguments: Vec<&str> = common.split(' ').chain(arguments.split_whitespace()).collect();
    let arguments = [&arguments[..], &settings(model), &["--layer", "2"]].concat();
    let output = sandbox.command(&arguments).env("ACTBENCH_CUDA", cuda).output().unwrap();
    (output, sandbox.results())
}

fn rows(results: &Value) -> BTreeMap<(String, String), &Value> {
    let text = |row: &Value, key: &str| row[key].as_str().unwrap().to_owned();
    results["rows"].as_array().unwrap().iter().map(|row| ((text(row, "task"), text(row, "method")), row)).collect()
}

#[test]
fn run_reports_device_memory_and_downloads() {
    let (sandbox, model) = sandbox();
    let (output, results) = run(&sandbox, &model, "emulator:2", "--device-map auto --methods eager,lazy,lazy-disk");
    succeeded(&output);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("note: running on GPU 0, emulated cuda:0"), "{stderr}");
    assert_eq!(results["environment"]["gpus"], serde_json::json!(["emulated cuda:0", "emulated cuda:1"]));
    for ((task, method), row) in rows(&results) {
        let (used, reserved) = (&row["gpu_peak_alloc_mb"], &row["gpu_peak_reserved_mb"]);
        assert!(
            used.as_f64().unwrap() > 0.0 && reserved.as_f64() >= used.as_f64(),
            "{task} {method}: {used} {reserved}"
        );
        let layers = if task == "train" { 1 } else { LAYERS as u64 };
        let moved = row["extra"]["device_to_host_bytes"].as_u64().unwrap();
        let computed = row["extra"]["tokens_computed"].as_u64().unwrap();
        let row_bytes = 2 * HIDDEN as u64;
        let expected = if method == "eager" { computed } else { SAMPLES as u64 } * layers * row_bytes;
        assert_eq!(moved, expected, "{task} {method}");
        assert!(row["extra"]["model"].as_str().unwrap().contains("on emulated cuda"), "{row}");
        // Rows of the embedding follow when tokens need them.
        let embedding = ModelDirectory::with_layers(LAYERS).config["vocab_size"].as_u64().unwrap() * row_bytes;
        let weights = row["extra"]["load_host_to_device_bytes"].as_u64().unwrap();
        assert!(weights < embedding, "{task} {method}: the embedding of a file was uploaded as a whole");
        assert!(
            row["extra"]["host_to_device_bytes"].as_u64().unwrap() < weights + embedding,
            "{task} {method}: weights went twice"
        );
    }
    for task in ["train", "sweep"] {
        let summary = &results["summary"][task];
        assert_eq!(summary["digests_agree"], true);
        assert!(summary["gpu_alloc_reduction_x"].as_f64().unwrap() > 0.0, "{summary}");
        assert!(summary["gpu_reserved_reduction_x"].as_f64().unwrap() > 0.0, "{summary}");
    }
}

/// On a GPU blocks are checked after they were loaded, and rows of the embedding when they are used.
#[test]
fn nonfinite_weight_is_named_on_gpu() {
    for (tensor, first, len) in
        [("model.layers.1.self_attn.v_proj.weight", 7, 1), ("model.embed_tokens.weight", 0, 1536)]
    {
        let sandbox = Sandbox::new();
        let mut model = ModelDirectory::with_layers(LAYERS);
        model.tensors.get_mut(tensor).unwrap().1[first..first + len * HIDDEN].fill(half::bf16::NAN);
        let model = model.write(&sandbox).display().to_string();
        let out = sandbox.path("features.safetensors");
        let command =
            [&["features", "--out", out.to_str().unwrap()], &settings(&model)[..], &["--device-map", "cuda"][..]]
                .concat();
        let output = sandbox.command(&command).env("ACTBENCH_CUDA", "emulator:1").output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        let expected =
            format!("model.safetensors: tensor '{tensor}': element {first} is NaN, but weights must be finite");
        assert!(!output.status.success() && stderr.contains(&expected), "{stderr}");
    }
}

#[test]
fn cpu_run_has_no_gpu_figures() {
    let (sandbox, model) = sandbox();
    let (output, cpu) = run(&sandbox, &model, "none", "--methods lazy");
    succeeded(&output);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("note: running on the CPU: ACTBENCH_CUDA=none hides"), "{stderr}");
    let (output, gpu) = run(&sandbox, &model, "emulator:2", "--methods lazy --device-map balanced");
    succeeded(&output);
    for ((cpu, gpu), what) in rows(&cpu).values().zip(rows(&gpu).values()).zip(["sweep", "train"]) {
        assert!(cpu["gpu_peak_alloc_mb"].is_null() && cpu["extra"]["device_to_host_bytes"].is_null());
        let difference = cpu["metric_value"].as_f64().unwrap() - gpu["metric_value"].as_f64().unwrap();
        assert!(difference.abs() <= 0.005, "{what}: {difference}");
        assert!(gpu["extra"]["model"].as_str().unwrap().contains("(blocks 2 to 3)") || what == "train", "{gpu}");
    }
}

#[test]
fn batches_follow_free_memory_down_to_oom() {
    let (sandbox, model) = sandbox();
    let (output, roomy) = run(&sandbox, &model, "emulator:1", "--device-map cuda --methods lazy --batch-size 12");
    succeeded(&output);
    let (output, tight) = run(&sandbox, &model, "emulator:1:152KiB", "--device-map cuda --batch-size 12");
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
    let tight = rows(&tight);
    for (case, roomy) in rows(&roomy) {
        let (tight, batches) = (tight[&case], |row: &Value| row["extra"]["batches"].as_u64().unwrap());
        assert!(batches(tight) > batches(roomy), "{case:?}: {} and {}", batches(tight), batches(roomy));
        assert_eq!(roomy["extra"]["feature_digest"], tight["extra"]["feature_digest"], "{case:?}");
        assert!(tight["gpu_peak_alloc_mb"].as_f64().unwrap() < 152.0 / 1024.0);
    }
    let is_out_of_memory = |case: &(String, String), row: &Value| {
        assert_eq!(row["status"], "oom", "{case:?}: {row}");
        assert!(row["reason"].as_str().unwrap().contains("on emulated cuda"), "{row}");
        assert!(row["extra"]["oom_bytes"].as_u64().unwrap() > 0);
    };
    // Eager batches always have the requested size.
    tight.iter().filter(|((_, method), _)| method == "eager").for_each(|(case, row)| is_out_of_memory(case, row));
    let (output, none) = run(&sandbox, &model, "emulator:1:24KiB", "--device-map cuda");
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
    rows(&none).iter().for_each(|(case, row)| is_out_of_memory(case, row));
}

#[test]
fn auto_stays_on_cpu_if_no_gpu_fits() {
    let (sandbox, model) = sandbox();
    let (output, results) = run(&sandbox, &model, "emulator:2:64KiB", "--methods lazy --tasks train");
    succeeded(&output);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("note: running on the CPU: model and batches need about"), "{stderr}");
    assert!(rows(&results).values().all(|row| row["gpu_peak_alloc_mb"].is_null()));
}

/// The executable next to a directory of machine code that the fake driver accepts, so that its children find it too.
fn with_machine_code(sandbox: &Sandbox) -> std::path::PathBuf {
    let executable = sandbox.path("actbench");
    let built = env!("CARGO_BIN_EXE_actbench");
    fs::hard_link(built, &executable).or_else(|_| fs::copy(built, &executable).map(|_| ())).unwrap();
    let cubins: Vec<_> =
        SOURCES.iter().map(|source| (source, Architecture::new(90), FAKE_DRIVER_CUBIN.to_vec())).collect();
    write_prebuilt(&sandbox.path("cubins"), "the tests", &cubins).unwrap();
    executable
}

#[test]
fn fake_driver_features_are_independent_of_stream_order() {
    let (sandbox, model) = sandbox();
    let expected = pooled(&sandbox, &model, "emulator:1", "--device-map cuda");
    let executable = with_machine_code(&sandbox);
    let on_driver = |settings: &str, cuda: Option<&str>, arguments: &[&str]| {
        let mut command = Command::new(&executable);
        command.arg0("actbench").args(arguments).current_dir(sandbox.path(""));
        command.env("LD_LIBRARY_PATH", fake_driver_directory()).env("FAKE_DRIVER", settings);
        match cuda {
            Some(cuda) => command.env("ACTBENCH_CUDA", cuda),
            None => command.env_remove("ACTBENCH_CUDA"),
        };
        let output = command.output().unwrap();
        succeeded(&output);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(!stderr.contains("fake driver:"), "{settings} {arguments:?}: {stderr}");
        stderr
    };
    let out = sandbox.path("features.safetensors");
    for (settings_of_driver, cuda, arguments) in [
        ("", None, "--device-map auto"),
        ("others=1", None, "--device-map cuda --method eager --batch-size 2"),
        ("others=1 pools=0", None, "--device-map cuda --batch-size 2"),
        ("devices=2", None, "--device-map cuda:1 --no-opt all"),
        ("others=1", Some("split:2"), "--device-map balanced --batch-size 2"),
        ("", Some("split:3"), "--device-map replicas:3 --batch-size 2"),
    ] {
        let arguments_list: Vec<&str> = arguments.split(' ').collect();
        let all = [&["features", "--out", out.to_str().unwrap()], &settings(&model)[..], &arguments_list].concat();
        let stderr = on_driver(settings_of_driver, cuda, &all);
        assert!(bits(&features_of(&out)) == bits(&expected), "{settings_of_driver} {arguments}");
        if arguments == "--device-map auto" {
            assert!(stderr.contains("note: running on GPU 0, fake GPU"), "{stderr}");
        }
    }
    let run = "run --warmup 0 --repetitions 1 --sweep-cs 1 --device-map balanced --methods eager,lazy --layer 2";
    let arguments_list: Vec<&str> = run.split(' ').collect();
    on_driver("", Some("split:2"), &[&arguments_list[..], &settings(&model)].concat());
    let results = sandbox.results();
    assert_eq!(results["environment"]["cuda"], "13.0");
    for (case, row) in rows(&results) {
        assert!(
            row["gpu_peak_reserved_mb"].as_f64().unwrap() >= row["gpu_peak_alloc_mb"].as_f64().unwrap(),
            "{case:?}"
        );
    }
    assert_eq!(results["summary"]["sweep"]["digests_agree"], true);
}

/// The events that `actbench worker` reports of a case of train by lazy, without progress, and the metrics of the case.
fn worker_events(worker: &mut Command, sandbox: &Sandbox, model: &str, device_map: DeviceMap) -> (Vec<String>, Value) {
    let config = RunConfig {
        model: Some(model.to_owned()),
        dataset: Some("embedded:short".to_owned()),
        samples: SAMPLES,
        layer: Some(1),
        threads: Some(1),
        device_map,
        ..RunConfig::default()
    };
    let cache_directory = sandbox.path("temporary");
    let (task, method, injection) = (Task::Train, Method::Lazy, Injection::default());
    let spec = CaseSpec { task, method, config, cache_directory, fault: None, injection };
    let pipes = worker.arg("worker").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = pipes.spawn().unwrap();
    child.stdin.take().unwrap().write_all(serde_json::to_string(&spec).unwrap().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    succeeded(&output);
    assert!(!String::from_utf8_lossy(&output.stderr).contains("fake driver:"));
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let named = |line: &Value| line.get("phase").unwrap_or(&line["event"]).as_str().unwrap().to_owned();
    let events = lines.iter().map(named).filter(|name| name != "progress").collect();
    (events, lines.last().unwrap()["outcome"]["extra"].clone())
}

#[test]
fn model_is_released_after_measurement_on_a_device() {
    let (sandbox, model) = sandbox();
    let on_host = ["loading", "extracting", "releasing", "training", "measured", "done"];
    let on_device = ["loading", "extracting", "training", "measured", "releasing", "done"];
    let of_driver = ["driver_init_s", "context_s", "modules_s"];
    let executable = with_machine_code(&sandbox);
    for (device, device_map, expected) in [
        ("none", DeviceMap::Cpu, on_host),
        ("emulator:1", DeviceMap::Cuda(0), on_device),
        ("fake driver", DeviceMap::Cuda(0), on_device),
    ] {
        let mut worker = Command::new(&executable);
        worker.env("ACTBENCH_CUDA", device);
        if device == "fake driver" {
            worker.env_remove("ACTBENCH_CUDA").env("LD_LIBRARY_PATH", fake_driver_directory()).env("FAKE_DRIVER", "");
        }
        let (events, metrics) = worker_events(&mut worker, &sandbox, &model, device_map);
        assert_eq!(events, expected, "{device}");
        let phases = &metrics["phases"];
        assert!(metrics["release_s"].as_f64().unwrap() > 0.0, "{metrics}");
        assert_eq!(phases["release_s"], metrics["release_s"]);
        for phase in of_driver {
            let seconds = phases[phase].as_f64();
            assert_eq!(
                seconds.is_some_and(|seconds| seconds > 0.0),
                device == "fake driver",
                "{device} {phase}: {phases}"
            );
            assert_eq!(seconds.is_none(), device != "fake driver", "{device} {phase}: {phases}");
        }
    }
}
