//! A plan told to people before it runs: as written, in normal form, optimised, and what it will cost.

use std::fmt::Write as _;

use indicatif::BinaryBytes;

use super::lazy_plan::Acts;
use crate::error::Result;

impl Acts {
    /// The plan as written, its normal form, its optimised form, the bytes of its source and of its result; and, where
    /// a model runs, what runs on which rows through which blocks, with and without each rule
    /// (see [`RuleCosts`](super::cost::RuleCosts)).
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

    /// The part of [`Acts::explain`] that costs nothing to find out.
    ///
    /// # Errors
    /// As for [`Acts::logical`].
    pub fn explain_forms(&self) -> Result<String> {
        let mut text = String::new();
        let indented = |text: &str| text.replace('\n', "\n  ");
        let _ = writeln!(text, "plan: {self}");
        let _ = writeln!(text, "normal form:\n  {}", indented(&self.logical()?.to_string()));
        let _ = writeln!(text, "optimised:\n  {}", indented(&self.optimised()?.to_string()));
        let (source, result) = (self.source().signature().n_bytes(), self.signature().n_bytes());
        let _ = write!(text, "bytes: {} in full, {} as result", BinaryBytes(source as u64), BinaryBytes(result as u64));
        Ok(text)
    }
}
