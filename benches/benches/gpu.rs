//! The CUDA kernels and a whole forward pass by the device's own clock, and short batches by the host's.
//!
//! Each operation is measured twice. `cold`: the cache that all of the device shares is overwritten before every launch,
//! and each launch is timed alone. `rotating`: launches follow one another without a gap and each takes the next of
//! several sets of inputs, so many that together they are three times the cache. Inputs are random: zeros are multiplied
//! with less power and so at higher clocks. The clocks, and what slows them down, are told after every operation.
//!
//! Needs a GPU, and says so where there is none. `ACTBENCH_CUDA=emulator` measures the emulator instead (feature
//! `emulator`), at shapes of a moment: that shows that all of this works, and no speed.

use std::cell::OnceCell;
use std::hint::black_box;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use actbench::measure::clocks::ClockProbe;
use actbench::model::ActivationModel;
use actbench::model::config::ModelConfig;
use actbench::model::llama::{Llama, LoadOptions};
use actbench::model::weights::Weights;
use actbench_benches::device_time::{DeviceTime, leave};
use actbench_benches::forward_passes::{Graphs, pooled_step, run_or_leave, short_batches};
use actbench_benches::gpu_operations::{Sizes, operations};
use actbench_benches::is_smoke_run;
use actbench_fixtures::presets::Preset;
use actbench_kernels::cuda::cubins::CubinDirectories;
use actbench_kernels::cuda::driver::{DriverDevice, DriverOptions, probe};
use actbench_kernels::cuda::{CudaBackend, DeviceClock, KernelSet};
use actbench_kernels::{DType, KernelError};
use criterion::{BenchmarkId, Criterion, Throughput};

/// The least that is overwritten before a launch, for devices whose cache is small.
const LEAST_FILL_BYTES: usize = 64 << 20;

fn main() -> ExitCode {
    match std::env::var("ACTBENCH_CUDA").unwrap_or_default().as_str() {
        "none" => return skipped("ACTBENCH_CUDA=none hides whatever there is"),
        emulator if emulator.starts_with("emulator") => return on_emulator(),
        _ => {}
    }
    let facts = match probe() {
        Ok(devices) if !devices.is_empty() => devices,
        Ok(_) => return skipped("the CUDA driver has no device"),
        Err(absence) => return skipped(&absence.to_string()),
    };
    let options = DriverOptions { cubins: CubinDirectories::of_executable(), checked: false };
    match DriverDevice::open(0, &options) {
        Ok(device) => {
            let clocks = ClockProbe::open(facts[0].bus_id.as_deref());
            if let Err(why) = &clocks {
                println!("clocks: not known: {why}");
            }
            let device = Arc::new(device);
            let (set, told) = (|on| device.set_graphs(on), || format!("graphs so far: {:?}", device.graph_use()));
            let graphs = Graphs { set: &set, told: &told };
            measure(device.clone(), Sizes::LARGE, clocks.ok().as_ref(), Some(&graphs))
        }
        Err(error) => leave(&error),
    }
}

/// What `cargo bench` shows on a machine without a GPU. Not an error: there is nothing that could be wrong.
fn skipped(why: &str) -> ExitCode {
    println!("gpu: SKIPPED, nothing was measured: {why}");
    ExitCode::SUCCESS
}

#[cfg(feature = "emulator")]
fn on_emulator() -> ExitCode {
    use actbench_kernels::cuda::emulator::{CopyTime, Emulator, EmulatorOptions, ThreadOrder};
    println!("gpu: in the emulator; the times are those of a CPU that plays a GPU");
    let options = EmulatorOptions { order: ThreadOrder::Forward, copies: CopyTime::Early, seed: 0 };
    measure(Arc::new(Emulator::new(options)), Sizes::SMALL, None, None)
}

#[cfg(not(feature = "emulator"))]
fn on_emulator() -> ExitCode {
    eprintln!("error: this program was built without the emulator: build it with --features emulator");
    ExitCode::from(2)
}

fn measure<D: DeviceClock>(
    device: Arc<D>,
    sizes: Sizes,
    clocks: Option<&ClockProbe>,
    graphs: Option<&Graphs<'_>>,
) -> ExitCode {
    println!("gpu: {}", device.describe());
    let mut criterion = Criterion::default()
        .with_measurement(DeviceTime::new(device.clone()))
        .sample_size(10)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(500))
        .without_plots()
        .configure_from_args();
    kernels(&mut criterion, &device, sizes, clocks);
    let model = Loaded::new(&device, sizes.preset, sizes.blocks, sizes.sequence);
    forward(&mut criterion, &model, sizes, clocks);
    criterion.final_summary();

    let mut by_the_host = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(100))
        .measurement_time(Duration::from_millis(300))
        .without_plots()
        .configure_from_args();
    if let Some(preset) = sizes.short_preset {
        let small = Loaded::new(&device, preset, usize::MAX, sizes.short_rows);
        let what = (preset, small.layer(), sizes.short_rows);
        short_batches(&mut by_the_host, what, &|| small.get(), graphs);
    }
    short_batches(&mut by_the_host, (sizes.preset, model.layer(), sizes.short_rows), &|| model.get(), graphs);
    by_the_host.final_summary();
    ExitCode::SUCCESS
}

/// Told after each operation, while the device is as warm as it has become.
fn tell(clocks: Option<&ClockProbe>, what: &str) {
    match clocks.map(ClockProbe::read) {
        Some(Ok(clocks)) if !is_smoke_run() => println!("clocks after {what}: {clocks}"),
        Some(Err(why)) => println!("clocks after {what}: {why}"),
        _ => {}
    }
}

fn kernels<D: DeviceClock>(
    criterion: &mut Criterion<DeviceTime<Arc<D>>>,
    device: &Arc<D>,
    sizes: Sizes,
    clocks: Option<&ClockProbe>,
) {
    let cache = device.cache_bytes();
    let scratch = || device.alloc(if cache == 0 { 1 } else { LEAST_FILL_BYTES.max(2 * cache) });
    let mut scratch = scratch().unwrap_or_else(|error| leave(&error));
    let timer = DeviceTime::new(device.clone());
    for (set, kernels) in [("fast", KernelSet::Fast), ("plain", KernelSet::Plain)] {
        let backend = CudaBackend::new(device.clone(), kernels);
        for mut operation in operations::<CudaBackend<Arc<D>>>(sizes, set == "plain") {
            let name = operation.name.clone();
            let mut group = criterion.benchmark_group(set);
            // Smoke runs take one set: what is seen is that it runs.
            let wanted = (3 * cache).div_ceil(operation.bytes as usize).clamp(2, 64);
            let wanted = if is_smoke_run() { 1 } else { wanted };
            // Criterion shows one throughput: that of what limits the operation.
            group.throughput(match operation.flops {
                Some(flops) => Throughput::Elements(flops),
                None => Throughput::BytesDecimal(operation.bytes),
            });
            // Made when a benchmark that was asked for needs them.
            let mut sets = None;
            for kind in ["cold", "rotating"] {
                group.bench_function(BenchmarkId::new(kind, &name), |bencher| {
                    let sets = sets
                        .get_or_insert_with(|| operation.sets(&backend, wanted).unwrap_or_else(|error| leave(&error)));
                    let (n_sets, mut turn) = (sets.len(), 0);
                    let mut launch = || -> Result<(), KernelError> {
                        turn = (turn + 1) % n_sets;
                        (sets[turn])(&backend)
                    };
                    if kind == "cold" {
                        bencher.iter_custom(|iterations| {
                            timer
                                .each(iterations, || device.overwrite(&mut scratch), &mut launch)
                                .unwrap_or_else(|error| leave(&error))
                        });
                    } else {
                        bencher.iter(|| black_box(launch()).unwrap_or_else(|error| leave(&error)));
                    }
                });
            }
            group.finish();
            if sets.is_some() {
                tell(clocks, &name);
            }
        }
    }
}

/// A model with made-up weights, loaded when it is first needed.
struct Loaded<D: DeviceClock> {
    device: Arc<D>,
    preset: &'static str,
    /// Blocks that are run, at most.
    blocks: usize,
    sequence: usize,
    model: OnceCell<Llama<CudaBackend<Arc<D>>>>,
}

impl<D: DeviceClock> Loaded<D> {
    fn new(device: &Arc<D>, preset: &'static str, blocks: usize, sequence: usize) -> Self {
        Loaded { device: device.clone(), preset, blocks, sequence, model: OnceCell::new() }
    }

    /// The deepest layer that is run.
    fn layer(&self) -> usize {
        let layers = Preset::find(self.preset).map_or(1, |preset| preset.shape.n_layers);
        layers.min(self.blocks).saturating_sub(1)
    }

    fn get(&self) -> &dyn ActivationModel {
        self.model.get_or_init(|| {
            self.load().unwrap_or_else(|error| {
                eprintln!("error: {error}");
                std::process::exit(1)
            })
        })
    }

    fn load(&self) -> actbench::Result<Llama<CudaBackend<Arc<D>>>> {
        let Some(preset) = Preset::find(self.preset) else {
            return Err(actbench::Error::usage(format!("there is no preset {}", self.preset)));
        };
        let config = ModelConfig::parse(&preset.config_json(), self.preset)?;
        let options = LoadOptions { dtype: DType::Bf16, n_blocks: self.layer() + 1, max_positions: self.sequence };
        let backend = CudaBackend::new(self.device.clone(), KernelSet::Fast);
        Llama::load(backend, config, Arc::new(Weights::synthetic(preset, 1)), &options, &mut |_, _| ())
    }
}

/// Whole forward passes, the deepest layer pooled and brought to the host.
fn forward<D: DeviceClock>(
    criterion: &mut Criterion<DeviceTime<Arc<D>>>,
    model: &Loaded<D>,
    sizes: Sizes,
    clocks: Option<&ClockProbe>,
) {
    let mut group = criterion.benchmark_group("forward");
    for rows in sizes.forward_rows {
        let sequences = rows.div_ceil(sizes.sequence);
        let len = rows / sequences;
        let layer = model.layer();
        let name = format!("{} through layer {layer}, {sequences} sequences of {len}", sizes.preset);
        group.throughput(Throughput::Elements((sequences * len) as u64));
        let mut has_run = false;
        group.bench_function(BenchmarkId::new("tokens", &name), |bencher| {
            let model = model.get();
            let steps = [pooled_step(sequences, len, model.vocab_size())];
            has_run = true;
            bencher.iter(|| run_or_leave(model, layer, &steps, 1));
        });
        if has_run {
            tell(clocks, &name);
        }
    }
    group.finish();
}
