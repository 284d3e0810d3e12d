//! How many bytes a run needs on a device, and the device that `--device-map` then resolves to.

use super::footprint::Sizes;
use super::layers::{deepest_run, layers_of};
use super::prepare::Prepared;
use super::sizes::sizes;
use crate::case::{DeviceMap, RunConfig};
use crate::devices::choose::{self, DeviceChoice};
use crate::error::Result;
use actbench_activations::model::memory_model::weight_bytes;

/// Decides where the model of `config`, whose layers are filled in, goes.
///
/// # Errors
/// A device that does not exist, or a variable with an unknown value.
pub fn choose(config: &RunConfig, prepared: &Prepared) -> Result<DeviceChoice> {
    // On the CPU nothing has to fit, and the plans that sizes come from are not built.
    let needed = if config.device_map == DeviceMap::Cpu { 0 } else { needed_bytes(config, prepared)? };
    choose::choose(config.device_map, needed)
}

/// Approximate bytes of the weights that the deepest case of a run loads, and of its batches.
fn needed_bytes(config: &RunConfig, prepared: &Prepared) -> Result<u64> {
    let mut largest = 0;
    for task in &config.tasks {
        let batch = Sizes::batch(&sizes(config, prepared, layers_of(config, *task).len()));
        for method in &config.methods {
            let n_blocks = deepest_run(config, *task, *method, prepared)? + 1;
            largest = largest.max(weight_bytes(&prepared.model.spec, n_blocks, config.dtype).saturating_add(batch));
        }
    }
    Ok(largest)
}
