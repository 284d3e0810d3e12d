//! The interface of a model: all that plans, the eager baseline and measurements know of one.

use actbench_kernels::{DType, DeviceUsage};

use super::batch::{LayerOutput, ModelStep, TokenBatch};
use crate::error::{Error, Result};

/// Gives the next step of a stream, or none when the stream is exhausted; see [`ActivationModel::run_all`].
pub type StepSource<'a> = dyn FnMut(usize) -> Option<ModelStep> + 'a;

/// Receives `(id, layer, bytes)`, bytes as in [`LayerSink`]: the layers of a step in increasing order, and the steps of a
/// stream in the order in which the source gave them.
pub type StepSink<'a> = dyn FnMut(u64, usize, &[u8]) -> Result<()> + 'a;

/// Receives `(layer, bytes)` for each layer asked for, in increasing order.
///
/// The bytes are vectors one after the other, native-endian: `hidden_size` elements of the model's dtype each. There are
/// as many as the batch has own and cached tokens ([`LayerOutput::Tokens`]) or groups ([`LayerOutput::Pooled`]).
pub type LayerSink<'a> = dyn FnMut(usize, &[u8]) -> Result<()> + 'a;

/// A loaded model on any device.
///
/// No method has a default: replicas and tracers forward every call, and one that they forget has to break the build.
pub trait ActivationModel: Send + Sync {
    /// Decoder blocks in the model.
    fn n_layers(&self) -> usize;

    /// Width of the residual stream.
    fn hidden_size(&self) -> usize;

    /// Token ids must be below this.
    fn vocab_size(&self) -> usize;

    /// Storage type of activations.
    fn dtype(&self) -> DType;

    /// Digest of everything besides the tokens that decides activations: architecture, weights, dtype, arithmetic.
    fn fingerprint(&self) -> &str;

    /// The model and its device, for people.
    fn describe(&self) -> String;

    /// Floating-point operations of `batch` through blocks `0..n_blocks`: the GEMMs with weights and those of attention,
    /// two operations a multiply-add.
    fn flops(&self, batch: &TokenBatch, n_blocks: usize) -> u64;

    /// Runs `batch` through the blocks up to the deepest of `layers` (increasing, distinct) and emits the output of each
    /// block in `layers`.
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

    /// Streams of batches that can be in flight at a time, one a replica. All batches of a session that shares prefixes
    /// belong to one stream.
    fn streams(&self) -> usize;

    /// Releases the buffers of earlier batches, cached prefixes included, and measures how many tokens of one batch the
    /// free memory of the devices can take; none where a device does not report its memory.
    ///
    /// Sessions begun before must not be continued.
    ///
    /// # Errors
    /// A failure of a device.
    fn release_and_measure_capacity(&self) -> Result<Option<usize>>;

    /// Runs the steps that `next` gives for each of the streams, with the results of [`ActivationModel::run`] on each, but
    /// with copies and several batches in flight at a time. A model without such overlap calls [`run_in_turn`].
    ///
    /// # Errors
    /// As for [`ActivationModel::run`]. A step whose deepest layer was not emitted is not done.
    fn run_all(&self, layers: &[usize], next: &mut StepSource<'_>, sink: &mut StepSink<'_>) -> Result<()>;

    /// Memory and time of the devices since [`ActivationModel::reset_device_usage`]; none where the model is in host
    /// memory.
    ///
    /// # Errors
    /// A failure of a device.
    fn device_usage(&self) -> Result<Option<DeviceUsage>>;

    /// Resets the counters of [`ActivationModel::device_usage`] and releases unused memory of devices.
    ///
    /// # Errors
    /// A failure of a device.
    fn reset_device_usage(&self) -> Result<()>;
}

/// [`ActivationModel::run_all`] without overlap: each step is run when the one before is done.
///
/// # Errors
/// As for [`ActivationModel::run`].
pub fn run_in_turn(
    model: &dyn ActivationModel,
    layers: &[usize],
    next: &mut StepSource<'_>,
    sink: &mut StepSink<'_>,
) -> Result<()> {
    for stream in 0..model.streams() {
        while let Some(step) = next(stream) {
            model.run(&step.batch, layers, step.output.as_layer_output(), &mut |layer, bytes| {
                sink(step.id, layer, bytes)
            })?;
        }
    }
    Ok(())
}

/// Refuses a layer that a model of `n_layers` layers does not have.
///
/// # Errors
/// The layer is too deep.
pub fn check_layer(layer: usize, n_layers: usize) -> Result<()> {
    if layer < n_layers {
        return Ok(());
    }
    let last = n_layers.saturating_sub(1);
    Err(Error::usage(format!("layer {layer} is too deep: the model has {n_layers} layers, 0 to {last}")))
}
