//! Programs built from commits: a work tree of its own for each, in a folder that is gone afterwards, and a target
//! folder for each side that is kept, so that the next gate builds only what changed.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::TempDir;

use super::source::Side;
use crate::error::{Error, Result};
use crate::measure::resolution::cache_directory;
use crate::runner::program::{self, ProcessOutput};

/// A program built from a commit.
pub struct Built {
    /// The program, a copy that later builds do not touch.
    pub program: PathBuf,
    /// The commit.
    pub commit: String,
    _tree: WorkTree,
}

/// A work tree that is taken away with this.
struct WorkTree {
    repository: PathBuf,
    folder: TempDir,
}

impl WorkTree {
    fn source(&self) -> PathBuf {
        self.folder.path().join("tree")
    }
}

impl Drop for WorkTree {
    fn drop(&mut self) {
        // Plain processes, not the runner's: after an interrupt that one starts nothing any more.
        let git = |arguments: &[&str]| {
            let mut command = std::process::Command::new("git");
            let quiet = command.arg("-C").arg(&self.repository).args(arguments).arg(self.folder.path().join("tree"));
            quiet.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).status()
        };
        // What is left of it goes with its folder; git then forgets it at its next clean-up.
        let _ = git(&["worktree", "remove", "--force"]);
    }
}

/// Builds `revision` of the repository around `folder` for one side.
///
/// # Errors
/// There is no such revision or repository, it does not build (with the compiler's last lines), or the user interrupts.
pub fn build(folder: &Path, revision: &str, side: Side, profile: &str, quiet: bool) -> Result<Built> {
    let checkout = CheckedOut::new(folder, revision, side, quiet)?;
    let arguments =
        ["build", "--locked", "--quiet", "--package", "actbench", "--bin", "actbench", "--profile", profile];
    checkout.cargo(&arguments, revision)?;
    let folder = match profile {
        "dev" => "debug",
        other => other,
    };
    let program = checkout.copy(&checkout.target.join(folder).join("actbench"), "actbench")?;
    Ok(Built { program, commit: checkout.commit, _tree: checkout.tree })
}

/// Builds the bench program `bench` of the workspace's benchmarks at `revision`, with `features`.
///
/// # Errors
/// As [`build`]; also where that commit has no such bench.
pub fn build_bench(
    folder: &Path,
    revision: &str,
    side: Side,
    bench: &str,
    features: &[&str],
    quiet: bool,
) -> Result<Built> {
    let checkout = CheckedOut::new(folder, revision, side, quiet)?;
    let features = features.join(",");
    let arguments = ["bench", "--no-run", "--locked", "--quiet", "--package", "actbench-benches", "--bench", bench];
    let told =
        checkout.cargo(&[&arguments[..], &["--features", &features, "--message-format=json"]].concat(), revision)?;
    let built = bench_program(&told, bench)
        .ok_or_else(|| Error::input(revision, format!("has no bench program {bench} that cargo tells of")))?;
    let program = checkout.copy(&built, bench)?;
    Ok(Built { program, commit: checkout.commit, _tree: checkout.tree })
}

/// The program of `bench` among cargo's messages, a line of JSON each.
fn bench_program(messages: &str, bench: &str) -> Option<PathBuf> {
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let of_bench = |message: &Value| {
        message.get("reason").and_then(Value::as_str) == Some("compiler-artifact")
            && message.pointer("/target/name").and_then(Value::as_str) == Some(bench)
    };
    messages.filter(of_bench).find_map(|message| Some(PathBuf::from(message.get("executable")?.as_str()?)))
}

/// A commit in a work tree, and where its side is built.
struct CheckedOut {
    tree: WorkTree,
    commit: String,
    target: PathBuf,
}

impl CheckedOut {
    fn new(folder: &Path, revision: &str, side: Side, quiet: bool) -> Result<Self> {
        let repository = PathBuf::from(git(folder, &["rev-parse", "--show-toplevel"], "no git repository here")?);
        let what = format!("--{side}-rev {revision}: no such commit in {}", repository.display());
        let name = format!("{revision}^{{commit}}");
        let commit = git(&repository, &["rev-parse", "--verify", "--quiet", "--end-of-options", &name], &what)?;
        let temporary = tempfile::Builder::new()
            .prefix("actbench-rev-")
            .tempdir()
            .map_err(Error::io("create", std::env::temp_dir()))?;
        let tree = WorkTree { repository: repository.clone(), folder: temporary };
        let place = tree.source().display().to_string();
        git(&repository, &["worktree", "add", "--detach", "--force", &place, &commit], "no work tree for that commit")?;
        if !quiet {
            eprintln!("building {side}: {revision} ({})", short(&commit));
        }
        let target = target_folder(&repository, side)?;
        Ok(CheckedOut { tree, commit, target })
    }

    /// Runs cargo in the work tree; gives what it prints.
    fn cargo(&self, arguments: &[&str], revision: &str) -> Result<String> {
        let arguments: Vec<OsString> = arguments.iter().map(OsString::from).collect();
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let variables = [("CARGO_TARGET_DIR", self.target.as_os_str())];
        let finished = program::run(Path::new(&cargo), &arguments, &variables, Some(&self.tree.source()), None)?;
        match finished.failure() {
            None => Ok(finished.stdout),
            Some(failure) => {
                let lines: Vec<&str> = finished.stderr.lines().filter(|line| !line.trim().is_empty()).collect();
                let told = lines[lines.len().saturating_sub(20)..].join("\n  ");
                Err(Error::input(revision, format!("does not build ({failure}):\n  {told}")))
            }
        }
    }

    /// A copy that later builds do not touch.
    fn copy(&self, built: &Path, name: &str) -> Result<PathBuf> {
        let program = self.tree.folder.path().join(name);
        std::fs::copy(built, &program).map_err(Error::io("copy", built))?;
        Ok(program)
    }
}

/// Kept from one gate to the next: by repository, so that two projects do not evict each other's builds, and by side.
fn target_folder(repository: &Path, side: Side) -> Result<PathBuf> {
    let caches = cache_directory().ok_or_else(|| {
        Error::usage("no folder to build in: set HOME, XDG_CACHE_HOME or ACTBENCH_CACHE, or name programs with --base-bin and --head-bin")
    })?;
    let digest = blake3::hash(repository.as_os_str().as_encoded_bytes()).to_hex();
    let folder = caches.join("gate").join(&digest.as_str()[..16]).join(side.to_string());
    std::fs::create_dir_all(&folder).map_err(Error::io("create", &folder))?;
    Ok(folder)
}

/// What git prints, trimmed; where it fails, `what` and its own words.
fn git(folder: &Path, arguments: &[&str], what: &str) -> Result<String> {
    let mut all: Vec<OsString> = vec!["-C".into(), folder.into()];
    all.extend(arguments.iter().map(OsString::from));
    let finished: ProcessOutput = program::run(Path::new("git"), &all, &[], None, None)?;
    match finished.failure() {
        None => Ok(finished.stdout.trim().to_owned()),
        Some(failure) => Err(Error::usage(format!("{what} (git: {failure})"))),
    }
}

/// A commit as people write it.
pub fn short(commit: &str) -> &str {
    commit.get(..12).unwrap_or(commit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bench_program_is_found_among_the_messages() {
        let messages = r#"{"reason":"compiler-artifact","target":{"name":"other"},"executable":"/a"}
warning: not a message
{"reason":"compiler-artifact","target":{"name":"primitives"},"executable":null}
{"reason":"compiler-artifact","target":{"name":"primitives"},"executable":"/target/primitives-1"}
{"reason":"build-finished","success":true}"#;
        assert_eq!(bench_program(messages, "primitives"), Some(PathBuf::from("/target/primitives-1")));
        assert_eq!(bench_program(messages, "absent"), None);
    }
}
