//! Forward passes of a model with synthetic weights: batches, and the time of short batches by the host's clock.
//!
//! Short batches need little device time, so they show the overhead of the host. Each is measured with separate
//! launches and with CUDA graphs. `alone` is the latency from the call to the pooled rows on the host. `stream` is
//! the time per batch with several batches of one length in flight. In `changing`, the lengths cycle through 16
//! values, so that every cached graph must be updated.

use std::hint::black_box;
use std::time::Instant;

use actbench_activations::model::{ActivationModel, ModelStep, StepOutput, TokenBatch, run_steps};
use actbench_kernels::backend::AttentionSegment;
use actbench_kernels::{AttentionLayout, PoolGroups, PoolMethod};
use criterion::{BenchmarkId, Criterion, Throughput};

/// The number of lengths in `changing`.
const LENGTHS: usize = 16;

/// Controls the use of CUDA graphs by the device of a model.
pub struct GraphControl<'a> {
    /// Enables or disables graphs.
    pub enable: &'a dyn Fn(bool),
    /// Describes the graphs captured and launched so far.
    pub describe: &'a dyn Fn() -> String,
}

/// A batch of `sequences` sequences of `len` tokens below `vocabulary`, whose means are copied to the host.
pub fn pooled_step(sequences: usize, len: usize, vocabulary: usize) -> ModelStep {
    let (mut batch, mut groups) = (TokenBatch::default(), PoolGroups::new());
    let mut segments = Vec::new();
    for index in 0..sequences {
        let first = index * len;
        batch.ids.extend((0..len).map(|token| ((token * 7919 + index * 104_729) % vocabulary) as u32));
        batch.positions.extend(0..len as u32);
        segments.push(AttentionSegment { query_row: first, start_position: 0, len, keys: vec![(first, len)] });
        groups.push(first as u32..(first + len) as u32);
    }
    batch.layout = AttentionLayout { segments };
    let output = StepOutput::Pooled { groups, last_layer_groups: None, method: PoolMethod::Mean };
    ModelStep { id: 0, batch, output }
}

/// Runs the sequence `steps` `times` times through the blocks up to `layer`.
///
/// # Errors
/// Errors of the model.
pub fn run(
    model: &dyn ActivationModel,
    layer: usize,
    steps: &[ModelStep],
    times: usize,
) -> Result<(), actbench_activations::Error> {
    let mut index = 0;
    let mut next = |_: usize| {
        let step = (index < steps.len() * times).then(|| steps[index % steps.len()].clone());
        index += 1;
        step
    };
    run_steps(model.session(&[layer])?.as_mut(), &mut next, &mut |mut vectors| {
        black_box(vectors.bytes.wait()?);
        Ok(())
    })
}

/// [`run`], but exits on an error, because criterion's interface cannot report it.
pub fn run_or_exit(model: &dyn ActivationModel, layer: usize, steps: &[ModelStep], times: usize) {
    if let Err(error) = run(model, layer, steps, times) {
        eprintln!("error: {error}");
        std::process::exit(1);
    }
}

/// Measures batches of one sequence of `len` tokens through the blocks up to `layer` of the model `name`, which is
/// loaded on first use.
pub fn short_batches<'m>(
    criterion: &mut Criterion,
    (name, layer, len): (&str, usize, usize),
    model: &dyn Fn() -> &'m dyn ActivationModel,
    graphs: Option<&GraphControl<'_>>,
) {
    let modes: &[(&str, bool)] =
        if graphs.is_some() { &[("launches", false), ("graphs", true)] } else { &[("launches", false)] };
    let mut group = criterion.benchmark_group("short batches");
    for kind in ["alone", "stream", "changing"] {
        let lengths = if kind == "changing" { LENGTHS.min(len) } else { 1 };
        for (mode, on) in modes {
            let what = format!("{name} through layer {layer}, {len} tokens, {kind}");
            group.throughput(Throughput::Elements(1));
            group.bench_function(BenchmarkId::new(*mode, what), |bencher| {
                let model = model();
                let steps: Vec<ModelStep> =
                    (0..lengths).map(|shorter| pooled_step(1, len - shorter, model.vocab_size())).collect();
                if let Some(graphs) = graphs {
                    (graphs.enable)(*on);
                }
                bencher.iter_custom(|iterations| {
                    let start = Instant::now();
                    match kind {
                        "alone" => (0..iterations).for_each(|_| run_or_exit(model, layer, &steps, 1)),
                        // Criterion requests a number of batches. Whole cycles of the lengths are run, and the time is
                        // scaled to the requested number.
                        _ => run_or_exit(model, layer, &steps, (iterations as usize).div_ceil(lengths)),
                    }
                    let batches = (iterations as usize).div_ceil(lengths) * lengths;
                    start.elapsed().mul_f64(iterations as f64 / batches as f64)
                });
                if let (Some(graphs), true) = (graphs, *on) {
                    println!("{}", (graphs.describe)());
                }
            });
        }
    }
    group.finish();
}
