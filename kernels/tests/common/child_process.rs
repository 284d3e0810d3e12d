//! Tests that run a part of themselves in a process of its own.
//!
//! The test starts this binary again with its own name as the filter and calls [`input`] first, which tells it that it
//! runs in the child. A binary of its own for the child would have to link the emulator once more.

use std::process::Command;

/// The environment variable that a child finds its input in.
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
