//! The sizes of a case, from which its memory is predicted.

use super::footprint::Sizes;
use super::prepare::Prepared;
use crate::case::RunConfig;
use actbench_activations::model::memory_model::WorkspaceColumns;

/// The sizes that determine the memory of a case with `n_layers` layers.
pub fn sizes(config: &RunConfig, prepared: &Prepared, n_layers: usize) -> Sizes {
    let model = &prepared.model.spec;
    Sizes {
        sides: [&prepared.train, &prepared.test].map(|side| (side.tokens.len(), side.tokens.max_len())),
        layers: n_layers,
        hidden: model.hidden_size,
        intermediate: WorkspaceColumns::of(model).feed_forward(),
        element: config.dtype.size(),
        batch_size: config.batch_size,
        batches: 1,
    }
}
