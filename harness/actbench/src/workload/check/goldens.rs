//! Hidden states of small models on the device, against transformers in float64.

use std::path::Path;
use std::sync::Arc;

use actbench_fixtures::golden::{Golden, cases_in, compare};
use actbench_kernels::cuda::{CudaBackend, DeviceClock, KernelSet};
use actbench_kernels::{Backend, CpuBackend, DType, KernelError};

use super::{CheckResult, CheckScope, CheckTarget};
use crate::devices::choose::Placement;
use crate::devices::open::OpenGpus;
use crate::error::{Error, Result};
use actbench_activations::model::decoder::{Decoder, LoadOptions};
use actbench_activations::model::spec::DecoderSpec;
use actbench_activations::model::weights::Weights;
use actbench_activations::model::{LayerOutput, TokenBatch, run_batch};

/// Above the longest sequence of a golden.
const MAX_POSITIONS: usize = 256;

/// Allowed relative error, in the norm of a layer and of an element.
pub(super) fn tolerance(dtype: DType) -> f64 {
    if dtype == DType::F32 { 1e-4 } else { 2e-2 }
}

/// Checks all layers of every golden in every storage type of `scope`.
pub(super) fn check(
    target: &CheckTarget,
    directory: &Path,
    scope: CheckScope,
    record: &mut dyn FnMut(CheckResult),
) -> Result<()> {
    let (gpus, ordinals) = match &target.choice.placement {
        Placement::Cpu => {
            let threads = target.config.n_threads();
            return check_on(&|| Ok(vec![CpuBackend::new(threads)?]), directory, scope, record);
        }
        Placement::Gpus(gpus, ordinals, _) => (gpus, ordinals),
    };
    match gpus.open(ordinals)? {
        OpenGpus::Driver(backends) => on_devices(backends, directory, scope, record),
        #[cfg(feature = "emulator")]
        OpenGpus::Emulator(backends) => on_devices(backends, directory, scope, record),
    }
}

/// Uses the same devices for all goldens: opening one takes longer than most goldens.
fn on_devices<D: DeviceClock>(
    backends: Vec<CudaBackend<D>>,
    directory: &Path,
    scope: CheckScope,
    record: &mut dyn FnMut(CheckResult),
) -> Result<()> {
    let devices: Vec<Arc<D>> = backends.into_iter().map(|backend| Arc::new(backend.into_device())).collect();
    let backend = |device: &Arc<D>| CudaBackend::new(device.clone(), KernelSet::Fast);
    check_on(&|| Ok(devices.iter().map(backend).collect()), directory, scope, record)
}

fn check_on<B: Backend>(
    open: &dyn Fn() -> std::result::Result<Vec<B>, KernelError>,
    directory: &Path,
    scope: CheckScope,
    record: &mut dyn FnMut(CheckResult),
) -> Result<()> {
    let unreadable = |error: actbench_fixtures::golden::GoldenError| {
        Error::input(directory.display().to_string(), error.to_string())
    };
    let dtypes = if scope.all_dtypes { &[DType::F32, DType::F16, DType::Bf16][..] } else { &[DType::Bf16] };
    for name in cases_in(directory).map_err(unreadable)? {
        let golden = Golden::load_from(&directory.join(&name), &name).map_err(unreadable)?;
        for dtype in dtypes {
            let result = open().map_err(Error::from).and_then(|backends| worst_error(backends, &golden, *dtype));
            let result = result.map_err(|error| error.to_string()).and_then(|worst| worst);
            record(CheckResult::new(
                format!("golden {name} {dtype}"),
                result.map(|worst| format!("error {worst:.1e}")),
            ));
        }
    }
    Ok(())
}

/// The largest relative error of any layer of any sequence, or the violation of the tolerance.
fn worst_error<B: Backend>(
    backends: Vec<B>,
    golden: &Golden,
    dtype: DType,
) -> Result<std::result::Result<f64, String>> {
    let path = golden.directory.join("config.json");
    let text = std::fs::read_to_string(&path).map_err(Error::io("read", &path))?;
    let config = DecoderSpec::parse(&text, &golden.name)?;
    let weights = Arc::new(Weights::open(&golden.directory, &config)?);
    let options = LoadOptions { dtype, n_blocks: golden.n_layers, max_positions: MAX_POSITIONS };
    let model = Decoder::load_over(backends, config, weights, &options, &mut |_, _| ())?;
    let layers: Vec<usize> = (0..golden.n_layers).collect();
    let mut worst: std::result::Result<f64, String> = Ok(0.0);
    let mut seen = 0;
    let mut sink = |layer: usize, bytes: &[u8]| {
        seen += 1;
        let values = dtype.to_f32_vec(bytes);
        let mut rest = &values[..];
        for sequence in &golden.sequences {
            let (own, others) = rest.split_at((sequence.tokens.len() * golden.hidden_size).min(rest.len()));
            rest = others;
            let error = match golden.layer(sequence, layer) {
                Some(reference) => compare(reference, own, tolerance(dtype)),
                None => Err("the golden lacks this layer".to_owned()),
            };
            if let Ok(so_far) = worst {
                worst = error.map(|error| error.max(so_far)).map_err(|error| format!("layer {layer}: {error}"));
            }
        }
        Ok(())
    };
    let batch = TokenBatch::of_sequences(golden.sequences.iter().map(|sequence| &sequence.tokens[..]));
    run_batch(&model, &batch, &layers, LayerOutput::Tokens, &mut sink)?;
    if seen != golden.n_layers {
        return Ok(Err(format!("the model returned {seen} of {} layers", golden.n_layers)));
    }
    Ok(worst)
}
