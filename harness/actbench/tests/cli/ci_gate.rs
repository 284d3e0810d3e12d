//! The shell steps of `.github/workflows/gate.yml`, run as its jobs run them: on a real repository with two branches, whose
//! program is a stub that prints a fixed result.

#![cfg(target_os = "linux")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::runner_support::{Sandbox, stderr, stdout};

const SUITE: &str = "[[case]]\nname = \"train-lazy\"\ntask = \"train\"\nmethod = \"lazy\"\n";

fn script(name: &str) -> PathBuf {
    fs::canonicalize(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts").join(name)).unwrap()
}

fn git(sandbox: &Sandbox, arguments: &[&str]) -> String {
    let name = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "init.defaultBranch=main"];
    let mut command = Command::new("git");
    command.args(name).args(arguments).current_dir(sandbox.path("repository"));
    command.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_SYSTEM", "/dev/null");
    let output = command.output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", stderr(&output));
    stdout(&output).trim().to_owned()
}

/// The output of a run that took `seconds`.
fn row(seconds: f64) -> String {
    format!(
        "{{\"rows\":[{{\"status\":\"ok\",\"elapsed_s\":{seconds},\"cpu_peak_rss_mb\":30.0,\"cpu_peak_heap_mb\":9.0,\
         \"metric_value\":0.9,\"extra\":{{\"cpu_s\":{seconds},\"peak_anonymous_mb\":12.0,\"feature_digest\":\"ab\"}}}}]}}"
    )
}

/// Commits a package `actbench` whose binary always prints a run of `seconds`.
fn commit(sandbox: &Sandbox, seconds: f64) -> String {
    let source = format!("fn main() {{ println!(\"{{}}\", r#\"{}\"#); }}\n", row(seconds));
    fs::write(sandbox.path("repository/src/main.rs"), source).unwrap();
    git(sandbox, &["add", "-A"]);
    git(sandbox, &["commit", "--quiet", "--allow-empty", "-m", "change"]);
    git(sandbox, &["rev-parse", "HEAD"])
}

/// A repository whose branch `change` was cut from `main`, which has a later commit.
fn repository(sandbox: &Sandbox, before: f64, after: f64) -> String {
    fs::create_dir_all(sandbox.path("repository/src")).unwrap();
    let manifest = "[package]\nname = \"actbench\"\nversion = \"0.0.0\"\nedition = \"2024\"\n[workspace]\n";
    fs::write(sandbox.path("repository/Cargo.toml"), manifest).unwrap();
    fs::write(
        sandbox.path("repository/Cargo.lock"),
        "version = 4\n\n[[package]]\nname = \"actbench\"\nversion = \"0.0.0\"\n",
    )
    .unwrap();
    fs::write(sandbox.path("suite.toml"), SUITE).unwrap();
    git(sandbox, &["init", "--quiet"]);
    let cut = commit(sandbox, before);
    git(sandbox, &["checkout", "--quiet", "-b", "change"]);
    commit(sandbox, after);
    git(sandbox, &["checkout", "--quiet", "main"]);
    // Much faster: a head that is compared with this commit regresses.
    commit(sandbox, before / 10.0);
    cut
}

/// A script that stands for an executable.
fn executable_script(sandbox: &Sandbox, name: &str, text: &str) -> String {
    let path = sandbox.path(name);
    fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path.to_string_lossy().into_owned()
}

/// The step `Gate`, with the environment of its job.
fn gate(sandbox: &Sandbox, variables: &[(&str, &str)]) -> Output {
    let suite = sandbox.path("suite.toml").to_string_lossy().into_owned();
    let mut command = Command::new("bash");
    command
        .arg(script("ci_gate.sh"))
        .args(["main", "change", "gate-report", "--suite", &suite, "--quiet"])
        .current_dir(sandbox.path("repository"))
        .env("ACTBENCH", env!("CARGO_BIN_EXE_actbench"))
        .env("ACTBENCH_CACHE", sandbox.path("cache"))
        .env("CARGO_NET_OFFLINE", "true")
        .env_remove("CARGO_TARGET_DIR")
        .env_remove("RUSTC_WORKSPACE_WRAPPER")
        .env("TMPDIR", sandbox.path("temporary"))
        .env("GITHUB_OUTPUT", sandbox.path("output"))
        .env("GITHUB_STEP_SUMMARY", sandbox.path("summary.md"))
        .envs(variables.iter().copied());
    command.output().unwrap()
}

fn text(sandbox: &Sandbox, name: &str) -> String {
    fs::read_to_string(sandbox.path(name)).unwrap()
}

#[test]
fn slower_branch_is_gated_against_its_merge_base() {
    let sandbox = Sandbox::new();
    let cut = repository(&sandbox, 0.5, 0.55);
    let output = gate(&sandbox, &[]);
    assert_eq!(output.status.code(), Some(1), "{} {}", stdout(&output), stderr(&output));
    let printed = stdout(&output);
    assert!(printed.contains(&format!("against {cut}")), "{printed}");
    assert!(printed.lines().any(|line| line.starts_with("::error title=train-lazy%3A regressed::")), "{printed}");
    assert_eq!(text(&sandbox, "output"), "outcome=regressed\n");
    assert!(text(&sandbox, "summary.md").starts_with("## actbench gate: regressed"));
    let directory = "repository/gate-report";
    assert!(text(&sandbox, &format!("{directory}/gate.md")).contains(&cut[..12]));
    let tests = text(&sandbox, &format!("{directory}/gate.xml"));
    assert!(
        roxmltree::Document::parse(&tests).unwrap().descendants().any(|node| node.has_tag_name("failure")),
        "{tests}"
    );
    for name in ["gate.json", "bencher.json", "benchmark-action.json"] {
        let value: serde_json::Value = serde_json::from_str(&text(&sandbox, &format!("{directory}/{name}"))).unwrap();
        assert!(!value.is_null(), "{name}");
    }
    let worktrees = git(&sandbox, &["worktree", "list"]);
    assert_eq!(worktrees.lines().count(), 1, "a work tree was left behind: {worktrees}");
}

#[test]
fn exit_status_follows_outcome_and_strictness() {
    let sandbox = Sandbox::new();
    repository(&sandbox, 0.5, 0.5);
    let steady = executable_script(&sandbox, "steady", &format!("echo '{}'", row(0.5)));
    let killed = executable_script(&sandbox, "killed", "kill -9 $$");
    // About 3 % slower, between the two margins, with scatter far beyond both.
    let count = sandbox.path("count").display().to_string();
    let rows: Vec<String> = [0.05, -0.05, 0.2, -0.2]
        .iter()
        .enumerate()
        .map(|(turn, scatter)| format!("{turn}) echo '{}' ;;", row(0.5 * f64::exp(0.03 + scatter))))
        .collect();
    let inconclusive = format!("n=$(wc -l < {count}); echo x >> {count}\ncase $((n % 4)) in {} esac", rows.join(" "));
    let inconclusive = executable_script(&sandbox, "inconclusive", &inconclusive);
    let gate_with = |head: &str, strict: &str| {
        let _ = fs::remove_dir_all(sandbox.path("repository/gate-report"));
        let _ = fs::remove_file(sandbox.path("output"));
        fs::write(sandbox.path("count"), "").unwrap();
        let output = gate(&sandbox, &[("GATE_BASE_BIN", &steady), ("GATE_HEAD_BIN", head), ("GATE_STRICT", strict)]);
        (output.status.code(), text(&sandbox, "output"), stdout(&output))
    };
    let (status, outcome, printed) = gate_with(&steady, "1");
    assert_eq!((status, outcome.as_str()), (Some(0), "outcome=pass\n"), "{printed}");
    let (status, outcome, printed) = gate_with(&killed, "0");
    assert_eq!((status, outcome.as_str()), (Some(2), "outcome=broken\n"), "{printed}");
    assert!(printed.contains("::error title=train-lazy%3A broken::"), "{printed}");
    let (status, outcome, printed) = gate_with(&inconclusive, "0");
    assert_eq!((status, outcome.as_str()), (Some(0), "outcome=inconclusive\n"), "{printed}");
    assert_eq!(gate_with(&inconclusive, "1").0, Some(3));
    // A gate that fails to start also writes a comment for the pull request.
    let (status, outcome, _) = gate_with("/absent", "0");
    assert_eq!((status, outcome.as_str()), (Some(2), "outcome=broken\n"));
    assert!(text(&sandbox, "repository/gate-report/gate.md").contains("did not complete"));
}

#[test]
fn named_executables_are_gated_without_a_build() {
    let sandbox = Sandbox::new();
    repository(&sandbox, 0.5, 0.5);
    fs::create_dir(sandbox.path("bin")).unwrap();
    let built = sandbox.path("built").display().to_string();
    executable_script(&sandbox, "bin/cargo", &format!("echo \"$@\" >> {built}; exit 1"));
    let path = format!("{}:{}", sandbox.path("bin").display(), std::env::var("PATH").unwrap());
    let steady = executable_script(&sandbox, "steady", &format!("echo '{}'", row(0.5)));
    // The binary that gates is then the head.
    let judge =
        format!("if [ \"$1\" = gate ]; then exec {} \"$@\"; fi; echo '{}'", env!("CARGO_BIN_EXE_actbench"), row(0.5));
    let head = executable_script(&sandbox, "head", &judge);
    let output =
        gate(&sandbox, &[("ACTBENCH", ""), ("PATH", &path), ("GATE_BASE_BIN", &steady), ("GATE_HEAD_BIN", &head)]);
    assert_eq!(output.status.code(), Some(0), "{} {}", stdout(&output), stderr(&output));
    assert!(!sandbox.path("built").exists(), "{}", text(&sandbox, "built"));
}

#[test]
fn unrelated_branches_are_refused() {
    let sandbox = Sandbox::new();
    repository(&sandbox, 0.5, 0.5);
    git(&sandbox, &["checkout", "--quiet", "--orphan", "apart"]);
    commit(&sandbox, 0.7);
    git(&sandbox, &["branch", "-f", "change"]);
    let output = gate(&sandbox, &[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("fetch-depth"), "{}", stderr(&output));
}

#[test]
fn comment_is_created_once_and_then_replaced() {
    let sandbox = Sandbox::new();
    // A stub of `gh` that records its arguments and lists a comment once one was created.
    fs::create_dir(sandbox.path("bin")).unwrap();
    let log = sandbox.path("log").display().to_string();
    let body = sandbox.path("body").display().to_string();
    let gh = format!(
        "echo \"$@\" >> {log}\ncase \"$*\" in *--paginate*) [ -f {body} ] && echo 77; exit 0;; esac\n\
         for last; do :; done; cp \"${{last#body=@}}\" {body}"
    );
    executable_script(&sandbox, "bin/gh", &gh);
    fs::write(sandbox.path("gate.md"), format!("## actbench gate: pass\n{}", "x".repeat(70_000))).unwrap();
    let comment = |number: &str| {
        let path = format!("{}:{}", sandbox.path("bin").display(), std::env::var("PATH").unwrap());
        let mut command = Command::new("bash");
        command.arg(script("ci_comment.sh")).args(["owner/name", number]).arg(sandbox.path("gate.md"));
        command.env("PATH", path).env("TMPDIR", sandbox.path("temporary")).output().unwrap()
    };
    assert!(comment("12").status.success());
    assert!(comment("12").status.success());
    let log = text(&sandbox, "log");
    let methods: Vec<&str> = log.lines().filter(|line| line.contains("--method")).collect();
    assert_eq!(methods.len(), 2, "{log}");
    assert!(methods[0].contains("--method POST repos/owner/name/issues/12/comments"), "{log}");
    assert!(methods[1].contains("--method PATCH repos/owner/name/issues/comments/77"), "{log}");
    let body = text(&sandbox, "body");
    assert!(body.starts_with("<!-- actbench gate -->\n## actbench gate: pass\n"));
    assert!(body.len() < 65_536 && body.ends_with("The rest is in the artifact of this job.\n"), "{}", body.len());
    assert_eq!(comment("12; rm -rf /").status.code(), Some(2));
    assert_eq!(fs::read_dir(sandbox.path("temporary")).unwrap().count(), 0);
}

#[test]
fn workflow_runs_the_scripts_and_pins_actions() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let workflow = fs::read_to_string(root.join(".github/workflows/gate.yml")).unwrap();
    for name in ["scripts/ci_gate.sh", "scripts/ci_comment.sh", "workflow_call:"] {
        assert!(workflow.contains(name), "{name}");
    }
    let actions: Vec<&str> =
        workflow.lines().filter_map(|line| line.split_once("uses: ").map(|(_, action)| action)).collect();
    assert!(actions.len() >= 4);
    for action in actions {
        let commit = action.split_once('@').unwrap().1.split_whitespace().next().unwrap();
        assert!(commit.len() == 40 && commit.chars().all(|c| c.is_ascii_hexdigit()), "{action}");
    }
}
