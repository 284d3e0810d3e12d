//! Tests that run a part of themselves in a process of its own.
//!
//! The test starts its own binary with its own name as the filter, and calls [`input`] first to find out whether it
//! runs in the child. A binary target for the child could not use the dev-dependencies, and users would build it.

use std::process::Command;

/// The environment variable with the input of a child.
const INPUT: &str = "ACTBENCH_TEST_CHILD_INPUT";

/// The input of this process if it is a child.
pub fn input() -> Option<String> {
    std::env::var(INPUT).ok()
}

/// A command that runs the test `test` of this binary as a child with `input`.
pub fn command(test: &str, input: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture"]).env(INPUT, input);
    command
}
