//! Interrupts a run: no worker survives, no temporary directory remains, completed rows are kept.
#![cfg(target_os = "linux")]

use std::process::Stdio;

use crate::runner_support::{Process, Running, SMALL, Sandbox, children, wait_until};

/// The order in a block follows the seed; with this one, eager comes first in the first block of the task train.
/// [`start`] fails if it does not, because then no row is completed.
const EAGER_FIRST: &str = "3";

/// Starts a run whose first case completes and whose second case sleeps, and waits for that moment.
fn start(sandbox: &Sandbox) -> (Running, Process) {
    let arguments = ["--tasks", "train", "--repetitions", "1", "--seed", EAGER_FIRST];
    let fault = ["--methods", "eager,lazy-disk", "--inject-fault", "train/lazy-disk=sleep"];
    let mut command = sandbox.command(&[&["run"], &SMALL[..], &arguments, &fault].concat());
    let parent = Running(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap());
    let id = parent.0.id();
    let mut worker = None;
    wait_until("a completed case and a sleeping one", || {
        worker = children(id).first().copied();
        sandbox.n_rows() == 1 && worker.is_some()
    });
    assert!(!sandbox.leftovers().is_empty(), "a running case has a cache directory");
    (parent, worker.unwrap())
}

#[track_caller]
fn stop_with(signal: i32) {
    let sandbox = Sandbox::new();
    let (mut parent, worker) = start(&sandbox);
    // SAFETY: a plain system call; the process has not been waited for, so its id has not been reused.
    assert_eq!(unsafe { libc::kill(parent.0.id() as i32, signal) }, 0);
    let mut status = None;
    wait_until("the end of the run", || {
        status = parent.0.try_wait().unwrap();
        status.is_some()
    });
    assert_eq!(status.unwrap().code(), Some(130));
    assert!(!worker.is_alive(), "the worker outlived the run");
    assert_eq!(sandbox.leftovers(), [""; 0]);
    let results = sandbox.results();
    assert_eq!(results["rows"].as_array().unwrap().len(), 1);
    assert_eq!(results["rows"][0]["status"], "ok");
    let error_output = std::io::read_to_string(parent.0.stderr.take().unwrap()).unwrap();
    let last = error_output.lines().last().unwrap();
    assert!(last.starts_with("error: interrupted") && last.contains("results.json"), "{error_output}");
}

#[test]
fn ctrl_c_stops_worker_and_keeps_rows() {
    stop_with(libc::SIGINT);
}

#[test]
fn sigterm_stops_worker_and_keeps_rows() {
    stop_with(libc::SIGTERM);
}

#[test]
fn killed_parent_takes_worker_with_it() {
    let sandbox = Sandbox::new();
    let (mut parent, worker) = start(&sandbox);
    parent.0.kill().unwrap();
    wait_until("the end of the worker", || !worker.is_alive());
}
