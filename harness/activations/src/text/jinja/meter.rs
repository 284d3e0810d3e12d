//! The bound on the work and the memory of a rendering.

use std::cell::Cell;

use super::failure::{Failure, Outcome};

/// The work limit of a rendering, in evaluated expressions, list elements, or units of [`UNIT`] bytes of text. Real
/// templates spend about 100 units a message. A rendering allocates at most 256 MiB and ends within seconds.
const FUEL: u64 = 4_000_000;

/// Bytes of text that cost as much as an expression.
const UNIT: usize = 64;

/// The maximum length of a text that a template builds, in bytes.
const MAX_TEXT: usize = 16 << 20;

/// The maximum number of nested expressions, blocks and calls while a template renders. With the stack of a rendering
/// thread, 64 MiB, each has 64 KiB.
const MAX_DEPTH: usize = 1000;

/// Counts the work of a rendering.
#[derive(Debug)]
pub(super) struct Meter {
    left: Cell<u64>,
    depth: Cell<usize>,
}

impl Meter {
    pub(super) fn new() -> Meter {
        Meter { left: Cell::new(FUEL), depth: Cell::new(0) }
    }

    /// Spends `units` of work.
    pub(super) fn spend(&self, units: usize) -> Outcome<()> {
        match self.left.get().checked_sub(units as u64) {
            Some(left) => {
                self.left.set(left);
                Ok(())
            }
            None => {
                self.left.set(0);
                Err(Failure::limit("it exceeds the work limit for one dialogue"))
            }
        }
    }

    /// Spends the work of reading or copying `bytes` of text.
    pub(super) fn read(&self, bytes: usize) -> Outcome<()> {
        self.spend(1 + bytes / UNIT)
    }

    /// Permits a new text of `bytes` bytes; called before it is allocated.
    pub(super) fn build(&self, bytes: usize) -> Outcome<()> {
        self.extend(0, bytes)
    }

    /// Permits `more` bytes after a text of `bytes` bytes.
    pub(super) fn extend(&self, bytes: usize, more: usize) -> Outcome<()> {
        if bytes.saturating_add(more) > MAX_TEXT {
            return Err(Failure::limit(format!("it builds a text of more than {} MiB", MAX_TEXT >> 20)));
        }
        self.read(more)
    }

    /// Runs `step` one level deeper.
    pub(super) fn nested<T>(&self, step: impl FnOnce() -> Outcome<T>) -> Outcome<T> {
        self.spend(1)?;
        let depth = self.depth.get();
        if depth >= MAX_DEPTH {
            return Err(Failure::limit("its calls and blocks are nested too deeply"));
        }
        self.depth.set(depth + 1);
        let result = step();
        self.depth.set(depth);
        result
    }
}
