//! A full disk, in the place of which a limit on the size of files and `/dev/full` stand: each command ends with one line and a
//! nonzero exit status, leaves no partial file, and keeps the earlier files.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::runner_support::{SMALL, Sandbox, limit_file_size, stderr};

const FEATURES: [&str; 9] = ["features", "--samples", "20", "--layer", "1", "--device-map", "cpu", "--out", "f"];

fn run_arguments<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&["run", "--tasks", "train", "--methods", "eager,lazy", "--repetitions", "1", "--quiet"], &SMALL[..], more]
        .concat()
}

/// Every file below `directory`, with its bytes.
fn contents(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(contents(&path));
        } else {
            found.insert(path.clone(), fs::read(&path).unwrap());
        }
    }
    found
}

/// The command fails because no file may be larger than `bytes`, and names `path`.
#[track_caller]
fn assert_refused(sandbox: &Sandbox, arguments: &[&str], bytes: u64, path: &str) {
    // Where 1 is a verdict, a failure is 2.
    let code = if arguments[0] == "history" { 2 } else { 1 };
    let mut command = sandbox.command(arguments);
    limit_file_size(&mut command, bytes);
    let output = command.output().unwrap();
    let message = stderr(&output);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {message}");
    assert!(message.starts_with("error: cannot write ") && message.lines().count() == 1, "{arguments:?}: {message}");
    assert!(message.contains(path) && message.contains("File too large"), "{arguments:?}: {message}");
    assert!(!message.contains(".pairgate-"), "{arguments:?} names a temporary file: {message}");
}

#[test]
fn earlier_files_survive_a_full_disk() {
    let sandbox = Sandbox::new();
    let succeed = |arguments: &[&str]| {
        let output = sandbox.output(arguments);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", stderr(&output));
    };
    succeed(&run_arguments(&[]));
    succeed(&run_arguments(&["--output", "second.json", "--seed", "1"]));
    succeed(&FEATURES);
    succeed(&["history", "add", "history", "results.json"]);
    succeed(&["report", "results.json", "--out", "report"]);
    let before = contents(&sandbox.path(""));
    assert!(before.len() > 8, "{:?}", before.keys());
    let run = run_arguments(&[]);
    let trace = ["profile", "--samples", "20", "--tasks", "train", "--methods", "lazy", "-q", "--trace", "trace.json"];
    let cache = ["cache", "--samples", "20", "--layer", "1", "--device-map", "cpu", "--out", "c"];
    let commands: [(&[&str], &str); 6] = [
        (&run, "results.json"),
        (&FEATURES, "f"),
        (&cache, "c"),
        (&trace, "trace.json"),
        (&["history", "add", "history", "second.json"], "history"),
        (&["report", "results.json", "second.json", "--out", "report"], "report"),
    ];
    for (arguments, path) in commands {
        assert_refused(&sandbox, arguments, 100, path);
        let after = contents(&sandbox.path(""));
        assert!(after == before, "{arguments:?}: {:?} became {:?}", before.keys(), after.keys());
    }
}

#[test]
fn report_on_a_full_disk_has_whole_files_only() {
    let sandbox = Sandbox::new();
    assert_eq!(sandbox.output(&run_arguments(&[])).status.code(), Some(0));
    let report = |out: &str| sandbox.output(&["report", "results.json", "--out", out]);
    assert_eq!(report("whole").status.code(), Some(0));
    let whole = contents(&sandbox.path("whole"));
    // The page is the largest file, and comes after the charts and the tables.
    let page = whole[&sandbox.path("whole/report.html")].len() as u64;
    assert!(whole.values().filter(|bytes| bytes.len() as u64 >= page).count() == 1);
    assert_refused(&sandbox, &["report", "results.json", "--out", "part"], page - 1, "part/report.html");
    let part = contents(&sandbox.path("part"));
    let names: Vec<&Path> = part.keys().map(|path| path.strip_prefix(sandbox.path("part")).unwrap()).collect();
    assert!(names.contains(&Path::new("summary.csv")) && !names.contains(&Path::new("REPORT.md")), "{names:?}");
    for name in names {
        assert!(part[&sandbox.path("part").join(name)] == whole[&sandbox.path("whole").join(name)], "{name:?}");
    }
}

#[test]
fn full_device_is_an_error() {
    let sandbox = Sandbox::new();
    let features = [&FEATURES[..FEATURES.len() - 1], &["/dev/full"]].concat();
    for arguments in [run_arguments(&["--output", "/dev/full"]), features] {
        let output = sandbox.output(&arguments);
        let message = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {message}");
        assert_eq!(message, "error: cannot write /dev/full: No space left on device (os error 28)\n", "{arguments:?}");
        assert_eq!(sandbox.leftovers(), [""; 0], "{arguments:?}");
    }
}
