//! A plan as text, before it runs: as written, in normal form, optimized, and its cost.

use std::fmt::Write as _;

use super::lazy_plan::Acts;
use crate::error::Result;
use crate::units::Bytes;

impl Acts {
    /// The plan as written, its normal form, its optimized form, the bytes of its source and of its result; and, if a
    /// model runs, its cost with and without each rule (see [`RuleCosts`](super::cost::RuleCosts)).
    ///
    /// # Errors
    /// As for [`Acts::logical`].
    pub fn explain(&self) -> Result<String> {
        let mut text = self.explain_forms()?;
        if let Some(costs) = self.rule_costs()? {
            // Writing to a string cannot fail.
            let _ = write!(text, "\n{costs}");
        }
        Ok(text)
    }

    /// The part of [`Acts::explain`] that needs no count of batches.
    ///
    /// # Errors
    /// As for [`Acts::logical`].
    pub fn explain_forms(&self) -> Result<String> {
        let mut text = String::new();
        let indented = |text: &str| text.replace('\n', "\n  ");
        let _ = writeln!(text, "plan: {self}");
        let _ = writeln!(text, "normal form:\n  {}", indented(&self.logical()?.to_string()));
        let _ = writeln!(text, "optimized:\n  {}", indented(&self.optimized()?.to_string()));
        let (source, result) = (self.source().signature().n_bytes(), self.signature().n_bytes());
        let _ = write!(text, "bytes: source {}, result {}", Bytes(source as u64), Bytes(result as u64));
        Ok(text)
    }
}
