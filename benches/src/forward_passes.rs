//! Forward passes of a model with made-up weights: batches, and how long short ones take by the host's clock.
//!
//! A short batch leaves the device little to do, so that the host's share shows: each is measured launch by launch and as
//! graphs. `alone` is from the call to the pooled rows on the host. `stream` is the time a batch of many, all of one
//! length, of which some are under way at a time; in `changing` each is a token shorter than the one before, over and over
//! again, so that a kept graph has to be changed throughout.

use std::hint::black_box;
use std::time::Instant;

use actbench_activations::model::{ActivationModel, Step, StepOutput, TokenBatch};
use actbench_kernels::backend::AttentionSegment;
use actbench_kernels::{AttentionLayout, PoolGroups, PoolMethod};
use criterion::{BenchmarkId, Criterion, Throughput};

/// Lengths that take turns in `changing`.
const LENGTHS: usize = 16;

/// How graphs are used by the device of a model.
pub struct Graphs<'a> {
    /// Turns them on or off.
    pub set: &'a dyn Fn(bool),
    /// What became of them so far.
    pub told: &'a dyn Fn() -> String,
}

/// A batch of `sequences` sequences of `len` tokens below `vocabulary`, the mean of each to be brought to the host.
pub fn pooled_step(sequences: usize, len: usize, vocabulary: usize) -> Step {
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
    let output = StepOutput::Pooled { groups, deepest_groups: None, method: PoolMethod::Mean };
    Step { id: 0, batch, output }
}

/// Runs `steps`, each `times` times in turn, through the blocks up to `layer`.
///
/// # Errors
/// Those of the model.
pub fn run(
    model: &dyn ActivationModel,
    layer: usize,
    steps: &[Step],
    times: usize,
) -> Result<(), actbench_activations::Error> {
    let mut index = 0;
    let mut next = |_: usize| {
        let step = (index < steps.len() * times).then(|| steps[index % steps.len()].clone());
        index += 1;
        step
    };
    model.run_all(&[layer], &mut next, &mut |_, _, bytes| {
        black_box(bytes);
        Ok(())
    })
}

/// [`run`] where nothing can go on after a failure.
pub fn run_or_leave(model: &dyn ActivationModel, layer: usize, steps: &[Step], times: usize) {
    if let Err(error) = run(model, layer, steps, times) {
        eprintln!("error: {error}");
        std::process::exit(1);
    }
}

/// Times batches of one sequence of `len` tokens through the blocks up to `layer` of a model that is called `name` and
/// loaded when it is first needed.
pub fn short_batches<'m>(
    criterion: &mut Criterion,
    (name, layer, len): (&str, usize, usize),
    model: &dyn Fn() -> &'m dyn ActivationModel,
    graphs: Option<&Graphs<'_>>,
) {
    let ways: &[(&str, bool)] =
        if graphs.is_some() { &[("launches", false), ("graphs", true)] } else { &[("launches", false)] };
    let mut group = criterion.benchmark_group("short batches");
    for kind in ["alone", "stream", "changing"] {
        let lengths = if kind == "changing" { LENGTHS.min(len) } else { 1 };
        for (way, on) in ways {
            let what = format!("{name} through layer {layer}, {len} tokens, {kind}");
            group.throughput(Throughput::Elements(1));
            group.bench_function(BenchmarkId::new(*way, what), |bencher| {
                let model = model();
                let steps: Vec<Step> =
                    (0..lengths).map(|shorter| pooled_step(1, len - shorter, model.vocab_size())).collect();
                if let Some(graphs) = graphs {
                    (graphs.set)(*on);
                }
                bencher.iter_custom(|iterations| {
                    let start = Instant::now();
                    match kind {
                        "alone" => (0..iterations).for_each(|_| run_or_leave(model, layer, &steps, 1)),
                        // Criterion asks for so many batches; whole turns of the lengths are run, and the time is a batch's.
                        _ => run_or_leave(model, layer, &steps, (iterations as usize).div_ceil(lengths)),
                    }
                    let batches = (iterations as usize).div_ceil(lengths) * lengths;
                    start.elapsed().mul_f64(iterations as f64 / batches as f64)
                });
                if let (Some(graphs), true) = (graphs, *on) {
                    println!("{}", (graphs.told)());
                }
            });
        }
    }
    group.finish();
}
