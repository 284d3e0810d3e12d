//! A mixture of experts in the place of an MLP: a router, the MLP of each expert on the rows that chose it, and their weighted sum.
//!
//! The groups of rows are known on the host, so the matmuls of an MLP are the grouped GEMM, with as many rows as chose the expert:
//! no expert has a capacity, and no token is dropped. A row of a matmul depends on its input alone, a row's experts on its logits
//! alone, and its sum is in the order of their numbers. The bits of a token therefore do not depend on the batch.

use actbench_kernels::{Backend, KernelError, WeightedRows};

use super::{BlockPass, Done, Input};
use crate::model::decoder::weights::Experts;
use crate::model::decoder::workspace::ExpertBuffers;
use crate::model::spec::ExpertsSpec;

/// The outputs of the experts of `n_rows` rows, in the slots of [`ExpertBuffers`], to be added.
pub(super) struct ExpertOutputs {
    per_row: usize,
    /// The slots of each row.
    slots: Vec<u32>,
    /// The weight of each.
    weights: Vec<f32>,
}

impl<B: Backend> BlockPass<'_, B> {
    /// Runs the experts of each of the `n_rows` rows of `input`. Waits for the device, since the host needs the groups.
    pub(super) fn run_experts(
        &self,
        spec: &ExpertsSpec,
        experts: &Experts<B>,
        n_rows: usize,
        input: &B::Tensor,
        buffers: &mut ExpertBuffers<B>,
    ) -> Result<ExpertOutputs, KernelError> {
        let backend = self.backend;
        backend.resize(&mut buffers.logits, n_rows)?;
        self.linear(Input::of(input), &experts.router, &mut buffers.logits)?;
        let routes = backend.route(&buffers.logits, spec.rule)?;
        let groups = routes.by_expert(spec.n);
        backend.resize(&mut buffers.slots, groups.rows().len())?;
        // One table of rows for all experts. A slot holds its row's input until its expert has run, and then the output.
        backend.gather_rows(input, groups.rows(), &mut buffers.slots)?;
        // At once to the size of the largest group, so that no group allocates.
        buffers.resize(backend, groups.most_rows())?;
        for (number, mlp) in experts.mlps.iter().enumerate() {
            let own = groups.slots_of(number);
            if own.is_empty() {
                continue;
            }
            buffers.resize(backend, own.len())?;
            backend.copy_rows(&buffers.slots, own.start, own.len(), &mut buffers.input, 0)?;
            self.activate(&mlp.input, Input::of(&buffers.input), &mut buffers.gated)?;
            self.linear(Input::of(&buffers.gated), &mlp.down, &mut buffers.output)?;
            backend.copy_rows(&buffers.output, 0, own.len(), &mut buffers.slots, own.start)?;
        }
        let (slots, weights) = (groups.slots().to_vec(), routes.weights().to_vec());
        Ok(ExpertOutputs { per_row: spec.rule.top_k, slots, weights })
    }

    /// `stream += weighted sum of the outputs of each row's experts`.
    pub(super) fn add_experts(&self, outputs: &ExpertOutputs, slots: &B::Tensor, stream: &mut B::Tensor) -> Done {
        let ExpertOutputs { per_row, slots: rows, weights } = outputs;
        self.backend.add_weighted_rows(slots, WeightedRows { per_row: *per_row, rows, weights }, stream)
    }
}
