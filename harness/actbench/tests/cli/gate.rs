//! `actbench gate` with real processes: verdicts and exit status, faults, and resuming after a kill.
#![cfg(target_os = "linux")]

use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Output, Stdio};

use crate::runner_support::{Running, Sandbox, children, stderr, stdout, wait_until};
use serde_json::Value;

const CASE: &str = "args = [\"--samples\", \"20\", \"--layer\", \"1\", \"--train-max-iter\", \"20\", \"--threads\", \"1\"]\n\
    [[case]]\nname = \"train-lazy\"\ntask = \"train\"\nmethod = \"lazy\"\n";

/// A script that prints what `actbench run --json` prints and takes no time. It records every run in `runs`.
fn script(sandbox: &Sandbox, name: &str, seconds: f64, more: &str) -> String {
    script_with_result(sandbox, name, seconds, (0.9, "ab"), more)
}

/// The same with an AUROC on 20 test rows, ten of each label, and a digest of the features.
fn script_with_result(sandbox: &Sandbox, name: &str, seconds: f64, result: (f64, &str), more: &str) -> String {
    let path = sandbox.path(name);
    let runs = sandbox.path("runs");
    let (auroc, digest) = result;
    let row = format!(
        "{{\"rows\":[{{\"status\":\"ok\",\"elapsed_s\":{seconds},\"cpu_peak_rss_mb\":30.0,\"cpu_peak_heap_mb\":9.0,\
         \"metric_value\":{auroc},\"extra\":{{\"n_test\":20,\"n_test_positive\":10,\"cpu_s\":{seconds},\
         \"peak_anonymous_mb\":12.0,\"feature_digest\":\"{digest}\"}}}}]}}"
    );
    fs::write(&path, format!("#!/bin/sh\necho {name} >> {}\n{more}\necho '{row}'\n", runs.display())).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path.to_string_lossy().into_owned()
}

fn suite(sandbox: &Sandbox) -> String {
    let path = sandbox.path("suite.toml");
    fs::write(&path, CASE).unwrap();
    path.to_string_lossy().into_owned()
}

fn gate(sandbox: &Sandbox, base: &str, head: &str, more: &[&str]) -> Output {
    let suite = suite(sandbox);
    let fixed = ["gate", "--base-bin", base, "--head-bin", head, "--suite", &suite, "--quiet"];
    sandbox.output(&[&fixed[..], more].concat())
}

fn report(sandbox: &Sandbox) -> Value {
    serde_json::from_str(&fs::read_to_string(sandbox.path("gate.json")).unwrap()).unwrap()
}

fn lines(path: PathBuf) -> usize {
    fs::read_to_string(path).map_or(0, |text| text.lines().count())
}

fn temporary(sandbox: &Sandbox) -> Vec<String> {
    let entries = fs::read_dir(sandbox.path("temporary")).unwrap();
    entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect()
}

#[test]
fn equal_passes_and_slower_regresses() {
    let sandbox = Sandbox::new();
    let (base, head) = (script(&sandbox, "base", 0.5, ""), script(&sandbox, "head", 0.55, ""));
    let output = gate(&sandbox, &base, &base, &[]);
    assert_eq!(output.status.code(), Some(0), "{}{}", stdout(&output), stderr(&output));
    assert!(stdout(&output).contains("pass: 1 case, none"), "{}", stdout(&output));
    let output = gate(&sandbox, &base, &head, &[]);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(stdout(&output).contains("regressed: train-lazy (wall, cpu)"), "{}", stdout(&output));
    let report = report(&sandbox);
    assert_eq!((report["schema"].as_str(), report["outcome"].as_str()), (Some("actbench-gate/1"), Some("regressed")));
    let wall = &report["cases"][0]["metrics"][0];
    assert_eq!((wall["metric"].as_str(), wall["n_pairs"].as_u64()), (Some("wall"), Some(10)));
    assert!((wall["estimate"].as_f64().unwrap() - 1.1).abs() < 1e-9, "{wall}");
    assert_eq!(temporary(&sandbox), [""; 0]);
}

#[test]
fn unmeasured_gate_exits_2() {
    let sandbox = Sandbox::new();
    let base = script(&sandbox, "base", 0.5, "");
    let killed = script(&sandbox, "killed", 0.5, "kill -9 $$");
    let silent = script(&sandbox, "silent", 0.5, "exit 0");
    let late = script(&sandbox, "late", 0.5, "[ $(grep -c late RUNS) -lt 5 ] || exit 3");
    fs::write(&late, fs::read_to_string(&late).unwrap().replace("RUNS", &sandbox.path("runs").to_string_lossy()))
        .unwrap();
    for (head, reason) in
        [(&killed, "SIGKILL"), (&silent, "exited with status 0 but printed no result"), (&late, "exit status 3")]
    {
        let output = gate(&sandbox, &base, head, &[]);
        assert_eq!(output.status.code(), Some(2), "{head}: {}{}", stdout(&output), stderr(&output));
        assert!(stdout(&output).contains(reason), "{head}: {}", stdout(&output));
        assert_eq!(report(&sandbox)["outcome"], "broken");
    }
    let output = gate(&sandbox, &base, "no/such/program", &[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("no/such/program"), "{}", stderr(&output));
    fs::write(sandbox.path("empty.toml"), "").unwrap();
    let output = sandbox.output(&["gate", "--base-bin", &base, "--head-bin", &base, "--suite", "empty.toml"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("measures nothing"), "{}", stderr(&output));
}

/// A script that stands for a criterion executable with the benchmarks `names`.
fn benchmarks(sandbox: &Sandbox, name: &str, names: &[&str]) -> String {
    let path = sandbox.path(name);
    let list: String = names.iter().map(|name| format!("echo '{name}: benchmark'; ")).collect();
    let text = format!(
        "#!/bin/sh\nif [ \"$2\" = --list ]; then {list}exit 0; fi\nmkdir -p \"$CRITERION_HOME/$3/new\"\n\
         echo '{{\"median\":{{\"point_estimate\":2500000}}}}' > \"$CRITERION_HOME/$3/new/estimates.json\"\n"
    );
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path.to_string_lossy().into_owned()
}

#[test]
fn lost_or_renamed_benchmark_breaks_the_gate() {
    let sandbox = Sandbox::new();
    let base = benchmarks(&sandbox, "base", &["plan", "pool"]);
    for names in [&["plan"][..], &["plan", "pooling"]] {
        let head = benchmarks(&sandbox, "head", names);
        let fixed = ["gate", "--criterion", "--base-bin", &base, "--head-bin", &head, "--quiet"];
        let output = sandbox.output(&fixed);
        assert_eq!(output.status.code(), Some(2), "{}{}", stdout(&output), stderr(&output));
        assert!(stdout(&output).contains("pool: broken: head lacks this benchmark"), "{}", stdout(&output));
        let output = sandbox.output(&[&fixed[..], &["--allow-removed"]].concat());
        assert_eq!(output.status.code(), Some(0), "{}{}", stdout(&output), stderr(&output));
    }
}

#[test]
fn gate_that_cannot_write_is_broken() {
    let sandbox = Sandbox::new();
    let base = script(&sandbox, "base", 0.5, "");
    fs::create_dir(sandbox.path("gate.journal.jsonl")).unwrap();
    let export = |path: &'static str| ["--output", "other.json", "--export", path];
    let (refused, full) = (export("junit=/proc/a.xml"), export("junit=/dev/full"));
    for more in [&[][..], &["--output", "none/gate.json"], &refused, &full] {
        let output = gate(&sandbox, &base, &base, more);
        assert_eq!(output.status.code(), Some(2), "{more:?}: {}{}", stdout(&output), stderr(&output));
    }
}

#[test]
fn failed_run_is_repeated_by_resume() {
    let sandbox = Sandbox::new();
    let full = sandbox.path("full");
    fs::write(&full, "").unwrap();
    let fault = format!("[ -e {} ] && {{ echo 'no space left' >&2; exit 1; }}", full.display());
    let base = script(&sandbox, "base", 0.5, &fault);
    assert_eq!(gate(&sandbox, &base, &base, &[]).status.code(), Some(2));
    fs::remove_file(&full).unwrap();
    let output = gate(&sandbox, &base, &base, &["--resume"]);
    assert_eq!(output.status.code(), Some(0), "{}{}", stdout(&output), stderr(&output));
}

#[test]
fn impossible_times_never_pass() {
    for seconds in [0.0, -1.0, 1e300, 1e-12] {
        let sandbox = Sandbox::new();
        let base = script(&sandbox, "base", seconds, "");
        let output = gate(&sandbox, &base, &base, &[]);
        assert_eq!(output.status.code(), Some(2), "{seconds}: {}{}", stdout(&output), stderr(&output));
    }
}

#[test]
fn hanging_run_is_killed_and_breaks_its_case() {
    let sandbox = Sandbox::new();
    let (base, head) = (script(&sandbox, "base", 0.5, ""), script(&sandbox, "head", 0.5, "sleep 60"));
    let output = gate(&sandbox, &base, &head, &["--timeout", "0.3s"]);
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    assert!(stdout(&output).contains("--timeout"), "{}", stdout(&output));
}

/// Starts a gate and waits until its journal has a few pairs.
fn start(sandbox: &Sandbox, base: &str) -> Running {
    let suite = suite(sandbox);
    let mut command = sandbox.command(&["gate", "--base-bin", base, "--head-bin", base, "--suite", &suite, "--quiet"]);
    let running = Running(command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap());
    wait_until("a few pairs", || lines(sandbox.path("gate.journal.jsonl")) >= 4);
    running
}

#[test]
fn killed_gate_resumes_from_its_journal() {
    let sandbox = Sandbox::new();
    let base = script(&sandbox, "base", 0.5, "sleep 0.05");
    let mut running = start(&sandbox, &base);
    running.0.kill().unwrap();
    running.0.wait().unwrap();
    let journal = fs::read_to_string(sandbox.path("gate.journal.jsonl")).unwrap();
    let complete = journal.rfind('\n').unwrap() + 1;
    let output = gate(&sandbox, &base, &base, &["--resume"]);
    assert_eq!(output.status.code(), Some(0), "{}{}", stdout(&output), stderr(&output));
    let after = fs::read_to_string(sandbox.path("gate.journal.jsonl")).unwrap();
    assert!(after.starts_with(&journal[..complete]), "recorded pairs were lost");
    assert_eq!(after.lines().count(), 11, "a header and ten pairs");
    // At most the interrupted pair ran twice.
    assert!(lines(sandbox.path("runs")) <= 22, "{} runs", lines(sandbox.path("runs")));
    let other = script(&sandbox, "other", 0.5, "");
    let output = gate(&sandbox, &base, &other, &["--resume"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("the head program differs"), "{}", stderr(&output));
}

#[test]
fn ctrl_c_kills_the_child_and_prints_how_to_resume() {
    let sandbox = Sandbox::new();
    let base = script(&sandbox, "base", 0.5, "sleep 0.2");
    let mut running = start(&sandbox, &base);
    let id = running.0.id();
    let mut child = None;
    wait_until("a child", || {
        child = children(id).first().copied();
        child.is_some()
    });
    // SAFETY: a plain system call; the process has not been waited for, so its number is still its own.
    assert_eq!(unsafe { libc::kill(id as i32, libc::SIGINT) }, 0);
    let mut status = None;
    wait_until("the end of the gate", || {
        status = running.0.try_wait().unwrap();
        status.is_some()
    });
    assert_eq!(status.unwrap().code(), Some(130));
    assert!(children(id).is_empty() && !child.unwrap().is_alive());
    assert_eq!(temporary(&sandbox), [""; 0]);
    let text = std::io::read_to_string(running.0.stderr.take().unwrap()).unwrap();
    assert!(text.contains("--resume") && text.trim_end().ends_with("error: interrupted"), "{text}");
}

#[test]
fn actbench_passes_against_itself_and_regresses_with_memory() {
    let sandbox = Sandbox::new();
    let actbench = env!("CARGO_BIN_EXE_actbench");
    let metrics = ["--metrics", "peak-heap,auroc,feature-digest"];
    let output = gate(&sandbox, actbench, actbench, &metrics);
    assert_eq!(output.status.code(), Some(0), "{}{}", stdout(&output), stderr(&output));
    let more = ["--head-arg", "--inject-memory", "--head-arg", "1048576"];
    let output = gate(&sandbox, actbench, actbench, &[&metrics[..], &more].concat());
    assert_eq!(output.status.code(), Some(1), "{}{}", stdout(&output), stderr(&output));
    assert!(stdout(&output).contains("regressed: train-lazy (peak-heap)"), "{}", stdout(&output));
    let fault = ["--head-arg", "--inject-fault", "--head-arg", "train/lazy=kill"];
    let output = gate(&sandbox, actbench, actbench, &[&metrics[..], &fault].concat());
    assert_eq!(output.status.code(), Some(2), "{}{}", stdout(&output), stderr(&output));
    assert!(stdout(&output).contains("SIGKILL"), "{}", stdout(&output));
    assert_eq!(temporary(&sandbox), [""; 0]);
}

/// A copy of actbench in the sandbox, on the disk. `evicted` drops it from the page cache.
fn copy_of_actbench(sandbox: &Sandbox, name: &str, evicted: bool) -> String {
    let path = sandbox.path(name);
    fs::copy(env!("CARGO_BIN_EXE_actbench"), &path).unwrap();
    let file = fs::File::open(&path).unwrap();
    file.sync_all().unwrap();
    if evicted {
        // SAFETY: a plain system call on a descriptor that `file` keeps open.
        assert_eq!(unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) }, 0);
    }
    path.to_string_lossy().into_owned()
}

#[test]
fn fresh_copy_passes_cached_and_evicted() {
    let sandbox = Sandbox::new();
    let actbench = env!("CARGO_BIN_EXE_actbench");
    let metrics = ["--metrics", "peak-anonymous,peak-heap,auroc,feature-digest"];
    for (name, evicted, copy_is_base) in [("cached", false, false), ("evicted", true, false), ("base", true, true)] {
        let copy = copy_of_actbench(&sandbox, name, evicted);
        let (base, head) = if copy_is_base { (copy.as_str(), actbench) } else { (actbench, copy.as_str()) };
        let output = gate(&sandbox, base, head, &metrics);
        assert_eq!(output.status.code(), Some(0), "{name}: {}{}", stdout(&output), stderr(&output));
        assert!(stdout(&output).contains("are the same program, with one build id"), "{name}: {}", stdout(&output));
        let report = report(&sandbox);
        let judged = report["cases"][0]["metrics"].as_array().unwrap();
        assert_eq!(judged.len(), 4, "{name}");
        for metric in judged {
            assert_eq!(metric["verdict"], "pass", "{name}: {metric}");
        }
    }
}

#[test]
fn other_features_may_swap_few_pairs_of_rows() {
    let sandbox = Sandbox::new();
    let base = script_with_result(&sandbox, "base", 0.5, (0.80, "ab"), "");
    let near = script_with_result(&sandbox, "near", 0.5, (0.79, "cd"), "");
    let far = script_with_result(&sandbox, "far", 0.5, (0.70, "cd"), "");
    let allow = ["--allow-other-features"];
    for (head, more, status, text) in [
        (&near, &[][..], 1, "regressed: train-lazy (auroc, feature-digest)"),
        (&near, &allow[..], 0, "AUROC changed by -0.010000, 1.0 swapped pairs of test rows; 6 are allowed"),
        (&far, &allow[..], 1, "10.0 swapped pairs of test rows; only 6 are allowed"),
        (&far, &["--allow-other-features", "--auroc-tolerance", "0.2"][..], 0, "pass: 1 case"),
    ] {
        let output = gate(&sandbox, &base, head, more);
        assert_eq!(output.status.code(), Some(status), "{head} {more:?}: {}{}", stdout(&output), stderr(&output));
        assert!(stdout(&output).contains(text), "{head} {more:?}: {}", stdout(&output));
    }
}

#[test]
fn mistyped_argument_of_a_case_runs_nothing() {
    let sandbox = Sandbox::new();
    let base = script(&sandbox, "base", 0.5, "");
    fs::write(sandbox.path("typo.toml"), CASE.replace("--samples", "--sampels")).unwrap();
    let output = sandbox.output(&["gate", "--base-bin", &base, "--head-bin", &base, "--suite", "typo.toml"]);
    assert_eq!(output.status.code(), Some(2), "{}", stdout(&output));
    let text = stderr(&output);
    assert!(text.contains("typo.toml: case 'train-lazy': args: unexpected argument '--sampels'"), "{text}");
    assert!(!sandbox.path("runs").exists(), "a case ran");
}

#[test]
fn executable_before_the_metric_is_named() {
    let sandbox = Sandbox::new();
    let head = script(&sandbox, "head", 0.5, "");
    let base = script(&sandbox, "base", 0.5, "");
    fs::write(&base, fs::read_to_string(&base).unwrap().replace("\"peak_anonymous_mb\":12.0,", "")).unwrap();
    let output = gate(&sandbox, &base, &head, &[]);
    assert_eq!(output.status.code(), Some(2), "{}", stdout(&output));
    assert!(stdout(&output).contains("base failed: it does not report peak-anonymous"), "{}", stdout(&output));
    let output = gate(&sandbox, &base, &head, &["--metrics", "wall,cpu,peak-heap,auroc,feature-digest"]);
    assert_eq!(output.status.code(), Some(0), "{}", stdout(&output));
}

#[test]
fn commits_are_built_gated_and_cleaned_up() {
    let sandbox = Sandbox::new();
    let repository = sandbox.path("repository");
    fs::create_dir_all(repository.join("src")).unwrap();
    let git = |arguments: &[&str]| {
        let identity = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"];
        let mut command = std::process::Command::new("git");
        let output = command.current_dir(&repository).args(identity).args(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", stderr(&output));
        stdout(&output)
    };
    let manifest = "[package]\nname = \"actbench\"\nversion = \"0.1.0\"\nedition = \"2024\"\n[workspace]\n";
    fs::write(repository.join("Cargo.toml"), manifest).unwrap();
    fs::write(repository.join("Cargo.lock"), "version = 4\n\n[[package]]\nname = \"actbench\"\nversion = \"0.1.0\"\n")
        .unwrap();
    let source = |seconds: &str| {
        let row = format!(
            "{{\"rows\":[{{\"status\":\"ok\",\"elapsed_s\":{seconds},\"cpu_peak_rss_mb\":30.0,\"cpu_peak_heap_mb\":9.0,\
             \"metric_value\":0.9,\"extra\":{{\"cpu_s\":0.5,\"peak_anonymous_mb\":12.0,\"feature_digest\":\"ab\"}}}}]}}"
        );
        fs::write(repository.join("src/main.rs"), format!("fn main() {{ println!(\"{{}}\", {row:?}); }}\n")).unwrap();
    };
    git(&["init", "--quiet"]);
    source("0.5");
    git(&["add", "."]);
    git(&["commit", "--quiet", "-m", "one"]);
    source("0.6");
    git(&["commit", "--quiet", "-a", "-m", "two"]);
    let suite = suite(&sandbox);
    let arguments =
        ["gate", "--base-rev", "HEAD~1", "--head-rev", "HEAD", "--build-profile", "dev", "--suite", &suite, "-q"];
    let run = |arguments: &[&str]| {
        let mut command = sandbox.command(arguments);
        command.current_dir(&repository).env("ACTBENCH_CACHE", sandbox.path("cache")).output().unwrap()
    };
    let output = run(&arguments);
    assert_eq!(output.status.code(), Some(1), "{}{}", stdout(&output), stderr(&output));
    assert!(stdout(&output).contains("regressed: train-lazy (wall)"), "{}", stdout(&output));
    assert_eq!(git(&["worktree", "list"]).lines().count(), 1);
    assert_eq!(temporary(&sandbox), [""; 0]);
    fs::write(repository.join("src/main.rs"), "fn main() { nonsense }\n").unwrap();
    git(&["commit", "--quiet", "-a", "-m", "three"]);
    let output = run(&arguments);
    assert_eq!(output.status.code(), Some(2), "{}", stdout(&output));
    assert!(stderr(&output).contains("does not build") && stderr(&output).contains("nonsense"), "{}", stderr(&output));
    let output = run(&["gate", "--base-rev", "no-such", "--head-rev", "HEAD", "-q"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("--base-rev no-such: no such commit"), "{}", stderr(&output));
    for (flag, text) in [("--head-rev", "--head-rev no-such: no such commit"), ("--head-bin", "cannot open no-such")] {
        let output = run(&["gate", "--base-rev", "HEAD~1", flag, "no-such"]);
        assert_eq!(output.status.code(), Some(2));
        // The commit of base exists, and is not built for nothing.
        assert!(stderr(&output).contains(text) && !stderr(&output).contains("building"), "{}", stderr(&output));
    }
    assert_eq!(git(&["worktree", "list"]).lines().count(), 1);
    assert_eq!(temporary(&sandbox), [""; 0]);
}
