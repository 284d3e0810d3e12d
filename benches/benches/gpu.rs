//! The CUDA kernels and a whole forward pass, by the device's own clock.
//!
//! Each operation is measured twice. `cold`: the cache that all of the device shares is overwritten before every launch,
//! and each launch is timed alone. `rotating`: launches follow one another without a gap and each takes the next of
//! several sets of inputs, so many that together they are three times the cache. Inputs are random: zeros are multiplied
//! with less power and so at higher clocks. The clocks, and what slows them down, are told after every operation.
//!
//! Needs a GPU, and says so where there is none. `ACTBENCH_CUDA=emulator` measures the emulator instead (feature
//! `emulator`), at shapes of a moment: that shows that all of this works, and no speed.

use std::hint::black_box;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use actbench::measure::clocks::ClockProbe;
use actbench::model::config::ModelConfig;
use actbench::model::llama::{Llama, LoadOptions};
use actbench::model::weights::Weights;
use actbench::model::{ActivationModel, LayerOutput, TokenBatch};
use actbench_benches::device_time::{DeviceTime, leave};
use actbench_benches::gpu_operations::{Sizes, operations};
use actbench_benches::is_smoke_run;
use actbench_fixtures::presets::Preset;
use actbench_kernels::backend::AttentionSegment;
use actbench_kernels::cuda::cubins::CubinFolders;
use actbench_kernels::cuda::driver::{DriverDevice, DriverOptions, probe};
use actbench_kernels::cuda::{CudaBackend, DeviceClock, KernelSet};
use actbench_kernels::{AttentionLayout, DType, KernelError, PoolGroups, PoolMethod};
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
    let options = DriverOptions { cubins: CubinFolders::of_program(), checked: false };
    match DriverDevice::open(0, &options) {
        Ok(device) => {
            let clocks = ClockProbe::open(facts[0].bus_id.as_deref());
            if let Err(why) = &clocks {
                println!("clocks: not known: {why}");
            }
            measure(Arc::new(device), Sizes::LARGE, clocks.ok().as_ref())
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
    measure(Arc::new(Emulator::new(options)), Sizes::SMALL, None)
}

#[cfg(not(feature = "emulator"))]
fn on_emulator() -> ExitCode {
    eprintln!("error: this program was built without the emulator: build it with --features emulator");
    ExitCode::from(2)
}

fn measure<D: DeviceClock>(device: Arc<D>, sizes: Sizes, clocks: Option<&ClockProbe>) -> ExitCode {
    println!("gpu: {}", device.describe());
    let mut criterion = Criterion::default()
        .with_measurement(DeviceTime::new(device.clone()))
        .sample_size(10)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(500))
        .without_plots()
        .configure_from_args();
    if let Err(error) = kernels(&mut criterion, &device, sizes, clocks) {
        leave(&error);
    }
    if let Err(error) = forward(&mut criterion, &device, sizes, clocks) {
        eprintln!("error: {error}");
        return ExitCode::FAILURE;
    }
    criterion.final_summary();
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
) -> Result<(), KernelError> {
    let cache = device.cache_bytes();
    let mut scratch = device.alloc(if cache == 0 { 1 } else { LEAST_FILL_BYTES.max(2 * cache) })?;
    let timer = DeviceTime::new(device.clone());
    for (set, kernels) in [("fast", KernelSet::Fast), ("plain", KernelSet::Plain)] {
        let backend = CudaBackend::new(device.clone(), kernels);
        for mut operation in operations::<CudaBackend<Arc<D>>>(sizes, set == "plain") {
            let name = operation.name.clone();
            let mut group = criterion.benchmark_group(set);
            // Smoke runs take one set: what is seen is that it runs.
            let wanted = (3 * cache).div_ceil(operation.bytes as usize).clamp(2, 64);
            let mut sets = operation.sets(&backend, if is_smoke_run() { 1 } else { wanted })?;
            let (n_sets, mut turn) = (sets.len(), 0);
            let mut launch = || -> Result<(), KernelError> {
                turn = (turn + 1) % n_sets;
                (sets[turn])(&backend)
            };
            // Criterion shows one throughput: that of what limits the operation.
            group.throughput(match operation.flops {
                Some(flops) => Throughput::Elements(flops),
                None => Throughput::BytesDecimal(operation.bytes),
            });
            group.bench_function(BenchmarkId::new("cold", &name), |bencher| {
                bencher.iter_custom(|iterations| {
                    timer
                        .each(iterations, || device.overwrite(&mut scratch), &mut launch)
                        .unwrap_or_else(|error| leave(&error))
                });
            });
            group.bench_function(BenchmarkId::new("rotating", &name), |bencher| {
                bencher.iter(|| black_box(launch()).unwrap_or_else(|error| leave(&error)));
            });
            group.finish();
            tell(clocks, &name);
        }
    }
    Ok(())
}

/// A whole forward pass of a model with made-up weights, the deepest layer pooled and brought to the host.
fn forward<D: DeviceClock>(
    criterion: &mut Criterion<DeviceTime<Arc<D>>>,
    device: &Arc<D>,
    sizes: Sizes,
    clocks: Option<&ClockProbe>,
) -> actbench::Result<()> {
    let Some(preset) = Preset::find(sizes.preset) else {
        return Err(actbench::Error::usage(format!("there is no preset {}", sizes.preset)));
    };
    let config = ModelConfig::parse(&preset.config_json(), sizes.preset)?;
    let n_blocks = config.n_layers.min(sizes.blocks);
    let options = LoadOptions { dtype: DType::Bf16, n_blocks, max_positions: sizes.sequence };
    let vocabulary = config.vocab_size as u32;
    let weights = Arc::new(Weights::synthetic(preset, 1));
    let backend = CudaBackend::new(device.clone(), KernelSet::Fast);
    let model = Llama::load(backend, config, weights, &options, &mut |_, _| ())?;
    let mut group = criterion.benchmark_group("forward");
    for rows in sizes.forward_rows {
        let sequences = rows.div_ceil(sizes.sequence);
        let len = rows / sequences;
        let (mut batch, mut groups) = (TokenBatch::default(), PoolGroups::new());
        let mut segments = Vec::new();
        for index in 0..sequences {
            let first = index * len;
            batch.ids.extend((0..len as u32).map(|token| (token * 7919 + index as u32 * 104_729) % vocabulary));
            batch.positions.extend(0..len as u32);
            segments.push(AttentionSegment { query_row: first, start_position: 0, len, keys: vec![(first, len)] });
            groups.push(first as u32..(first + len) as u32);
        }
        batch.layout = AttentionLayout { segments };
        let name = format!("{} through layer {}, {sequences} sequences of {len}", sizes.preset, n_blocks - 1);
        group.throughput(Throughput::Elements((sequences * len) as u64));
        group.bench_function(BenchmarkId::new("tokens", &name), |bencher| {
            bencher.iter(|| {
                let output = LayerOutput::Pooled { groups: &groups, deepest_groups: None, method: PoolMethod::Mean };
                let ran = model.run(&batch, &[n_blocks - 1], output, &mut |_, bytes| {
                    black_box(bytes);
                    Ok(())
                });
                if let Err(error) = ran {
                    eprintln!("error: {error}");
                    std::process::exit(1);
                }
            });
        });
        tell(clocks, &name);
    }
    group.finish();
    Ok(())
}
