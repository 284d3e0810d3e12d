//! The interface of a model: all that plans, the eager baseline and measurements know of one.

use actbench_kernels::{DType, DeviceUsage};

use super::batch::{LayerOutput, ModelStep, TokenBatch};
use super::session::{ModelSession, run_steps};
use crate::error::{Error, Result};

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

    /// Begins to run batches through the blocks up to the deepest of `layers` (increasing, distinct, at least one): the output of
    /// each block in `layers` is emitted.
    ///
    /// # Errors
    /// Layers that the model does not have or has not loaded, or no memory for the buffers.
    fn session(&self, layers: &[usize]) -> Result<Box<dyn ModelSession + '_>>;

    /// Streams of batches that can be in flight at a time, one a replica. All batches that share prefixes
    /// belong to one stream.
    fn streams(&self) -> usize;

    /// Releases the spare buffers of earlier sessions and measures how many tokens of one batch the free memory of the devices can
    /// take; none where a device does not report its memory.
    ///
    /// # Errors
    /// A failure of a device.
    fn release_and_measure_capacity(&self) -> Result<Option<usize>>;

    /// How many tokens of one batch keep the devices busy; none in host memory, where
    /// batches have the size that the caller asked for.
    ///
    /// # Errors
    /// A failure of a device.
    fn filled_batch_tokens(&self) -> Result<Option<usize>>;

    /// Allocates the buffers of a batch of `tokens` own tokens, so that the first batch does not wait for their memory. They are
    /// spare buffers, like those of an earlier session.
    ///
    /// # Errors
    /// A failure of a device, such as too little memory.
    fn reserve(&self, tokens: usize) -> Result<()>;

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

/// Runs one batch without cached tokens, and gives `sink` each layer with its vectors.
///
/// # Errors
/// Those of the model and of `sink`.
pub fn run_batch(
    model: &dyn ActivationModel,
    batch: &TokenBatch,
    layers: &[usize],
    output: LayerOutput<'_>,
    sink: &mut dyn FnMut(usize, &[u8]) -> Result<()>,
) -> Result<()> {
    let mut step = Some(ModelStep { id: 0, batch: batch.clone(), output: output.to_owned() });
    let mut next = |stream: usize| step.take_if(|_| stream == 0);
    run_steps(model.session(layers)?.as_mut(), &mut next, &mut |mut vectors| sink(vectors.layer, vectors.bytes.wait()?))
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
