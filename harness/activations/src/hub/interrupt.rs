//! Whether the user asked to stop while a download waits. The engine handles no signals: a program that does registers its
//! own check.

use std::sync::OnceLock;

static CHECK: OnceLock<fn() -> bool> = OnceLock::new();

/// Lets downloads end with [`Error::Interrupted`](crate::error::Error::Interrupted) once `requested` is true. Only the first
/// call of a process has an effect.
pub fn stop_when(requested: fn() -> bool) {
    let _ = CHECK.set(requested);
}

/// Whether the user asked to stop.
pub(super) fn requested() -> bool {
    CHECK.get().is_some_and(|requested| requested())
}
