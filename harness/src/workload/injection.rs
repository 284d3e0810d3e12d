//! Extra work and memory in a case, on purpose: what the regression gate is tried on.

use std::hint::black_box;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::case::{Method, Task};
use super::extract::{Extraction, plan};
use super::prepare::{LabelledTokens, Prepared};
use crate::eager;
use crate::error::{Error, Result};
use crate::model::ActivationModel;
use crate::tokens::TokenSet;

/// What a case does beyond its work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Injection {
    /// The share of the samples that are extracted once more, and thrown away.
    pub work: f64,
    /// Bytes that are held from the beginning to the end of what is measured.
    pub memory_bytes: u64,
}

impl Injection {
    /// The memory, every page of it touched.
    ///
    /// # Errors
    /// There is not that much.
    pub fn ballast(&self) -> Result<Vec<u8>> {
        let mut ballast = Vec::new();
        let refused = |_| Error::OutOfMemory { what: "the injected memory".to_owned(), bytes: self.memory_bytes };
        let bytes = usize::try_from(self.memory_bytes).unwrap_or(usize::MAX);
        ballast.try_reserve_exact(bytes).map_err(refused)?;
        ballast.resize(bytes, 1);
        Ok(black_box(ballast))
    }

    /// Extracts the first samples of both sides once more, the way that the case did.
    ///
    /// # Errors
    /// As the case's own extraction.
    pub fn repeat(
        &self,
        (task, method): (Task, Method),
        model: &Arc<dyn ActivationModel>,
        prepared: &Prepared,
        layers: &[usize],
        how: Extraction<'_>,
    ) -> Result<()> {
        for side in [&prepared.train, &prepared.test] {
            let n = (self.work * side.tokens.len() as f64).round() as usize;
            if n == 0 {
                continue;
            }
            let sequences = side.tokens.sequences.iter().cycle().take(n).cloned().collect();
            let tokens = Arc::new(TokenSet { sequences });
            match (method, task) {
                (Method::Eager, Task::Train) => {
                    black_box(eager::extract_layer_pooled(
                        &**model,
                        &tokens,
                        layers[0],
                        how.batch_size,
                        how.pool,
                        None,
                    )?);
                }
                (Method::Eager, Task::Sweep) => {
                    black_box(eager::extract_full(&**model, &tokens, layers, how.batch_size, None)?);
                }
                (Method::Lazy | Method::LazyDisk, _) => {
                    let part = LabelledTokens { labels: side.labels.iter().copied().cycle().take(n).collect(), tokens };
                    black_box(plan(model, &part, layers, Extraction { cache_folder: None, ..how })?.cache(None)?);
                }
            }
        }
        Ok(())
    }
}
