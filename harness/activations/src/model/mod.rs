//! Models: where they are, what shape they have, their weights, and their forward pass.
//!
//! `locate` finds a model's folder or preset, `config` and `weights` read and check it, `llama` composes backend
//! operations into a forward pass on one device or over several, `replicas` runs one on each of several, `outline` stands for a model whose weights nobody needs. Callers outside see [`ActivationModel`] alone and know no device.

use actbench_kernels::{AttentionLayout, DType, DeviceUse, PoolGroups, PoolMethod};

use crate::error::Result;

pub mod config;
mod flops;
pub mod llama;
mod loader;
pub mod locate;
pub mod open;
pub mod outline;
pub mod replicas;
pub mod weights;

/// Rows of tokens for one forward pass, and the rows it shares with the pass before.
///
/// The rows a layer's output is addressed by are this batch's own, `0..ids.len()`, and then `n_carried` rows kept
/// from the batch before: the path of a prefix tree that both batches stand on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenBatch {
    /// Token id of each own row.
    pub ids: Vec<u32>,
    /// Position of each own row in its sequence.
    pub positions: Vec<u32>,
    /// What each own row attends to, carried rows included.
    pub layout: AttentionLayout,
    /// Which walk over samples this batch belongs to: carried rows come from the batch before of the same walk.
    pub walk: u64,
    /// Rows that the batch before was asked to keep; they follow this batch's own.
    pub n_carried: usize,
    /// Rows, own or carried, to keep for the next batch.
    pub keep: Vec<u32>,
    /// Where only some rows of the deepest layer are wanted: those, and nothing of the others is computed there.
    pub deepest: Option<DeepestRows>,
}

/// The rows wanted of the deepest layer. They are numbered anew there: own wanted rows, then carried wanted rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeepestRows {
    /// Own rows wanted, increasing.
    pub rows: Vec<u32>,
    /// What they attend to; query rows are in the new numbering, keys in the batch's.
    pub layout: AttentionLayout,
    /// How many of the carried rows are wanted ones: they follow the own ones.
    pub n_carried: usize,
    /// Wanted rows, in the new numbering, to keep for the next batch.
    pub keep: Vec<u32>,
}

/// What leaves the device for each layer asked for.
#[derive(Clone, Copy, Debug)]
pub enum LayerOutput<'a> {
    /// Every row of the batch, `[rows, hidden]`.
    Rows,
    /// Pooled rows, `[groups, hidden]`.
    Pooled {
        /// Which rows make which output row.
        groups: &'a PoolGroups,
        /// The same in the numbering of [`DeepestRows`], for the deepest layer of a batch that has them.
        deepest_groups: Option<&'a PoolGroups>,
        /// How they are pooled.
        method: PoolMethod,
    },
}

/// A batch to run, and what leaves the device for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Tells steps apart where their outputs come back.
    pub id: u64,
    /// What is run.
    pub batch: TokenBatch,
    /// What leaves the device for each layer.
    pub output: StepOutput,
}

/// [`LayerOutput`], owned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StepOutput {
    /// See [`LayerOutput::Rows`].
    Rows,
    /// See [`LayerOutput::Pooled`].
    Pooled {
        /// See there.
        groups: PoolGroups,
        /// See there.
        deepest_groups: Option<PoolGroups>,
        /// See there.
        method: PoolMethod,
    },
}

impl StepOutput {
    /// The same, borrowed.
    pub fn as_layer_output(&self) -> LayerOutput<'_> {
        match self {
            StepOutput::Rows => LayerOutput::Rows,
            StepOutput::Pooled { groups, deepest_groups, method } => {
                LayerOutput::Pooled { groups, deepest_groups: deepest_groups.as_ref(), method: *method }
            }
        }
    }
}

/// Gives the next step of a lane, or none when the lane has no more; see [`ActivationModel::run_all`].
pub type StepSource<'a> = dyn FnMut(usize) -> Option<Step> + 'a;

/// Receives `(id, layer, bytes)` as [`LayerSink`] does: the layers of a step in increasing order, and the steps of a lane
/// in the order given.
pub type StepSink<'a> = dyn FnMut(u64, usize, &[u8]) -> Result<()> + 'a;

/// Receives `(layer, bytes)` for each layer asked for, in increasing order: native-endian rows in the model's dtype.
pub type LayerSink<'a> = dyn FnMut(usize, &[u8]) -> Result<()> + 'a;

/// What a plan needs of a loaded model, whatever device runs it.
pub trait ActivationModel: Send + Sync {
    /// Decoder blocks in the model.
    fn n_layers(&self) -> usize;

    /// Width of the residual stream.
    fn hidden_size(&self) -> usize;

    /// Token ids must be below this.
    fn vocab_size(&self) -> usize;

    /// Storage type of activations.
    fn dtype(&self) -> DType;

    /// Digest of everything that decides the activations but the tokens: architecture, weights, dtype, arithmetic.
    fn fingerprint(&self) -> &str;

    /// What the model and its device are, for people.
    fn describe(&self) -> String;

    /// Floating-point operations of `batch` through blocks `0..n_blocks`: the products with weights and those of
    /// attention, each multiply-add counted as two.
    fn flops(&self, batch: &TokenBatch, n_blocks: usize) -> u64;

    /// Runs `batch` through the blocks up to the deepest of `layers` and no further, and hands out the output of each
    /// block in `layers` (increasing, distinct).
    ///
    /// # Errors
    /// A token or a layer out of range, or a failure of the device or of `sink`.
    fn run(
        &self,
        batch: &TokenBatch,
        layers: &[usize],
        output: LayerOutput<'_>,
        sink: &mut LayerSink<'_>,
    ) -> Result<()>;

    /// Walks over samples that can be under way side by side. Batches of a walk that carry rows belong to one lane.
    fn lanes(&self) -> usize {
        1
    }

    /// Rows of one batch that the free memory of the devices has room for; none where nobody counts it. Nothing of a walk
    /// that was begun may be asked for afterwards.
    ///
    /// # Errors
    /// A failure of a device.
    fn rows_that_fit(&self) -> Result<Option<usize>> {
        Ok(None)
    }

    /// Runs the steps that `next` gives for each of the lanes, as [`ActivationModel::run`] would one by one, with copies
    /// and several batches under way at a time.
    ///
    /// # Errors
    /// As for [`ActivationModel::run`]. Steps that were given and whose deepest layer did not come are not done.
    fn run_all(&self, layers: &[usize], next: &mut StepSource<'_>, sink: &mut StepSink<'_>) -> Result<()> {
        for lane in 0..self.lanes() {
            while let Some(step) = next(lane) {
                self.run(&step.batch, layers, step.output.as_layer_output(), &mut |layer, rows| {
                    sink(step.id, layer, rows)
                })?;
            }
        }
        Ok(())
    }

    /// What the devices have used since [`ActivationModel::reset_device_use`]; none where the model is in the host's
    /// memory.
    ///
    /// # Errors
    /// A failure of a device.
    fn device_use(&self) -> Result<Option<DeviceUse>> {
        Ok(None)
    }

    /// Starts what [`ActivationModel::device_use`] counts anew, and gives memory of devices back that nothing is in.
    ///
    /// # Errors
    /// A failure of a device.
    fn reset_device_use(&self) -> Result<()> {
        Ok(())
    }
}
