//! Executables built from commits with cargo: each in a temporary git worktree, with a target directory for each side that
//! is kept, so that the next gate builds only the changes.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::Side;
use crate::error::{Error, Result};
use crate::process::run_program;
use crate::stderr_line;
use crate::temporary::TemporaryDirectory;

/// Lines of the compiler's output that an error quotes.
const QUOTED_LINES: usize = 20;

/// An executable built from a commit. It is removed when this is dropped.
pub struct BuiltExecutable {
    /// The executable, a copy that later builds do not overwrite.
    pub path: PathBuf,
    /// The commit.
    pub commit: String,
    _worktree: GitWorktree,
}

/// How executables are built.
#[derive(Clone, Copy, Debug)]
pub struct BuildOptions<'a> {
    /// A directory in the repository.
    pub repository: &'a Path,
    /// Where target directories are kept from one gate to the next; none if the system has no cache directory.
    pub cache: Option<&'a Path>,
    /// Whether nothing is printed.
    pub quiet: bool,
}

/// A git worktree that is removed when this is dropped.
struct GitWorktree {
    repository: PathBuf,
    directory: TemporaryDirectory,
}

impl GitWorktree {
    fn source(&self) -> PathBuf {
        self.directory.path().join("tree")
    }
}

impl Drop for GitWorktree {
    fn drop(&mut self) {
        // Not `run_program`, which starts nothing after an interrupt.
        let git = |arguments: &[&str]| {
            let mut command = std::process::Command::new("git");
            let quiet = command.arg("-C").arg(&self.repository).args(arguments).arg(self.source());
            quiet.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).status()
        };
        // If this fails the directory is still removed, and git prunes its record later.
        let _ = git(&["worktree", "remove", "--force"]);
    }
}

/// The root of the repository that contains `directory`, and the commit that `revision` names there. Nothing is built, so that
/// a gate can refuse a wrong revision of either side first.
///
/// # Errors
/// There is no such revision or repository, or the user interrupts.
pub fn find_commit(directory: &Path, revision: &str, side: Side) -> Result<(PathBuf, String)> {
    let repository = PathBuf::from(git(directory, &["rev-parse", "--show-toplevel"], "no git repository here")?);
    let missing = format!("--{side}-rev {revision}: no such commit in {}", repository.display());
    let name = format!("{revision}^{{commit}}");
    let commit = git(&repository, &["rev-parse", "--verify", "--quiet", "--end-of-options", &name], &missing)?;
    Ok((repository, commit))
}

/// Builds the binary `name` of the package of the same name at `revision` for one side, with a cargo profile.
///
/// # Errors
/// There is no such revision or repository, it does not build (with the compiler's last lines), or the user interrupts.
pub fn build_binary(
    options: &BuildOptions<'_>,
    revision: &str,
    side: Side,
    name: &str,
    profile: &str,
) -> Result<BuiltExecutable> {
    let checkout = RevisionCheckout::new(options, revision, side)?;
    let arguments = ["build", "--locked", "--quiet", "--package", name, "--bin", name, "--profile", profile];
    checkout.cargo(&arguments, revision)?;
    // Cargo keeps the name of before there were profiles.
    let directory = if profile == "dev" { "debug" } else { profile };
    let path = checkout.copy(&checkout.target.join(directory).join(name), name)?;
    Ok(BuiltExecutable { path, commit: checkout.commit, _worktree: checkout.worktree })
}

/// A benchmark executable of a workspace. Cargo finds its package, because a benchmark may be in another package at another
/// commit.
#[derive(Clone, Copy, Debug)]
pub struct BenchTarget<'a> {
    /// The name of the benchmark target.
    pub bench: &'a str,
    /// Features to build it with.
    pub features: &'a [&'a str],
}

/// Builds a benchmark executable at `revision` for one side.
///
/// # Errors
/// As [`build_binary`]; also where that commit has no such benchmark.
pub fn build_bench(
    options: &BuildOptions<'_>,
    revision: &str,
    side: Side,
    target: &BenchTarget<'_>,
) -> Result<BuiltExecutable> {
    let checkout = RevisionCheckout::new(options, revision, side)?;
    let features = target.features.join(",");
    let arguments = ["bench", "--no-run", "--locked", "--quiet", "--workspace", "--bench", target.bench];
    let messages =
        checkout.cargo(&[&arguments[..], &["--features", &features, "--message-format=json"]].concat(), revision)?;
    let built = bench_executable(&messages, target.bench)
        .ok_or_else(|| Error::input(revision, format!("cargo reports no executable for the bench {}", target.bench)))?;
    let path = checkout.copy(&built, target.bench)?;
    Ok(BuiltExecutable { path, commit: checkout.commit, _worktree: checkout.worktree })
}

/// The executable of `bench` among cargo's messages, a line of JSON each.
fn bench_executable(messages: &str, bench: &str) -> Option<PathBuf> {
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let is_of_bench = |message: &Value| {
        message.get("reason").and_then(Value::as_str) == Some("compiler-artifact")
            && message.pointer("/target/name").and_then(Value::as_str) == Some(bench)
    };
    messages.filter(is_of_bench).find_map(|message| Some(PathBuf::from(message.get("executable")?.as_str()?)))
}

/// A commit in a worktree, and the target directory of its side.
struct RevisionCheckout {
    worktree: GitWorktree,
    commit: String,
    target: PathBuf,
}

impl RevisionCheckout {
    fn new(options: &BuildOptions<'_>, revision: &str, side: Side) -> Result<Self> {
        let (repository, commit) = find_commit(options.repository, revision, side)?;
        let temporary = TemporaryDirectory::create("pairgate-rev-", None)?;
        let worktree = GitWorktree { repository: repository.clone(), directory: temporary };
        let path = worktree.source().display().to_string();
        git(&repository, &["worktree", "add", "--detach", "--force", &path, &commit], "cannot create a worktree")?;
        if !options.quiet {
            stderr_line!("building {side}: {revision} ({})", short(&commit));
        }
        let target = target_directory(options.cache, &repository, side)?;
        Ok(RevisionCheckout { worktree, commit, target })
    }

    /// Runs cargo in the worktree and returns its standard output.
    fn cargo(&self, arguments: &[&str], revision: &str) -> Result<String> {
        let arguments: Vec<OsString> = arguments.iter().map(OsString::from).collect();
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let variables = [("CARGO_TARGET_DIR", self.target.as_os_str())];
        let output = run_program(Path::new(&cargo), &arguments, &variables, Some(&self.worktree.source()), None)?;
        match output.failure() {
            None => Ok(output.stdout),
            Some(failure) => {
                let lines: Vec<&str> = output.stderr.lines().filter(|line| !line.trim().is_empty()).collect();
                let quoted = lines[lines.len().saturating_sub(QUOTED_LINES)..].join("\n  ");
                Err(Error::input(revision, format!("does not build ({failure}):\n  {quoted}")))
            }
        }
    }

    /// Copies a built file to the directory of the worktree, under `name`.
    fn copy(&self, built: &Path, name: &str) -> Result<PathBuf> {
        let copied = self.worktree.directory.path().join(name);
        std::fs::copy(built, &copied).map_err(Error::io("copy", built))?;
        Ok(copied)
    }
}

/// A directory for each repository, so that two projects do not evict each other's builds, and for each side.
fn target_directory(cache: Option<&Path>, repository: &Path, side: Side) -> Result<PathBuf> {
    let cache = cache.ok_or_else(|| {
        Error::usage("no cache directory to build in: set HOME or XDG_CACHE_HOME, or name executables that were built")
    })?;
    let digest = blake3::hash(repository.as_os_str().as_encoded_bytes()).to_hex();
    let directory = cache.join("gate").join(&digest.as_str()[..16]).join(side.to_string());
    std::fs::create_dir_all(&directory).map_err(Error::io("create", &directory))?;
    Ok(directory)
}

/// The output of git, trimmed. The error has `context` and git's own message.
fn git(directory: &Path, arguments: &[&str], context: &str) -> Result<String> {
    let mut all: Vec<OsString> = vec!["-C".into(), directory.into()];
    all.extend(arguments.iter().map(OsString::from));
    let output = run_program(Path::new("git"), &all, &[], None, None)?;
    match output.failure() {
        None => Ok(output.stdout.trim().to_owned()),
        // Git's hint, which is its last line, is not what happened.
        Some(_) if output.stderr.contains("dubious ownership") => Err(Error::usage(format!(
            "{}: git refuses a repository of another user; `git config --global --add safe.directory {}` permits it",
            directory.display(),
            owned_directory(&output.stderr).unwrap_or("DIRECTORY")
        ))),
        Some(failure) => Err(Error::usage(format!("{context} (git: {failure})"))),
    }
}

/// The directory that git names in `fatal: detected dubious ownership in repository at '/path'`.
fn owned_directory(stderr: &str) -> Option<&str> {
    stderr.lines().find_map(|line| line.split_once("dubious ownership in repository at '")?.1.strip_suffix('\''))
}

/// The first digits of a commit.
fn short(commit: &str) -> &str {
    commit.get(..12).unwrap_or(commit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repository_of_another_user_is_named() {
        let stderr = "fatal: detected dubious ownership in repository at '/a b'\nTo add an exception for this directory, call:\n\n\
                      \tgit config --global --add safe.directory '/a b'\n";
        assert_eq!(owned_directory(stderr), Some("/a b"));
        assert_eq!(owned_directory("fatal: not a git repository"), None);
    }

    /// Writes a workspace whose package `owner` has the benchmark `sums`, and commits it. The other package has none.
    fn commit_bench_of(owner: &str, repository: &Path) {
        let lock = "version = 4\n\n[[package]]\nname = \"a\"\nversion = \"0.1.0\"\n\n[[package]]\nname = \"b\"\nversion = \"0.1.0\"\n";
        let mut files = vec![
            ("Cargo.toml".to_owned(), "[workspace]\nresolver = \"3\"\nmembers = [\"a\", \"b\"]\n".to_owned()),
            ("Cargo.lock".to_owned(), lock.to_owned()),
        ];
        for name in ["a", "b"] {
            let package = format!("[package]\nname = \"{name}\"\nversion = \"0.1.0\"\nedition = \"2024\"\n");
            let is_owner = name == owner;
            let bench =
                if is_owner { "[features]\nextra = []\n[[bench]]\nname = \"sums\"\nharness = false\n" } else { "" };
            files.push((format!("{name}/Cargo.toml"), format!("{package}{bench}")));
            files.push((format!("{name}/src/lib.rs"), String::new()));
            if is_owner {
                let main = format!("fn main() {{ print!(\"{name} {{}}\", cfg!(feature = \"extra\")) }}\n");
                files.push((format!("{name}/benches/sums.rs"), main));
            }
        }
        let _ = std::fs::remove_dir_all(repository.join("a"));
        let _ = std::fs::remove_dir_all(repository.join("b"));
        for (name, text) in files {
            let path = repository.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        git(repository, &["init", "--quiet"], "").unwrap();
        git(repository, &["add", "--all"], "").unwrap();
        let identity = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"];
        git(repository, &[&identity[..], &["commit", "--quiet", "-m", owner]].concat(), "").unwrap();
    }

    #[test]
    fn bench_that_changed_package_is_built() {
        let directory = tempfile::tempdir().unwrap();
        let (repository, cache) = (directory.path().join("repository"), directory.path().join("cache"));
        commit_bench_of("a", &repository);
        commit_bench_of("b", &repository);
        let options = BuildOptions { repository: &repository, cache: Some(&cache), quiet: true };
        let build = |revision: &str, side: Side, bench: &str, features: &[&str]| {
            build_bench(&options, revision, side, &BenchTarget { bench, features })
        };
        let printed = |built: &BuiltExecutable| run_program(&built.path, &[], &[], None, None).unwrap().stdout;
        assert_eq!(printed(&build("HEAD~1", Side::Base, "sums", &[]).unwrap()), "a false");
        assert_eq!(printed(&build("HEAD", Side::Head, "sums", &["extra"]).unwrap()), "b true");
        let absent = build("HEAD", Side::Head, "absent", &[]).err().map(|error| error.to_string());
        assert!(absent.as_ref().is_some_and(|error| error.contains("absent")), "{absent:?}");
    }

    #[test]
    fn bench_executable_is_found_among_cargo_messages() {
        let messages = r#"{"reason":"compiler-artifact","target":{"name":"other"},"executable":"/a"}
warning: not a message
{"reason":"compiler-artifact","target":{"name":"primitives"},"executable":null}
{"reason":"compiler-artifact","target":{"name":"primitives"},"executable":"/target/primitives-1"}
{"reason":"build-finished","success":true}"#;
        assert_eq!(bench_executable(messages, "primitives"), Some(PathBuf::from("/target/primitives-1")));
        assert_eq!(bench_executable(messages, "absent"), None);
    }
}
