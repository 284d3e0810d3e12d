//! Runs the real binary in its own directory and inspects the files it leaves behind.

#![allow(dead_code)] // Each test crate uses a part of this.
#![allow(clippy::unwrap_used)] // Helpers of tests may fail as tests do.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// Time limit for an event that should happen at once; only a failing test waits this long.
pub const TIMEOUT: Duration = Duration::from_secs(120);

/// Settings under which a case takes a moment.
pub const SMALL: [&str; 14] = [
    "--samples",
    "20",
    "--warmup",
    "0",
    "--layer",
    "1",
    "--sweep-layers",
    "2",
    "--sweep-cs",
    "1.0",
    "--train-max-iter",
    "20",
    "--threads",
    "1",
];

/// The working directory of the binary, with a directory for temporary files inside.
pub struct Sandbox {
    directory: TempDir,
}

impl Sandbox {
    pub fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("temporary")).unwrap();
        Sandbox { directory }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A command with `arguments`, not yet started.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_actbench"));
        command
            .args(arguments)
            .current_dir(self.directory.path())
            .env("TMPDIR", self.path("temporary"))
            .env_remove("ACTBENCH_LOG")
            .env_remove("RUST_BACKTRACE")
            // A compiler wrapper of the outer build (clippy) must not run on the projects that tests create.
            .env_remove("RUSTC_WORKSPACE_WRAPPER")
            .stdin(Stdio::null());
        command
    }

    /// Runs the binary with `arguments` to completion.
    pub fn output(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Runs `actbench run` with small settings and `arguments` to completion.
    pub fn run(&self, arguments: &[&str]) -> Output {
        self.output(&[&["run"], &SMALL[..], arguments].concat())
    }

    /// The result file, which must exist and be complete.
    pub fn results(&self) -> Value {
        serde_json::from_str(&fs::read_to_string(self.path("results.json")).unwrap()).unwrap()
    }

    /// The number of rows of the result file; 0 if there is no file.
    pub fn n_rows(&self) -> usize {
        match fs::read_to_string(self.path("results.json")) {
            Ok(text) => serde_json::from_str::<Value>(&text).unwrap()["rows"].as_array().unwrap().len(),
            Err(_) => 0,
        }
    }

    /// Files and directories left behind, except the result file.
    pub fn leftovers(&self) -> Vec<String> {
        let mut names: Vec<String> = [self.directory.path().to_path_buf(), self.path("temporary")]
            .iter()
            .flat_map(|directory| fs::read_dir(directory).unwrap())
            .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
            .filter(|name| name != "temporary" && name != "results.json")
            .collect();
        names.sort();
        names
    }
}

/// Limits the size of the files that `command` writes to `bytes`.
pub fn limit_file_size(command: &mut Command, bytes: u64) {
    // SAFETY: between fork and exec only a system call is made, which is safe there.
    unsafe {
        command.pre_exec(move || {
            let limit = libc::rlimit { rlim_cur: bytes, rlim_max: bytes };
            match libc::setrlimit(libc::RLIMIT_FSIZE, &limit) {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            }
        });
    }
}

/// The rows of one task and method.
pub fn rows<'a>(results: &'a Value, task: &str, method: &str) -> Vec<&'a Value> {
    let all = results["rows"].as_array().unwrap();
    all.iter().filter(|row| row["task"] == task && row["method"] == method).collect()
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

pub fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// A running process that is killed when the test ends.
pub struct Running(pub Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits until `done` holds.
#[track_caller]
pub fn wait_until(event: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < TIMEOUT, "{event} did not happen");
        thread::sleep(Duration::from_millis(20));
    }
}

/// A process by id and start time, so that a reused id is not mistaken for the old process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process {
    pub id: u32,
    start: u64,
}

impl Process {
    /// Whether it still runs; a zombie does not.
    pub fn is_alive(self) -> bool {
        stat(self.id).is_some_and(|stat| stat.start == self.start && stat.state != 'Z')
    }
}

/// The running children of process `parent`.
pub fn children(parent: u32) -> Vec<Process> {
    let numbers = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
    numbers
        .filter_map(|id: u32| stat(id).map(|stat| (id, stat)))
        .filter(|(_, stat)| stat.parent == parent && stat.state != 'Z')
        .map(|(id, stat)| Process { id, start: stat.start })
        .collect()
}

struct Stat {
    state: char,
    parent: u32,
    start: u64,
}

/// `/proc/ID/stat`: the fields after the name, which may contain spaces and brackets itself. See proc(5).
fn stat(id: u32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    let (_, rest) = text.rsplit_once(") ")?;
    let fields: Vec<&str> = rest.split(' ').collect();
    Some(Stat {
        state: fields.first()?.chars().next()?,
        parent: fields.get(1)?.parse().ok()?,
        start: fields.get(19)?.parse().ok()?,
    })
}
