//! Kills process groups should this process be killed.
//!
//! The kernel's signal of a parent's death reaches the child alone, not what the child has started: a shell dies, its programs
//! live on. A small shell process therefore reads a pipe of this process: a line is the groups that run at the moment, and the
//! end of the pipe is the death of this process, however it comes. Without a shell there is no guard, and children are killed
//! by the kernel's signal alone.

use std::collections::BTreeSet;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Mutex, PoisonError};

/// Lines are read until the pipe ends; the signals that a terminal sends to a session are for the parent to handle.
/// `kill -9 -- -1234` is an error in dash.
const SCRIPT: &str = "trap '' HUP INT TERM\n\
                      while read -r line; do groups=$line; done\n\
                      for group in $groups; do kill -s KILL -- \"-$group\"; done";

static GUARD: Mutex<Guard> = Mutex::new(Guard { process: None, was_started: false, groups: BTreeSet::new() });

struct Guard {
    process: Option<(Child, ChildStdin)>,
    was_started: bool,
    groups: BTreeSet<u32>,
}

/// A group that the guard kills, until this is dropped.
#[derive(Debug)]
pub struct Guarded {
    group: u32,
}

/// Starts the guard, the first time.
pub fn start() {
    let mut guard = GUARD.lock().unwrap_or_else(PoisonError::into_inner);
    if !guard.was_started {
        guard.was_started = true;
        let mut command = Command::new("/bin/sh");
        command.args(["-c", SCRIPT]).current_dir("/").process_group(0);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        guard.process = command.spawn().ok().and_then(|mut child| {
            let pipe = child.stdin.take()?;
            Some((child, pipe))
        });
    }
}

/// Has `group` killed should this process be killed. None without a guard.
pub fn watch(group: u32) -> Option<Guarded> {
    start();
    let mut guard = GUARD.lock().unwrap_or_else(PoisonError::into_inner);
    guard.process.as_ref()?;
    guard.groups.insert(group);
    guard.send();
    Some(Guarded { group })
}

impl Drop for Guarded {
    fn drop(&mut self) {
        let mut guard = GUARD.lock().unwrap_or_else(PoisonError::into_inner);
        guard.groups.remove(&self.group);
        guard.send();
    }
}

impl Guard {
    fn send(&mut self) {
        let groups: Vec<String> = self.groups.iter().map(u32::to_string).collect();
        let line = groups.join(" ") + "\n";
        // A guard that is gone, as one that somebody killed, is not replaced.
        if self.process.as_mut().is_some_and(|(_, pipe)| pipe.write_all(line.as_bytes()).is_err()) {
            self.process = None;
        }
    }
}
