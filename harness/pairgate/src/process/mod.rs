//! Child processes: whole process groups, their output, their resource usage, and interrupts.

pub mod child_group;
pub mod exit_status;
mod guard;
pub mod interrupt;
pub mod program;
pub mod streams;
pub mod threads;

pub use child_group::{ChildExit, ChildGroup, ResourceUsage};
pub use program::{ProcessOutput, run_program};
