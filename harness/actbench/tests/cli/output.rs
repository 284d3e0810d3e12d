//! Where output goes: full disks, closed pipes, devices, links, modes, and two runs into one file.
#![cfg(target_os = "linux")]

use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io::Read as _;
use std::os::unix::fs::{FileTypeExt, PermissionsExt, symlink};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::runner_support::{Running, SMALL, Sandbox, children, stderr, stdout, wait_until};

/// A run of one case.
const ONE_CASE: [&str; 6] = ["--tasks", "train", "--methods", "lazy", "--repetitions", "1"];

fn run_arguments<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&["run"], &SMALL[..], &ONE_CASE, more].concat()
}

/// The device whose writes fail as on a full disk.
fn full() -> File {
    OpenOptions::new().write(true).open("/dev/full").unwrap()
}

fn fifo(path: &Path) {
    let name = CString::new(path.as_os_str().as_encoded_bytes()).unwrap();
    // SAFETY: a string that ends in zero.
    assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o644) }, 0);
}

/// The names of all files in the sandbox's two directories but these.
#[track_caller]
fn assert_left(sandbox: &Sandbox, expected: &[&str]) {
    assert_eq!(sandbox.leftovers(), expected);
}

#[test]
fn output_that_cannot_be_written_is_a_failure() {
    let sandbox = Sandbox::new();
    let explain = ["explain", "--samples", "20", "--layer", "1", "--sweep-layers", "2"];
    let commands: [(&[&str], i32); 8] = [
        (&["models"], 1),
        (&["datasets"], 1),
        (&["env"], 1),
        (&["completions", "bash"], 1),
        (&["--help"], 1),
        (&["run", "--help"], 1),
        (&["check", "--list", "--device-map", "cpu"], 2),
        (&explain, 1),
    ];
    for (arguments, code) in commands {
        let output = sandbox.command(arguments).stdout(full()).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", stderr(&output));
        assert!(stderr(&output).contains("cannot write the standard output: No space left"), "{}", stderr(&output));
    }
    let output = sandbox.command(&run_arguments(&[])).stdout(full()).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert_eq!(sandbox.n_rows(), 1, "the result file is written all the same");
}

#[test]
fn full_standard_error_ends_no_work() {
    let sandbox = Sandbox::new();
    let output = sandbox.command(&run_arguments(&[])).stderr(full()).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "not an abort: {:?}", output.status);
    assert_eq!(sandbox.n_rows(), 1);
    for (arguments, code) in [(&["run", "--model", "/no/such/model"][..], 2), (&["run", "--no-such-flag"], 2)] {
        let output = sandbox.command(arguments).stderr(full()).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {:?}", output.status);
    }
}

#[test]
fn reader_that_leaves_is_no_failure() {
    let sandbox = Sandbox::new();
    for arguments in [vec!["models"], vec!["--help"], run_arguments(&["--json"])] {
        let mut child = sandbox.command(&arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop((child.stdout.take(), child.stderr.take()));
        assert_eq!(child.wait().unwrap().code(), Some(0), "{arguments:?}");
    }
}

#[test]
fn pipe_gets_one_result_and_stays_a_pipe() {
    let sandbox = Sandbox::new();
    let pipe = sandbox.path("pipe");
    fifo(&pipe);
    let reader = thread::spawn({
        let pipe = pipe.clone();
        move || {
            let mut text = String::new();
            File::open(pipe).unwrap().read_to_string(&mut text).unwrap();
            text
        }
    });
    let two = ["run", "--tasks", "train", "--methods", "eager,lazy", "--repetitions", "2", "--output", "pipe"];
    let output = sandbox.output(&[&two, &SMALL[..]].concat());
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let results: Value = serde_json::from_str(&reader.join().unwrap()).unwrap();
    assert_eq!(results["rows"].as_array().unwrap().len(), 4);
    assert!(fs::symlink_metadata(&pipe).unwrap().file_type().is_fifo());
    assert_left(&sandbox, &["pipe"]);
}

#[test]
fn interrupt_ends_the_wait_for_a_reader() {
    let sandbox = Sandbox::new();
    fifo(&sandbox.path("pipe"));
    let arguments = run_arguments(&["--output", "pipe"]);
    let mut run = Running(sandbox.command(&arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    let id = run.0.id();
    let mut had_worker = false;
    wait_until("the end of the case", || {
        let has_worker = !children(id).is_empty();
        had_worker |= has_worker;
        had_worker && !has_worker
    });
    thread::sleep(Duration::from_millis(300));
    // SAFETY: a plain system call; the process has not been waited for.
    assert_eq!(unsafe { libc::kill(id as i32, libc::SIGTERM) }, 0);
    let mut status = None;
    wait_until("the end of the run", || {
        status = run.0.try_wait().unwrap();
        status.is_some()
    });
    assert_eq!(status.unwrap().code(), Some(130));
    assert_left(&sandbox, &["pipe"]);
}

#[test]
fn descriptor_link_is_written_after_nothing_else() {
    let sandbox = Sandbox::new();
    // As `/dev/stdout` is; a link of the test's own, because a fault here would replace the system's.
    symlink("/proc/self/fd/1", sandbox.path("standard-output")).unwrap();
    for to_file in [false, true] {
        let mut command = sandbox.command(&run_arguments(&["--output", "standard-output", "--json"]));
        let text = if to_file {
            let status = command.stdout(File::create(sandbox.path("caught")).unwrap()).status().unwrap();
            assert_eq!(status.code(), Some(0));
            fs::read_to_string(sandbox.path("caught")).unwrap()
        } else {
            stdout(&command.output().unwrap())
        };
        // The file, then the same from --json.
        let documents: Vec<Value> =
            serde_json::Deserializer::from_str(&text).into_iter().collect::<Result<_, _>>().unwrap();
        assert_eq!(documents.len(), 2, "{text}");
        assert_eq!(documents[0], documents[1]);
        assert!(fs::symlink_metadata(sandbox.path("standard-output")).unwrap().is_symlink());
    }
    assert_left(&sandbox, &["caught", "standard-output"]);
}

#[test]
fn links_are_followed_and_modes_kept() {
    let sandbox = Sandbox::new();
    fs::create_dir(sandbox.path("data")).unwrap();
    let target = sandbox.path("data/target.json");
    symlink("data/target.json", sandbox.path("results.json")).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    for (umask, expected) in [("077", 0o600), ("022", 0o644), ("002", 0o664)] {
        let _ = fs::remove_file(&target);
        let script = format!("umask {umask}; exec \"$0\" \"$@\"");
        let mut command = Command::new("/bin/sh");
        command.args(["-c", &script, env!("CARGO_BIN_EXE_actbench")]).args(["features", "--out", "results.json"]);
        command.args(["--samples", "20", "--sweep-layers", "1", "--threads", "1"]).current_dir(sandbox.path(""));
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        assert!(fs::symlink_metadata(sandbox.path("results.json")).unwrap().is_symlink());
        assert_eq!(mode(&target), expected, "umask {umask}");
    }
    fs::set_permissions(&target, fs::Permissions::from_mode(0o640)).unwrap();
    // An empty file may be replaced; the file of features may not.
    File::create(&target).unwrap();
    assert_eq!(sandbox.output(&run_arguments(&[])).status.code(), Some(0));
    assert_eq!((mode(&target), sandbox.n_rows()), (0o640, 1));
    let cache = ["cache", "--samples", "20", "--sweep-layers", "1", "--threads", "1", "--out", "link"];
    symlink("data/cache", sandbox.path("link")).unwrap();
    assert_eq!(sandbox.output(&cache).status.code(), Some(0));
    assert!(sandbox.path("data/cache").is_file() && fs::symlink_metadata(sandbox.path("link")).unwrap().is_symlink());
    assert_left(&sandbox, &["data", "link"]);
}

#[test]
fn second_run_into_the_same_file_is_refused_and_leftovers_are_removed() {
    let sandbox = Sandbox::new();
    let sleeping = run_arguments(&["--inject-fault", "train/lazy=sleep"]);
    let mut first = Running(sandbox.command(&sleeping).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    let id = first.0.id();
    wait_until("a worker", || !children(id).is_empty());
    let second = sandbox.output(&run_arguments(&["--output", "./temporary/../results.json"]));
    assert_eq!(second.status.code(), Some(2), "{}", stderr(&second));
    assert!(stderr(&second).contains("is being written by another run"), "{}", stderr(&second));
    let other = sandbox.output(&run_arguments(&["--output", "other.json"]));
    assert_eq!(other.status.code(), Some(0), "{}", stderr(&other));
    first.0.kill().unwrap();
    first.0.wait().unwrap();
    assert!(sandbox.leftovers().len() > 1, "{:?}", sandbox.leftovers());
    let third = sandbox.output(&run_arguments(&[]));
    assert_eq!(third.status.code(), Some(0), "{}", stderr(&third));
    assert_eq!(sandbox.n_rows(), 1);
    assert_left(&sandbox, &["other.json"]);
}

#[test]
fn every_command_ends_on_a_signal() {
    let sandbox = Sandbox::new();
    fs::write(
        sandbox.path("matrix.toml"),
        "[[grid]]\nmodels = [\"synthetic:tiny\"]\nsamples = [20000000]\nlayers = [1]\npools = [\"mean\"]\n\
         dtypes = [\"bf16\"]\nbatch-sizes = [8]\n",
    )
    .unwrap();
    // The first three predict from a part of the samples, so that they may end by themselves before the signal.
    let commands: [(bool, &[&str]); 5] = [
        (true, &["matrix", "matrix.toml", "--dry-run"]),
        (true, &["explain", "--samples", "20000000"]),
        (true, &["plan", "--samples", "20000000"]),
        (false, &["features", "--samples", "2000000", "--out", "f"]),
        (false, &["run", "--samples", "2000000"]),
    ];
    for (may_succeed, arguments) in commands {
        for signal in [libc::SIGINT, libc::SIGTERM] {
            let mut command = sandbox.command(arguments);
            // A shell's background job ignores Ctrl-C, and its children inherit that.
            // SAFETY: `signal` may be called between fork and exec, and the closure touches no memory of the parent.
            unsafe {
                command.pre_exec(|| {
                    libc::signal(libc::SIGINT, libc::SIG_DFL);
                    Ok(())
                })
            };
            let mut child = Running(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
            thread::sleep(Duration::from_millis(300));
            // SAFETY: a plain system call; the process has not been waited for.
            assert_eq!(unsafe { libc::kill(child.0.id() as i32, signal) }, 0);
            let mut status = None;
            wait_until("the end of the command", || {
                status = child.0.try_wait().unwrap();
                status.is_some()
            });
            let status = status.unwrap();
            let interrupted = status.code() == Some(130) || status.signal() == Some(signal);
            assert!(interrupted || may_succeed && status.success(), "{arguments:?}: {status:?}");
        }
    }
    assert_left(&sandbox, &["matrix.toml"]);
}

#[test]
fn absurd_number_of_threads_is_refused() {
    let sandbox = Sandbox::new();
    for arguments in [
        vec!["run", "--threads", "20000"],
        vec!["features", "--threads", "100000", "--out", "f"],
        vec!["selftest", "--threads", "20000"],
    ] {
        let output = sandbox.output(&arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", stderr(&output));
        let text = stderr(&output);
        assert!(text.contains("--threads") && text.contains("cores") && text.lines().count() == 1, "{text}");
    }
    assert_left(&sandbox, &[]);
}
