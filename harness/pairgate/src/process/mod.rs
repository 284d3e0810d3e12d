//! Child processes: whole process groups, their output, their resource usage, and interrupts.

pub mod child_group;
pub mod exit_status;
pub mod interrupt;
pub mod program;
pub mod streams;

pub use child_group::{ChildExit, ChildGroup, ResourceUsage};
pub use program::{ProcessOutput, run_program};
