//! The binary `pairgate` on real commands. Timings are not asserted: CPU time and output decide the verdicts.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // Helpers of tests may fail as tests do.

use std::process::Output;

use assert_cmd::Command;

fn pairgate(arguments: &[&str]) -> Output {
    Command::cargo_bin("pairgate").unwrap().args(arguments).output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn command_against_itself_does_not_regress_in_output() {
    let output = pairgate(&["--base", "echo same", "--head", "echo same", "--same-output"]);
    let text = stdout(&output);
    // The time of a process of a millisecond may stay inconclusive or, on a busy machine, regress by chance.
    assert!(matches!(output.status.code(), Some(0 | 1 | 3)), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let digest = text.lines().find(|line| line.contains("feature-digest")).unwrap();
    assert!(digest.trim_end().ends_with("pass"), "{text}");
}

#[test]
fn slower_command_regresses_in_wall_time() {
    let directory = tempfile::tempdir().unwrap();
    let report = directory.path().join("gate.json");
    let path = report.to_string_lossy();
    // Many times as long: a sleep cannot end early, and one slow start of base changes no verdict of ten pairs.
    let output = pairgate(&["--base", "true", "--head", "sleep 0.3", "--name", "sleep", "--output", &path]);
    assert_eq!(output.status.code(), Some(1), "{}", stdout(&output));
    assert!(stdout(&output).contains("regressed: sleep (wall"), "{}", stdout(&output));
    let report: pairgate::GateReport = serde_json::from_slice(&std::fs::read(&report).unwrap()).unwrap();
    assert_eq!((report.schema.as_str(), report.outcome), ("pairgate/1", pairgate::Verdict::Regressed));
    assert_eq!(report.cases[0].pairs, 10);
}

#[test]
fn failing_and_differing_commands_are_reported() {
    let output = pairgate(&["--base", "true", "--head", "exit 3"]);
    assert_eq!(output.status.code(), Some(2), "{}", stdout(&output));
    assert!(stdout(&output).contains("head failed: exit status 3"), "{}", stdout(&output));
    let output = pairgate(&["--base", "echo one", "--head", "echo two", "--same-output"]);
    assert_eq!(output.status.code(), Some(1), "{}", stdout(&output));
    assert!(stdout(&output).contains("the digests differ"), "{}", stdout(&output));
    let output = pairgate(&["--base", "true", "--head", "true", "--effect", "2"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--effect"));
}

#[test]
fn usage_errors_are_one_line() {
    for arguments in [&["--base", "true"][..], &["--base", "true", "--head", "true", "--timeout", "3 days"]] {
        let output = pairgate(arguments);
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!((output.status.code(), message.lines().count()), (Some(2), 1), "{message}");
        assert!(message.starts_with("error: "), "{message}");
    }
}

#[test]
fn timeout_takes_a_unit() {
    let output = pairgate(&["--base", "true", "--head", "sleep 60", "--timeout", "0.005m"]);
    assert_eq!(output.status.code(), Some(2), "{}", stdout(&output));
    assert!(stdout(&output).contains("--timeout"), "{}", stdout(&output));
}

#[test]
fn killed_gate_takes_the_programs_of_its_commands_with_it() {
    let directory = tempfile::tempdir().unwrap();
    let (started, mark) = (directory.path().join("started"), directory.path().join("mark"));
    // The shell of the command starts a program of its own, and waits.
    let command = format!("touch {}; (sleep 3; touch {}) & wait", started.display(), mark.display());
    let mut gate = std::process::Command::new(env!("CARGO_BIN_EXE_pairgate"))
        .args(["--base", &command, "--head", &command])
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    while !started.exists() {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    gate.kill().unwrap();
    gate.wait().unwrap();
    std::thread::sleep(std::time::Duration::from_millis(3500));
    assert!(!mark.exists(), "a program of the command outlived the gate");
}

#[test]
fn report_that_cannot_be_written_is_no_verdict() {
    let run = |stdout: &str, stderr: &str| {
        let open = |path: &str| std::fs::OpenOptions::new().write(true).open(path).unwrap();
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_pairgate"));
        command.args(["--base", "true", "--head", "true", "--delta", "0.9", "--effect", "0.95"]);
        command.stdout(open(stdout)).stderr(open(stderr)).status().unwrap().code()
    };
    // Of commands that take no time a verdict may be anything but a pass that cannot be read, and never an abort.
    assert!(matches!(run("/dev/full", "/dev/null"), Some(1..=3)));
    assert!(matches!(run("/dev/full", "/dev/full"), Some(1..=3)));
}

#[test]
fn output_replaces_an_own_report_and_no_other_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("report");
    let name = path.to_string_lossy();
    let mark = directory.path().join("mark");
    let command = format!("touch {}", mark.display());
    let gate = |format: &str, output: &str| {
        pairgate(&["--base", &command, "--head", &command, "--effect", "0.9", "--output", output, "--format", format])
    };
    for format in ["json", "markdown", "github", "junit", "bencher", "benchmark-action"] {
        std::fs::write(&path, "notes of mine\n").unwrap();
        let refused = gate(format, &name);
        let message = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(2), "{format}: {message}");
        let error = message.lines().last().unwrap();
        assert!(
            error.contains("report: exists and is not a ") && error.contains(" of pairgate, so"),
            "{format}: {error}"
        );
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "notes of mine\n", "{format}");
        assert!(!mark.exists(), "{format}: refused before any work");
        std::fs::remove_file(&path).unwrap();
        for _ in 0..2 {
            // The verdict of a command of a millisecond may be any; a refusal has no table.
            let output = gate(format, &name);
            assert!(stdout(&output).contains("wall"), "{format}: {}", String::from_utf8_lossy(&output.stderr));
            assert!(std::fs::read(&path).unwrap() != b"notes of mine\n", "{format}");
        }
        std::fs::remove_file(&mark).unwrap();
    }
    // Links are followed, and devices are written into.
    std::fs::write(&path, "notes of mine\n").unwrap();
    let link = directory.path().join("link");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    assert_eq!(gate("json", &link.to_string_lossy()).status.code(), Some(2));
    assert!(!mark.exists());
    let output = gate("json", "/dev/null");
    assert!(stdout(&output).contains("wall"), "{}", String::from_utf8_lossy(&output.stderr));
}
