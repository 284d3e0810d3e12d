//! StoppingRule a run from outside: no child survives, no temporary folder stays, finished rows are kept.
#![cfg(target_os = "linux")]

use std::process::Stdio;

use crate::runner_support::{Process, Running, SMALL, Sandbox, children, wait_until};

/// The order in a block follows the seed; with this one, eager comes first in the first block of the task train.
/// [`start`] fails when it does not, for then no row is ever finished.
const EAGER_FIRST: &str = "3";

/// Starts a run that finishes its first case and then sleeps in its second, and waits until it does.
fn start(sandbox: &Sandbox) -> (Running, Process) {
    let arguments = ["--tasks", "train", "--repetitions", "1", "--seed", EAGER_FIRST];
    let fault = ["--methods", "eager,lazy-disk", "--inject-fault", "train/lazy-disk=sleep"];
    let mut command = sandbox.command(&[&["run"], &SMALL[..], &arguments, &fault].concat());
    let parent = Running(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap());
    let id = parent.0.id();
    let mut worker = None;
    wait_until("a finished case and a sleeping one", || {
        worker = children(id).first().copied();
        sandbox.n_rows() == 1 && worker.is_some()
    });
    assert!(!sandbox.leftovers().is_empty(), "a running case has a folder for its cache");
    (parent, worker.unwrap())
}

#[track_caller]
fn stop_with(signal: i32) {
    let sandbox = Sandbox::new();
    let (mut parent, worker) = start(&sandbox);
    // SAFETY: a plain system call; the process has not been waited for, so its number is still its own.
    assert_eq!(unsafe { libc::kill(parent.0.id() as i32, signal) }, 0);
    let mut status = None;
    wait_until("the end of the run", || {
        status = parent.0.try_wait().unwrap();
        status.is_some()
    });
    assert_eq!(status.unwrap().code(), Some(130));
    assert!(!worker.is_alive(), "the child outlived the run");
    assert_eq!(sandbox.leftovers(), [""; 0]);
    let results = sandbox.results();
    assert_eq!(results["rows"].as_array().unwrap().len(), 1);
    assert_eq!(results["rows"][0]["status"], "ok");
    let told = std::io::read_to_string(parent.0.stderr.take().unwrap()).unwrap();
    let last = told.lines().last().unwrap();
    assert!(last.starts_with("error: interrupted") && last.contains("results.json"), "{told}");
}

#[test]
fn ctrl_c_ends_the_child_removes_the_folder_and_keeps_the_rows() {
    stop_with(libc::SIGINT);
}

#[test]
fn the_terminate_signal_does_the_same() {
    stop_with(libc::SIGTERM);
}

#[test]
fn a_child_dies_with_a_parent_that_is_killed() {
    let sandbox = Sandbox::new();
    let (mut parent, worker) = start(&sandbox);
    parent.0.kill().unwrap();
    wait_until("the end of the child", || !worker.is_alive());
}
