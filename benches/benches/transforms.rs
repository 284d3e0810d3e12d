//! Operations on activations and tokens outside the model: selections, slices and casts of tensors in memory
//! (throughput in bytes of the result), building and optimizing plans (elements are plans), prefix sharing and
//! batching (elements are tokens), and rendering and tokenizing dialogues (elements are dialogues).

use std::error::Error;
use std::hint::black_box;

use actbench_activations::plan::batches::{Batches, Batching};
use actbench_activations::plan::prefix::SharedPrefixes;
use actbench_activations::plan::{ActTensor, Acts, BatchSelection};
use actbench_activations::text::ChatTokenizer;
use actbench_benches::criterion::short;
use actbench_benches::{embedded_dialogues, embedded_tokens, is_smoke_run, random_activations, skip_on_error};
use actbench_kernels::DType;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

/// Half of the layers, out of order, so that no selection is one contiguous copy.
const LAYERS: [usize; 8] = [3, 1, 5, 7, 15, 13, 9, 11];

/// Every fourth sample in reverse order.
fn strided(n_samples: usize) -> Vec<i64> {
    (0..n_samples as i64).rev().step_by(4).collect()
}

type Transform = Box<dyn Fn() -> actbench_activations::Result<ActTensor>>;

/// The widths of a 1B model: 16 layers of 2048 in bf16, 64 KiB a sample.
fn tensors(criterion: &mut Criterion) -> Result<(), Box<dyn Error>> {
    let n_samples = if is_smoke_run() { 16 } else { 512 };
    let tensor = random_activations(1, n_samples, 16, 2048)?;
    let plan = Acts::from_tensor(tensor.clone());
    let range = BatchSelection::from(n_samples as i64 / 4..n_samples as i64 / 2);
    let indices = BatchSelection::from(strided(n_samples));
    let half = BatchSelection::from(..n_samples as i64 / 2);
    let first_indices = BatchSelection::from(strided(n_samples / 2));

    let bound = |transform: fn(&ActTensor, &BatchSelection) -> actbench_activations::Result<ActTensor>,
                 rows: &BatchSelection| {
        let (tensor, rows) = (tensor.clone(), rows.clone());
        Box::new(move || transform(&tensor, &rows)) as Transform
    };
    let chain_on_tensor = {
        let (tensor, half, indices) = (tensor.clone(), half.clone(), first_indices.clone());
        move || tensor.select_layers(&LAYERS)?.slice_batch(half.clone())?.cast(DType::F32)?.slice_batch(indices.clone())
    };
    let chain = plan.select_layers(&LAYERS)?.slice_batch(half)?.cast(DType::F32)?.slice_batch(first_indices)?;
    let layer = plan.select_layer(7)?.cast(DType::F32)?;
    let transforms: [(&str, Transform); 8] = [
        ("select_layers", bound(|tensor, _| tensor.select_layers(&LAYERS), &range)),
        ("select_layer", bound(|tensor, _| tensor.select_layer(7), &range)),
        ("slice_batch/range", bound(|tensor, rows| tensor.slice_batch(rows.clone()), &range)),
        ("slice_batch/indices", bound(|tensor, rows| tensor.slice_batch(rows.clone()), &indices)),
        ("cast/bf16-to-f32", bound(|tensor, _| tensor.cast(DType::F32), &range)),
        ("chain/one-at-a-time", Box::new(chain_on_tensor)),
        ("chain/plan", Box::new(move || chain.realize())),
        ("layer-to-f32/plan", Box::new(move || layer.realize())),
    ];
    let mut group = criterion.benchmark_group("tensors");
    for (name, transform) in transforms {
        group.throughput(Throughput::Bytes(transform()?.bytes().len() as u64));
        group.bench_function(name, |bencher| bencher.iter(&transform));
    }
    let wide = tensor.cast(DType::F32)?;
    group.throughput(Throughput::Bytes(wide.cast(DType::Bf16)?.bytes().len() as u64));
    group.bench_function("cast/f32-to-bf16", |bencher| bencher.iter(|| wide.cast(DType::Bf16)));
    group.finish();
    Ok(())
}

fn plans(criterion: &mut Criterion) -> Result<(), Box<dyn Error>> {
    // Few columns but many samples, because the cost of a plan is in its lists of rows.
    let source = Acts::from_tensor(random_activations(1, 4096, 16, 2)?);
    let build = |source: &Acts| {
        let indices = strided(2048);
        source.select_layers(&LAYERS)?.slice_batch(..2048)?.cast(DType::F32)?.slice_batch(indices)?.select_layer(13)
    };
    let plan = build(&source)?;
    plan.optimized()?;
    let mut group = criterion.benchmark_group("plans");
    group.throughput(Throughput::Elements(1));
    group.bench_function("build", |bencher| bencher.iter(|| build(black_box(&source))));
    group.bench_function("optimise", |bencher| bencher.iter(|| black_box(&plan).optimized()));
    group.bench_function("explain", |bencher| bencher.iter(|| black_box(&plan).explain()));
    group.finish();
    Ok(())
}

fn prefixes(criterion: &mut Criterion) -> Result<(), Box<dyn Error>> {
    let rows = if is_smoke_run() { 500 } else { 25_000 };
    let tokens = embedded_tokens(rows)?;
    let samples: Vec<usize> = (0..tokens.len()).collect();
    let shared = SharedPrefixes::of(&tokens, &samples);
    let none = SharedPrefixes::none(&samples);
    // The same limits as a batch size of 8.
    let batching = |padded| Batching {
        max_samples: if padded { 8 } else { 1024 },
        max_tokens: if padded { usize::MAX } else { 8 * tokens.max_len() },
        padded,
        masked_only: true,
    };
    let count_samples = |prefixes: &SharedPrefixes, padded| {
        Batches::new(&tokens, prefixes, batching(padded)).map(|batch| black_box(batch).samples.len()).sum::<usize>()
    };
    let mut group = criterion.benchmark_group("prefixes");
    group.throughput(Throughput::Elements(tokens.n_tokens() as u64));
    group.bench_function("share", |bencher| bencher.iter(|| SharedPrefixes::of(black_box(&tokens), &samples)));
    group.bench_function("masked-rows", |bencher| bencher.iter(|| shared.masked_tokens(black_box(&tokens))));
    group.bench_function("batches/shared", |bencher| bencher.iter(|| count_samples(&shared, false)));
    group.bench_function("batches/packed", |bencher| bencher.iter(|| count_samples(&none, false)));
    group.bench_function("batches/padded", |bencher| bencher.iter(|| count_samples(&none, true)));
    group.finish();
    Ok(())
}

/// Rendering and tokenizing are measured together. The layout of a role sequence is cached, so only `open-tokenizer`
/// starts without it.
fn text(criterion: &mut Criterion) -> Result<(), Box<dyn Error>> {
    let rows = if is_smoke_run() { 20 } else { 1000 };
    let dialogues = embedded_dialogues(rows)?;
    let tokenizer = ChatTokenizer::bundled()?;
    tokenizer.encode_all(&dialogues)?;
    let mut group = criterion.benchmark_group("text");
    group.throughput(Throughput::Elements(dialogues.len() as u64));
    group.bench_function("render-and-tokenize", |bencher| bencher.iter(|| tokenizer.encode_all(black_box(&dialogues))));
    group.throughput(Throughput::Elements(1));
    group.bench_function("open-tokenizer", |bencher| bencher.iter(ChatTokenizer::bundled));
    group.finish();
    Ok(())
}

fn all(criterion: &mut Criterion) {
    for bench in [tensors, plans, prefixes, text] {
        skip_on_error(bench(criterion));
    }
}

criterion_group! {
    name = benches;
    config = short();
    targets = all
}
criterion_main!(benches);
