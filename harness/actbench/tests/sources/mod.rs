//! The workspace's source files as data: which there are, their tokens, their string literals, and which file uses which.
//!
//! A lexer and not a parser: the checks need identifiers, paths and literals, and a full parser would be a dependency
//! that takes longer to build than all of these tests.

#![allow(dead_code)] // Each test binary uses a part of this.
#![allow(clippy::unwrap_used, clippy::panic)] // Test helpers may panic like tests.

pub mod graph;
pub mod lexer;

use std::fs;
use std::path::{Path, PathBuf};

/// The directories that hold the workspace's crates.
const CRATE_DIRECTORIES: [&str; 5] = ["fixtures", "kernels", "kernels-check", "harness", "benches"];

/// A source file.
pub struct SourceFile {
    /// Its path from the root of the workspace, with `/`.
    pub name: String,
    /// Its text.
    pub text: String,
}

/// The root of the workspace.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Every file below `directory` with one of the `extensions`, build outputs and hidden directories excepted.
pub fn files_below(directory: &Path, extensions: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut directories = vec![directory.to_path_buf()];
    while let Some(directory) = directories.pop() {
        // A crate that the workspace does not have, such as one that was moved, has no files.
        for entry in fs::read_dir(&directory).into_iter().flatten() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() {
                if !name.starts_with("target") && !name.starts_with('.') {
                    directories.push(path);
                }
            } else if path.extension().is_some_and(|extension| extensions.iter().any(|known| extension == *known)) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// Every Rust file of every crate.
pub fn rust_files() -> Vec<SourceFile> {
    let root = root();
    let files: Vec<SourceFile> = CRATE_DIRECTORIES
        .iter()
        .flat_map(|directory| files_below(&root.join(directory), &["rs"]))
        .map(|path| SourceFile {
            name: path.strip_prefix(&root).unwrap().to_string_lossy().replace('\\', "/"),
            text: fs::read_to_string(path).unwrap(),
        })
        .collect();
    assert!(files.len() > 400, "only {} source files were found", files.len());
    files
}

/// Fails with `rule` and every offender.
#[track_caller]
pub fn assert_none(offenders: &[String], rule: &str) {
    assert!(offenders.is_empty(), "{rule}:\n  {}", offenders.join("\n  "));
}
