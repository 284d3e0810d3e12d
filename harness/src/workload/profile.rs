//! A case run under a profile: every operation of the model timed, beside what the machine can do at best.

use std::sync::Arc;
use std::time::{Duration, Instant};

use actbench_kernels::profiled::Entries;
use actbench_kernels::{Backend, CpuBackend, DType, HostTensor, Profile, Profiled};
use rayon::prelude::*;

use super::case::{CaseObserver, Method, RunConfig, Task};
use super::extract::Extraction;
use super::prepare::Prepared;
use super::{deepest_run, extract_features, layers_of, load_model_on, score_probes};
use crate::acts::{ProgressSink, Rules};
use crate::error::Result;
use crate::model::ActivationModel;

/// How long each of the two probes of the machine's best measures, after a warm-up.
const PROBE_TIME: Duration = Duration::from_millis(300);
/// Rows, inputs and outputs of the product that stands for the most the machine computes: large enough that tails,
/// threads and packing cost nothing, small enough to stay in the caches.
const PROBE_PRODUCT: [usize; 3] = [1024, 1024, 2048];
/// Bytes copied at once by the probe of memory: past any cache.
const PROBE_BYTES: usize = 256 << 20;

/// What the machine does at best, measured in the same run as what is compared with it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ceilings {
    /// Floating-point operations a second of a product with weights.
    pub flops: f64,
    /// Bytes a second, read and written, of a plain copy past the caches.
    pub bytes: f64,
}

impl Ceilings {
    /// Measures both with the threads and the dtype of `config`.
    ///
    /// # Errors
    /// No memory for the probes, or no threads.
    pub fn measure(config: &RunConfig) -> Result<Self> {
        let backend = CpuBackend::new(config.n_threads())?;
        // Weights that bf16 holds have products of their own, also in runs of f32.
        let rates =
            [product_rate(&backend, config.dtype, config.dtype)?, product_rate(&backend, DType::Bf16, config.dtype)?];
        Ok(Ceilings { flops: rates[0].max(rates[1]), bytes: copy_rate(&backend) })
    }
}

/// Repeats `call` for [`PROBE_TIME`] and gives the shortest duration, which other users of the machine disturb least.
fn shortest<E>(mut call: impl FnMut() -> Result<(), E>) -> Result<Duration, E> {
    call()?;
    let (begin, mut shortest) = (Instant::now(), Duration::MAX);
    while begin.elapsed() < PROBE_TIME {
        let start = Instant::now();
        call()?;
        shortest = shortest.min(start.elapsed());
    }
    Ok(shortest)
}

/// Floating-point operations a second of a product in `run` with weights that are stored as `stored`.
fn product_rate(backend: &CpuBackend, stored: DType, run: DType) -> Result<f64> {
    let [rows, inputs, outputs] = PROBE_PRODUCT;
    // Any values but zeros, which some processors multiply faster.
    let values = |len: usize| (0..len).map(|index| ((index * 37 % 101) as f32 - 50.0) / 64.0).collect::<Vec<f32>>();
    let host = |rows: usize, columns: usize| HostTensor::from_f32(stored, vec![rows, columns], &values(rows * columns));
    let weight = backend.prepare_linear(&[host(outputs, inputs)?], run)?;
    let table = backend.prepare_embedding(&host(rows, inputs)?, run)?;
    let (mut x, mut out) = (backend.alloc(run, rows, inputs)?, backend.alloc(run, rows, outputs)?);
    backend.embed(&table, &(0..rows as u32).collect::<Vec<u32>>(), &mut x)?;
    let duration = shortest(|| backend.linear(&x, &weight, None, &mut out))?;
    Ok(2.0 * (rows * inputs * outputs) as f64 / duration.as_secs_f64())
}

fn copy_rate(backend: &CpuBackend) -> f64 {
    let (from, mut to) = (vec![1u8; PROBE_BYTES], vec![0u8; PROBE_BYTES]);
    let threads = backend.thread_pool().current_num_threads();
    let piece = PROBE_BYTES.div_ceil(threads);
    let copied: Result<Duration, std::convert::Infallible> = shortest(|| {
        backend.thread_pool().install(|| {
            to.par_chunks_mut(piece).zip(from.par_chunks(piece)).for_each(|(to, from)| to.copy_from_slice(from));
        });
        Ok(())
    });
    let Ok(duration) = copied;
    2.0 * PROBE_BYTES as f64 / duration.as_secs_f64()
}

/// What a case took, by operation.
#[derive(Clone, Debug, PartialEq)]
pub struct CaseProfile {
    /// What was done.
    pub task: Task,
    /// How.
    pub method: Method,
    /// Seconds until the features were there.
    pub extract_s: f64,
    /// Seconds of training and scoring.
    pub train_eval_s: f64,
    /// The model's operations.
    pub entries: Entries,
}

/// Runs one case in this process, its model timed operation by operation. `config` has its layers filled in.
///
/// # Errors
/// As [`run_case`](super::run_case).
pub fn profile_case(
    task: Task,
    method: Method,
    config: &RunConfig,
    prepared: &Prepared,
    observer: &Arc<dyn CaseObserver>,
) -> Result<CaseProfile> {
    let profile = Profile::default();
    let backend = Profiled::new(CpuBackend::new(config.n_threads())?, profile.clone());
    let deepest = deepest_run(config, task, method, prepared)?;
    let model: Arc<dyn ActivationModel> = load_model_on(backend, prepared, config, deepest, observer)?;
    let folder = tempfile::Builder::new().prefix("actbench-profile-").tempdir();
    let folder = folder.map_err(crate::error::Error::io("create a folder in", std::env::temp_dir()))?;
    let how = Extraction {
        batch_size: config.batch_size,
        pool: config.pool,
        rules: Rules::all_but(&config.no_opt)?,
        cache_folder: config.caches_on_disk(method).then_some(folder.path()),
    };
    let sink: ProgressSink = Arc::new(|_| ());
    // What loading recorded is not asked for.
    profile.take();
    let start = Instant::now();
    let extracted = extract_features(task, method, &model, prepared, &layers_of(config, task), how, &sink)?;
    let extract_s = start.elapsed().as_secs_f64();
    let entries = profile.take();
    let start = Instant::now();
    score_probes(task, config, &extracted, prepared, &sink)?;
    Ok(CaseProfile { task, method, extract_s, train_eval_s: start.elapsed().as_secs_f64(), entries })
}
