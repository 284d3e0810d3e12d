//! The rates and sizes of this machine that predictions are based on, measured in a few seconds or taken from results.

use serde::{Deserialize, Serialize};

use super::published_gpu::PublishedGpu;

/// Rates per second and sizes in bytes, for one model, data type and number of threads.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// The GPU that runs the model, by its published rates; none for the CPU of this machine.
    pub gpu: Option<String>,
    /// Resident bytes of a process that runs no model.
    pub base_rss: u64,
    /// Heap bytes of such a process.
    pub base_heap: u64,
    /// Bytes per element of packed weights.
    pub weight_element: u64,
    /// Floating-point operations per second with packed batches.
    pub lazy_flops: f64,
    /// The same with padded batches of which all tokens are returned.
    pub eager_flops: f64,
    /// Bytes per second written to untouched memory.
    pub full_bytes: f64,
    /// Bytes per second that pooling on the host reads.
    pub pool_bytes: f64,
    /// Bytes per second written to a cache file, including its checksum.
    pub disk_bytes: f64,
    /// Fixed seconds per cache file.
    pub file_s: f64,
    /// Units of [`probe_work`](super::probe_work::probe_work) per second.
    pub probe_work: f64,
    /// Seconds from the start of a process until it loads weights.
    pub start_s: f64,
    /// Seconds of loading one block.
    pub block_s: f64,
    /// Bytes of the weights of one block in bf16.
    pub block_bytes: f64,
}

impl Calibration {
    /// The calibration of a process that runs its model on `gpu`: its fixed size and the load of weights are the GPU's. Rates of
    /// batches are stored ones ([`PublishedGpu::rates`]); probes, host memory and files stay this machine's.
    pub fn with_model_on(self, gpu: &PublishedGpu) -> Self {
        Calibration {
            gpu: Some(gpu.device.to_owned()),
            base_rss: gpu.base_rss,
            block_s: self.block_bytes / gpu.weight_bytes,
            ..self
        }
    }
}
