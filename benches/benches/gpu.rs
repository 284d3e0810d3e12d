//! The CUDA kernels and whole forward passes by the device's clock; copies and short batches by the host's clock.
//!
//! Each operation is measured twice. `cold`: the L2 cache is overwritten before every launch, and each launch is
//! timed separately. `rotating`: launches follow without a gap, each with the next of several input sets whose total
//! size is three times the L2 cache. Inputs are random, because multiplying zeros draws less power and allows higher
//! clocks. The clocks, and the reasons for throttling, are printed after every operation.
//!
//! Without a GPU the benchmark prints that it is skipped. `ACTBENCH_CUDA=emulator` (feature `emulator`) runs the
//! emulator on tiny shapes instead: that tests the benchmark, and its times mean nothing.

use std::cell::OnceCell;
use std::hint::black_box;
use std::process::ExitCode;
use std::sync::Arc;

use actbench::measure::clocks::ClockProbe;
use actbench_activations::model::ActivationModel;
use actbench_activations::model::decoder::{Decoder, LoadOptions};
use actbench_activations::model::spec::DecoderSpec;
use actbench_activations::model::weights::Weights;
use actbench_benches::criterion::configured;
use actbench_benches::device_copies::copies;
use actbench_benches::device_time::{DeviceTime, exit_with};
use actbench_benches::forward_passes::{GraphControl, pooled_step, run_or_exit, short_batches};
use actbench_benches::gpu_operations::{GpuShapes, operations};
use actbench_benches::is_smoke_run;
use actbench_fixtures::presets::Preset;
use actbench_kernels::cuda::cubins::CubinDirectories;
use actbench_kernels::cuda::driver::{DriverDevice, DriverOptions, probe};
use actbench_kernels::cuda::{CudaBackend, DeviceClock, KernelSet};
use actbench_kernels::{DType, KernelError};
use criterion::{BenchmarkId, Criterion, Throughput};

/// The minimum number of bytes overwritten before a launch, for devices with a small cache.
const MIN_FILL_BYTES: usize = 64 << 20;

fn main() -> ExitCode {
    match std::env::var("ACTBENCH_CUDA").unwrap_or_default().as_str() {
        "none" => return skipped("ACTBENCH_CUDA=none hides all GPUs"),
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
                println!("clocks: unknown: {why}");
            }
            let device = Arc::new(device);
            let (enable, describe) =
                (|on| device.set_graphs(on), || format!("graphs so far: {:?}", device.graph_usage()));
            let graphs = GraphControl { enable: &enable, describe: &describe };
            measure(device.clone(), GpuShapes::LARGE, clocks.ok().as_ref(), Some(&graphs))
        }
        Err(error) => exit_with(&error),
    }
}

/// The output of `cargo bench` on a machine without a GPU, which is not an error.
fn skipped(why: &str) -> ExitCode {
    println!("gpu: SKIPPED, nothing was measured: {why}");
    ExitCode::SUCCESS
}

#[cfg(feature = "emulator")]
fn on_emulator() -> ExitCode {
    use actbench_kernels::cuda::emulator::{CopyTime, Emulator, EmulatorOptions, ThreadOrder};
    println!("gpu: in the emulator; the times are those of a CPU that emulates a GPU");
    let options = EmulatorOptions { order: ThreadOrder::Forward, copies: CopyTime::Early, seed: 0 };
    measure(Arc::new(Emulator::new(options)), GpuShapes::SMALL, None, None)
}

#[cfg(not(feature = "emulator"))]
fn on_emulator() -> ExitCode {
    eprintln!("error: this executable was built without the emulator; build it with --features emulator");
    ExitCode::from(2)
}

fn measure<D: DeviceClock>(
    device: Arc<D>,
    shapes: GpuShapes,
    clocks: Option<&ClockProbe>,
    graphs: Option<&GraphControl<'_>>,
) -> ExitCode {
    println!("gpu: {}", device.describe());
    let by_device_clock = Criterion::default().with_measurement(DeviceTime::new(device.clone()));
    let mut criterion = configured(by_device_clock, 200, 500).configure_from_args();
    kernels(&mut criterion, &device, shapes, clocks);
    let longest = shapes.forward.iter().map(|(_, sequence)| *sequence).fold(shapes.sequence, usize::max);
    let model = LazyModel::new(&device, shapes.preset, shapes.blocks, longest);
    forward(&mut criterion, &model, shapes, clocks);
    criterion.final_summary();

    let mut by_host_clock = configured(Criterion::default(), 100, 300).configure_from_args();
    copies(&mut by_host_clock, &device, shapes.copy_bytes);
    if let Some(preset) = shapes.short_preset {
        let small = LazyModel::new(&device, preset, usize::MAX, shapes.short_rows);
        let what = (preset, small.layer(), shapes.short_rows);
        short_batches(&mut by_host_clock, what, &|| small.get(), graphs);
    }
    short_batches(&mut by_host_clock, (shapes.preset, model.layer(), shapes.short_rows), &|| model.get(), graphs);
    by_host_clock.final_summary();
    ExitCode::SUCCESS
}

/// Prints the clocks directly after an operation, while the device is still warm.
fn print_clocks(clocks: Option<&ClockProbe>, what: &str) {
    match clocks.map(ClockProbe::read) {
        Some(Ok(clocks)) if !is_smoke_run() => println!("clocks after {what}: {clocks}"),
        Some(Err(why)) => println!("clocks after {what}: {why}"),
        _ => {}
    }
}

fn kernels<D: DeviceClock>(
    criterion: &mut Criterion<DeviceTime<Arc<D>>>,
    device: &Arc<D>,
    shapes: GpuShapes,
    clocks: Option<&ClockProbe>,
) {
    let cache = device.cache_bytes();
    let scratch = device.alloc(if cache == 0 { 1 } else { MIN_FILL_BYTES.max(2 * cache) });
    let mut scratch = scratch.unwrap_or_else(|error| exit_with(&error));
    let timer = DeviceTime::new(device.clone());
    for (set, kernels) in [("fast", KernelSet::Fast), ("plain", KernelSet::Plain)] {
        let backend = CudaBackend::new(device.clone(), kernels);
        for mut operation in operations::<CudaBackend<Arc<D>>>(shapes, set == "plain") {
            let name = operation.name.clone();
            let mut group = criterion.benchmark_group(set);
            // A smoke run only checks that the operation runs, so one set suffices.
            let n_sets = (3 * cache).div_ceil(operation.bytes as usize).clamp(2, 64);
            let n_sets = if is_smoke_run() { 1 } else { n_sets };
            // Criterion prints one throughput: that of the resource that limits the operation.
            group.throughput(match operation.flops {
                Some(flops) => Throughput::Elements(flops),
                None => Throughput::BytesDecimal(operation.bytes),
            });
            // Created when a selected benchmark needs them.
            let mut sets = None;
            for kind in ["cold", "rotating"] {
                group.bench_function(BenchmarkId::new(kind, &name), |bencher| {
                    let sets = sets.get_or_insert_with(|| {
                        operation.sets(&backend, n_sets).unwrap_or_else(|error| exit_with(&error))
                    });
                    let (n_sets, mut turn) = (sets.len(), 0);
                    let mut launch = || -> Result<(), KernelError> {
                        turn = (turn + 1) % n_sets;
                        (sets[turn])(&backend)
                    };
                    if kind == "cold" {
                        bencher.iter_custom(|iterations| {
                            timer
                                .each(iterations, || device.overwrite(&mut scratch), &mut launch)
                                .unwrap_or_else(|error| exit_with(&error))
                        });
                    } else {
                        bencher.iter(|| black_box(launch()).unwrap_or_else(|error| exit_with(&error)));
                    }
                });
            }
            group.finish();
            if sets.is_some() {
                print_clocks(clocks, &name);
            }
        }
    }
}

/// A model with synthetic weights, loaded on first use.
struct LazyModel<D: DeviceClock> {
    device: Arc<D>,
    preset: &'static str,
    /// The maximum number of blocks to run.
    blocks: usize,
    sequence: usize,
    model: OnceCell<Decoder<CudaBackend<Arc<D>>>>,
}

impl<D: DeviceClock> LazyModel<D> {
    fn new(device: &Arc<D>, preset: &'static str, blocks: usize, sequence: usize) -> Self {
        LazyModel { device: device.clone(), preset, blocks, sequence, model: OnceCell::new() }
    }

    /// The deepest layer that is run.
    fn layer(&self) -> usize {
        let spec = Preset::find(self.preset).map(|preset| DecoderSpec::parse(&preset.config_json(), preset.name));
        let layers = spec.and_then(Result::ok).map_or(1, |spec| spec.n_layers);
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

    fn load(&self) -> actbench_activations::Result<Decoder<CudaBackend<Arc<D>>>> {
        let Some(preset) = Preset::find(self.preset) else {
            return Err(actbench_activations::Error::usage(format!("unknown preset {}", self.preset)));
        };
        let config = DecoderSpec::parse(&preset.config_json(), self.preset)?;
        let options = LoadOptions { dtype: DType::Bf16, n_blocks: self.layer() + 1, max_positions: self.sequence };
        let backend = CudaBackend::new(self.device.clone(), KernelSet::Fast);
        let weights = Arc::new(Weights::synthetic(preset, &config, 1));
        Decoder::load(backend, config, weights, &options, &mut |_, _| ())
    }
}

/// Whole forward passes; the last layer is pooled and copied to the host.
fn forward<D: DeviceClock>(
    criterion: &mut Criterion<DeviceTime<Arc<D>>>,
    model: &LazyModel<D>,
    shapes: GpuShapes,
    clocks: Option<&ClockProbe>,
) {
    let mut group = criterion.benchmark_group("forward");
    for &(rows, len) in shapes.forward {
        let sequences = rows / len;
        let layer = model.layer();
        let name = format!("{} through layer {layer}, {sequences} sequences of {len}", shapes.preset);
        group.throughput(Throughput::Elements((sequences * len) as u64));
        let mut has_run = false;
        group.bench_function(BenchmarkId::new("tokens", &name), |bencher| {
            let model = model.get();
            let steps = [pooled_step(sequences, len, model.vocab_size())];
            has_run = true;
            bencher.iter(|| run_or_exit(model, layer, &steps, 1));
        });
        if has_run {
            print_clocks(clocks, &name);
        }
    }
    group.finish();
}
