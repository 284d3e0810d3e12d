//! Loads the model of a case on the devices that the settings name.

use std::sync::Arc;
use std::time::Instant;

use actbench_kernels::{Backend, CpuBackend};

use super::prepare::Prepared;
use crate::case::{CaseObserver, CasePhases, RunConfig};
use crate::devices::choose::{Arrangement, Placement};
use crate::devices::open::OpenGpus;
use crate::error::Result;
use crate::workload::device;
use actbench_activations::model::ActivationModel;
use actbench_activations::model::decoder::Decoder;
use actbench_activations::model::host_streams::HostStreams;
use actbench_activations::model::replicas::Replicas;

/// Loads the blocks up to `deepest` on the device that the settings name.
///
/// # Errors
/// A weight that is missing, damaged or not finite, or too little memory.
pub fn load_model(
    prepared: &Prepared,
    config: &RunConfig,
    deepest: usize,
    observer: &Arc<dyn CaseObserver>,
) -> Result<Arc<dyn ActivationModel>> {
    load_model_timed(prepared, config, deepest, observer).map(|(model, _)| model)
}

/// As [`load_model`], with the phases of opening the devices and loading the weights.
pub(super) fn load_model_timed(
    prepared: &Prepared,
    config: &RunConfig,
    deepest: usize,
    observer: &Arc<dyn CaseObserver>,
) -> Result<(Arc<dyn ActivationModel>, CasePhases)> {
    load_timed_at(&device::choose(config, prepared)?.placement, prepared, config, deepest, observer)
}

/// As [`load_model`], at `placement`.
pub(super) fn load_model_at(
    placement: &Placement,
    prepared: &Prepared,
    config: &RunConfig,
    deepest: usize,
    observer: &Arc<dyn CaseObserver>,
) -> Result<Arc<dyn ActivationModel>> {
    load_timed_at(placement, prepared, config, deepest, observer).map(|(model, _)| model)
}

/// As [`load_model_timed`], at `placement`.
fn load_timed_at(
    placement: &Placement,
    prepared: &Prepared,
    config: &RunConfig,
    deepest: usize,
    observer: &Arc<dyn CaseObserver>,
) -> Result<(Arc<dyn ActivationModel>, CasePhases)> {
    let (gpus, ordinals, arrangement) = match placement {
        Placement::Cpu => {
            let start = Instant::now();
            let backend = CpuBackend::new(config.n_threads())?;
            let model = load_over(vec![backend], prepared, config, deepest, observer)?;
            let model = HostStreams::new(model, config.n_threads());
            let weights_s = Some(start.elapsed().as_secs_f64());
            return Ok((Arc::new(model), CasePhases { weights_s, ..CasePhases::default() }));
        }
        Placement::Gpus(gpus, ordinals, arrangement) => (gpus, ordinals, *arrangement),
    };
    let opened = gpus.open(ordinals)?;
    let (mut phases, start) = (gpus.phases(&opened), Instant::now());
    let model = match opened {
        OpenGpus::Driver(backends) => load_arranged(backends, arrangement, prepared, config, deepest, observer)?,
        #[cfg(feature = "emulator")]
        OpenGpus::Emulator(backends) => load_arranged(backends, arrangement, prepared, config, deepest, observer)?,
    };
    phases.weights_s = Some(start.elapsed().as_secs_f64());
    Ok((model, phases))
}

/// Loads the model on `backends`, split over them or copied to each.
pub(super) fn load_arranged<B: Backend>(
    backends: Vec<B>,
    arrangement: Arrangement,
    prepared: &Prepared,
    config: &RunConfig,
    deepest: usize,
    observer: &Arc<dyn CaseObserver>,
) -> Result<Arc<dyn ActivationModel>> {
    let load = |backends: Vec<B>| load_over(backends, prepared, config, deepest, observer);
    match arrangement {
        Arrangement::Split => Ok(Arc::new(load(backends)?)),
        Arrangement::Replicas => {
            let models = backends.into_iter().map(|backend| load(vec![backend])).collect::<Result<Vec<_>>>()?;
            Ok(Arc::new(Replicas::new(models)?))
        }
    }
}

/// Loads the model once, split over `backends`.
fn load_over<B: Backend>(
    backends: Vec<B>,
    prepared: &Prepared,
    config: &RunConfig,
    deepest: usize,
    observer: &Arc<dyn CaseObserver>,
) -> Result<Decoder<B>> {
    let max_positions = prepared.train.tokens.max_len().max(prepared.test.tokens.max_len());
    let mut progress = |done: usize, total: usize| observer.progress(done as u64, total as u64, "blocks");
    prepared.model.load_over(backends, config.dtype, deepest, max_positions, &mut progress)
}

/// As [`load_model`], on `backend`, whose operations run one at a time: all threads share each.
pub(super) fn load_model_on<B: Backend>(
    backend: B,
    prepared: &Prepared,
    config: &RunConfig,
    deepest: usize,
    observer: &Arc<dyn CaseObserver>,
) -> Result<Arc<dyn ActivationModel>> {
    load_arranged(vec![backend], Arrangement::Split, prepared, config, deepest, observer)
}
