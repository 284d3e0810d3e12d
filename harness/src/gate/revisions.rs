//! Programs built from commits: a work tree of its own for each, in a folder that is gone afterwards, and a target
//! folder for each side that is kept, so that the next gate builds only what changed.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::source::Side;
use crate::error::{Error, Result};
use crate::measure::resolution::cache_folder;
use crate::runner::program::{self, Finished};

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
    let repository = PathBuf::from(git(folder, &["rev-parse", "--show-toplevel"], "no git repository here")?);
    let what = format!("--{side}-rev {revision}: no such commit in {}", repository.display());
    let name = format!("{revision}^{{commit}}");
    let commit = git(&repository, &["rev-parse", "--verify", "--quiet", "--end-of-options", &name], &what)?;
    let temporary = tempfile::Builder::new()
        .prefix("actbench-rev-")
        .tempdir()
        .map_err(Error::io("create", std::env::temp_dir()))?;
    let tree = WorkTree { repository: repository.clone(), folder: temporary };
    let source = tree.folder.path().join("tree");
    let place = source.display().to_string();
    git(&repository, &["worktree", "add", "--detach", "--force", &place, &commit], "no work tree for that commit")?;
    if !quiet {
        eprintln!("building {side}: {revision} ({})", short(&commit));
    }
    let target = target_folder(&repository, side)?;
    compile(&source, &target, profile, revision)?;
    let folder = match profile {
        "dev" => "debug",
        other => other,
    };
    let built = target.join(folder).join("actbench");
    let program = tree.folder.path().join("actbench");
    std::fs::copy(&built, &program).map_err(Error::io("copy", &built))?;
    Ok(Built { program, commit, _tree: tree })
}

fn compile(source: &Path, target: &Path, profile: &str, revision: &str) -> Result<()> {
    let arguments =
        ["build", "--locked", "--quiet", "--package", "actbench", "--bin", "actbench", "--profile", profile];
    let arguments: Vec<OsString> = arguments.iter().map(OsString::from).collect();
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let variables = [("CARGO_TARGET_DIR", target.as_os_str())];
    let finished = program::run(Path::new(&cargo), &arguments, &variables, Some(source), None)?;
    match finished.failure() {
        None => Ok(()),
        Some(failure) => {
            let lines: Vec<&str> = finished.stderr.lines().filter(|line| !line.trim().is_empty()).collect();
            let told = lines[lines.len().saturating_sub(20)..].join("\n  ");
            Err(Error::input(revision, format!("does not build ({failure}):\n  {told}")))
        }
    }
}

/// Kept from one gate to the next: by repository, so that two projects do not evict each other's builds, and by side.
fn target_folder(repository: &Path, side: Side) -> Result<PathBuf> {
    let caches = cache_folder().ok_or_else(|| {
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
    let finished: Finished = program::run(Path::new("git"), &all, &[], None, None)?;
    match finished.failure() {
        None => Ok(finished.stdout.trim().to_owned()),
        Some(failure) => Err(Error::usage(format!("{what} (git: {failure})"))),
    }
}

/// A commit as people write it.
pub fn short(commit: &str) -> &str {
    commit.get(..12).unwrap_or(commit)
}
