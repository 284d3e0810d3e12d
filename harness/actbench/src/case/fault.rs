//! Failures that a worker can be asked to inject, so that the runner's handling of each can be tested on real processes.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// A failure that a worker injects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// Never exits.
    Sleep,
    /// Sends itself SIGKILL, as the kernel does when memory runs out.
    Kill,
    /// Requests an impossible allocation.
    Allocate,
    /// Exits without a message, after a line on its standard error.
    Exit,
    /// Aborts without a message, after a line on its standard error.
    Abort,
    /// Panics.
    Panic,
    /// Writes invalid protocol output and exits.
    Garbage,
    /// Writes a line without end.
    Flood,
    /// Completes the case and does not exit.
    Linger,
    /// Reports bad input.
    Input,
    /// Reports an error of the case itself.
    Error,
    /// Reports another feature digest than the other methods.
    Disagree,
}
